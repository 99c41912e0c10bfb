package ledger

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// Order yields the ids of the blocks with bodies in this replica's order of arrival,
// parents before children, each with its position: from 1 on and ascending. It
// starts after the position given and ends when yield returns false. A position
// means something only to this store; see [Ledger.StoreID].
func (l *Ledger) Order(after uint64, yield func(position uint64, id stardust.BlockID) bool) error {
	if err := l.store.Order(after, yield); err != nil {
		return fmt.Errorf("order of blocks after %d: %w", after, err)
	}
	return nil
}

// Blocks is Order with the blocks' bytes and the time they were attached here.
func (l *Ledger) Blocks(after uint64, yield func(position uint64, id stardust.BlockID, raw []byte, attached time.Time) bool) error {
	var failure error
	err := l.Order(after, func(position uint64, id stardust.BlockID) bool {
		rec, err := l.load(id)
		if errors.Is(err, ErrNotFound) { // pruned or deleted since the ids were read
			return true
		} else if err != nil {
			failure = err
			return false
		}
		return yield(position, id, rec.Raw, rec.Attached)
	})
	return errors.Join(err, failure)
}

// At returns the id of the block at a position of Order, with a body or not, or
// ErrNotFound.
func (l *Ledger) At(position uint64) (stardust.BlockID, error) {
	id, err := l.store.At(position)
	if err != nil {
		return id, fmt.Errorf("block at position %d: %w", position, err)
	}
	return id, nil
}

// StoreID identifies the store whose order of blocks it is: one that is made
// anew has another.
func (l *Ledger) StoreID() [8]byte { return l.store.ID() }

// Position returns that of the last block; 0: there is none.
func (l *Ledger) Position() uint64 { return l.growth.at() }

// Wait returns nil once there is a block after the position, or the error of
// ctx.
func (l *Ledger) Wait(ctx context.Context, after uint64) error {
	for {
		at, grown := l.growth.next()
		if at > after {
			return nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// AllTips returns the tips, newest first and at most most of them, and whether
// these are all that the replica has: every block of it is then in their past.
// What nobody honest refers to, although something may have been decided by it,
// is among them (consensus.md §9).
func (l *Ledger) AllTips(most int) (ids []stardust.BlockID, all bool) {
	p := l.pool.Load()
	ids = append(ids, p.outcasts[:min(len(p.outcasts), most/2)]...)
	all = p.all && len(ids) == len(p.outcasts)
	for i := len(p.tips) - 1; i >= 0; i-- {
		if len(ids) == most {
			return ids, false
		}
		ids = append(ids, p.tips[i])
	}
	return ids, all
}

// Has reports whether the block is in the replica, with a body or not; held
// blocks do not count.
func (l *Ledger) Has(id stardust.BlockID) (bool, error) {
	return l.solid(nil, id)
}

// A growth tells those who wait that there are more blocks.
type growth struct {
	mu    sync.Mutex // guards what follows
	last  uint64
	grown chan struct{} // closed when last grows
}

func (g *growth) init(last uint64) { g.last, g.grown = last, make(chan struct{}) }

func (g *growth) reach(last uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if last > g.last {
		g.last = last
		close(g.grown)
		g.grown = make(chan struct{})
	}
}

func (g *growth) at() uint64 {
	at, _ := g.next()
	return at
}

func (g *growth) next() (at uint64, grown <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.last, g.grown
}
