package batching

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/hedgerow-iot/hedgerow/batching/envelope"
	"github.com/hedgerow-iot/hedgerow/batching/reading"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	testKey     = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, 32))
	testGenesis = [32]byte{4, 5, 6}
)

// memJournal is a Journal in memory.
type memJournal struct {
	mu       sync.Mutex
	rs       []reading.Reading
	next     uint64
	keys     map[Key]uint64
	made     byte // counts incarnations
	trimmed  uint64
	reads    int // readings handed out by Read
	groups   []int
	delay    time.Duration // of a commit
	fail     error         // of the next Append
	full     error         // of Ready
	onRecall func()        // called at the beginning of Recall, once
	discard  bool          // keep no readings
}

func newMemJournal() *memJournal { return &memJournal{next: 1, keys: map[Key]uint64{}} }

func (j *memJournal) Append(packets []Packet, at Stamp) (uint64, error) {
	if j.delay > 0 {
		<-time.After(j.delay)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.fail != nil {
		defer func() { j.fail = nil }()
		return 0, j.fail
	}
	first := j.next
	j.groups = append(j.groups, len(packets))
	for _, p := range packets {
		if p.Key != (Key{}) {
			j.keys[p.Key] = j.next
		}
		for _, r := range p.Readings {
			r.Seq, r.Received, r.Clock = j.next, at.Received, at.Clock
			if !j.discard {
				j.rs = append(j.rs, r)
			}
			j.next++
		}
	}
	return first, nil
}

func (j *memJournal) Recall(key Key, _ time.Duration, _ int64) (uint64, bool) {
	j.mu.Lock()
	first, ok := j.keys[key]
	hook := j.onRecall
	j.onRecall = nil
	j.mu.Unlock()
	if hook != nil {
		hook()
	}
	return first, ok
}

func (j *memJournal) Read(from uint64, limit int) ([]reading.Reading, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	i, _ := slices.BinarySearchFunc(j.rs, from, func(r reading.Reading, n uint64) int {
		if r.Seq < n {
			return -1
		}
		return int(min(r.Seq-n, 1))
	})
	out := slices.Clone(j.rs[i:min(i+limit, len(j.rs))])
	j.reads += len(out)
	return out, nil
}

func (j *memJournal) Next() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.next
}

func (j *memJournal) SkipTo(next uint64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.full != nil {
		return fmt.Errorf("%w: %w", ErrBusy, j.full)
	}
	j.next = max(j.next, next)
	j.made++
	return nil
}

func (j *memJournal) Incarnation() [8]byte {
	j.mu.Lock()
	defer j.mu.Unlock()
	return [8]byte{j.made}
}

func (j *memJournal) Trim(through uint64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.trimmed = through
	return nil
}

func (j *memJournal) Ready() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.full
}

// memLedger is a Ledger in memory. It opens every batch attached.
type memLedger struct {
	mu     sync.Mutex
	tips   []stardust.BlockID
	score  uint32
	marks  map[uint64]stardust.BlockID
	blocks []*stardust.Block
	sizes  []int
	seen   map[string]int // texts of values, for exactly-once
	made   []byte         // incarnations of the batches
	busy   int            // so many answers are ErrBusy
	lost   int            // so many answers are ErrBusy although the block is attached
	fail   error          // of every Attach

	certified map[stardust.BlockID]bool // nil: all are
	asked     int                       // calls of Certified
	unread    error                     // of Certified
}

func newMemLedger() *memLedger {
	return &memLedger{tips: []stardust.BlockID{{}}, score: 100, marks: map[uint64]stardust.BlockID{}, seen: map[string]int{}}
}

func (l *memLedger) Tips() []stardust.BlockID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.tips)
}

func (l *memLedger) setTips(ids ...byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tips = nil
	for _, id := range ids {
		l.tips = append(l.tips, stardust.BlockID{id})
	}
}

func (l *memLedger) MinPoWScore() uint32 { return l.score }

func (l *memLedger) Attach(_ context.Context, b *stardust.Block, runs [][2]uint64) (stardust.BlockID, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.busy > 0 {
		l.busy--
		return stardust.BlockID{}, fmt.Errorf("ledger: %w", ErrBusy)
	}
	if l.fail != nil {
		return stardust.BlockID{}, l.fail
	}
	id, err := b.ID()
	if err != nil {
		return id, err
	}
	data := b.Payload.(*stardust.TaggedData).Data
	batch, err := envelope.Open(data, envelope.Expect{Genesis: testGenesis, Gateway: "barn-7", Key: testKey.Public().(ed25519.PublicKey)})
	if err != nil {
		return id, err
	}
	if !slices.Equal(batch.Runs, runs) {
		return id, fmt.Errorf("batch holds %v, handed over as %v", batch.Runs, runs)
	}
	for _, r := range batch.Readings {
		if _, ok := l.marks[r.Seq]; ok {
			return id, fmt.Errorf("reading %d is attached twice", r.Seq)
		}
	}
	for _, r := range batch.Readings {
		l.marks[r.Seq] = id
		l.seen[r.Value.Text()]++
	}
	l.blocks = append(l.blocks, b)
	l.sizes = append(l.sizes, b.Size())
	l.made = append(l.made, batch.Incarnation[0])
	if l.lost > 0 {
		l.lost--
		return stardust.BlockID{}, fmt.Errorf("ledger: %w", ErrBusy)
	}
	return id, nil
}

