package admin

import (
	"context"
	"errors"
	"fmt"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// scanMargin is how many numbers below the first block that is not certified
// are looked at: blocks are not certified quite in the order of their numbers.
const scanMargin = 10_000

// scan follows every block that the ledger's marks name and that is not
// certified; next is the number that the next reading will get. Marks are told
// of as they are made; this finds those of an earlier process, those that were
// restored, and those for which there was no room.
func (p *progress) scan(ctx context.Context, next uint64) error {
	from, err := p.boundary(next)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.beyond = 0
	p.mu.Unlock()
	s := marks{progress: p, blocks: map[stardust.BlockID][][2]uint64{}}
	var failed error
	err = p.ledger.MarksFrom(from-min(from, scanMargin), func(run [2]uint64, block stardust.BlockID) bool {
		failed = s.see(run, block)
		return failed == nil && ctx.Err() == nil
	})
	if err := errors.Join(failed, err); err != nil {
		return err
	}
	for _, id := range s.order {
		if err := p.found(id, s.blocks[id]); err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.beyond += s.beyond
	return nil
}

// marks are what one scan has found.
type marks struct {
	*progress
	blocks map[stardust.BlockID][][2]uint64 // nil: it is done
	order  []stardust.BlockID               // of those to be followed
	beyond uint64
}

// see takes in one mark. When there is no room for another block, those that
// come are only counted.
func (m *marks) see(run [2]uint64, block stardust.BlockID) error {
	if runs, known := m.blocks[block]; known {
		if runs != nil {
			m.blocks[block] = append(runs, run)
		}
		return nil
	}
	m.mu.Lock()
	done := m.progress.blocks[block] != nil
	m.mu.Unlock()
	switch {
	case done:
		return nil
	case len(m.order) == maxTracked:
		m.beyond += run[1] - run[0] + 1
		return nil
	}
	done, err := m.done(block)
	if err != nil {
		return err
	}
	m.blocks[block] = nil
	if !done {
		m.blocks[block] = [][2]uint64{run}
		m.order = append(m.order, block)
	}
	return nil
}

// done reports whether a block needs not be followed: it is certified, or not
// kept any more. The genesis stands for the blocks of a chain that was left.
func (p *progress) done(block stardust.BlockID) (bool, error) {
	if block == stardust.GenesisID {
		return true, nil
	}
	to, err := p.ledger.Progress(block)
	if errors.Is(err, ledger.ErrNotFound) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("look up how far block %v has come: %w", block, err)
	}
	return to.Certified, nil
}

// boundary returns the number below which, but for a few, all blocks are
// certified: those that come first are certified first, so it is found in a few
// steps.
func (p *progress) boundary(next uint64) (uint64, error) {
	low, high := uint64(1), max(next, 1)
	for low < high {
		middle := low + (high-low)/2
		end, done, err := p.probe(middle)
		switch {
		case err != nil:
			return 0, err
		case done:
			low = max(end, middle) + 1
		default:
			high = middle
		}
	}
	return low, nil
}

// probe looks at the first mark from a number on: where it ends, and whether
// its block is done. Without such a mark nothing is.
func (p *progress) probe(seq uint64) (end uint64, done bool, err error) {
	var block stardust.BlockID
	found := false
	err = p.ledger.MarksFrom(seq, func(run [2]uint64, id stardust.BlockID) bool {
		end, block, found = run[1], id, true
		return false
	})
	if err != nil || !found {
		return 0, false, err
	}
	done, err = p.done(block)
	return end, done, err
}
