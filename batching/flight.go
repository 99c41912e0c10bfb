package batching

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// ErrNotFound means that there is no reading with this number.
var ErrNotFound = errors.New("no such reading")

// A State says how far a reading has come.
type State string

// The states that batching knows, in order.
const (
	Stored   State = "stored"   // durable in the journal
	Batched  State = "batched"  // in a batch whose block is being made
	Attached State = "attached" // in a block of the local replica
)

// A batch is a sealed set of readings on its way to the ledger.
type batch struct {
	runs    [][2]uint64
	count   int
	data    []byte // the envelope
	parents int    // most parents for which the block keeps its proof-of-work step
	sealed  time.Time
}

func (b *batch) first() uint64 { return b.runs[0][0] }
func (b *batch) last() uint64  { return b.runs[len(b.runs)-1][1] }

func (b *batch) holds(seq uint64) bool {
	for _, run := range b.runs {
		if run[0] <= seq && seq <= run[1] {
			return true
		}
	}
	return false
}

// flight knows where every sequence number stands without knowing each: what
// lies between is derived.
type flight struct {
	mu     sync.Mutex    // guards the fields below
	next   uint64        // the first number that is not stored yet
	done   runset        // attached numbers, and those that no reading has
	flying []*batch      // sealed and not attached
	grown  chan struct{} // closed when next grows; nil: nobody waits for that
}

func (f *flight) reset(done runset, next uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.done = done
	f.reach(next) // intake may be ahead already
}

func (f *flight) stored(next uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reach(next)
}

// reach notes what the next number is. The caller holds mu.
func (f *flight) reach(next uint64) {
	if next <= f.next {
		return
	}
	f.next = next
	if f.grown != nil {
		close(f.grown)
		f.grown = nil
	}
}

// more returns the next number, and what is closed when it grows.
func (f *flight) more() (next uint64, grown <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.grown == nil {
		f.grown = make(chan struct{})
	}
	return f.next, f.grown
}

func (f *flight) end() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.next
}

func (f *flight) start(b *batch) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.flying = append(f.flying, b)
}

// gone notes numbers that no reading has.
func (f *flight) gone(runs [][2]uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, run := range runs {
		f.done = f.done.add(run)
	}
}

// landed notes that a batch is attached.
func (f *flight) landed(b *batch) {
	f.gone(b.runs)
	f.drop(b)
}

// drop notes that a batch is on its way no more.
func (f *flight) drop(b *batch) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.flying {
		if f.flying[i] == b {
			f.flying = append(f.flying[:i], f.flying[i+1:]...)
			return
		}
	}
}

// lowWater returns the number up to which every reading is attached.
func (f *flight) lowWater() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.done.prefix()
}

func (f *flight) backlog() (low uint64, b Backlog) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, bt := range f.flying {
		b.Batched += uint64(bt.count)
	}
	if f.next > 0 {
		b.Stored = f.next - 1 - min(f.next-1, f.done.count()+b.Batched)
	}
	return f.done.prefix(), b
}

// find says whether seq is a number in use, and in a batch on its way.
func (f *flight) find(seq uint64) (stored, batched bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, b := range f.flying {
		if b.holds(seq) {
			return true, true
		}
	}
	return seq > 0 && seq < f.next, false
}

// WaitStored returns the number that the next reading will get once that is
// above before: every lower one is durable. The error is that of ctx.
func (s *Stage) WaitStored(ctx context.Context, before uint64) (next uint64, err error) {
	for {
		next, grown := s.flight.more()
		if next > before {
			return next, nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return before, context.Cause(ctx)
		}
	}
}

// State returns how far the reading with this number has come, and the id of
// its block once it is attached. The error wraps [ErrNotFound] when the
// number has not been given yet; whether the journal still keeps the reading
// is not looked at.
func (s *Stage) State(seq uint64) (State, stardust.BlockID, error) {
	// First where it flies, then whether it landed: between the two it can
	// only move on.
	stored, batched := s.flight.find(seq)
	block, ok, err := s.ledger.Marked(seq)
	switch {
	case err != nil:
		return "", stardust.BlockID{}, fmt.Errorf("look for the block of reading %d: %w", seq, err)
	case ok:
		return Attached, block, nil
	case batched:
		return Batched, stardust.BlockID{}, nil
	case stored:
		return Stored, stardust.BlockID{}, nil
	}
	return "", stardust.BlockID{}, fmt.Errorf("reading %d: %w", seq, ErrNotFound)
}
