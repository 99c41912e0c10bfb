package ledger

import (
	"errors"

	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// recall tells the state again of stored blocks that it has forgotten
// ([consensus.State.Evict]), because something refers to them now, and of what
// they refer to.
func (l *Ledger) recall(ids []stardust.BlockID) error {
	for _, id := range ids {
		b, ok, err := l.forgotten(id)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if err := l.learn(b); err != nil {
			return err
		}
	}
	return nil
}

// forgotten returns a block that is stored, that no milestone orders and that
// the state does not have.
func (l *Ledger) forgotten(id stardust.BlockID) (c consensus.Block, ok bool, err error) {
	a := &l.agreement
	if id == stardust.GenesisID || a.state.Has(id) || a.ordered[id] != 0 {
		return c, false, nil
	}
	if p, err := l.store.Ordered(id); err != nil || p.Milestone != 0 {
		return c, false, err
	}
	rec, err := l.load(id)
	if errors.Is(err, ErrNotFound) {
		return c, false, nil // it is in the group that is to be stored
	} else if err != nil {
		return c, false, err
	}
	b, err := stardust.ParseBlock(rec.Raw)
	if err != nil {
		return c, false, err
	}
	c, err = a.state.Epochs().Stored(id, b)
	c.Third = l.third(b, c.Update)
	return c, err == nil, err
}
