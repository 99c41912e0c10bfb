package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/dgraph-io/badger/v4"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// A pruned is the decoded value of the record of pruning.
type pruned struct {
	bodies  uint64 // blocks that have become stubs
	loose   uint64 // blocks that were deleted before a milestone ordered them
	reached ledger.Reached
}

// gone returns the number of blocks without bodies, of those that came.
func (p *pruned) gone() uint64 { return p.bodies + p.loose }

func (p *pruned) reaches() [4]*ledger.Reach {
	r := &p.reached
	return [4]*ledger.Reach{&r.Votes, &r.Guests, &r.Blocks, &r.Stubs}
}

func (p *pruned) encode() []byte {
	b := binary.AppendUvarint(binary.AppendUvarint(nil, p.bodies), p.loose)
	for _, r := range p.reaches() {
		b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(r.Milestone)), uint64(r.Next))
	}
	return binary.AppendUvarint(b, uint64(p.reached.Synced))
}

func decodePruned(v []byte) (p pruned, err error) {
	fields := make([]uint64, 2+2*len(p.reaches())+1)
	rest := v
	for i := range fields {
		n, size := binary.Uvarint(rest)
		if size <= 0 || i > 1 && n>>32 != 0 {
			return p, damaged("record of pruning is %x", v)
		}
		fields[i], rest = n, rest[size:]
	}
	if len(rest) > 0 {
		return p, damaged("record of pruning is %x", v)
	}
	p.bodies, p.loose = fields[0], fields[1]
	for i, r := range p.reaches() {
		r.Milestone, r.Next = uint32(fields[2+2*i]), int(fields[3+2*i])
	}
	p.reached.Synced = uint32(fields[len(fields)-1])
	return p, nil
}

func loadPruned(txn *badger.Txn) (p pruned, err error) {
	v, err := get(txn, []byte{prefixPruned})
	if errors.Is(err, badger.ErrKeyNotFound) {
		return p, nil
	} else if err != nil {
		return p, err
	}
	return decodePruned(v)
}

// Pruned implements [ledger.Pruner].
func (s *Store) Pruned() (r ledger.Reached, err error) {
	err = s.db.View(func(txn *badger.Txn) error {
		p, err := loadPruned(txn)
		r = p.reached
		return err
	})
	return r, err
}

// Excess implements [ledger.Pruner].
func (s *Store) Excess() (int64, error) { return s.guard.excess() }

// Bodies implements [ledger.Pruner].
func (s *Store) Bodies(index uint32, from int, yield func(e consensus.Entry, raw []byte) bool) error {
	return s.db.View(func(txn *badger.Txn) error {
		list, err := milestoneList(txn, index)
		if errors.Is(err, ledger.ErrNotFound) {
			return nil
		} else if err != nil {
			return err
		}
		for _, p := range list[min(from, len(list)):] {
			e, raw, err := bodyOf(txn, p)
			if err != nil {
				return err
			}
			if !yield(e, raw) {
				return nil
			}
		}
		return nil
	})
}

// bodyOf returns a block of a list and, unless it is a stub, its bytes.
func bodyOf(txn *badger.Txn, p placed) (e consensus.Entry, raw []byte, err error) {
	v, err := get(txn, blockKey(p.number))
	if errors.Is(err, badger.ErrKeyNotFound) {
		id, err := lookID(txn, p.number)
		if errors.Is(err, badger.ErrKeyNotFound) {
			err = ledger.ErrNotFound // forgotten since the list was read
		}
		return consensus.Entry{ID: id, Inclusion: p.inclusion}, nil, err
	} else if err != nil {
		return e, nil, err
	}
	b, err := decodeBlock(p.number, v)
	if err != nil {
		return e, nil, err
	}
	parents, err := parentIDs(txn, b)
	if err != nil {
		return e, nil, err
	}
	return consensus.Entry{ID: b.id, Inclusion: p.inclusion}, b.raw(parents), nil
}

// Prune implements [ledger.Pruner].
func (s *Store) Prune(p ledger.Pruning) error {
	if n := len(p.Bodies) + len(p.Stubs) + len(p.Loose); n > ledger.MaxPruned {
		return fmt.Errorf("prune %d blocks: at most %d at once", n, ledger.MaxPruned)
	}
	if err := s.mayWrite(true); err != nil {
		return err
	}
	txn := s.db.NewTransaction(true)
	defer txn.Discard()
	w := &pruner{txn: txn, last: s.count.Load(), stubs: map[[stubIDSize]byte][]uint64{}}
	if err := w.step(&p); err != nil {
		return s.fail(fmt.Errorf("prune: %w", err))
	}
	if err := s.commit(txn); err != nil {
		return s.fail(fmt.Errorf("commit a step of pruning: %w", err))
	}
	s.pruned.Store(w.record.gone())
	s.recent.forget(w.deleted)
	s.advance(s.count.Load(), nil, w.deleted)
	s.guard.wrote(w.written)
	s.guard.pruned(w.freed)
	return nil
}

