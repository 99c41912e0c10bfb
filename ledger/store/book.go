package store

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/dgraph-io/badger/v4"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

const (
	// chunkBlocks is how many blocks of a milestone one transaction, and one
	// value, takes.
	chunkBlocks = 2048
	// chunkBytes is how much of a network file one value takes.
	chunkBytes = 32 << 10

	signatureSize = 32 + 64
)

func milestoneKey(index uint32) []byte { return appendNumber([]byte{prefixMilestone}, uint64(index)) }

func listKey(index uint32, chunk int) []byte {
	return appendNumber(listPrefix(index), uint64(chunk))
}

func listPrefix(index uint32) []byte { return appendNumber([]byte{prefixList}, uint64(index)) }

func milestoneIDKey(id [32]byte) []byte { return append([]byte{prefixMilestoneID}, id[:8]...) }

func certKey(index uint32) []byte { return appendNumber([]byte{prefixCert}, uint64(index)) }

func orderedKey(n uint64) []byte { return appendNumber([]byte{prefixOrdered}, n) }

func equivocationKey(k network.PublicKey) []byte { return append([]byte{prefixEquivocation}, k[:]...) }

func networkKey(epoch uint32, chunk int) []byte {
	return appendNumber(networkPrefix(epoch), uint64(chunk))
}

func networkPrefix(epoch uint32) []byte { return appendNumber([]byte{prefixNetwork}, uint64(epoch)) }

// A placed is a block and what a milestone did with it.
type placed struct {
	number    uint64
	inclusion consensus.Inclusion
}

// appendPlaced appends blocks of a list: each the difference of its number from
// the one before, zigzag, times 4 plus its inclusion.
func appendPlaced(dst []byte, before uint64, list []placed) []byte {
	for _, p := range list {
		diff := int64(p.number - before)
		zigzag := uint64(diff<<1) ^ uint64(diff>>63)
		dst = binary.AppendUvarint(dst, zigzag<<2|uint64(p.inclusion))
		before = p.number
	}
	return dst
}

func cutPlaced(b []byte, before uint64) (p placed, rest []byte, err error) {
	v, size := binary.Uvarint(b)
	if size <= 0 || v&3 > uint64(consensus.Conflicting) {
		return p, nil, damaged("list of a milestone goes on with %.16x", b)
	}
	zigzag := v >> 2
	diff := int64(zigzag>>1) ^ -int64(zigzag&1)
	return placed{before + uint64(diff), consensus.Inclusion(v & 3)}, b[size:], nil
}

// decodeOrdered reads the value of an ordered key.
func decodeOrdered(v []byte) (index uint32, inclusion consensus.Inclusion, err error) {
	n, size := binary.Uvarint(v)
	if size != len(v) || n>>2 == 0 || n>>34 != 0 || n&3 > uint64(consensus.Conflicting) {
		return 0, 0, damaged("block is ordered by %x", v)
	}
	return uint32(n >> 2), consensus.Inclusion(n & 3), nil
}

// encodeOwn is the value of the record of own votes:
// version 1 | epoch u32 | opened u32 | head 32 | flags (1 recovering, 2 sticky).
func encodeOwn(d *consensus.Durable) []byte {
	b := binary.LittleEndian.AppendUint32([]byte{1}, d.Epoch)
	b = binary.LittleEndian.AppendUint32(b, d.Opened)
	b = append(b, d.Head[:]...)
	var flags byte
	if d.Recovering {
		flags |= 1
	}
	if d.Sticky {
		flags |= 2
	}
	return append(b, flags)
}

func decodeOwn(v []byte) (*consensus.Durable, error) {
	if len(v) != 42 || v[0] != 1 || v[41] > 3 {
		return nil, damaged("record of own votes is %x", v)
	}
	d := &consensus.Durable{
		Epoch: binary.LittleEndian.Uint32(v[1:]), Opened: binary.LittleEndian.Uint32(v[5:]),
		Recovering: v[41]&1 != 0, Sticky: v[41]&2 != 0,
	}
	copy(d.Head[:], v[9:])
	return d, nil
}

// startBook reads how far the milestones have come.
func (s *Store) startBook(txn *badger.Txn) error {
	last, err := lastNumber(txn, prefixMilestone)
	if err != nil {
		return err
	}
	s.milestone.Store(uint32(last))
	certified, err := number(txn, []byte{prefixCertified})
	if err != nil {
		return err
	}
	s.certified.Store(uint32(certified))
	s.low, err = number(txn, []byte{prefixLow})
	s.low = max(s.low, 1)
	s.open = map[uint64]bool{}
	if err != nil {
		return err
	}
	return scan(txn, []byte{prefixBlock}, blockKey(s.low), func(key, _ []byte) (bool, error) {
		n, _, err := cutNumber(key[1:])
		if err != nil {
			return false, err
		}
		at, err := s.orderedBy(txn, n)
		if err == nil && at.Milestone == 0 {
			s.open[n] = true
		}
		return true, err
	})
}

