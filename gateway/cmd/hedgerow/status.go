package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/hedgerow-iot/hedgerow/gateway"
)

type statusCmd struct {
	target
	JSON bool `name:"json" help:"Print the API's JSON."`
}

const statusPath = "/api/hedgerow/v1/status"

// A gatewayStatus is what the admin API says of a gateway.
type gatewayStatus struct {
	Name, Version, Network, NetworkHash string
	Epoch                               uint32
	Quorum                              struct {
		Needed, Up, Weight uint64
		Members            int
	}
	LastMilestone *struct {
		Index     uint32
		ID        string
		Timestamp int64 // Unix seconds
	}
	Certified uint32
	Replica   struct {
		Blocks     uint64
		Digest     string
		Tips, Held int
	}
	Backlog struct{ Stored, Batched, Attached, Approved, Confirmed uint64 }
	Peers   []struct {
		Name, Key string
		Up, Votes bool
		Blocks    uint64
		Lag       uint64
		// Nil: it did not tell.
		MilestoneLag *int64
		LastSeen     string // empty: never since the start
		Score        float64
		Refused      uint64
	}
	Bus struct {
		Mode      string
		Connected bool
		Server    string
		Routes    []struct{ Name string }
		Clients   int
		Refused   uint64
	}
	Workers []struct {
		Name, Key      string
		Alive          bool
		TriesPerSecond float64
		Found, Wrong   uint64
	}
	Disk          struct{ Free, Journal int64 }
	Clock         struct{ Quality, Time string }
	Alarms        []struct{ Name, Text string }
	Ready         bool
	NotReady      string
	UptimeSeconds int64
	Readings      struct{ Kept, Acked, Refused, Duplicates, Batches uint64 }
	PoW           struct {
		Workers, Queued        int
		Kernel                 string
		Proven, TriesPerSecond uint64
	}
	FrontEnds []struct {
		Protocol string
		Clients  int
	}
	Listeners []struct{ Protocol, Address string }
}

// Run asks a running gateway how it is. The exit code is 0 when it runs and
// could acknowledge a reading, 1 otherwise.
func (c *statusCmd) Run(e *env) error {
	cfg, err := c.configuration()
	if err != nil {
		return err
	}
	if _, running := gateway.Running(cfg); !running {
		return fmt.Errorf("no gateway runs on %s; start it, or look with: hedgerow doctor", cfg.DataDir)
	}
	cl, err := c.open(e)
	if err != nil {
		return err
	}
	defer cl.close() //nolint:errcheck // only read
	ctx, cancel := context.WithTimeout(e.ctx, 10*time.Second)
	defer cancel()
	resp, err := cl.get(ctx, statusPath, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		return fmt.Errorf("read the gateway's answer: %w", err)
	}
	var s gatewayStatus
	if err := json.Unmarshal(text, &s); err != nil {
		return fmt.Errorf("read the gateway's answer: %w", err)
	}
	if c.JSON {
		_, err = e.stdout.Write(text)
	} else {
		err = printStatus(e.stdout, &s, colour(e.stdout))
	}
	if err == nil && !s.Ready {
		err = printed{errors.New("not ready")}
	}
	return err
}

// printStatus prints one screen, alarms last, where the eye is.
func printStatus(w io.Writer, s *gatewayStatus, colours bool) error {
	p := &page{colours: colours}
	p.head(s)
	p.line("network", "%s, epoch %d, %s", plain(s.Network), s.Epoch, shortID(s.NetworkHash))
	p.quorum(s)
	p.milestone(s, time.Now())
	r, b := s.Readings, s.Backlog
	p.line("readings", "%d kept; since the start %d acknowledged, %d refused, %s", r.Kept, r.Acked, r.Refused, count(r.Duplicates, "duplicate"))
	p.line("backlog", "%d stored, %d batched, %d attached, %d approved, %d confirmed", b.Stored, b.Batched, b.Attached, b.Approved, b.Confirmed)
	p.line("replica", "%s, %s, %d held, digest %s", count(s.Replica.Blocks, "block"), count(uint64(s.Replica.Tips), "tip"), s.Replica.Held, shortID(s.Replica.Digest))
	p.line("disk", "%s free, journal %s", size(s.Disk.Free), size(s.Disk.Journal))
	p.line("clock", "%s, %s", s.Clock.Quality, s.Clock.Time)
	p.line("proof of work", "%s of kernel %s, %s, %d queued, %d found", count(uint64(s.PoW.Workers), "worker"), s.PoW.Kernel, speed(float64(s.PoW.TriesPerSecond)), s.PoW.Queued, s.PoW.Proven)
	p.listeners(s)
	p.bus(s)
	p.peers(s)
	p.workers(s)
	p.alarms(s)
	_, err := io.WriteString(w, p.text.String())
	return err
}

// A page is the text of a status while it is put together.
type page struct {
	text    strings.Builder
	colours bool
}

