package ledger_test

import (
	"slices"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// changes returns what was agreed, in the order of its storing.
func (m *memory) changes() []ledger.Change {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.book[:len(m.book):len(m.book)]
}

func (m *memory) Last() (milestone, certified uint32) {
	for _, c := range m.changes() {
		milestone += uint32(len(c.Milestones))
		certified = max(certified, c.Certified)
	}
	return milestone, certified
}

// find returns the milestone that ok holds for.
func (m *memory) find(ok func(*consensus.Milestone) bool) *consensus.Milestone {
	for _, c := range m.changes() {
		for i := range c.Milestones {
			if ok(&c.Milestones[i]) {
				return &c.Milestones[i]
			}
		}
	}
	return nil
}

func (m *memory) index(index uint32) *consensus.Milestone {
	return m.find(func(k *consensus.Milestone) bool { return k.Index == index })
}

func (m *memory) Milestone(index uint32) (e consensus.Essence, signatures []consensus.Signature, err error) {
	k := m.index(index)
	if k == nil {
		return e, nil, ledger.ErrNotFound
	}
	for _, c := range m.changes() {
		for _, cert := range c.Certificates {
			if cert.Index == index && !m.isLost(index) {
				signatures = cert.Signatures
			}
		}
	}
	return k.Essence, signatures, nil
}

func (m *memory) isLost(index uint32) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.lost[index]
}

func (m *memory) MilestoneIndex(id [32]byte) (uint32, error) {
	k := m.find(func(k *consensus.Milestone) bool { return k.ID() == id })
	if k == nil {
		return 0, ledger.ErrNotFound
	}
	return k.Index, nil
}

func (m *memory) MilestoneBlocks(index uint32) ([]consensus.Entry, error) {
	k := m.index(index)
	if k == nil {
		return nil, ledger.ErrNotFound
	}
	return k.Blocks, nil
}

func (m *memory) Ordered(id stardust.BlockID) (at ledger.Placement, err error) {
	m.find(func(k *consensus.Milestone) bool {
		i := slices.IndexFunc(k.Blocks, func(e consensus.Entry) bool { return e.ID == id })
		if i >= 0 {
			at = ledger.Placement{Milestone: k.Index, Inclusion: k.Blocks[i].Inclusion}
		}
		return i >= 0
	})
	m.mu.RLock()
	defer m.mu.RUnlock()
	if o, ok := m.bare[id]; ok {
		at.Stub = &o
	}
	return at, nil
}

func (m *memory) Unordered(from uint32, yield func(stardust.BlockID, []byte) bool) error {
	for _, e := range m.entries() {
		if at, _ := m.Ordered(e.ID); (at.Milestone == 0 || at.Milestone >= from) && !yield(e.ID, e.Raw) {
			return nil
		}
	}
	return nil
}

func (m *memory) Syncing() (bool, error) { return false, nil }

func (m *memory) Own() (own *consensus.Durable, err error) {
	for _, c := range m.changes() {
		if c.Own != nil {
			own = c.Own
		}
	}
	return own, nil
}

func (m *memory) Conflict() (index uint32, err error) {
	for _, c := range m.changes() {
		if c.Conflict != nil {
			index = *c.Conflict
		}
	}
	return index, nil
}

func (m *memory) Equivocations() (all []consensus.Equivocation, err error) {
	for _, c := range m.changes() {
		all = append(all, c.Equivocation...)
	}
	return all, nil
}

func (m *memory) Networks() (files []*network.File, err error) {
	for _, c := range m.changes() {
		files = append(files, c.Networks...)
	}
	return files, nil
}
