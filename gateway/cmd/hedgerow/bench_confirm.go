package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/batching/reading"
	"github.com/hedgerow-iot/hedgerow/gateway"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

type benchConfirmCmd struct {
	benchFlags
	Gateways int           `default:"4" help:"Gateways of the network, all in this process."`
	Rate     float64       `default:"1" help:"Batches per second over all gateways."`
	Interval time.Duration `default:"100ms" help:"Round interval of the network, for data too."`
	Dir      string        `help:"Directory on the disk to use (default: the system's temporary one)."`
}

// confirmResult is how long batches took from attached, as the gateway that
// they are of tells in its events.
type confirmResult struct {
	Gateways  int     `json:"gateways"`
	Rate      float64 `json:"rate"`
	Interval  float64 `json:"intervalMilliseconds"`
	Batches   uint64  `json:"batches"`
	Confirmed spread  `json:"confirmed"`
	Certified spread  `json:"certified"`
	CPU       float64 `json:"cpuPercent"` // of one processor, all gateways together
}

type spread struct {
	P50 float64 `json:"p50Milliseconds"`
	P95 float64 `json:"p95Milliseconds"`
	Max float64 `json:"maxMilliseconds"`
}

func (l *latencies) spread() spread { return spread{l.quantile(0.5), l.quantile(0.95), l.quantile(1)} }

// Run measures a network in this process.
func (c *benchConfirmCmd) Run(e *env) error {
	if err := c.check(); err != nil {
		return err
	}
	if c.Gateways < 1 || c.Gateways > 16 || c.Rate < 0.1 || c.Rate > 1000 {
		return usagef("--gateways takes 1 to 16, --rate 0.1 to 1000")
	}
	if c.Interval < 10*time.Millisecond || c.Interval > time.Minute {
		return usagef("--interval takes 10ms to 1m")
	}
	dir, remove, err := scratch(c.Dir)
	if err != nil {
		return err
	}
	defer remove()
	gateways, err := c.open(e, dir)
	if err != nil {
		return err
	}
	result, err := c.run(e, gateways)
	if err != nil {
		return err
	}
	return c.print(e.stdout, result)
}

