package store

import (
	"encoding/binary"
	"fmt"

	"github.com/dgraph-io/badger/v4"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// A writer fills one transaction.
type writer struct {
	txn      *badger.Txn
	next     uint64                      // number of the last block written
	attached int64                       // when, Unix ms; 0: no block written
	numbers  map[stardust.BlockID]uint64 // of blocks in this transaction
	recent   *recent                     // of blocks before it
	bytes    int                         // of keys and values

	low           uint64   // no block below it is unordered
	ordered       []uint64 // what the milestones in this transaction order
	lastMilestone uint32   // in this transaction; 0: none
}

func (s *Store) writer(txn *badger.Txn) *writer {
	return &writer{txn: txn, next: s.count.Load(), numbers: map[stardust.BlockID]uint64{}, recent: &s.recent, low: s.low}
}

func (w *writer) set(key, value []byte) error {
	w.bytes += len(key) + len(value)
	return w.txn.Set(key, value)
}

func (w *writer) number(id stardust.BlockID) (uint64, error) {
	if n, ok := w.numbers[id]; ok {
		return n, nil
	}
	if n, ok := w.recent.number(id); ok {
		return n, nil
	}
	n, err := numberOf(w.txn, id)
	if err != nil {
		return 0, fmt.Errorf("number of block %v: %w", id, err)
	}
	return n, nil
}

func (w *writer) entry(e ledger.Entry) error {
	if e.Block != nil {
		if err := w.block(e); err != nil {
			return err
		}
	}
	if len(e.Runs) == 0 {
		return nil
	}
	n, err := w.number(e.ID)
	if err != nil {
		return err
	}
	for _, r := range e.Runs {
		value := binary.AppendUvarint(binary.AppendUvarint(nil, r[1]-r[0]), n)
		if err := w.set(markKey(r[1]), value); err != nil {
			return err
		}
	}
	return nil
}

// block writes a block and its place in the indexes.
func (w *writer) block(e ledger.Entry) error {
	b := block{
		number:   w.next + 1,
		attached: max(e.Attached.UnixMilli(), 1), // a clock before 1970 must not wrap
		id:       e.ID,
		version:  e.Block.Version,
		parents:  make([]uint64, len(e.Block.Parents)),
		rest:     e.Raw[2+len(e.Block.Parents)*len(e.ID):],
	}
	children := map[uint64][]byte{} // bucket to parents' low bits
	for i, id := range e.Block.Parents {
		p, err := w.number(id)
		if err != nil {
			return err
		}
		b.parents[i] = p
		bucket := p >> bucketBits
		children[bucket] = append(children[bucket], byte(p&(1<<bucketBits-1)))
	}
	if err := w.set(blockKey(b.number), b.encode()); err != nil {
		return err
	}
	if err := w.set(idKey(b.id), binary.AppendUvarint(nil, b.number)); err != nil {
		return err
	}
	for bucket, low := range children {
		if err := w.set(childKey(bucket, b.number), low); err != nil {
			return err
		}
	}
	if p, ok := e.Block.Payload.(*stardust.TaggedData); ok {
		if err := w.set(tagKey(p.Tag, b.number), nil); err != nil {
			return err
		}
	}
	w.next, w.attached = b.number, b.attached
	w.numbers[b.id] = b.number
	return nil
}

// recentNumbers is how many of the newest blocks a store knows the numbers of:
// most parents, and what the next milestones order, are among them.
const recentNumbers = 4096

// A recent remembers the numbers of the newest blocks. It is used by the caller
// of Commit.
type recent struct {
	numbers map[stardust.BlockID]uint64
	ring    [recentNumbers]stardust.BlockID // by number
}

func (r *recent) number(id stardust.BlockID) (n uint64, ok bool) {
	n, ok = r.numbers[id]
	return n, ok
}

func (r *recent) add(numbers map[stardust.BlockID]uint64) {
	if r.numbers == nil {
		r.numbers = make(map[stardust.BlockID]uint64, recentNumbers)
	}
	for id, n := range numbers {
		old := &r.ring[n%recentNumbers]
		delete(r.numbers, *old)
		*old = id
		r.numbers[id] = n
	}
}
