package admin

import (
	"errors"
	"fmt"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// The states of a reading's way that the gateways' agreement gives to its
// block. Those before are batching's.
const (
	approved  batching.State = "approved"
	confirmed batching.State = "confirmed"
	certified batching.State = "certified"
)

// states are the words of a reading's way (contract.md §5), in order.
func states() []string {
	return []string{
		string(batching.Stored), string(batching.Batched), string(batching.Attached),
		string(approved), string(confirmed), string(certified),
	}
}

// stateOf returns the state of the readings in a block.
func stateOf(p ledger.Progress) batching.State {
	switch {
	case p.Certified:
		return certified
	case p.Milestone != 0:
		return confirmed
	case p.Approved:
		return approved
	}
	return batching.Attached
}

// standings are how far the blocks of one page have come. Many readings share
// a block, and it is looked up once.
type standings map[stardust.BlockID]ledger.Progress

// stand adds to a reading what is known of the block that it stands in.
func (h *Handler) stand(r *readingJSON, block stardust.BlockID, on standings) error {
	p, ok := on[block]
	if !ok {
		var err error
		// A block that is not kept any more is attached, and no more is known.
		if p, err = h.src.Ledger.Progress(block); err != nil && !errors.Is(err, ledger.ErrNotFound) {
			return fmt.Errorf("look up how far block %v has come: %w", block, err)
		}
		on[block] = p
	}
	r.BlockID, r.State, r.Milestone = &block, string(stateOf(p)), p.Milestone
	return nil
}
