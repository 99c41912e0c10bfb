package admin

import (
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/batching/reading"
	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/peer"
	"github.com/hedgerow-iot/hedgerow/powfarm"
)

// The answer to status (contract.md §5), and what else is worth a look.
type (
	status struct {
		Name          string         `json:"name"`
		Version       string         `json:"version"`
		Network       string         `json:"network"`
		NetworkHash   string         `json:"networkHash"`
		Epoch         uint32         `json:"epoch"`
		Quorum        quorum         `json:"quorum"`
		LastMilestone *milestoneJSON `json:"lastMilestone"` // null: none yet
		Certified     uint32         `json:"certified"`     // index of the last milestone up to which all are certified
		Replica       replica        `json:"replica"`
		Backlog       backlog        `json:"backlog"`
		Peers         []peerLine     `json:"peers"` // none in a network of one
		Disk          disk           `json:"disk"`
		Clock         clock          `json:"clock"`
		Alarms        []Alarm        `json:"alarms"`

		Bus           busState   `json:"bus"`
		Ready         bool       `json:"ready"`
		NotReady      string     `json:"notReady,omitempty"` // why
		Started       string     `json:"started"`
		UptimeSeconds int64      `json:"uptimeSeconds"`
		Readings      counts     `json:"readings"`
		PoW           pow        `json:"pow"`
		Workers       []worker   `json:"workers"` // on other boxes
		FrontEnds     []FrontEnd `json:"frontEnds"`
		Listeners     []Listener `json:"listeners"`
	}
	quorum struct {
		Needed  uint64 `json:"needed"`  // weight
		Up      uint64 `json:"up"`      // of those that are heard and vote
		Weight  uint64 `json:"weight"`  // of all members
		Members int    `json:"members"` // gateways of the network

		silent, mute []string // not heard; heard, but not voting
	}
	milestoneJSON struct {
		Index     uint32 `json:"index"`
		ID        string `json:"id"`
		Timestamp uint32 `json:"timestamp"` // Unix seconds
	}
	replica struct {
		Blocks uint64 `json:"blocks"`
		Digest string `json:"digest"`
		Tips   int    `json:"tips"`
		Held   int    `json:"held"` // blocks whose parents are missing
	}
	// backlog counts the readings of this gateway by the state they are in.
	backlog struct {
		Stored    uint64 `json:"stored"`
		Batched   uint64 `json:"batched"`
		Attached  uint64 `json:"attached"`
		Approved  uint64 `json:"approved"`
		Confirmed uint64 `json:"confirmed"`
	}
	disk struct {
		Free    int64 `json:"free"`    // bytes
		Journal int64 `json:"journal"` // bytes of the journal's files
	}
	clock struct {
		Quality string `json:"quality"` // good, unsure or bad
		Time    string `json:"time"`
	}
	counts struct {
		Kept       uint64 `json:"kept"`
		Acked      uint64 `json:"acked"` // since the start, as the following
		Refused    uint64 `json:"refused"`
		Duplicates uint64 `json:"duplicates"`
		Batches    uint64 `json:"batches"`
	}
	pow struct {
		Workers int    `json:"workers"`
		Kernel  string `json:"kernel"`
		Queued  int    `json:"queued"`
		Tries   uint64 `json:"tries"`
		Proven  uint64 `json:"proven"`
		// TriesPerSecond is what all workers do together while they search.
		TriesPerSecond uint64 `json:"triesPerSecond"`
	}
)

