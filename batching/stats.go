package batching

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Stats are counts since the stage was made, and what waits now.
type Stats struct {
	Acked      uint64 // readings made durable
	Refused    uint64 // packets answered with an error
	Duplicates uint64 // packets recognised as sent again
	Batches    uint64 // batches sealed
	Attached   uint64 // readings attached to the ledger
	Retries    uint64 // transient errors of prover and ledger
	Refreshes  uint64 // searches begun again with newer parents
	Skipped    uint64 // numbers left out because the journal was behind the ledger's marks: an alarm

	Waiting  int    // readings not committed yet
	LastSize int    // bytes of the last block
	LowWater uint64 // every reading up to this number is attached
	Backlog  Backlog

	Commit Histogram // seconds from the beginning of a commit to its end
	Group  Histogram // packets in a commit
	Attach Histogram // seconds from sealing a batch to its attachment
}

// Backlog counts durable readings that are not attached yet.
type Backlog struct {
	Stored  uint64 // in no batch yet
	Batched uint64 // in a batch on its way
}

// A Histogram counts observations: Counts[i] are those up to Bounds[i] and
// above the bound before; the last of Counts has no upper bound.
type Histogram struct {
	Bounds []float64
	Counts []uint64
	Sum    float64
}

// Count returns the number of observations.
func (h Histogram) Count() (n uint64) {
	for _, c := range h.Counts {
		n += c
	}
	return n
}

func secondBounds() []float64 {
	return []float64{0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30}
}

func groupBounds() []float64 { return []float64{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024} }

// histogram is a Histogram that is being filled.
type histogram struct {
	mu sync.Mutex // guards h
	h  Histogram
}

func (h *histogram) init(bounds []float64) {
	h.h = Histogram{Bounds: bounds, Counts: make([]uint64, len(bounds)+1)}
}

func (h *histogram) observe(v float64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := 0
	for i < len(h.h.Bounds) && v > h.h.Bounds[i] {
		i++
	}
	h.h.Counts[i]++
	h.h.Sum += v
}

func (h *histogram) snapshot() Histogram {
	h.mu.Lock()
	defer h.mu.Unlock()
	return Histogram{Bounds: h.h.Bounds, Counts: slices.Clone(h.h.Counts), Sum: h.h.Sum}
}

// counters are what Stats shows.
type counters struct {
	running atomic.Bool

	acked, refused, duplicates  atomic.Uint64
	batches, attached           atomic.Uint64
	retries, refreshes, skipped atomic.Uint64
	lastSize                    atomic.Int64

	commit, group, attach histogram
}

func (c *counters) init() {
	c.commit.init(secondBounds())
	c.group.init(groupBounds())
	c.attach.init(secondBounds())
}

func (c *counters) committed(g *group, took time.Duration) {
	c.acked.Add(uint64(g.readings))
	c.commit.observe(took.Seconds())
	c.group.observe(float64(len(g.packets)))
}

// Stats returns the stage's counts.
func (s *Stage) Stats() Stats {
	s.inbox.mu.Lock()
	waiting := s.inbox.readings
	s.inbox.mu.Unlock()
	low, backlog := s.flight.backlog()
	return Stats{
		Acked:      s.count.acked.Load(),
		Refused:    s.count.refused.Load(),
		Duplicates: s.count.duplicates.Load(),
		Batches:    s.count.batches.Load(),
		Attached:   s.count.attached.Load(),
		Retries:    s.count.retries.Load(),
		Refreshes:  s.count.refreshes.Load(),
		Skipped:    s.count.skipped.Load(),
		Waiting:    waiting,
		LastSize:   int(s.count.lastSize.Load()),
		LowWater:   low,
		Backlog:    backlog,
		Commit:     s.count.commit.snapshot(),
		Group:      s.count.group.snapshot(),
		Attach:     s.count.attach.snapshot(),
	}
}