// lastNumber returns the number of the last key with this first byte; 0: there
// is none.
func lastNumber(txn *badger.Txn, prefix byte) (uint64, error) {
	it := txn.NewIterator(badger.IteratorOptions{Reverse: true})
	defer it.Close()
	it.Seek([]byte{prefix + 1})
	if it.Valid() && it.Item().Key()[0] == prefix+1 {
		it.Next()
	}
	if !it.Valid() || it.Item().Key()[0] != prefix {
		return 0, nil
	}
	n, rest, err := cutNumber(it.Item().Key()[1:])
	if err != nil || len(rest) > 0 {
		return 0, damaged("key %x", it.Item().Key())
	}
	return n, nil
}

// number reads a value that is a number; 0: it is not there.
func number(txn *badger.Txn, key []byte) (uint64, error) {
	v, err := get(txn, key)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	n, size := binary.Uvarint(v)
	if size != len(v) {
		return 0, damaged("value of key %x is %x", key, v)
	}
	return n, nil
}

// Last implements [ledger.Book].
func (s *Store) Last() (milestone, certified uint32) {
	return s.milestone.Load(), s.certified.Load()
}

// Milestone implements [ledger.Book].
func (s *Store) Milestone(index uint32) (e consensus.Essence, signatures []consensus.Signature, err error) {
	err = s.db.View(func(txn *badger.Txn) error {
		e, signatures, err = loadMilestone(txn, index)
		return err
	})
	return e, signatures, err
}

func loadMilestone(txn *badger.Txn, index uint32) (e consensus.Essence, signatures []consensus.Signature, err error) {
	v, err := get(txn, milestoneKey(index))
	if errors.Is(err, badger.ErrKeyNotFound) {
		return e, nil, ledger.ErrNotFound
	} else if err != nil {
		return e, nil, err
	}
	e, rest, err := consensus.ParseEssence(v)
	if err != nil || len(rest) > 0 || e.Index != index {
		return e, nil, damaged("milestone %d is %.64x", index, v)
	}
	if v, err = get(txn, certKey(index)); errors.Is(err, badger.ErrKeyNotFound) {
		return e, nil, nil
	} else if err != nil {
		return e, nil, err
	}
	if len(v) == 0 || len(v)%signatureSize != 0 {
		return e, nil, damaged("certificate of milestone %d has %d bytes", index, len(v))
	}
	id := e.ID()
	for ; len(v) > 0; v = v[signatureSize:] {
		sig := consensus.Signature{Index: index, Milestone: id}
		copy(sig.PublicKey[:], v)
		copy(sig.Signature[:], v[32:])
		signatures = append(signatures, sig)
	}
	return e, signatures, nil
}

// MilestoneIndex implements [ledger.Book].
func (s *Store) MilestoneIndex(id [32]byte) (index uint32, err error) {
	err = s.db.View(func(txn *badger.Txn) error {
		n, err := number(txn, milestoneIDKey(id))
		if err != nil {
			return err
		}
		e, _, err := loadMilestone(txn, uint32(n))
		if err == nil && e.ID() != id {
			return ledger.ErrNotFound
		}
		index = e.Index
		return err
	})
	return index, err
}

// MilestoneBlocks implements [ledger.Book].
func (s *Store) MilestoneBlocks(index uint32) (entries []consensus.Entry, err error) {
	err = s.db.View(func(txn *badger.Txn) error {
		list, err := milestoneList(txn, index)
		if err != nil {
			return err
		}
		for _, p := range list {
			id, err := lookID(txn, p.number)
			if errors.Is(err, badger.ErrKeyNotFound) {
				return ledger.ErrNotFound // pruning is half through with it
			} else if err != nil {
				return err
			}
			entries = append(entries, consensus.Entry{ID: id, Inclusion: p.inclusion})
		}
		return nil
	})
	return entries, err
}

// milestoneList returns the blocks of a milestone by number.
func milestoneList(txn *badger.Txn, index uint32) (list []placed, err error) {
	if _, err := get(txn, milestoneKey(index)); errors.Is(err, badger.ErrKeyNotFound) {
		return nil, ledger.ErrNotFound
	} else if err != nil {
		return nil, err
	}
	before := uint64(0)
	prefix := listPrefix(index)
	err = scan(txn, prefix, prefix, func(_, v []byte) (bool, error) {
		for len(v) > 0 {
			p, rest, err := cutPlaced(v, before)
			if err != nil {
				return false, err
			}
			list, before, v = append(list, p), p.number, rest
		}
		return true, nil
	})
	return list, err
}

