package admin

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// A fakeTangle holds blocks, marks and milestones in memory. Its zero value has
// none.
type fakeTangle struct {
	mu       sync.Mutex // guards what follows
	grown    chan struct{}
	blocks   []fakeTangleBlock
	marks    map[uint64]fakeMark // by first number
	progress map[stardust.BlockID]ledger.Progress
	agreed   ledger.Agreed
	word     ledger.Word
	ordered  map[uint32][]consensus.Entry
	approved []stardust.BlockID
	lookups  int // calls of Progress
	broken   error
}

type fakeMark struct {
	last  uint64
	block stardust.BlockID
}

type fakeTangleBlock struct {
	id  stardust.BlockID
	raw []byte
}

func (f *fakeTangle) Word() ledger.Word { return f.word }

// change changes the tangle and wakes those who wait.
func (f *fakeTangle) change(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.progress == nil {
		f.progress = map[stardust.BlockID]ledger.Progress{}
		f.ordered = map[uint32][]consensus.Entry{}
		f.marks = map[uint64]fakeMark{}
	}
	do()
	if f.grown != nil {
		close(f.grown)
		f.grown = nil
	}
}

// mark says that readings stand in a block.
func (f *fakeTangle) mark(first, last uint64, block stardust.BlockID) {
	f.change(func() {
		f.marks[first] = fakeMark{last, block}
		if _, known := f.progress[block]; !known {
			f.progress[block] = ledger.Progress{}
		}
	})
}

// approve has a quorum vote above blocks.
func (f *fakeTangle) approve(ids ...stardust.BlockID) {
	f.change(func() {
		for _, id := range ids {
			f.progress[id] = ledger.Progress{Approved: true}
		}
		f.approved = append(f.approved, ids...)
	})
}

// confirm makes a milestone of blocks and returns its index.
func (f *fakeTangle) confirm(ids ...stardust.BlockID) (index uint32) {
	f.change(func() {
		f.agreed.Milestone++
		index = f.agreed.Milestone
		f.agreed.ID, f.agreed.Timestamp = [32]byte{byte(index)}, uint32(time.Now().Unix())
		f.ordered[index] = []consensus.Entry{}
		for _, id := range ids {
			f.progress[id] = ledger.Progress{Approved: true, Milestone: index}
			f.ordered[index] = append(f.ordered[index], consensus.Entry{ID: id})
		}
	})
	return index
}

// certify certifies the milestones up to one.
func (f *fakeTangle) certify(through uint32) {
	f.change(func() {
		f.agreed.Certified = through
		for id, p := range f.progress {
			p.Certified = p.Milestone != 0 && p.Milestone <= through
			f.progress[id] = p
		}
	})
}

// await waits until ready is true.
func (f *fakeTangle) await(ctx context.Context, ready func() bool) error {
	for {
		f.mu.Lock()
		ok := ready()
		if f.grown == nil {
			f.grown = make(chan struct{})
		}
		grown := f.grown
		f.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (f *fakeTangle) Progress(id stardust.BlockID) (ledger.Progress, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lookups++
	p, ok := f.progress[id]
	if !ok && f.broken == nil {
		return p, fmt.Errorf("%w: %v", ledger.ErrNotFound, id)
	}
	return p, f.broken
}

func (f *fakeTangle) MarksFrom(from uint64, yield func(run [2]uint64, block stardust.BlockID) bool) error {
	f.mu.Lock()
	marks, err := maps.Clone(f.marks), f.broken
	f.mu.Unlock()
	for _, first := range slices.Sorted(maps.Keys(marks)) {
		if m := marks[first]; m.last >= from && !yield([2]uint64{first, m.last}, m.block) {
			break
		}
	}
	return err
}

func (f *fakeTangle) Agreed() ledger.Agreed {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.agreed
}

func (f *fakeTangle) WaitAgreed(ctx context.Context, before ledger.Agreed) (now ledger.Agreed, err error) {
	err = f.await(ctx, func() bool { now = f.agreed; return now != before })
	return now, err
}

func (f *fakeTangle) WaitApproved(ctx context.Context, after uint64) (ids []stardust.BlockID, position uint64, err error) {
	err = f.await(ctx, func() bool {
		position = uint64(len(f.approved))
		if position > after {
			ids = slices.Clone(f.approved[max(after, position-min(position, 5)):]) // more are missed
		}
		return position > after
	})
	return ids, position, err
}

func (f *fakeTangle) Milestone(index uint32) (ledger.Milestone, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if index == 0 || index > f.agreed.Milestone {
		return ledger.Milestone{}, fmt.Errorf("%w: milestone %d", ledger.ErrNotFound, index)
	}
	return ledger.Milestone{Essence: consensus.Essence{Index: index, Timestamp: 1795342504}, ID: [32]byte{byte(index)}}, nil
}

func (f *fakeTangle) Ordered(index uint32) ([]consensus.Entry, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	entries, ok := f.ordered[index]
	if !ok {
		return nil, fmt.Errorf("%w: milestone %d", ledger.ErrNotFound, index)
	}
	return entries, nil
}

func (f *fakeTangle) Position() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return uint64(len(f.blocks))
}

func (f *fakeTangle) Wait(ctx context.Context, after uint64) error {
	return f.await(ctx, func() bool { return uint64(len(f.blocks)) > after })
}

func (f *fakeTangle) Blocks(after uint64, yield func(uint64, stardust.BlockID, []byte, time.Time) bool) error {
	f.mu.Lock()
	blocks := f.blocks[min(after, uint64(len(f.blocks))):]
	f.mu.Unlock()
	for i, b := range blocks {
		if !yield(after+uint64(i)+1, b.id, b.raw, time.UnixMilli(1795342504120)) {
			break
		}
	}
	return nil
}