// open makes the gateways of a network that reach each other over loopback.
func (c *benchConfirmCmd) open(e *env, dir string) (all []*gateway.Gateway, err error) {
	var members []network.Gateway
	var routes, homes []string
	for i := range c.Gateways {
		m := network.Gateway{Name: fmt.Sprintf("bench-%d", i+1), Weight: 1}
		home := filepath.Join(dir, m.Name)
		if _, err := gateway.Init(home, m.Name); err != nil {
			return nil, err
		}
		key, err := gateway.ReadPublicKey(filepath.Join(home, "identity.pub"))
		if err != nil {
			return nil, err
		}
		copy(m.PublicKey[:], key)
		route, err := freeAddress()
		if err != nil {
			return nil, err
		}
		members, routes, homes = append(members, m), append(routes, route), append(homes, home)
	}
	f := network.Create("bench", members)
	f.RoundInterval, f.DataRoundInterval = network.Duration(c.Interval), network.Duration(c.Interval)
	path := filepath.Join(dir, "network.json")
	if err := f.Save(path); err != nil {
		return nil, err
	}
	log := slog.New(slog.NewTextHandler(e.stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	for i, home := range homes {
		cfg, err := gateway.Load(filepath.Join(home, "hedgerow.yaml"), []string{
			"mqtt.listen=", "coap.listen=", "api.listen=127.0.0.1:0", "api.token=file:" + filepath.Join(home, "admin.token"),
			"journal.reserve=64MiB", "batching.max_age=20ms", "shutdown.drain=0s", "network=" + path,
			"peers.listen=" + routes[i], "peers.routes=tls://" + strings.Join(routes, ",tls://"),
		})
		if err == nil {
			var g *gateway.Gateway
			g, err = gateway.New(cfg, log)
			all = append(all, g)
		}
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// freeAddress returns a loopback address that nobody listens on now.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// run runs the gateways and measures what becomes of batches.
func (c *benchConfirmCmd) run(e *env, gateways []*gateway.Gateway) (*confirmResult, error) {
	serve, stop := context.WithCancel(context.Background())
	defer stop()
	group, ctx := errgroup.WithContext(e.ctx)
	for _, g := range gateways {
		group.Go(func() error { return g.Run(serve, e.now) })
	}
	m := &confirmMeter{blocks: map[string]time.Time{}}
	var result *confirmResult
	group.Go(func() error {
		defer stop()
		following, end := context.WithCancel(ctx)
		defer end()
		var followers errgroup.Group
		for _, g := range gateways {
			followers.Go(func() error { return m.follow(following, g) })
		}
		if err := c.warm(ctx, gateways, m); err != nil {
			return err
		}
		before, began := readUsage(), time.Now()
		if err := c.load(ctx, gateways, c.Duration); err != nil {
			return err
		}
		used := (readUsage().cpu - before.cpu).Seconds() / time.Since(began).Seconds()
		pause(ctx, 2*time.Second+10*c.Interval) // for the last ones
		end()
		err := followers.Wait()
		result = &confirmResult{
			Gateways: c.Gateways, Rate: c.Rate, Interval: float64(c.Interval.Milliseconds()), Batches: m.confirmed.count(),
			Confirmed: m.confirmed.spread(), Certified: m.certified.spread(), CPU: per(used*100, 1),
		}
		return err
	})
	return result, group.Wait()
}

// warm has batches confirmed until the network does so, and forgets them.
func (c *benchConfirmCmd) warm(ctx context.Context, gateways []*gateway.Gateway, m *confirmMeter) error {
	for began := time.Now(); m.certified.count() < 3; {
		if time.Since(began) > time.Minute {
			return errors.New("nothing is certified after a minute")
		}
		if err := c.load(ctx, gateways, time.Second); err != nil {
			return err
		}
	}
	pause(ctx, time.Second)
	m.reset()
	return ctx.Err()
}

// load submits readings, each to be a batch, at one gateway after the other.
func (c *benchConfirmCmd) load(ctx context.Context, gateways []*gateway.Gateway, d time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	for i := 0; ; i++ {
		// Of uneven length, so that rounds and batches do not beat.
		pause(ctx, time.Duration((0.5+rand.Float64())/c.Rate*float64(time.Second)))
		if ctx.Err() != nil {
			return nil
		}
		rd := reading.Reading{Device: "bench", Name: "count", Value: reading.Int(int64(i)), Source: reading.SourceMQTT}
		receipt, err := gateways[i%len(gateways)].Submit(batching.Submission{Packet: batching.Packet{Readings: []reading.Reading{rd}}})
		if err != nil {
			return err
		}
		<-receipt.Done()
		if err := receipt.Err(); err != nil {
			return err
		}
	}
}

// A confirmMeter takes times from the events of gateways.
type confirmMeter struct {
	mu                   sync.Mutex // guards what follows, but not the latencies
	blocks               map[string]time.Time
	confirmed, certified latencies
}

// reset forgets what was measured; what is on its way is not.
func (m *confirmMeter) reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.blocks)
	m.confirmed.reset()
	m.certified.reset()
}

// follow reads the events of a gateway until ctx ends.
func (m *confirmMeter) follow(ctx context.Context, g *gateway.Gateway) error {
	for ctx.Err() == nil {
		resp, err := m.ask(ctx, g)
		if err != nil {
			return err
		}
		if resp == nil { // it is not there yet
			pause(ctx, 20*time.Millisecond)
			continue
		}
		m.read(resp.Body)
		if err := resp.Body.Close(); err != nil {
			return err
		}
	}
	return nil
}

// ask asks a gateway for its events; nil: it does not serve.
func (m *confirmMeter) ask(ctx context.Context, g *gateway.Gateway) (*http.Response, error) {
	i := 0
	for ls := g.Listeners(); ls[i].Protocol != "http"; {
		i++
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+g.Listeners()[i].Address+eventsPath+"?types=state", nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+g.Token())
	resp, err := http.DefaultClient.Do(req)
	if err != nil || resp.StatusCode == http.StatusOK {
		return resp, nil //nolint:nilerr // tried again, or ctx has ended
	}
	return nil, resp.Body.Close()
}

func (m *confirmMeter) read(events io.Reader) {
	lines := bufio.NewScanner(events)
	lines.Buffer(nil, maxEventLine)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		var event struct{ State, BlockID string }
		if ok && json.Unmarshal([]byte(data), &event) == nil {
			m.take(event.BlockID, event.State, time.Now())
		}
	}
}

// take notes that a block has come to a state, of which one may be left out.
func (m *confirmMeter) take(block, state string, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	attached, known := m.blocks[block]
	switch {
	case state == "attached":
		m.blocks[block] = now
	case !known:
	case state == "confirmed":
		m.confirmed.add(now.Sub(attached))
	case state == "certified":
		m.certified.add(now.Sub(attached))
		delete(m.blocks, block)
	}
}

func (r *confirmResult) text(w io.Writer) {
	fmt.Fprintf(w, "%d gateways in this process, rounds every %.0f ms, %g batches/s in all: %d batches\n", r.Gateways, r.Interval, r.Rate, r.Batches)
	for _, line := range []struct {
		state string
		spread
	}{{"confirmed", r.Confirmed}, {"certified", r.Certified}} {
		fmt.Fprintf(w, "  attached to %s  p50 %4.0f ms, p95 %4.0f ms, longest %4.0f ms\n", line.state, line.P50, line.P95, line.Max)
	}
	fmt.Fprintf(w, "  processor %.1f %% of a core, all together\n", r.CPU)
}
