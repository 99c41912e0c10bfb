package ledger

import (
	"fmt"

	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// A Listed is a block of a milestone as other replicas have to know it.
type Listed struct {
	consensus.Entry
	Vote  bool
	Claim consensus.Claim // of a vote
	Raw   []byte          // nil: the body is gone
}

// Listed yields the blocks of a milestone in their order, from one place on and
// whether they have bodies or not. The error wraps ErrNotFound if the list is
// not kept.
func (l *Ledger) Listed(index uint32, from int, yield func(Listed) bool) error {
	if index <= l.Oldest() {
		return fmt.Errorf("%w: list of milestone %d", ErrNotFound, index)
	}
	var failure error
	if err := l.store.Bodies(index, from, func(e consensus.Entry, raw []byte) bool {
		var o consensus.Ordered
		if o, failure = l.orderedAs(e.ID, index, raw); failure != nil {
			return false
		}
		return yield(Listed{Entry: e, Vote: o.Vote, Claim: o.Claim, Raw: raw})
	}); err != nil {
		return fmt.Errorf("list of milestone %d: %w", index, err)
	}
	return failure
}

// orderedAs returns what is kept of a block with these bytes; nil: of a stub.
func (l *Ledger) orderedAs(id stardust.BlockID, index uint32, raw []byte) (o consensus.Ordered, err error) {
	if raw != nil {
		b, err := stardust.ParseBlock(raw)
		if err != nil {
			return o, fmt.Errorf("block %v: %w", id, err)
		}
		return consensus.OrderedBlock(b, index)
	}
	at, err := l.store.Ordered(id)
	if err != nil {
		return o, fmt.Errorf("stub %v: %w", id, err)
	}
	if at.Stub == nil { // forgotten since
		return o, fmt.Errorf("%w: stub %v", ErrNotFound, id)
	}
	return *at.Stub, nil
}

// Oldest returns the index of the last milestone of which the ids of blocks are
// kept no more.
func (l *Ledger) Oldest() uint32 {
	l.board.mu.Lock()
	defer l.board.mu.Unlock()
	return l.board.oldest
}

// StoredNetworks returns the network files that are stored, from an epoch on:
// during a state sync they go beyond the epoch in force.
func (l *Ledger) StoredNetworks(from uint32) ([]*network.File, error) {
	files, err := l.store.Networks()
	if err != nil {
		return nil, fmt.Errorf("read network files: %w", err)
	}
	return files[min(int(from), len(files)):], nil
}