// A pruner fills one transaction of Prune. What depends on iterators is found out
// before anything is written: they cost more over what is not committed.
type pruner struct {
	txn            *badger.Txn
	record         pruned
	last           uint64 // number of the block that came last
	deleted        []uint64
	stubs          map[[stubIDSize]byte][]uint64 // index entries that change
	written, freed int
}

func (w *pruner) set(key, value []byte) error {
	w.written += len(key) + len(value)
	return w.txn.Set(key, value)
}

func (w *pruner) del(key []byte, value int) error {
	w.written += len(key)
	w.freed += len(key) + value
	return w.txn.Delete(key)
}

func (w *pruner) step(p *ledger.Pruning) (err error) {
	if w.record, err = loadPruned(w.txn); err != nil {
		return err
	}
	loose, err := w.looseStubs(p)
	if err != nil {
		return err
	}
	deletable, err := w.deletable(p.Loose)
	if err != nil {
		return err
	}
	for _, n := range deletable {
		if err := w.delete(n); err != nil {
			return fmt.Errorf("block %d: %w", n, err)
		}
	}
	for i := range p.Bodies {
		if err := w.body(&p.Bodies[i]); err != nil {
			return fmt.Errorf("block %v: %w", p.Bodies[i].ID, err)
		}
	}
	for _, id := range loose {
		if err := w.stub(id); err != nil {
			return fmt.Errorf("stub %v: %w", id, err)
		}
	}
	if err := w.stubIndex(); err != nil {
		return err
	}
	if err := w.milestones(p); err != nil {
		return err
	}
	w.record.reached = p.Reached
	return w.set([]byte{prefixPruned}, w.record.encode())
}

// deletable returns the numbers of those of the blocks that can be deleted.
func (w *pruner) deletable(ids []stardust.BlockID) (numbers []uint64, err error) {
	going := map[uint64]bool{}
	for _, id := range ids {
		n, err := keptNumber(w.txn, id)
		if errors.Is(err, badger.ErrKeyNotFound) || n == w.last {
			continue
		} else if err != nil {
			return nil, fmt.Errorf("number of block %v: %w", id, err)
		}
		_, err = w.txn.Get(orderedKey(n))
		needed := err == nil
		if err != nil && !errors.Is(err, badger.ErrKeyNotFound) {
			return nil, err
		}
		if err := childrenOf(w.txn, n, func(child uint64) bool {
			needed = needed || !going[child]
			return !needed
		}); err != nil {
			return nil, err
		}
		if !needed {
			going[n] = true
			numbers = append(numbers, n)
		}
	}
	return numbers, nil
}

// delete deletes a block that no milestone orders.
func (w *pruner) delete(n uint64) error {
	v, err := get(w.txn, blockKey(n))
	if err != nil {
		return err
	}
	b, err := decodeBlock(n, v)
	if err != nil {
		return err
	}
	parents, err := parentIDs(w.txn, b)
	if err != nil {
		return err
	}
	content, err := stardust.ParseBlock(b.raw(parents))
	if err != nil {
		return err
	}
	w.record.loose++
	w.deleted = append(w.deleted, n)
	return w.unlist(b, content, len(v))
}

// unlist deletes the body of a block and what leads to it.
func (w *pruner) unlist(b *block, content *stardust.Block, size int) error {
	n, keys := b.number, [][]byte{idKey(b.id)}
	for _, parent := range b.parents {
		keys = append(keys, childKey(parent>>bucketBits, n))
	}
	if t, ok := content.Payload.(*stardust.TaggedData); ok {
		keys = append(keys, tagKey(t.Tag, n))
	}
	for _, key := range keys {
		if err := w.del(key, 0); err != nil {
			return err
		}
	}
	return w.del(blockKey(n), size)
}

