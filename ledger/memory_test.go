package ledger_test

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// memory is a ledger.Store without a disk.
type memory struct {
	refuse func() error // what Commit answers before it stores; nil: it stores

	mu    sync.RWMutex // guards what follows
	order []ledger.Entry
	at    map[stardust.BlockID]int // index in order
	marks []memoryMark             // ascending
	book  []ledger.Change          // without entries
	doubt error
}

type memoryMark struct {
	run   [2]uint64
	block stardust.BlockID
}

func newMemory() *memory { return &memory{at: map[stardust.BlockID]int{}} }

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
	e := m.order[i]
	return ledger.Record{Raw: e.Raw, Parents: e.Block.Parents, Attached: e.Attached.Truncate(time.Millisecond)}, nil
}

// entries returns the blocks in order of arrival.
func (m *memory) entries() []ledger.Entry {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.order[:len(m.order):len(m.order)]
}

func (m *memory) Order(after uint64, yield func(uint64, stardust.BlockID) bool) error {
	for i, e := range m.entries() {
		if uint64(i+1) > after && !yield(uint64(i+1), e.ID) {
			return nil
		}
	}
	return nil
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
	for i, e := range m.entries() {
		p, ok := e.Block.Payload.(*stardust.TaggedData)
		if ok && string(p.Tag) == string(tag) && uint64(i+1) > after && !yield(uint64(i+1), e.ID) {
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

func (m *memory) Count() (uint64, time.Time, error) {
	order := m.entries()
	if len(order) == 0 {
		return 0, time.Time{}, nil
	}
	return uint64(len(order)), order[len(order)-1].Attached.Truncate(time.Millisecond), nil
}
