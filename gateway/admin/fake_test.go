package admin

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/batching/archive"
	"github.com/hedgerow-iot/hedgerow/batching/journal"
	"github.com/hedgerow-iot/hedgerow/batching/reading"
	"github.com/hedgerow-iot/hedgerow/gateway/bus"
	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/peer"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
	"github.com/hedgerow-iot/hedgerow/powfarm"
	"github.com/hedgerow-iot/hedgerow/powfarm/remote"
)

// A fakeJournal holds readings with the numbers 1, 2, 3…
type fakeJournal struct {
	rs    []reading.Reading
	short int   // readings that one call looks at; 0: all
	fails int   // calls of History until one fails; 0: none does
	err   error // of that one
	calls int
}

func (j *fakeJournal) Get(seq uint64) (reading.Reading, error) {
	if seq < 1 || seq > uint64(len(j.rs)) {
		return reading.Reading{}, fmt.Errorf("reading %d: %w", seq, journal.ErrNotFound)
	}
	return j.rs[seq-1], nil
}

func (j *fakeJournal) History(q journal.Query) (rs []reading.Reading, next string, err error) {
	if j.calls++; j.calls == j.fails {
		return nil, "", j.err
	}
	from := 0
	if q.Cursor != "" {
		if from, err = strconv.Atoi(q.Cursor); err != nil {
			return nil, "", journal.ErrCursor
		}
	}
	for i := from; i < len(j.rs); i++ {
		if len(rs) == cmp.Or(q.Limit, 1000) || j.short > 0 && i-from == j.short {
			return rs, strconv.Itoa(i), nil
		}
		r := j.rs[i]
		if (q.Device == "" || q.Device == r.Device) && (q.Name == "" || q.Name == r.Name) &&
			r.Received >= q.From && (q.To == 0 || r.Received < q.To) {
			rs = append(rs, r)
		}
	}
	return rs, "", nil
}

func (j *fakeJournal) Latest(device, after string, limit int) (rs []reading.Reading, next string, err error) {
	from := 0
	if after != "" {
		if from, err = strconv.Atoi(after); err != nil {
			return nil, "", journal.ErrCursor
		}
	}
	last := map[[2]string]reading.Reading{}
	for _, r := range j.rs {
		if device == "" || device == r.Device {
			last[[2]string{r.Device, r.Name}] = r
		}
	}
	for _, r := range last {
		rs = append(rs, r)
	}
	slices.SortFunc(rs, func(a, b reading.Reading) int {
		return cmp.Or(cmp.Compare(a.Device, b.Device), cmp.Compare(a.Name, b.Name))
	})
	if rs = rs[from:]; limit < len(rs) {
		return rs[:limit], strconv.Itoa(from + limit), nil
	}
	return rs, "", nil
}

func (j *fakeJournal) Read(from uint64, limit int) ([]reading.Reading, error) {
	first := min(from-1, uint64(len(j.rs)))
	return j.rs[first:min(first+uint64(limit), uint64(len(j.rs)))], nil
}

func (j *fakeJournal) Stats() journal.Stats {
	return journal.Stats{First: 1, Next: uint64(len(j.rs)) + 1, Readings: uint64(len(j.rs)), DiskBytes: 4096, FreeBytes: 1 << 30}
}

// A fakeStage attached the readings up to number through in block 0xcc….
type fakeStage struct {
	through, known uint64
	notReady       error
	stats          batching.Stats
	stored         chan uint64
}

var fakeBlock = stardust.BlockID{0xcc, 31: 0x01}

func (s *fakeStage) State(seq uint64) (batching.State, stardust.BlockID, error) {
	switch {
	case seq <= s.through:
		return batching.Attached, fakeBlock, nil
	case seq <= s.known:
		return batching.Batched, stardust.BlockID{}, nil
	}
	return "", stardust.BlockID{}, batching.ErrNotFound
}
func (s *fakeStage) Stats() batching.Stats { return s.stats }

// WaitStored waits for a number on the channel.
func (s *fakeStage) WaitStored(ctx context.Context, before uint64) (uint64, error) {
	for {
		select {
		case next := <-s.stored:
			if next > before {
				return next, nil
			}
		case <-ctx.Done():
			return before, context.Cause(ctx)
		}
	}
}
func (s *fakeStage) Ready() error { return s.notReady }

