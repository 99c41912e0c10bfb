package store

import (
	"errors"
	"slices"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// Has implements [ledger.Store].
func (s *Store) Has(id stardust.BlockID) (ok bool, err error) {
	err = s.db.View(func(txn *badger.Txn) error {
		_, err := numberOf(txn, id)
		ok = err == nil && id != stardust.GenesisID
		if errors.Is(err, badger.ErrKeyNotFound) {
			return nil
		}
		return err
	})
	return ok, err
}

// At implements [ledger.Store].
func (s *Store) At(position uint64) (id stardust.BlockID, err error) {
	if position == 0 {
		return id, ledger.ErrNotFound
	}
	err = s.db.View(func(txn *badger.Txn) error {
		id, err = lookID(txn, position)
		return err
	})
	if errors.Is(err, badger.ErrKeyNotFound) {
		err = ledger.ErrNotFound
	}
	return id, err
}

// Load implements [ledger.Store].
func (s *Store) Load(id stardust.BlockID) (rec ledger.Record, err error) {
	err = s.db.View(func(txn *badger.Txn) error {
		n, err := keptNumber(txn, id)
		if errors.Is(err, badger.ErrKeyNotFound) {
			if _, _, err = findStub(txn, id); err == nil {
				return ledger.ErrPruned
			} else if errors.Is(err, badger.ErrKeyNotFound) {
				return ledger.ErrNotFound
			}
		}
		if err != nil {
			return err
		}
		b, err := loadBlock(txn, n)
		if err != nil {
			return err
		}
		parents, err := parentIDs(txn, b)
		if err != nil {
			return err
		}
		rec = ledger.Record{Raw: b.raw(parents), Parents: parents, Attached: time.UnixMilli(b.attached)}
		return nil
	})
	return rec, err
}

func parentIDs(txn *badger.Txn, b *block) ([]stardust.BlockID, error) {
	ids := make([]stardust.BlockID, len(b.parents))
	for i, p := range b.parents {
		var err error
		if ids[i], err = idOf(txn, p); err != nil {
			return nil, err
		}
	}
	return ids, nil
}

// Children implements [ledger.Store].
func (s *Store) Children(id stardust.BlockID, yield func(stardust.BlockID) bool) error {
	return s.db.View(func(txn *badger.Txn) error {
		parent, err := numberOf(txn, id)
		if errors.Is(err, badger.ErrKeyNotFound) {
			return nil
		} else if err != nil {
			return err
		}
		var failure error
		err = childrenOf(txn, parent, func(child uint64) bool {
			id, err := idOf(txn, child)
			failure = err
			return err == nil && yield(id)
		})
		return errors.Join(err, failure)
	})
}

// childrenOf yields the numbers of the children of a block.
func childrenOf(txn *badger.Txn, parent uint64, yield func(child uint64) bool) error {
	low := byte(parent & (1<<bucketBits - 1))
	prefix := childPrefix(parent >> bucketBits)
	return scan(txn, prefix, prefix, func(key, value []byte) (bool, error) {
		if !slices.Contains(value, low) {
			return true, nil
		}
		child, _, err := cutNumber(key[len(prefix):])
		return err == nil && yield(child), err
	})
}

// Tagged implements [ledger.Store].
func (s *Store) Tagged(tag []byte, after uint64, yield func(uint64, stardust.BlockID) bool) error {
	if len(tag) > stardust.MaxTag || after+1 == 0 {
		return nil
	}
	return s.db.View(func(txn *badger.Txn) error {
		prefix := tagPrefix(tag)
		return scan(txn, prefix, tagKey(tag, after+1), func(key, _ []byte) (bool, error) {
			n, _, err := cutNumber(key[len(prefix):])
			if err != nil {
				return false, err
			}
			id, err := idOf(txn, n)
			return err == nil && yield(n, id), err
		})
	})
}

// Marks implements [ledger.Store].
func (s *Store) Marks(from uint64, yield func([2]uint64, stardust.BlockID) bool) error {
	return s.db.View(func(txn *badger.Txn) error {
		ids := idReader{txn: txn}
		defer ids.close()
		// Keys are the last numbers of runs: the first key at or above from
		// belongs to the run that contains it, or to the next one.
		return scan(txn, []byte{prefixMark}, markKey(from), func(key, value []byte) (bool, error) {
			run, n, err := decodeMark(key, value)
			if err != nil {
				return false, err
			}
			id, err := ids.id(n)
			return err == nil && yield(run, id), err
		})
	})
}

// Order implements [ledger.Store].
func (s *Store) Order(after uint64, yield func(uint64, stardust.BlockID) bool) error {
	if after+1 == 0 {
		return nil
	}
	return s.db.View(func(txn *badger.Txn) error {
		return scan(txn, []byte{prefixBlock}, blockKey(after+1), func(key, value []byte) (bool, error) {
			n, rest, err := cutNumber(key[1:])
			if err != nil || len(rest) > 0 || len(value) < timeSize+len(stardust.BlockID{}) {
				return false, damaged("block with key %x has %d bytes", key, len(value))
			}
			return yield(n, stardust.BlockID(value[timeSize:timeSize+len(stardust.BlockID{})])), nil
		})
	})
}

// IDs implements [ledger.Store].
func (s *Store) IDs(yield func(stardust.BlockID) bool) error {
	return s.db.View(func(txn *badger.Txn) error {
		prefix := []byte{prefixID}
		return scan(txn, prefix, prefix, func(key, _ []byte) (bool, error) {
			var id stardust.BlockID
			if len(key) != 1+len(id) {
				return false, damaged("key %x", key)
			}
			copy(id[:], key[1:])
			return yield(id), nil
		})
	})
}

// scan calls f with the entries whose keys start with prefix, from key start
// on, until f returns false or an error. Key and value are valid during the
// call.
func scan(txn *badger.Txn, prefix, start []byte, f func(key, value []byte) (more bool, err error)) error {
	it := txn.NewIterator(badger.IteratorOptions{Prefix: prefix})
	defer it.Close()
	for it.Seek(start); it.Valid(); it.Next() {
		item := it.Item()
		more := false
		if err := item.Value(func(value []byte) (err error) {
			more, err = f(item.Key(), value)
			return err
		}); err != nil {
			return err
		}
		if !more {
			return nil
		}
	}
	return nil
}

// An idReader finds ids of numbers that mostly ascend: a few by key, many by
// walking over the blocks, which is several times faster.
type idReader struct {
	txn   *badger.Txn
	it    *badger.Iterator // nil until it pays
	reads int
	at    uint64 // number whose id is id; 0: none
	cur   stardust.BlockID
}

// What an idReader reads by key before it walks, and how many blocks it
// rather steps over than seeks.
const (
	readsByKey = 8
	stepsAhead = 64
)

func (r *idReader) close() {
	if r.it != nil {
		r.it.Close()
	}
}

func (r *idReader) id(n uint64) (id stardust.BlockID, err error) {
	if n == 0 {
		return stardust.GenesisID, nil
	}
	if n == r.at {
		return r.cur, nil
	}
	if r.reads < readsByKey {
		r.reads++
		return r.lookUp(n)
	}
	if r.it == nil {
		r.it = r.txn.NewIterator(badger.IteratorOptions{Prefix: []byte{prefixBlock}})
		r.at = 0
	}
	if r.at == 0 || n < r.at || n > r.at+stepsAhead {
		r.it.Seek(blockKey(n))
	} else {
		for r.it.Valid() {
			if got, _, err := cutNumber(r.it.Item().Key()[1:]); err != nil || got >= n {
				break
			}
			r.it.Next()
		}
	}
	return r.read(n)
}

// lookUp finds the id of block n by its key; the genesis if nothing is kept.
func (r *idReader) lookUp(n uint64) (id stardust.BlockID, err error) {
	r.at = 0
	id, err = lookID(r.txn, n)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return stardust.GenesisID, nil
	}
	return id, err
}

// read takes the id of block n, at which the iterator stands unless it has no
// body.
func (r *idReader) read(n uint64) (id stardust.BlockID, err error) {
	r.at = 0
	if !r.it.Valid() {
		return r.lookUp(n)
	}
	item := r.it.Item()
	got, _, err := cutNumber(item.Key()[1:])
	if err != nil {
		return id, err
	}
	if got != n {
		return r.lookUp(n)
	}
	err = item.Value(func(v []byte) error {
		if len(v) < timeSize+len(id) {
			return damaged("block %d has %d bytes", n, len(v))
		}
		copy(id[:], v[timeSize:])
		return nil
	})
	if err == nil {
		r.at, r.cur = n, id
	}
	return id, err
}
