package store

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"
)

// A Snapshot is the store as it was at one moment, whatever is written to it
// meanwhile. While it is open the store gives back no space; the store must not
// be closed before it.
type Snapshot struct{ txn *badger.Txn }

// Snapshot returns the store of this moment: every Commit that has returned is
// in it, whole. It does not block. Close gives it back.
func (s *Store) Snapshot() *Snapshot { return &Snapshot{s.db.NewTransaction(false)} }

// Each yields all keys in ascending order with their values, which are valid
// during the call, until yield returns an error, which it returns. No value
// expires. It must be called once at a time.
func (n *Snapshot) Each(yield func(key, value []byte, expires uint64) error) (err error) {
	defer func() {
		if p := recover(); p != nil { // badger, of a block whose end is damaged
			err = damaged("%v", p)
		}
	}()
	it := n.txn.NewIterator(badger.IteratorOptions{})
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		item := it.Item()
		if err := item.Value(func(v []byte) error { return yield(item.Key(), v, 0) }); err != nil {
			return err
		}
	}
	return nil
}

// Close gives the snapshot back.
func (n *Snapshot) Close() { n.txn.Discard() }

// Renew gives the store another id, as one needs whose positions are not those
// that others remember under its id: a copy that was put back. It must be called
// before the store is handed on. The error is as that of Commit.
func (s *Store) Renew() error {
	if err := s.Ready(); err != nil {
		return err
	}
	txn := s.db.NewTransaction(true)
	defer txn.Discard()
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails
	if err := txn.Set([]byte{prefixName}, id[:]); err != nil {
		return s.fail(err)
	}
	if err := s.commit(txn); err != nil {
		return s.fail(fmt.Errorf("give the store another id: %w", err))
	}
	s.id = id
	return nil
}

// Import makes a store in dir, which must not exist, of what [Snapshot.Each]
// yielded: next returns it in that order, each in memory of its own, and
// [io.EOF] after the last. The store
// gets an id of its own, because its positions are not those of the original. It
// is durable and closed when Import returns nil; nothing is checked but what
// opening it checks, see [Store.Check]. After an error dir is to be removed.
func Import(dir string, next func() (key, value []byte, expires uint64, err error), log *slog.Logger) (err error) {
	if _, err := os.Stat(dir); err == nil {
		return fmt.Errorf("make a store in %s: it is there already", dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	g := newGuard(dir, Options{})
	if err := g.checkRoom("make"); err != nil {
		return err
	}
	var failed atomic.Pointer[error]
	db, err := openBadger(badgerOptions(dir, logger{log, &failed}))
	if err != nil {
		return err
	}
	err = putAll(db, next)
	if background := failed.Load(); background != nil { // closing would try for ever
		return errors.Join(err, *background)
	}
	err = errors.Join(err, db.Close())
	if background := failed.Load(); background != nil { // badger has tried again, but the kernel drops what it could not sync
		err = errors.Join(err, *background)
	}
	if err != nil {
		return fmt.Errorf("make a store in %s: %w", dir, err)
	}
	return nil
}

// putAll writes what next returns but the id of the store.
func putAll(db *badger.DB, next func() (key, value []byte, expires uint64, err error)) error {
	w := db.NewWriteBatch()
	defer w.Cancel()
	for {
		key, value, _, err := next()
		if errors.Is(err, io.EOF) {
			return w.Flush()
		}
		if err != nil {
			return err
		}
		if len(key) == 1 && key[0] == prefixName {
			continue
		}
		if err := w.Set(key, value); err != nil {
			return err
		}
	}
}