func (h *Handler) status(w http.ResponseWriter, r *http.Request) {
	if q := parseQuery(r.URL.RawQuery); q.err != nil {
		writeError(w, http.StatusBadRequest, q.err.Error())
		return
	}
	rep, err := h.replica()
	if err != nil {
		h.fault(w, r, "compute the replica's digest", err)
		return
	}
	n := h.cfg.Network()
	hash := n.Hash()
	now, quality := h.cfg.Clock()
	js, bs, fs := h.src.Journal.Stats(), h.src.Stage.Stats(), h.src.Farm.Stats()
	ps, bus, agreed := h.src.Peers.Stats(), h.src.Bus.Status(), h.src.Ledger.Agreed()
	out := status{
		Name: h.cfg.Name, Version: h.cfg.Version,
		Network: n.NetworkName, NetworkHash: hexID(hash), Epoch: max(n.Epoch, agreed.Epoch),
		Quorum:        h.quorum(&ps),
		LastMilestone: showMilestone(&agreed),
		Certified:     agreed.Certified,
		Replica:       rep,
		Backlog:       h.progress.backlog(bs.Backlog),
		Peers:         h.peerLines(&ps),
		Bus:           showBus(&bus),
		Disk:          disk{Free: js.FreeBytes, Journal: js.DiskBytes},
		Clock:         clock{Quality: quality.String(), Time: timeText(now.UnixMilli())},
		Alarms:        h.allAlarms(&ps),
		Started:       timeText(h.started.UnixMilli()),
		UptimeSeconds: int64(time.Since(h.started) / time.Second),
		Readings:      counts{Kept: js.Readings, Acked: bs.Acked, Refused: bs.Refused, Duplicates: bs.Duplicates, Batches: bs.Batches},
		PoW:           showPoW(fs),
		Workers:       h.showWorkers(),
		FrontEnds:     append([]FrontEnd{}, h.src.FrontEnds()...),
		Listeners:     []Listener{},
	}
	if err := h.src.Stage.Ready(); err != nil {
		out.NotReady = err.Error()
	} else {
		out.Ready = true
	}
	if h.cfg.Listeners != nil {
		out.Listeners = append(out.Listeners, h.cfg.Listeners()...)
	}
	writeJSON(w, http.StatusOK, out)
}

// showMilestone returns the last milestone, nil if there is none yet.
func showMilestone(a *ledger.Agreed) *milestoneJSON {
	if a.Milestone == 0 {
		return nil
	}
	return &milestoneJSON{a.Milestone, hexID(a.ID), a.Timestamp}
}

func hexID(id [32]byte) string { return "0x" + hex.EncodeToString(id[:]) }

func showPoW(s powfarm.Stats) pow {
	p := pow{Workers: s.Workers, Kernel: s.Kernel, TriesPerSecond: uint64(s.Rate())}
	for _, n := range s.Queued {
		p.Queued += n
	}
	for _, n := range s.Proven {
		p.Proven += n
	}
	for _, k := range s.Kernels {
		p.Tries += k.Tries
	}
	return p
}

// quorum returns the weights of the network, and what of it is up: this
// gateway and those that it hears, as far as they vote. One that is recovering,
// has stopped for a conflict, or equivocated, counts as off (consensus.md §7).
func (h *Handler) quorum(ps *peer.Stats) quorum {
	n := h.cfg.Network()
	q := quorum{Needed: n.Quorum(), Weight: n.Weight(), Members: len(n.Gateways)}
	accused := h.src.Trouble().Equivocators
	count := func(g network.Gateway, heard, votes bool) {
		switch {
		case !heard:
			q.silent = append(q.silent, g.Name)
		case !votes || slices.Contains(accused, g.Name):
			q.mute = append(q.mute, g.Name)
		default:
			q.Up += uint64(g.Weight)
		}
	}
	for _, g := range n.Gateways {
		if g.Name == h.cfg.Name {
			word := h.src.Ledger.Word()
			count(g, true, word.Votes())
		}
	}
	for i := range ps.Members {
		m := &ps.Members[i]
		count(m.Gateway, m.Up, m.Votes)
	}
	return q
}

// alarmsNow answers the alarms.
func (h *Handler) alarmsNow(w http.ResponseWriter, r *http.Request) {
	if q := parseQuery(r.URL.RawQuery); q.err != nil {
		writeError(w, http.StatusBadRequest, q.err.Error())
		return
	}
	ps := h.src.Peers.Stats()
	writeJSON(w, http.StatusOK, struct {
		Items []Alarm `json:"items"`
	}{h.allAlarms(&ps)})
}

