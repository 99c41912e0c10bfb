package api

import (
	"errors"
	"net/http"
	"slices"
	"sync"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// conflictOther is the conflictReason of which nothing more is known (TIP-25).
const conflictOther = 255

// A blockMetadata is what is known of a block (TIP-25, TIP-28).
type blockMetadata struct {
	ID      stardust.BlockID   `json:"blockId"`
	Parents []stardust.BlockID `json:"parents"`
	Solid   bool               `json:"isSolid"`

	// Once a milestone references it.
	Milestone uint32  `json:"referencedByMilestoneIndex,omitempty"`
	Index     *uint32 `json:"whiteFlagIndex,omitempty"`
	Inclusion string  `json:"ledgerInclusionState,omitempty"`
	Conflict  uint8   `json:"conflictReason,omitempty"`

	// Until then. Gateways refer to every tip, so that a client never has to.
	Promote  *bool `json:"shouldPromote,omitempty"`
	Reattach *bool `json:"shouldReattach,omitempty"`
}

// describe puts what the ledger knows of a block into the protocol's words.
// index is its place in the milestone, nil if that is not known.
func describe(id stardust.BlockID, m ledger.Metadata, index *uint32) blockMetadata {
	d := blockMetadata{ID: id, Parents: list(m.Parents), Solid: m.Solid}
	if m.Milestone == 0 {
		if id != stardust.GenesisID && m.Solid {
			d.Promote, d.Reattach = new(bool), new(bool)
		}
		return d
	}
	d.Milestone, d.Index = m.Milestone, index
	switch m.Inclusion {
	case consensus.NoTransaction:
		d.Inclusion = "noTransaction"
	case consensus.Included:
		d.Inclusion = "included"
	case consensus.Conflicting:
		d.Inclusion, d.Conflict = "conflicting", conflictOther
	}
	return d
}

// metadata answers what is known of a block.
func (s *Server) metadata(w http.ResponseWriter, r *http.Request) {
	id, ok := pathID(w, r)
	if !ok {
		return
	}
	d, err := lookUp(s.ledger, s.ledger, &s.orders, id)
	if err != nil {
		s.lookupError(w, id, err)
		return
	}
	writeJSON(w, http.StatusOK, d)
}

// lookUp returns what is known of a block.
func lookUp(blocks Blocks, milestones Milestones, o *orders, id stardust.BlockID) (blockMetadata, error) {
	m, err := blocks.Metadata(id)
	if err != nil || m.Milestone == 0 {
		return describe(id, m, nil), err
	}
	all, err := o.of(milestones, m.Milestone)
	if err != nil && !errors.Is(err, ledger.ErrNotFound) { // not kept here
		return blockMetadata{}, err
	}
	var index *uint32
	if i := indexOf(all, id); i >= 0 {
		n := uint32(i)
		index = &n
	}
	return describe(id, m, index), nil
}

func indexOf(all []consensus.Entry, id stardust.BlockID) int {
	return slices.IndexFunc(all, func(e consensus.Entry) bool { return e.ID == id })
}

// orders remembers what one milestone orders: clients ask for many blocks of
// it, and after an outage there are very many.
type orders struct {
	mu    sync.Mutex // guards what follows, and that one is read at a time
	index uint32     // 0: none
	all   []consensus.Entry
}

// of returns what the milestone orders, which must not be changed.
func (o *orders) of(m Milestones, index uint32) ([]consensus.Entry, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.index == index {
		return o.all, nil
	}
	all, err := m.Ordered(index)
	if err != nil {
		return nil, err
	}
	o.index, o.all = index, all
	return all, nil
}
