package admin

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// maxTracked bounds the blocks that are followed, about 4 MiB. There are a few
// while a quorum is up; without one, what comes on top counts as attached until
// there is room.
const maxTracked = 16384

// A tracked block holds readings of this gateway and is not certified yet.
type tracked struct {
	id        stardust.BlockID
	runs      [][2]uint64
	readings  uint64
	since     time.Time // when it was attached; zero: by an earlier process
	state     batching.State
	milestone uint32
	found     bool // by a scan; how far it had come then is no news
}

// progress follows the blocks of this gateway's readings from attached to
// certified, and counts. Its methods may be called concurrently.
type progress struct {
	ledger Ledger
	tell   func(*tracked) // that a block has come to its state; must not block

	mu        sync.Mutex // guards what follows
	blocks    map[stardust.BlockID]*tracked
	readings  map[batching.State]uint64 // in those blocks
	beyond    uint64                    // readings of blocks that found no room
	confirmed map[uint32][]*tracked     // those in state confirmed, by milestone
	totals    agreedTotals
}

// agreedTotals are counts since the start.
type agreedTotals struct {
	approved, ordered uint64 // blocks of all gateways, votes included
	// Seconds from the attachment of a block of this gateway.
	confirm, certify batching.Histogram
}

func newProgress(l Ledger, tell func(*tracked)) *progress {
	return &progress{
		ledger: l, tell: tell, blocks: map[stardust.BlockID]*tracked{},
		readings: map[batching.State]uint64{}, confirmed: map[uint32][]*tracked{},
		totals: agreedTotals{confirm: newAgreedSeconds(), certify: newAgreedSeconds()},
	}
}

// newAgreedSeconds has bounds that tell 350 ms (p50) and 700 ms (p95) well.
func newAgreedSeconds() batching.Histogram {
	bounds := []float64{
		0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 1, 1.5, 2, 3, 5, 10, 30, 60,
	}
	return batching.Histogram{Bounds: bounds, Counts: make([]uint64, len(bounds)+1)}
}

func observe(h *batching.Histogram, v time.Duration) {
	i, _ := slices.BinarySearch(h.Bounds, v.Seconds())
	h.Counts[i]++
	h.Sum += v.Seconds()
}

// attached follows a block that was attached now.
func (p *progress) attached(id stardust.BlockID, runs [][2]uint64) error {
	return p.add(&tracked{id: id, runs: runs, since: time.Now(), state: batching.Attached})
}

// found follows a block that was attached by an earlier process.
func (p *progress) found(id stardust.BlockID, runs [][2]uint64) error {
	return p.add(&tracked{id: id, runs: runs, found: true, state: batching.Attached})
}

func (p *progress) add(t *tracked) error {
	for _, run := range t.runs {
		t.readings += run[1] - run[0] + 1
	}
	if !p.enter(t) {
		return nil
	}
	err := p.check(t.id) // it may have come further before it was followed
	p.mu.Lock()
	t.found = false
	p.mu.Unlock()
	return err
}

// enter reports whether the block is new and there was room for it.
func (p *progress) enter(t *tracked) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.blocks[t.id] != nil:
		return false
	case len(p.blocks) >= maxTracked:
		p.beyond += t.readings
		return false
	}
	p.blocks[t.id] = t
	p.readings[t.state] += t.readings
	if !t.found {
		p.tell(t)
	}
	return true
}

// check asks the ledger how far a block has come.
func (p *progress) check(id stardust.BlockID) error {
	to, err := p.ledger.Progress(id)
	switch {
	case errors.Is(err, ledger.ErrNotFound):
		p.forget(id)
		return nil
	case err != nil:
		return fmt.Errorf("look up how far block %v has come: %w", id, err)
	}
	p.reach(id, to)
	return nil
}

// checkAll asks the ledger of every block that is followed.
func (p *progress) checkAll() error {
	p.mu.Lock()
	ids := make([]stardust.BlockID, 0, len(p.blocks))
	for id := range p.blocks {
		ids = append(ids, id)
	}
	p.mu.Unlock()
	for _, id := range ids {
		if err := p.check(id); err != nil {
			return err
		}
	}
	return nil
}

// forget follows a block no longer: it is not kept any more.
func (p *progress) forget(id stardust.BlockID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t := p.blocks[id]; t != nil {
		p.drop(t)
	}
}

// drop takes a block out. The caller holds mu.
func (p *progress) drop(t *tracked) {
	p.readings[t.state] -= t.readings
	delete(p.blocks, t.id)
	if t.state == confirmed {
		same := slices.DeleteFunc(p.confirmed[t.milestone], func(o *tracked) bool { return o == t })
		if p.confirmed[t.milestone] = same; len(same) == 0 {
			delete(p.confirmed, t.milestone)
		}
	}
}

// reach notes how far a block has come, if it is one that is followed. What is
// not further than before is ignored.
func (p *progress) reach(id stardust.BlockID, to ledger.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.blocks[id]
	if t == nil {
		return
	}
	from, state := t.state, stateOf(to)
	if order := states(); slices.Index(order, string(state)) <= slices.Index(order, string(from)) {
		return
	}
	p.drop(t)
	t.state, t.milestone = state, to.Milestone
	p.time(t, from)
	if !t.found {
		p.tell(t)
	}
	if state == certified {
		return
	}
	p.blocks[id] = t
	p.readings[state] += t.readings
	if state == confirmed {
		p.confirmed[t.milestone] = append(p.confirmed[t.milestone], t)
	}
}

// time notes how long a block took to its state. The caller holds mu.
func (p *progress) time(t *tracked, from batching.State) {
	if t.since.IsZero() {
		return
	}
	took := time.Since(t.since)
	if t.milestone != 0 && from != confirmed {
		observe(&p.totals.confirm, took)
	}
	if t.state == certified {
		observe(&p.totals.certify, took)
	}
}

// certify notes that every milestone up to one is certified.
func (p *progress) certify(through uint32) {
	done := map[stardust.BlockID]uint32{}
	p.mu.Lock()
	for milestone, blocks := range p.confirmed {
		for _, t := range blocks {
			if milestone <= through {
				done[t.id] = milestone
			}
		}
	}
	p.mu.Unlock()
	for id, milestone := range done {
		p.reach(id, ledger.Progress{Approved: true, Milestone: milestone, Certified: true})
	}
}

// count adds to the totals.
func (p *progress) count(approved, ordered uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.totals.approved += approved
	p.totals.ordered += ordered
}

// backlog returns the readings by the state they are in, and how the stage has
// those that are in no block.
func (p *progress) backlog(waiting batching.Backlog) backlog {
	p.mu.Lock()
	defer p.mu.Unlock()
	return backlog{
		Stored: waiting.Stored, Batched: waiting.Batched,
		Attached: p.readings[batching.Attached] + p.beyond,
		Approved: p.readings[approved], Confirmed: p.readings[confirmed],
	}
}

func (p *progress) stats() agreedTotals {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.totals
	s.confirm.Counts, s.certify.Counts = slices.Clone(s.confirm.Counts), slices.Clone(s.certify.Counts)
	return s
}

// crowded reports whether there are blocks that found no room and would by now.
func (p *progress) crowded() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.beyond > 0 && len(p.blocks) < maxTracked/2
}