func (p *page) line(label, format string, args ...any) {
	fmt.Fprintf(&p.text, "  %-14s %s\n", label, fmt.Sprintf(format, args...))
}

func (p *page) paint(code, text string) string {
	if !p.colours {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (p *page) head(s *gatewayStatus) {
	state := p.paint("32", "ready")
	if !s.Ready {
		state = p.paint("31", "not ready") + ": " + plain(s.NotReady)
	}
	fmt.Fprintf(&p.text, "%s is %s\n", plain(s.Name), state)
	p.line("version", "%s, up %s", plain(s.Version), time.Duration(s.UptimeSeconds)*time.Second)
}

func (p *page) quorum(s *gatewayStatus) {
	q := &s.Quorum
	up := fmt.Sprintf("weight %d of %d up", q.Up, q.Weight)
	if q.Up < q.Needed {
		up = p.paint("31", up)
	}
	p.line("quorum", "%s, %d needed, %s", up, q.Needed, count(uint64(q.Members), "member"))
}

func (p *page) milestone(s *gatewayStatus, now time.Time) {
	m := s.LastMilestone
	if m == nil {
		p.line("milestone", "none yet")
		return
	}
	age := "" // the first ones of a network have no time
	if m.Timestamp != 0 {
		age = fmt.Sprintf(", %s old", max(0, now.Sub(time.Unix(m.Timestamp, 0))).Truncate(time.Second))
	}
	p.line("milestone", "%d%s, certified up to %d, %s", m.Index, age, s.Certified, shortID(m.ID))
}

func (p *page) listeners(s *gatewayStatus) {
	clients := map[string]string{}
	for _, f := range s.FrontEnds {
		clients[f.Protocol] = ", " + count(uint64(f.Clients), "client")
	}
	for i, l := range s.Listeners {
		p.line(first(i, "listeners"), "%-7s %s%s", l.Protocol, l.Address, clients[l.Protocol])
	}
}

func (p *page) peers(s *gatewayStatus) {
	for i, x := range s.Peers {
		state := p.paint("32", "up")
		switch {
		case x.Up && !x.Votes:
			state = p.paint("33", "up, does not vote")
		case !x.Up:
			state = p.paint("33", "down")
			if x.LastSeen != "" {
				state += ", last heard of " + plain(x.LastSeen)
			} else {
				state += ", not heard of since the start"
			}
		}
		p.line(first(i, "peers"), "%s (%s) %s, %s, lag %d, %sscore %g, %d refused", plain(x.Name), shortID(x.Key), state,
			count(x.Blocks, "block"), x.Lag, milestones(x.MilestoneLag), x.Score, x.Refused)
	}
	if len(s.Peers) == 0 {
		p.line("peers", "none")
	}
}

// milestones says how far a peer is behind this gateway, or ahead of it.
func milestones(lag *int64) string {
	switch {
	case lag == nil:
		return ""
	case *lag < 0:
		return count(uint64(-*lag), "milestone") + " ahead, "
	}
	return count(uint64(*lag), "milestone") + " behind, "
}

func (p *page) bus(s *gatewayStatus) {
	b := &s.Bus
	state := p.paint("32", "connected")
	if !b.Connected {
		state = p.paint("31", "not connected")
	} else if b.Server != "" {
		state += " to " + plain(b.Server)
	}
	text := plain(b.Mode) + ", " + state
	if b.Mode != "external" {
		text += fmt.Sprintf(", %s, %s", count(uint64(len(b.Routes)), "route"), count(uint64(b.Clients), "client"))
	}
	p.line("nats", "%s, %d refused", text, b.Refused)
}

func (p *page) workers(s *gatewayStatus) {
	for i, x := range s.Workers {
		state := p.paint("32", "alive")
		if !x.Alive {
			state = p.paint("33", "silent")
		}
		p.line(first(i, "workers"), "%s %s, %s, %d found, %d wrong", cmp.Or(plain(x.Name), shortID(x.Key)), state, speed(x.TriesPerSecond), x.Found, x.Wrong)
	}
}

func (p *page) alarms(s *gatewayStatus) {
	p.text.WriteString("\n")
	if len(s.Alarms) == 0 {
		p.text.WriteString("no alarms\n")
	}
	for _, a := range s.Alarms {
		fmt.Fprintf(&p.text, "%s %s: %s\n", p.paint("33", "alarm"), plain(a.Name), plain(a.Text))
	}
}

// first is the label of a list's first line; the others have none.
func first(i int, label string) string {
	if i > 0 {
		return ""
	}
	return label
}

func count(n uint64, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

func speed(triesPerSecond float64) string {
	switch {
	case triesPerSecond == 0:
		return "no speed measured yet"
	case triesPerSecond >= 1e6:
		return fmt.Sprintf("%.1f million tries/s", triesPerSecond/1e6)
	}
	return fmt.Sprintf("%.0f tries/s", triesPerSecond)
}

// size is a number of bytes for people.
func size(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%d KiB", n>>10)
}