type fakeLedger struct {
	blocks  uint64
	digests int // walks
	walk    time.Duration
	grow    bool // a block comes during each walk
	err     error

	fakeTangle
}

func (l *fakeLedger) Tagged(tag []byte, limit int, cursor string) ([]stardust.BlockID, string, error) {
	switch {
	case l.err != nil:
		return nil, "", l.err
	case cursor != "" && cursor != "next":
		return nil, "", ledger.ErrCursor
	case string(tag) != "hedgerow/barn-7":
		return nil, "", nil
	case cursor == "" && limit == 1:
		return []stardust.BlockID{fakeBlock}, "next", nil
	}
	return []stardust.BlockID{fakeBlock}, "", nil
}

func (l *fakeLedger) Digest() ([32]byte, error) {
	l.digests++
	time.Sleep(l.walk)
	if l.grow {
		l.blocks++
	}
	return [32]byte{byte(l.blocks)}, l.err
}

func (l *fakeLedger) Ready() error { return l.err }

func (l *fakeLedger) Stats() ledger.Stats {
	return ledger.Stats{Blocks: l.blocks, Tips: 2, Held: 1, BadSignatures: 17, Votes: 18, Parked: 19}
}

type fakeFarm powfarm.Stats

func (f fakeFarm) Stats() powfarm.Stats { return powfarm.Stats(f) }

// A fakeArchive holds readings of other gateways, by received time.
type fakeArchive struct {
	items  []archive.Item
	short  int // items that one call looks at; 0: all
	alarms int
}

func (a *fakeArchive) History(q archive.Query) (items []archive.Item, next string, err error) {
	from := 0
	if q.Cursor != "" {
		if from = 1 + slices.IndexFunc(a.items, func(it archive.Item) bool { return q.Behind(it) == q.Cursor }); from == 0 {
			return nil, "", archive.ErrCursor
		}
	}
	for i := from; i < len(a.items); i++ {
		if len(items) == cmp.Or(q.Limit, 1000) || a.short > 0 && i-from == a.short {
			return items, q.Behind(a.items[i-1]), nil
		}
		it := a.items[i]
		r := it.Reading
		if (q.Gateway == it.Gateway || q.Gateway == "*" && q.Without != it.Gateway) && (q.Device == "" || q.Device == r.Device) &&
			(q.Name == "" || q.Name == r.Name) && r.Received >= q.From && (q.To == 0 || r.Received < q.To) {
			items = append(items, it)
		}
	}
	return items, "", nil
}

func (a *fakeArchive) ByID(gateway string, seq uint64) (archive.Item, error) {
	for _, it := range a.items {
		if it.Gateway == gateway && it.Reading.Seq == seq {
			return it, nil
		}
	}
	return archive.Item{}, archive.ErrNotFound
}

func (a *fakeArchive) Latest(gateway, without, device, after string, limit int) (items []archive.Item, next string, err error) {
	last := map[[3]string]archive.Item{}
	for _, it := range a.items {
		if (gateway == it.Gateway || gateway == "*" && without != it.Gateway) && (device == "" || device == it.Reading.Device) {
			last[[3]string{it.Gateway, it.Reading.Device, it.Reading.Name}] = it
		}
	}
	from := 0
	if after != "" {
		if from, err = strconv.Atoi(after); err != nil {
			return nil, "", archive.ErrCursor
		}
	}
	for _, it := range last {
		items = append(items, it)
	}
	slices.SortFunc(items, func(a, b archive.Item) int {
		return cmp.Or(cmp.Compare(a.Gateway, b.Gateway), cmp.Compare(a.Reading.Device, b.Reading.Device))
	})
	if items = items[from:]; limit < len(items) {
		return items[:limit], strconv.Itoa(from + limit), nil
	}
	return items, "", nil
}

func (a *fakeArchive) Gateways() []string { return []string{"old-1"} }

func (a *fakeArchive) Alarms() (all []archive.Alarm, err error) {
	for range a.alarms {
		all = append(all, archive.Alarm{Gateway: "mill"})
	}
	return all, nil
}

func (a *fakeArchive) Stats() archive.Stats {
	return archive.Stats{
		Position: uint64(len(a.items)), Alarms: a.alarms, Batches: 21, Readings: 22, Duplicates: 23, Conflicts: 24,
		Refused: map[string]uint64{"member": 25},
	}
}

type fakeRemote []remote.Worker

func (f fakeRemote) Workers() []remote.Worker { return f }
func (f fakeRemote) Refused() uint64          { return 9 }

