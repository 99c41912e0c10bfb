package journal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"

	"github.com/hedgerow-iot/hedgerow/batching"
)

// A Snapshot is the journal as it was at one moment, whatever is appended and
// dropped meanwhile. While it is open the journal's files give back no space,
// and Close of the journal waits for it.
type Snapshot struct {
	txn   *badger.Txn
	close func()
}

// Snapshot indexes what has been appended and returns the journal of that
// moment: every Append that returned before the call is in it. Appends do not
// wait for it. Close gives it back. The error wraps [batching.ErrClosed],
// [ErrDiskFull] or [ErrInDoubt] when that is why.
func (j *Journal) Snapshot() (*Snapshot, error) {
	j.life.RLock()
	txn, err := j.snapshot()
	if err != nil {
		j.life.RUnlock()
		return nil, fmt.Errorf("copy journal: %w", err)
	}
	return &Snapshot{txn, j.life.RUnlock}, nil
}

func (j *Journal) snapshot() (*badger.Txn, error) {
	j.mu.RLock()
	closed := j.closed
	j.mu.RUnlock()
	if closed {
		return nil, batching.ErrClosed
	}
	if err := j.inBackground(); err != nil {
		return nil, err
	}
	// To index is to write, which a full disk answers with a fault.
	if free, _, err := j.disk.figures(true); err == nil && free < closeMark {
		return nil, fmt.Errorf("%w: disk of %s has %d bytes free, %d are needed", ErrDiskFull, j.disk.dir, free, closeMark)
	}
	if err := j.flush(); err != nil {
		return nil, err
	}
	j.indexMu.Lock() // no segment is half written or half dropped
	defer j.indexMu.Unlock()
	return j.db.NewTransaction(false), nil
}

// Each yields all keys in ascending order with their values, which are valid
// during the call, and the Unix time in seconds at which a value expires, or 0,
// until yield returns an error, which it returns. It must be called once at a
// time.
func (s *Snapshot) Each(yield func(key, value []byte, expires uint64) error) (err error) {
	defer func() {
		if p := recover(); p != nil { // badger, of a block whose end is damaged
			err = fmt.Errorf("%w: %v", ErrCorrupt, p)
		}
	}()
	it := s.txn.NewIterator(badger.IteratorOptions{})
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		item := it.Item()
		if err := item.Value(func(v []byte) error { return yield(item.Key(), v, item.ExpiresAt()) }); err != nil {
			return err
		}
	}
	return nil
}

// Close gives the snapshot back. It must be called once.
func (s *Snapshot) Close() {
	s.txn.Discard()
	s.close()
}

// Import makes a journal in dir, which must not exist, of what [Snapshot.Each]
// yielded: next returns it in that order, each in memory of its own, and
// [io.EOF] after the last. It is
// durable and closed when Import returns nil; nothing is checked but what
// opening it checks, see [Journal.Check]. After an error dir is to be removed.
//
// The journal has the incarnation and the next number of the original; see
// [Journal.SkipTo] before anything is appended that the original may have
// given a number to.
func Import(dir string, next func() (key, value []byte, expires uint64, err error), opt Options) error {
	if err := opt.complete(); err != nil {
		return err
	}
	if _, err := os.Stat(dir); err == nil {
		return fmt.Errorf("make a journal in %s: it is there already", dir)
	}
	if err := makeDir(dir); err != nil {
		return err
	}
	if err := createHead(dir); err != nil { // nothing is in it: a snapshot is indexed whole
		return err
	}
	background := new(atomic.Pointer[error])
	db, err := openStore(dir, opt, background)
	if err != nil {
		return err
	}
	err = putAll(db, next)
	if failed := background.Load(); failed != nil { // closing would try for ever
		return errors.Join(err, *failed)
	}
	err = errors.Join(err, db.Close())
	if failed := background.Load(); failed != nil { // badger has tried again, but the kernel drops what it could not sync
		err = errors.Join(err, *failed)
	}
	if err != nil {
		return fmt.Errorf("make a journal in %s: %w", dir, err)
	}
	return nil
}

func putAll(db *badger.DB, next func() (key, value []byte, expires uint64, err error)) error {
	w := db.NewWriteBatch()
	defer w.Cancel()
	for {
		key, value, expires, err := next()
		if errors.Is(err, io.EOF) {
			return w.Flush()
		}
		if err != nil {
			return err
		}
		e := badger.NewEntry(key, value)
		e.ExpiresAt = expires
		if err := w.SetEntry(e); err != nil {
			return err
		}
	}
}