// looseStubs returns the stubs that nothing refers to any more after this step: those
// to be forgotten, and those that could not be before because of the bodies that
// go now.
func (w *pruner) looseStubs(p *ledger.Pruning) (ids []stardust.BlockID, err error) {
	going := map[uint64]bool{}
	candidates := slices.Clone(p.Stubs)
	for i := range p.Bodies {
		n, err := keptNumber(w.txn, p.Bodies[i].ID)
		if err != nil {
			return nil, fmt.Errorf("number of block %v: %w", p.Bodies[i].ID, err)
		}
		going[n] = true
		if w.record.reached.Stubs == (ledger.Reach{}) {
			continue
		}
		for _, id := range p.Bodies[i].Block.Parents {
			switch _, s, err := findStub(w.txn, id); {
			case errors.Is(err, badger.ErrKeyNotFound): // it has a body
			case err != nil:
				return nil, err
			case s.ordered.Milestone <= w.record.reached.Stubs.Milestone:
				candidates = append(candidates, id)
			}
		}
	}
	seen := map[stardust.BlockID]bool{}
	for _, id := range candidates {
		if seen[id] {
			continue
		}
		seen[id] = true
		n, _, err := findStub(w.txn, id)
		if errors.Is(err, badger.ErrKeyNotFound) {
			continue // forgotten before the list was
		} else if err != nil {
			return nil, err
		}
		needed := false
		if err := childrenOf(w.txn, n, func(child uint64) bool {
			needed = !going[child]
			return !needed
		}); err != nil {
			return nil, err
		}
		if !needed {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// body makes a stub of a block.
func (w *pruner) body(p *ledger.PrunedBody) error {
	n, err := keptNumber(w.txn, p.ID)
	if err != nil {
		return err
	}
	v, err := get(w.txn, blockKey(n))
	if err != nil {
		return err
	}
	b, err := decodeBlock(n, v)
	if err != nil {
		return err
	}
	at, err := get(w.txn, orderedKey(n))
	if err != nil {
		return fmt.Errorf("milestone that orders it: %w", err)
	}
	index, inclusion, err := decodeOrdered(at)
	if err != nil {
		return err
	}
	s := stub{id: p.ID, inclusion: inclusion}
	if s.ordered, err = consensus.OrderedBlock(p.Block, index); err != nil {
		return err
	}
	if err := w.set(stubKey(n), s.encode()); err != nil {
		return err
	}
	numbers, err := w.stubNumbers(p.ID)
	if err != nil {
		return err
	}
	w.stubs[[stubIDSize]byte(p.ID[:])] = append(numbers, n)
	w.record.bodies++
	if err := w.del(orderedKey(n), 0); err != nil {
		return err
	}
	return w.unlist(b, p.Block, len(v))
}

// stub forgets a stub.
func (w *pruner) stub(id stardust.BlockID) error {
	n, _, err := findStub(w.txn, id)
	if err != nil {
		return err
	}
	numbers, err := w.stubNumbers(id)
	if err != nil {
		return err
	}
	w.stubs[[stubIDSize]byte(id[:])] = slices.DeleteFunc(numbers, func(m uint64) bool { return m == n })
	return w.del(stubKey(n), len(id))
}

// stubNumbers is the function with that name after what this step changes.
func (w *pruner) stubNumbers(id stardust.BlockID) ([]uint64, error) {
	if numbers, ok := w.stubs[[stubIDSize]byte(id[:])]; ok {
		return numbers, nil
	}
	numbers, err := stubNumbers(w.txn, id)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, nil
	}
	return numbers, err
}

func (w *pruner) stubIndex() (err error) {
	for short, numbers := range w.stubs {
		key := append([]byte{prefixStubID}, short[:]...)
		if len(numbers) == 0 {
			err = w.del(key, 0)
		} else {
			err = w.set(key, encodeNumbers(numbers))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// milestones forgets signatures, lists and essences.
func (w *pruner) milestones(p *ledger.Pruning) error {
	keys := [][]byte{}
	for _, index := range p.Certificates {
		keys = append(keys, certKey(index))
	}
	for _, index := range p.Lists {
		chunks, err := listKeys(w.txn, index)
		if err != nil {
			return err
		}
		keys = append(keys, chunks...)
	}
	for _, index := range p.Milestones {
		e, _, err := loadMilestone(w.txn, index)
		if errors.Is(err, ledger.ErrNotFound) {
			continue
		} else if err != nil {
			return err
		}
		keys = append(keys, milestoneKey(index), certKey(index), milestoneIDKey(e.ID()))
	}
	for _, key := range keys {
		if err := w.del(key, 0); err != nil {
			return err
		}
	}
	return nil
}

// listKeys returns the keys of the list of a milestone.
func listKeys(txn *badger.Txn, index uint32) (keys [][]byte, err error) {
	for chunk := 0; ; chunk++ {
		key := listKey(index, chunk)
		if _, err := txn.Get(key); errors.Is(err, badger.ErrKeyNotFound) {
			return keys, nil
		} else if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
}
