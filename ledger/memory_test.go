package ledger_test

import (
	"errors"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// memory is a ledger.Store without a disk.
type memory struct {
	refuse func() error // what Commit answers before it stores; nil: it stores

	mu    sync.RWMutex // guards what follows
	order []ledger.Entry
	at    map[stardust.BlockID]int               // index in order
	marks []memoryMark                           // ascending
	book  []ledger.Change                        // without entries
	bare  map[stardust.BlockID]consensus.Ordered // stubs
	gone  ledger.Reached
	loose map[int]bool    // index in order of what was deleted
	lost  map[uint32]bool // milestones without signatures
	doubt error
}

type memoryMark struct {
	run   [2]uint64
	block stardust.BlockID
}

func newMemory() *memory {
	return &memory{at: map[stardust.BlockID]int{}, bare: map[stardust.BlockID]consensus.Ordered{}, lost: map[uint32]bool{}, loose: map[int]bool{}}
}

func (m *memory) Commit(c ledger.Change) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.doubt != nil {
		return m.doubt
	}
	if m.refuse != nil {
		if err := m.refuse(); err != nil {
			if !errors.Is(err, ledger.ErrBusy) {
				m.doubt = err
			}
			return err
		}
	}
	for _, e := range c.Entries {
		if e.Block != nil {
			m.at[e.ID] = len(m.order)
			e.Raw = slices.Clone(e.Raw)
			m.order = append(m.order, e)
		}
		for _, r := range e.Runs {
			m.marks = append(m.marks, memoryMark{r, e.ID})
		}
	}
	slices.SortFunc(m.marks, func(a, b memoryMark) int {
		if a.run[0] < b.run[0] {
			return -1
		}
		return 1
	})
	c.Entries = nil
	m.book = append(m.book, c)
	return nil
}

func (m *memory) Ready() error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.doubt == nil && m.refuse != nil {
		return m.refuse()
	}
	return m.doubt
}

func (m *memory) Has(id stardust.BlockID) (bool, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	_, ok := m.at[id]
	return ok, nil
}

func (m *memory) Load(id stardust.BlockID) (ledger.Record, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	i, ok := m.at[id]
	if !ok {
		return ledger.Record{}, ledger.ErrNotFound
	}
	if _, ok := m.bare[id]; ok {
		return ledger.Record{}, ledger.ErrPruned
	}
	e := m.order[i]
	return ledger.Record{Raw: e.Raw, Parents: e.Block.Parents, Attached: e.Attached.Truncate(time.Millisecond)}, nil
}

// entries yields the blocks with bodies in order of arrival, with their
// positions.
func (m *memory) entries() iter.Seq2[uint64, ledger.Entry] {
	m.mu.RLock()
	order, bare, loose := m.order[:len(m.order):len(m.order)], maps.Clone(m.bare), maps.Clone(m.loose)
	m.mu.RUnlock()
	return func(yield func(uint64, ledger.Entry) bool) {
		for i, e := range order {
			if _, ok := bare[e.ID]; !ok && !loose[i] && !yield(uint64(i+1), e) {
				return
			}
		}
	}
}

func (m *memory) Order(after uint64, yield func(uint64, stardust.BlockID) bool) error {
	for at, e := range m.entries() {
		if at > after && !yield(at, e.ID) {
			return nil
		}
	}
	return nil
}

func (m *memory) At(position uint64) (stardust.BlockID, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if position == 0 || position > uint64(len(m.order)) || m.loose[int(position-1)] {
		return stardust.GenesisID, ledger.ErrNotFound
	}
	return m.order[position-1].ID, nil
}

func (m *memory) ID() [8]byte { return [8]byte{1} }

func (m *memory) Children(id stardust.BlockID, yield func(stardust.BlockID) bool) error {
	for _, e := range m.entries() {
		if slices.Contains(e.Block.Parents, id) && !yield(e.ID) {
			return nil
		}
	}
	return nil
}

func (m *memory) Tagged(tag []byte, after uint64, yield func(uint64, stardust.BlockID) bool) error {
	for at, e := range m.entries() {
		p, ok := e.Block.Payload.(*stardust.TaggedData)
		if ok && string(p.Tag) == string(tag) && at > after && !yield(at, e.ID) {
			return nil
		}
	}
	return nil
}

func (m *memory) Marks(from uint64, yield func([2]uint64, stardust.BlockID) bool) error {
	m.mu.RLock()
	marks := slices.Clone(m.marks)
	m.mu.RUnlock()
	for _, k := range marks {
		if k.run[1] >= from && !yield(k.run, k.block) {
			return nil
		}
	}
	return nil
}

func (m *memory) IDs(yield func(stardust.BlockID) bool) error {
	var ids []stardust.BlockID
	for _, e := range m.entries() {
		ids = append(ids, e.ID)
	}
	for _, id := range stardust.SortParents(ids) {
		if !yield(id) {
			return nil
		}
	}
	return nil
}

func (m *memory) Count() (position, pruned uint64, last time.Time, err error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if n := len(m.order); n > 0 {
		last = m.order[n-1].Attached.Truncate(time.Millisecond)
	}
	return uint64(len(m.order)), uint64(len(m.bare) + len(m.loose)), last, nil
}

func (m *memory) Prune(p ledger.Pruning) error {
	at := make([]ledger.Placement, len(p.Bodies))
	for i, b := range p.Bodies {
		at[i], _ = m.Ordered(b.ID)
	}
	var loose []stardust.BlockID
	for _, id := range p.Loose {
		needed := false
		_ = m.Children(id, func(child stardust.BlockID) bool {
			needed = !slices.Contains(loose, child)
			return !needed
		})
		if at, _ := m.Ordered(id); at.Milestone == 0 && !needed {
			loose = append(loose, id)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range loose {
		m.loose[m.at[id]] = true
		delete(m.at, id)
	}
	for i, b := range p.Bodies {
		o, err := consensus.OrderedBlock(b.Block, at[i].Milestone)
		if err != nil {
			return err
		}
		m.bare[b.ID] = o
	}
	for _, index := range p.Certificates {
		m.lost[index] = true
	}
	m.gone = p.Reached // it is never so old that stubs go
	return nil
}

func (m *memory) Pruned() (ledger.Reached, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.gone, nil
}

func (m *memory) Excess() (int64, error) { return 0, nil }

func (m *memory) Bodies(index uint32, from int, yield func(consensus.Entry, []byte) bool) error {
	entries, err := m.MilestoneBlocks(index)
	for _, e := range entries[min(from, len(entries)):] {
		rec, _ := m.Load(e.ID) // none of a stub
		if !yield(e, rec.Raw) {
			break
		}
	}
	return err
}