// Ordered implements [ledger.Book].
func (s *Store) Ordered(id stardust.BlockID) (at ledger.Placement, err error) {
	if id == stardust.GenesisID {
		return at, nil
	}
	err = s.db.View(func(txn *badger.Txn) error {
		n, err := keptNumber(txn, id)
		if err == nil {
			at, err = s.orderedBy(txn, n)
			return err
		}
		if !errors.Is(err, badger.ErrKeyNotFound) {
			return err
		}
		_, st, err := findStub(txn, id)
		if err == nil {
			at = ledger.Placement{Milestone: st.ordered.Milestone, Inclusion: st.inclusion, Stub: &st.ordered}
		}
		return err
	})
	if errors.Is(err, badger.ErrKeyNotFound) {
		return ledger.Placement{}, nil
	}
	return at, err
}

// orderedBy returns the milestone that orders block n, which has a body; none if
// none does. What a milestone that is not complete has written does not count.
func (s *Store) orderedBy(txn *badger.Txn, n uint64) (at ledger.Placement, err error) {
	v, err := get(txn, orderedKey(n))
	if errors.Is(err, badger.ErrKeyNotFound) {
		return at, nil
	} else if err != nil {
		return at, err
	}
	index, inclusion, err := decodeOrdered(v)
	if err != nil || index > s.milestone.Load() {
		return at, err
	}
	return ledger.Placement{Milestone: index, Inclusion: inclusion}, nil
}

// Unordered implements [ledger.Book].
func (s *Store) Unordered(from uint32, yield func(id stardust.BlockID, raw []byte) bool) error {
	return s.db.View(func(txn *badger.Txn) error {
		numbers := slices.Collect(maps.Keys(s.open))
		for index := from; index > 0 && index <= s.milestone.Load(); index++ {
			list, err := milestoneList(txn, index)
			if err != nil {
				return err
			}
			for _, p := range list {
				numbers = append(numbers, p.number)
			}
		}
		slices.Sort(numbers)
		for _, n := range numbers {
			b, err := loadBlock(txn, n)
			if err != nil {
				return err
			}
			parents, err := parentIDs(txn, b)
			if err != nil {
				return err
			}
			if !yield(b.id, b.raw(parents)) {
				return nil
			}
		}
		return nil
	})
}

// Own implements [ledger.Book].
func (s *Store) Own() (d *consensus.Durable, err error) {
	err = s.db.View(func(txn *badger.Txn) error {
		v, err := get(txn, []byte{prefixOwn})
		if errors.Is(err, badger.ErrKeyNotFound) {
			return nil
		} else if err != nil {
			return err
		}
		d, err = decodeOwn(v)
		return err
	})
	return d, err
}

// Equivocations implements [ledger.Book].
func (s *Store) Equivocations() (all []consensus.Equivocation, err error) {
	prefix := []byte{prefixEquivocation}
	err = s.db.View(func(txn *badger.Txn) error {
		return scan(txn, prefix, prefix, func(key, v []byte) (bool, error) {
			var e consensus.Equivocation
			if len(key) != 1+len(e.Key) || len(v) != 4+4+2*len(e.First) {
				return false, damaged("proof of equivocation %x: %x", key, v)
			}
			copy(e.Key[:], key[1:])
			e.Epoch, e.Round = binary.LittleEndian.Uint32(v), binary.LittleEndian.Uint32(v[4:])
			copy(e.Second[:], v[8+copy(e.First[:], v[8:]):])
			all = append(all, e)
			return true, nil
		})
	})
	return all, err
}

// Networks implements [ledger.Book].
func (s *Store) Networks() (files []*network.File, err error) {
	err = s.db.View(func(txn *badger.Txn) error {
		for {
			var raw []byte
			prefix := networkPrefix(uint32(len(files)))
			if err := scan(txn, prefix, prefix, func(_, v []byte) (bool, error) {
				raw = append(raw, v...)
				return true, nil
			}); err != nil || raw == nil {
				return err
			}
			f, err := network.Parse(raw)
			if err != nil {
				return damaged("network file of epoch %d: %v", len(files), err)
			}
			files = append(files, f)
		}
	})
	return files, err
}