// allAlarms tells what somebody should look at now, here and in the federation.
func (h *Handler) allAlarms(ps *peer.Stats) []Alarm {
	_, quality := h.cfg.Clock()
	bus := h.src.Bus.Status()
	out := append(h.alarms(h.src.Stage.Stats(), quality), troubleAlarms(h.src.Trouble())...)
	return append(out, peerAlarms(h.quorum(ps), ps, &bus, time.Now())...)
}

// alarms tells what somebody should look at on this box.
func (h *Handler) alarms(bs batching.Stats, quality reading.Clock) []Alarm {
	out := []Alarm{}
	if err := h.src.Stage.Ready(); err != nil {
		out = append(out, Alarm{"intake", "readings are refused: " + err.Error()})
	}
	if err := h.src.Ledger.Ready(); err != nil {
		out = append(out, Alarm{"ledger", "blocks are not attached: " + err.Error()})
	}
	if quality == reading.ClockBad {
		out = append(out, Alarm{"clock", "the clock is not set; readings are marked with clock bad"})
	}
	if bs.Skipped > 0 {
		out = append(out, Alarm{"journal", "the journal was found behind the replica, as after a restore or a loss; readings it had acknowledged may be missing"})
	}
	if n := h.src.Archive.Stats().Alarms; n > 0 {
		out = append(out, Alarm{"signed_twice", h.signedTwice(n)})
	}
	if h.src.Farm.Stats().Workers == 0 && !h.helped() && bs.Backlog.Stored+bs.Backlog.Batched > 0 {
		out = append(out, Alarm{"powfarm", "readings wait for proof of work and there is no worker"})
	}
	if h.cfg.Warnings != nil {
		out = append(out, h.cfg.Warnings()...)
	}
	return out
}

// signedTwice says whose blocks contradict one another.
func (h *Handler) signedTwice(n int) string {
	var names []string
	found, err := h.src.Archive.Alarms()
	for _, a := range found {
		names = append(names, a.Gateway)
	}
	slices.Sort(names)
	who := "a gateway"
	if names = slices.Compact(names); err == nil && len(names) > 0 {
		who = someOf(names)
	}
	return fmt.Sprintf("%s signed the same reading numbers with other content, in %s; that key or a copy of that journal is in use elsewhere", who, blocksOf(n))
}

func blocksOf(n int) string {
	if n == 1 {
		return "1 block"
	}
	return strconv.Itoa(n) + " blocks"
}

// A digests keeps the replica's last digest. The ledger computes it by a walk
// over all ids; under steady attachment every status would walk anew.
type digests struct {
	mu   sync.Mutex // guards what follows, and lets one walk go at a time
	at   time.Time  // end of the walk
	took time.Duration
	last replica
}

// After a walk longer than shortWalk, its digest is answered, with its own
// number of blocks, until restFactor times the walk's length has gone by.
const (
	shortWalk  = 50 * time.Millisecond
	restFactor = 10
	walks      = 3 // to find number and digest of one moment
)

// replica returns number and digest of the blocks of one moment.
func (h *Handler) replica() (replica, error) {
	d := &h.digest
	d.mu.Lock()
	defer d.mu.Unlock()
	s := h.src.Ledger.Stats()
	if d.took > shortWalk && time.Since(d.at) < restFactor*d.took {
		d.last.Tips, d.last.Held = s.Tips, s.Held
		return d.last, nil
	}
	start := time.Now()
	for range walks {
		sum, err := h.src.Ledger.Digest()
		if err != nil {
			return replica{}, err
		}
		before := s.Blocks
		s = h.src.Ledger.Stats()
		d.last = replica{Blocks: before, Digest: hexID(sum), Tips: s.Tips, Held: s.Held}
		if before == s.Blocks || time.Since(start) > shortWalk {
			break // or else a block came during the walk
		}
	}
	d.at, d.took = time.Now(), time.Since(start)
	return d.last, nil
}
