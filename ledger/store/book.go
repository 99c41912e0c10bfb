package store

import (
	"encoding/binary"
	"errors"
	"maps"
	"math"
	"slices"

	"github.com/dgraph-io/badger/v4"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

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

// Syncing implements [ledger.Book].
func (s *Store) Syncing() (going bool, err error) {
	err = s.db.View(func(txn *badger.Txn) error {
		_, err := txn.Get([]byte{prefixSync})
		going = err == nil
		if errors.Is(err, badger.ErrKeyNotFound) {
			return nil
		}
		return err
	})
	return going, err
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

// Conflict implements [ledger.Book].
func (s *Store) Conflict() (index uint32, err error) {
	err = s.db.View(func(txn *badger.Txn) error {
		n, err := number(txn, []byte{prefixConflict})
		if err == nil && n > math.MaxUint32 {
			err = damaged("a milestone conflict at %d", n)
		}
		index = uint32(n)
		return err
	})
	return index, err
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
