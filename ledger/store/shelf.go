package store

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"
)

// What one Write may hold, so that it is one transaction of badger.
const (
	MaxShelfKeys  = 8192
	MaxShelfBytes = 1 << 20 // of keys and values
)

// A Shelf is a part of the store for somebody else's keys: what is derived
// from the blocks shares their disk, their memory and their guard. Its methods
// may be called concurrently with each other and with those of the [Store],
// but for two calls of Write that set the same key, of which either may win.
type Shelf struct {
	store  *Store
	prefix []byte
}

// Shelf returns the shelf with this name. It is empty until something is
// written to it.
func (s *Store) Shelf(name byte) *Shelf {
	return &Shelf{store: s, prefix: []byte{prefixShelf, name}}
}

func (s *Shelf) key(key []byte) []byte {
	return append(append(make([]byte, 0, len(s.prefix)+len(key)), s.prefix...), key...)
}

// Write sets keys[i] to values[i], or deletes it where the value is nil, all
// in one step that is durable when Write returns. There may be [MaxShelfKeys]
// keys, of which none may come twice, and [MaxShelfBytes] at most. The error is
// as that of Commit: one that wraps [ledger.ErrBusy] means that nothing was
// written and that a later Write may succeed; after any other the store is in
// doubt.
func (s *Shelf) Write(keys, values [][]byte) error {
	if err := s.check(keys, values); err != nil {
		return fmt.Errorf("write shelf %q: %w", s.prefix[1:], err)
	}
	if err := s.store.Ready(); err != nil {
		return err
	}
	txn := s.store.db.NewTransaction(true)
	defer txn.Discard()
	w := writer{txn: txn}
	for i, key := range keys {
		var err error
		if values[i] == nil {
			w.bytes += len(key)
			err = txn.Delete(s.key(key))
		} else {
			err = w.set(s.key(key), values[i])
		}
		if err != nil {
			return s.store.fail(fmt.Errorf("write shelf %q: key %x: %w", s.prefix[1:], key, err))
		}
	}
	if err := s.store.commit(txn); err != nil {
		return s.store.fail(fmt.Errorf("write %d keys of shelf %q: %w", len(keys), s.prefix[1:], err))
	}
	s.store.guard.wrote(w.bytes)
	return nil
}

// check refuses what is no transaction, before the store is touched.
func (s *Shelf) check(keys, values [][]byte) error {
	size := 0
	for _, list := range [][][]byte{keys, values} {
		for _, b := range list {
			size += len(b)
		}
	}
	if len(keys) != len(values) || len(keys) > MaxShelfKeys || size > MaxShelfBytes {
		return fmt.Errorf("%d keys, %d values, %d bytes; at most %d and %d allowed", len(keys), len(values), size, MaxShelfKeys, MaxShelfBytes)
	}
	return nil
}

// Get returns a copy of the value of key: nil if there is none, and never nil
// if there is one.
func (s *Shelf) Get(key []byte) (value []byte, err error) {
	err = s.store.db.View(func(txn *badger.Txn) error {
		item, err := txn.Get(s.key(key))
		if errors.Is(err, badger.ErrKeyNotFound) {
			return nil
		} else if err != nil {
			return err
		}
		value, err = item.ValueCopy([]byte{})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read shelf %q: key %x: %w", s.prefix[1:], key, err)
	}
	return value, nil
}

// Scan yields the keys that begin with prefix and their values in ascending
// order, starting at from or the first key above it; in reverse in descending
// order, starting at from or the first key below it. A nil from is the end of
// the prefix that comes first. Key and value are valid during the call; yield
// may read the store and ends the scan by returning false. Scan sees the shelf
// of one moment.
func (s *Shelf) Scan(prefix, from []byte, reverse bool, yield func(key, value []byte) bool) error {
	prefix = s.key(prefix)
	start := prefix
	if from != nil {
		start = s.key(from)
	}
	if reverse && (from == nil || bytes.Compare(start, prefix) > 0 && !bytes.HasPrefix(start, prefix)) {
		start = above(prefix)
	} else if !reverse && bytes.Compare(start, prefix) < 0 {
		start = prefix
	}
	err := s.store.db.View(func(txn *badger.Txn) error {
		opt := badger.IteratorOptions{Reverse: reverse}
		if !reverse {
			opt.Prefix = prefix // in reverse it would hide the key above the prefix
		}
		it := txn.NewIterator(opt)
		defer it.Close()
		it.Seek(start)
		if reverse && it.Valid() && !bytes.HasPrefix(it.Item().Key(), prefix) && bytes.Compare(it.Item().Key(), prefix) > 0 {
			it.Next() // the key above the prefix
		}
		for ; it.ValidForPrefix(prefix); it.Next() {
			more := false
			if err := it.Item().Value(func(value []byte) error {
				more = yield(it.Item().Key()[len(s.prefix):], value)
				return nil
			}); err != nil {
				return err
			}
			if !more {
				return nil
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("scan shelf %q: %w", s.prefix[1:], err)
	}
	return nil
}

// above returns the smallest key above all that begin with prefix, which
// begins with prefixShelf.
func above(prefix []byte) []byte {
	out := bytes.Clone(prefix)
	for out[len(out)-1] == 0xff {
		out = out[:len(out)-1]
	}
	out[len(out)-1]++
	return out
}