type fakePeers peer.Stats

func (f *fakePeers) Stats() peer.Stats { return peer.Stats(*f) }

type fakeBus bus.Status

func (f *fakeBus) Status() bus.Status { return bus.Status(*f) }

// A box is a handler and what it stands on.
type box struct {
	*Handler
	journal *fakeJournal
	stage   *fakeStage
	ledger  *fakeLedger
	archive *fakeArchive
	peers   *fakePeers
	bus     *fakeBus
	file    *network.File
}

const token = "0123456789abcdef0123456789abcdef"

func newBox(t testing.TB, cfg Config) box {
	t.Helper()
	b := box{
		journal: &fakeJournal{}, stage: &fakeStage{stored: make(chan uint64)}, ledger: &fakeLedger{}, archive: &fakeArchive{},
		peers: &fakePeers{Members: []peer.Member{}}, bus: &fakeBus{Mode: bus.Embedded, Connected: true},
	}
	b.ledger.word.Answers = true
	cfg.Name, cfg.Token, cfg.Version = "barn-7", token, "1.2.3"
	file := network.NewOfOne("hedgerow-test", "barn-7", make([]byte, 32))
	cfg.Network, b.file = func() *network.File { return file }, file
	h, err := New(cfg, Sources{Journal: b.journal, Stage: b.stage, Ledger: b.ledger, Archive: b.archive, Peers: b.peers, Bus: b.bus, Farm: fakeFarm{
		Workers: 1, Kernel: "go", Queued: [powfarm.Priorities]int{powfarm.Telemetry: 2}, Preempted: 3,
		Age:     [powfarm.Priorities]time.Duration{powfarm.Telemetry: time.Second},
		Proven:  [powfarm.Priorities]uint64{powfarm.Urgent: 4, powfarm.Guest: 1},
		Kernels: []powfarm.KernelStats{{Name: "avx2", Tries: 5}, {Name: "go", Tries: 7, Expected: 6, Searching: time.Second / 2}},
	}},
		slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	b.Handler = h
	return b
}

// fill gives the journal n readings, a second apart from 2026-11-22T10:00Z on.
func (b box) fill(n int) {
	start := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC).UnixMilli()
	for i := range n {
		b.journal.rs = append(b.journal.rs, reading.Reading{
			Seq: uint64(i + 1), Device: "probe-" + strconv.Itoa(i%3), Name: "temperature",
			Value: reading.Int(int64(i)), Received: start + int64(i)*1000,
		})
	}
	b.stage.known = uint64(n)
}

// mill is another gateway; it gives the archive n readings, two seconds apart
// and half a second after those of fill.
func (b box) mill(n int) {
	start := time.Date(2026, 11, 22, 10, 0, 0, 500e6, time.UTC).UnixMilli()
	b.file.Gateways = append(b.file.Gateways, network.Gateway{Name: "mill", Weight: 1})
	for i := range n {
		b.archive.items = append(b.archive.items, archive.Item{
			Gateway: "mill", Block: fakeBlock, Position: uint64(i + 1),
			Reading: reading.Reading{
				Seq: uint64(i + 1), Device: "probe-" + strconv.Itoa(i%3), Name: "temperature",
				Value: reading.Int(int64(i)), Received: start + int64(i)*2000,
			},
		})
	}
}

// get sends one request with the token.
func (b box) get(path string) *httptest.ResponseRecorder {
	return call(b, "GET", path, "Bearer "+token)
}

func call(h http.Handler, method, path, authorization string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// errorText returns the message of an error answer.
func errorText(t testing.TB, w *httptest.ResponseRecorder) string {
	t.Helper()
	var got struct {
		Error struct{ Code, Message string }
	}
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || got.Error.Code != fmt.Sprint(w.Code) || got.Error.Message == "" {
		t.Fatalf("status %d, body %q is no error form: %v", w.Code, w.Body, err)
	}
	return got.Error.Message
}

type list struct {
	Items  []map[string]any
	Cursor string
}

func items(t testing.TB, w *httptest.ResponseRecorder) list {
	t.Helper()
	var got list
	if err := json.Unmarshal(w.Body.Bytes(), &got); w.Code != 200 || err != nil || got.Items == nil {
		t.Fatalf("answer is %d %s", w.Code, w.Body)
	}
	return got
}

var errBroken = errors.New("secret path is broken")