// book writes what a change says of the agreement, but for the blocks of
// milestones that [Store.spill] has written.
func (w *writer) book(c *ledger.Change) error {
	if c.Own != nil {
		if err := w.set([]byte{prefixOwn}, encodeOwn(c.Own)); err != nil {
			return err
		}
	}
	for i := range c.Milestones {
		if err := w.milestone(&c.Milestones[i]); err != nil {
			return fmt.Errorf("milestone %d: %w", c.Milestones[i].Index, err)
		}
	}
	for _, cert := range c.Certificates {
		v := make([]byte, 0, len(cert.Signatures)*signatureSize)
		for _, sig := range cert.Signatures {
			v = append(append(v, sig.PublicKey[:]...), sig.Signature[:]...)
		}
		if err := w.set(certKey(cert.Index), v); err != nil {
			return err
		}
	}
	if c.Certified > 0 {
		if err := w.set([]byte{prefixCertified}, binary.AppendUvarint(nil, uint64(c.Certified))); err != nil {
			return err
		}
	}
	for _, e := range c.Equivocation {
		v := binary.LittleEndian.AppendUint32(nil, e.Epoch)
		v = binary.LittleEndian.AppendUint32(v, e.Round)
		v = append(append(v, e.First[:]...), e.Second[:]...)
		if err := w.set(equivocationKey(e.Key), v); err != nil {
			return err
		}
	}
	if len(c.Milestones) > 0 { // as it was before: it only says where a start has to look
		if err := w.set([]byte{prefixLow}, binary.AppendUvarint(nil, w.low)); err != nil {
			return err
		}
	}
	return w.networks(c.Networks)
}

func (w *writer) networks(files []*network.File) error {
	for _, f := range files {
		raw, err := json.Marshal(f)
		if err != nil {
			return err
		}
		for chunk := 0; len(raw) > 0; chunk++ {
			n := min(len(raw), chunkBytes)
			if err := w.set(networkKey(f.Epoch, chunk), raw[:n]); err != nil {
				return err
			}
			raw = raw[n:]
		}
	}
	return nil
}

// milestone writes a milestone whose last blocks are in this transaction.
func (w *writer) milestone(m *consensus.Milestone) error {
	if err := w.set(milestoneKey(m.Index), m.AppendBinary(nil)); err != nil {
		return err
	}
	if err := w.set(milestoneIDKey(m.ID()), binary.AppendUvarint(nil, uint64(m.Index))); err != nil {
		return err
	}
	w.lastMilestone = m.Index
	first := len(m.Blocks) / chunkBlocks * chunkBlocks
	return w.order(m, first, len(m.Blocks))
}

// order writes that the milestone orders its blocks from one index to another,
// at most [chunkBlocks] of them.
func (w *writer) order(m *consensus.Milestone, from, to int) error {
	list, before := make([]placed, 0, to-from), uint64(0)
	if from > 0 {
		n, err := w.number(m.Blocks[from-1].ID)
		if err != nil {
			return err
		}
		before = n
	}
	for _, e := range m.Blocks[from:to] {
		n, err := w.number(e.ID)
		if err != nil {
			return err
		}
		list = append(list, placed{n, e.Inclusion})
		v := binary.AppendUvarint(nil, uint64(m.Index)<<2|uint64(e.Inclusion))
		if err := w.set(orderedKey(n), v); err != nil {
			return err
		}
		w.ordered = append(w.ordered, n)
	}
	if len(list) == 0 {
		return nil
	}
	return w.set(listKey(m.Index, from/chunkBlocks), appendPlaced(nil, before, list))
}

func blocksOf(milestones []consensus.Milestone) (n int) {
	for i := range milestones {
		n += len(milestones[i].Blocks)
	}
	return n
}

// spill writes the blocks of milestones that one transaction cannot take,
// in several. Nobody reads that before the milestone itself is there: after a
// crash in between the same is written again.
func (s *Store) spill(milestones []consensus.Milestone) (ordered []uint64, err error) {
	for i := range milestones {
		m := &milestones[i]
		for from := 0; from+chunkBlocks <= len(m.Blocks); from += chunkBlocks {
			txn := s.db.NewTransaction(true)
			w := s.writer(txn)
			err := w.order(m, from, from+chunkBlocks)
			if err == nil {
				err = s.commit(txn)
			}
			txn.Discard()
			if err != nil {
				return nil, fmt.Errorf("write blocks %d and on of milestone %d: %w", from, m.Index, err)
			}
			s.guard.wrote(w.bytes)
			ordered = append(ordered, w.ordered...)
		}
	}
	return ordered, nil
}

// advance takes note of blocks that were stored, up to the last one, and of
// those that milestones have ordered.
func (s *Store) advance(last uint64, numbers map[stardust.BlockID]uint64, ordered []uint64) {
	for _, n := range numbers {
		s.open[n] = true
	}
	for _, n := range ordered {
		delete(s.open, n)
	}
	for s.low <= last && !s.open[s.low] {
		s.low++
	}
}
