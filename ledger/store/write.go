package store

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

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

	bodies        []uint64 // numbers of blocks with bodies in this transaction
	pruned        *pruned  // the record of pruning, in a state sync
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
	switch {
	case e.Block != nil:
		if err := w.block(e); err != nil {
			return err
		}
	case e.Stub != nil:
		if err := w.stub(e); err != nil {
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
	if w.pruned != nil {
		n, err := w.takeStub(e.ID)
		if err != nil {
			return err
		}
		b.number = cmp.Or(n, b.number)
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
	w.next, w.attached = max(w.next, b.number), b.attached
	w.numbers[b.id], w.bodies = b.number, append(w.bodies, b.number)
	return nil
}

// stub writes a block without a body.
func (w *writer) stub(e ledger.Entry) error {
	n := w.next + 1
	s := stub{id: e.ID, ordered: *e.Stub.Stub, inclusion: e.Stub.Inclusion}
	if err := w.set(stubKey(n), s.encode()); err != nil {
		return err
	}
	numbers, err := stubNumbers(w.txn, e.ID)
	if err != nil && !errors.Is(err, badger.ErrKeyNotFound) {
		return err
	}
	if err := w.set(stubIDKey(e.ID), encodeNumbers(append(numbers, n))); err != nil {
		return err
	}
	w.next, w.numbers[e.ID] = n, n
	w.pruned.bodies++
	return nil
}

// takeStub takes out the stub of a block whose body has come, and returns its
// number; 0: there is none.
func (w *writer) takeStub(id stardust.BlockID) (n uint64, err error) {
	n, _, err = findStub(w.txn, id)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	numbers, err := stubNumbers(w.txn, id)
	if err != nil {
		return 0, err
	}
	numbers = slices.DeleteFunc(numbers, func(m uint64) bool { return m == n })
	if len(numbers) == 0 {
		err = w.txn.Delete(stubIDKey(id))
	} else {
		err = w.set(stubIDKey(id), encodeNumbers(numbers))
	}
	w.pruned.bodies--
	return n, errors.Join(err, w.txn.Delete(stubKey(n)))
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

// forget forgets blocks that were deleted, by their numbers.
func (r *recent) forget(deleted []uint64) {
	for _, n := range deleted {
		if id := r.ring[n%recentNumbers]; r.numbers[id] == n {
			delete(r.numbers, id)
		}
	}
}