func (l *memLedger) MarksFrom(from uint64, yield func(run [2]uint64, block stardust.BlockID) bool) error {
	l.mu.Lock()
	marks := maps.Clone(l.marks)
	l.mu.Unlock()
	for _, seq := range slices.Sorted(maps.Keys(marks)) {
		if seq >= from && !yield([2]uint64{seq, seq}, marks[seq]) {
			break
		}
	}
	return nil
}

func (l *memLedger) Certified(block stardust.BlockID) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked++
	return l.certified == nil || l.certified[block], l.unread
}

func (l *memLedger) Marked(seq uint64) (stardust.BlockID, bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	id, ok := l.marks[seq]
	return id, ok, nil
}

func (l *memLedger) attached() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.marks)
}

// batches returns the first and last number of every batch, in the order of
// attachment.
func (l *memLedger) batches(t testing.TB) (runs [][][2]uint64) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range l.blocks {
		batch, err := envelope.Open(b.Payload.(*stardust.TaggedData).Data, envelope.Expect{Genesis: testGenesis})
		if err != nil {
			t.Fatal(err)
		}
		runs = append(runs, batch.Runs)
	}
	return runs
}

// memProver takes a fixed time for every nonce.
type memProver struct {
	mu    sync.Mutex
	takes time.Duration
	speed float64 // tries per second, in the place of takes
	busy  int     // so many answers are ErrBusy
	calls int
	zeros []int
}

func (p *memProver) Prove(ctx context.Context, _ [32]byte, zeros int) (uint64, error) {
	p.mu.Lock()
	p.calls++
	p.zeros = append(p.zeros, zeros)
	nonce, busy, takes := uint64(p.calls), p.busy > 0, p.takes
	if p.speed > 0 {
		takes = time.Duration(math.Pow(3, float64(zeros)) / p.speed * float64(time.Second))
	}
	if busy {
		p.busy--
	}
	p.mu.Unlock()
	if busy {
		return 0, ErrBusy
	}
	if takes > 0 {
		select {
		case <-time.After(takes):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	return nonce, ctx.Err()
}

// A rig is a stage over fakes.
type rig struct {
	*Stage
	t     testing.TB
	j     *memJournal
	l     *memLedger
	p     *memProver
	end   func() error // ends Run's context and returns its error
	ended func() error // waits for Run to return by itself
}

func newRig(t testing.TB, change func(*Config)) *rig {
	t.Helper()
	return startRig(t, newMemJournal(), newMemLedger(), &memProver{}, change)
}

func startRig(t testing.TB, j *memJournal, l *memLedger, p *memProver, change func(*Config)) *rig {
	t.Helper()
	cfg := Config{Gateway: "barn-7", Key: testKey, Genesis: testGenesis}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg, j, p, l)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{Stage: s, t: t, j: j, l: l, p: p}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	r.ended = func() error {
		err := <-done
		done <- err
		return err
	}
	r.end = func() error {
		cancel()
		return r.ended()
	}
	t.Cleanup(cancel)
	return r
}

// packet returns a packet with a text reading for each value.
func (r *rig) packet(values ...string) Packet {
	var p Packet
	for _, v := range values {
		val, err := reading.String(v)
		if err != nil {
			r.t.Fatal(err)
		}
		p.Readings = append(p.Readings, reading.Reading{Device: "probe-3", Name: "level", Value: val})
	}
	return p
}

func (r *rig) submit(values ...string) *Receipt {
	r.t.Helper()
	rec, err := r.Submit(Submission{Packet: r.packet(values...)})
	if err != nil {
		r.t.Fatal(err)
	}
	return rec
}

// submitMany submits n packets of one reading with values that differ.
func (r *rig) submitMany(n int) (rs []*Receipt) {
	r.t.Helper()
	for i := range n {
		rs = append(rs, r.submit(fmt.Sprintf("v%d", i)))
	}
	return rs
}

func resolved(rec *Receipt) bool {
	select {
	case <-rec.Done():
		return true
	default:
		return false
	}
}

// inBubble runs a test whose time is synctest's.
func inBubble(t *testing.T, f func(t *testing.T)) { synctest.Test(t, f) }

var errBoom = errors.New("boom")
