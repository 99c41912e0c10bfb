// Package store keeps the replica of the Tangle in a badger database.
//
// It is a [ledger.Store] and knows nothing of the DAG's rules beyond the shape
// of a block. Every Commit is one transaction, synced before it returns.
//
// # Key layout
//
// Blocks are numbered from 1 in order of arrival; 0 is the genesis. The
// indexes name blocks by that number, because repeating 32-byte ids would cost
// more than the blocks. A number in a key is a length byte and that many bytes,
// big-endian without leading zeros, so that keys sort as numbers do and one is
// never the prefix of another.
//
//	key                            value
//	n                              8 random bytes, made with the store
//	v                              store format, uvarint
//	a number                       block: attach time (Unix ms, 6 bytes) | id (32) | version | n |
//	                               n times number minus parent's number (uvarint) |
//	                               the block's bytes after its parents
//	i id                           number, uvarint: of a block with a body
//	b number                       stub, of a block whose body is gone: id (32) | milestone that orders it,
//	                               times 4 plus inclusion state, uvarint; of a vote also gateway |
//	                               merges | epoch, round, seen set (uvarints)
//	j first 8 bytes of a stub's id numbers of such stubs, uvarints
//	c bucket number                one byte per parent: parent's number mod 64; bucket is parent's
//	                               number / 64, number is the child's
//	t tag length, tag, number      empty: blocks with this tag
//	m last                         last minus first (uvarint) | number (uvarint): the run of readings
//	                               first-last stands in the block; 0: in one of another replica
//	P                              how far pruning has come, uvarints: bodies that are gone, and of the reaches
//	                               of votes, guests, blocks and stubs each milestone and place in the next,
//	                               and the last milestone whose blocks came as stubs
//	S                              empty: a state sync goes on
//	s name, key                    a value of the [Shelf] with that name (a byte), whose keys and values
//	                               are its owner's; stores of builds before shelves have none
//
// What the gateways agreed:
//
//	M index                        essence of the milestone (TIP-29, without options)
//	L index, chunk                 its blocks in their order (TIP-2), 2048 a chunk: each the difference of
//	                               its number from the one before (zigzag) times 4 plus the inclusion
//	                               state (0 no transaction, 1 included, 2 conflicting), uvarint
//	O number                       milestone that orders the block, times 4 plus inclusion state, uvarint;
//	                               an index above the last M is what a crash has left
//	X first 8 bytes of its id      index of the milestone, uvarint
//	C index                        certificate: n times key (32) | signature (64)
//	K                              every milestone up to this index has a certificate, uvarint
//	U                              no block with a number below is unordered, uvarint
//	W                              the gateway's own votes: 1 | epoch u32 | opened u32 | head 32 | flags
//	H                              index of a milestone of which others signed another one than stands here,
//	                               uvarint: the gateway votes no more; 0, or missing: there is none
//	E key                          proof of equivocation: epoch u32 | round u32 | two block ids
//	N epoch, chunk                 network file in JSON, 32 KiB a chunk
//
// A block whose body is gone has only its stub, and takes about 95 bytes with all
// indexes. Its number stays in the lists of milestones and in the values of
// marks and of its children, if any of those are left.
//
// Parents within a block's value are numbers too; its bytes are put together
// from the parents' ids. A block of 195 bytes with two parents and one mark
// takes about 330 bytes on disk, all indexes and badger's own parts included.
package store

import (
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// Format is the version of the layout that this package writes; it reads
// format 1 too, which had no milestones, and format 2, which had no stubs.
const Format = 3

var (
	// ErrNewer means that a newer program wrote the store.
	ErrNewer = errors.New("store written by a newer version of hedgerow")
	// ErrDamaged means that the store contradicts itself.
	ErrDamaged = errors.New("ledger store damaged")
	// ErrDiskFull means that the disk is too full to open or tidy up the store.
	ErrDiskFull = errors.New("disk too full")
)

const (
	memTable  = 8 << 20
	leastFree = 3 * memTable // to open and close: badger dies of SIGBUS when a memory-mapped file finds no space
)

// Options describes how a store uses its disk. Zero fields mean the default
// named.
type Options struct {
	// Reserve is the free space of the file system, in bytes, below which
	// Commit answers ErrBusy. 512 MiB; never taken below 32 MiB, which badger
	// needs for what it does in the background.
	Reserve int64
	// MaxDisk is what the store may occupy, in bytes, before Commit answers
	// ErrBusy; it may be passed by some MiB. No limit.
	MaxDisk int64
	// Still keeps the store from compacting its tables, for one that is only
	// read: compaction would write what is damaged anew, with checksums that
	// fit.
	Still bool
	// Log takes badger's messages too. Discards.
	Log *slog.Logger

	free func(dir string) (int64, error) // of the file system; for tests
}

// A Store implements [ledger.Store].
type Store struct {
	db    *badger.DB
	guard *guard

	id     [8]byte       // made with the store
	count  atomic.Uint64 // number of the last block
	pruned atomic.Uint64 // numbers up to it of blocks without bodies
	last   atomic.Int64  // when the last one with a body was attached, Unix ms; 0: there is none

	failed atomic.Pointer[error] // of the first write that left the store in doubt

	milestone, certified atomic.Uint32 // the last ones

	// Owned by the caller of Commit.
	recent recent
	low    uint64          // no block below it is unordered
	open   map[uint64]bool // blocks that are

	// commit syncs a transaction; a test replaces it.
	commit func(*badger.Txn) error
}

var _ ledger.Store = (*Store)(nil)

// Open opens the store in dir and makes it if there is none. Only one process
// can have it open. The error wraps ErrNewer, ErrDamaged or ErrDiskFull when
// that is why.
func Open(dir string, opt Options) (*Store, error) {
	log := cmp.Or(opt.Log, slog.New(slog.DiscardHandler))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open ledger store: %w", err)
	}
	g := newGuard(dir, opt)
	if err := g.checkRoom("open"); err != nil {
		return nil, fmt.Errorf("open ledger store %s: %w", dir, err)
	}
	if err := orphans(dir); err != nil {
		return nil, fmt.Errorf("open ledger store %s: %w", dir, err)
	}
	s := &Store{guard: g, commit: (*badger.Txn).Commit}
	o := badgerOptions(dir, logger{log, &s.failed})
	if opt.Still {
		o = still(o)
	}
	db, err := openBadger(o)
	if err != nil {
		return nil, fmt.Errorf("open ledger store %s: %w", dir, err)
	}
	s.db = db
	if err := s.start(); err != nil {
		return nil, errors.Join(fmt.Errorf("open ledger store %s: %w", dir, err), db.Close())
	}
	return s, nil
}

// orphans returns an error when dir holds tables although it has no manifest,
// as after an incomplete copy: badger would begin anew and delete them.
func orphans(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, badger.ManifestFilename)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if filepath.Ext(e.Name()) == ".sst" {
			return damaged("%s is there but the file %s is missing", e.Name(), badger.ManifestFilename)
		}
	}
	return nil
}

// openBadger opens the database. What it says of damaged files has no name, and
// some of it is a panic: everything becomes ErrDamaged but the system's own
// errors and a lock that another process holds.
func openBadger(opt badger.Options) (db *badger.DB, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = damaged("%v", p)
		}
	}()
	db, err = badger.Open(opt)
	var errno syscall.Errno
	if err == nil || errors.As(err, &errno) || strings.Contains(err.Error(), "Cannot acquire directory lock") {
		return db, err
	}
	for _, n := range []syscall.Errno{
		syscall.EIO, syscall.ENOSPC, syscall.EMFILE, syscall.ENFILE, syscall.EACCES, syscall.EPERM, syscall.EROFS, syscall.ENOMEM,
	} {
		if strings.Contains(err.Error(), n.Error()) { // what badger wraps keeps its text only
			return nil, err
		}
	}
	return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
}

func badgerOptions(dir string, log badger.Logger) badger.Options {
	return badger.DefaultOptions(dir).
		WithSyncWrites(true). // the default loses acknowledged writes at a power cut
		WithMemTableSize(memTable).WithNumMemtables(2).
		WithNumLevelZeroTables(2).WithNumLevelZeroTablesStall(6).
		WithNumCompactors(2).
		WithBlockCacheSize(8 << 20).WithIndexCacheSize(8 << 20).
		WithValueLogFileSize(64 << 20).
		WithValueThreshold(2 * stardust.MaxBlockSize). // the value log is never written: its sync errors are only logged
		WithCompression(options.None).
		WithMetricsEnabled(false).WithDetectConflicts(false).
		WithLogger(log)
}

// still turns compaction off, and waiting for it.
func still(o badger.Options) badger.Options {
	return o.WithNumCompactors(0).WithNumLevelZeroTablesStall(math.MaxInt)
}

// start checks the format and finds the last block. Badger answers some damage
// with a panic.
func (s *Store) start() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = damaged("%v", p)
		}
	}()
	if err := s.checkFormat(); err != nil {
		return err
	}
	if err := s.readID(); err != nil {
		return err
	}
	return s.db.View(func(txn *badger.Txn) error {
		n, err := lastNumber(txn, prefixBlock)
		if err != nil {
			return err
		}
		if n > 0 {
			b, err := loadBlock(txn, n)
			if err != nil {
				return err
			}
			s.count.Store(n)
			s.last.Store(b.attached)
		}
		stub, err := lastNumber(txn, prefixStub)
		if err != nil {
			return err
		}
		s.count.Store(max(n, stub))
		p, err := loadPruned(txn)
		if err != nil {
			return err
		}
		s.pruned.Store(p.gone())
		return s.startBook(txn)
	})
}

// readID reads the store's id, and makes it if there is none yet.
func (s *Store) readID() error {
	return s.db.Update(func(txn *badger.Txn) error {
		v, err := get(txn, []byte{prefixName})
		switch {
		case errors.Is(err, badger.ErrKeyNotFound):
			_, _ = rand.Read(s.id[:]) // never fails
			return txn.Set([]byte{prefixName}, s.id[:])
		case err != nil:
			return err
		case copy(s.id[:], v) != len(s.id) || len(v) != len(s.id):
			return damaged("id of the store is %x", v)
		}
		return nil
	})
}

// ID implements [ledger.Store].
func (s *Store) ID() [8]byte { return s.id }

func (s *Store) checkFormat() error {
	var found uint64
	err := s.db.View(func(txn *badger.Txn) error {
		v, err := get(txn, []byte{prefixFormat})
		if err != nil {
			return err
		}
		var n int
		if found, n = binary.Uvarint(v); n != len(v) || found == 0 {
			return damaged("format is %x", v)
		}
		return nil
	})
	switch {
	case err != nil && !errors.Is(err, badger.ErrKeyNotFound):
		return err
	case found > Format:
		return fmt.Errorf("%w: format %d, this program knows %d", ErrNewer, found, Format)
	case found == Format:
		return nil
	}
	return s.db.Update(func(txn *badger.Txn) error { // new, or of before milestones
		return txn.Set([]byte{prefixFormat}, binary.AppendUvarint(nil, Format))
	})
}

// Close releases the store. Everything that Commit stored is durable already,
// so on a full disk, where tidying up would find no space, Close returns an
// error that wraps ErrDiskFull and leaves the store as a crash would; it may
// be called again. A store in doubt is left like that, too, because badger
// tries for ever to write out what cannot be synced.
func (s *Store) Close() error {
	if s.failed.Load() != nil {
		return nil
	}
	if err := s.guard.checkRoom("tidy up"); err != nil {
		return fmt.Errorf("close ledger store: %w", err)
	}
	err := s.db.Close()
	if failed := s.failed.Load(); failed != nil { // meanwhile, and in the background
		err = errors.Join(err, *failed)
	}
	if err != nil {
		return fmt.Errorf("close ledger store: %w", err)
	}
	return nil
}

// Commit implements [ledger.Store]. It answers ErrBusy while the disk is
// below its reserve or the store at its limit.
func (s *Store) Commit(c ledger.Change) error {
	if err := s.Ready(); err != nil {
		return err
	}
	// Those of a state sync come together with their blocks, and are bounded.
	for size := blocksOf(c.Milestones); c.Sync == nil && size > chunkBlocks && len(c.Milestones) > 1; {
		first := c.Milestones[:1]
		if err := s.write(ledger.Change{Milestones: first}); err != nil {
			return err
		}
		size -= len(first[0].Blocks)
		c.Milestones = c.Milestones[1:]
	}
	return s.write(c)
}

// write stores a change whose milestones together, but for what is spilled,
// fit one transaction.
func (s *Store) write(c ledger.Change) error {
	ordered, err := s.spill(&c)
	if err != nil {
		return s.fail(err)
	}
	txn := s.db.NewTransaction(true)
	defer txn.Discard()
	w := s.writer(txn)
	if c.Sync != nil {
		p, err := loadPruned(txn)
		if err != nil {
			return s.fail(err)
		}
		w.pruned = &p
	}
	for _, e := range c.Entries {
		if err := w.entry(e); err != nil {
			return s.fail(fmt.Errorf("write block %v: %w", e.ID, err))
		}
	}
	if err := w.book(&c); err != nil {
		return s.fail(fmt.Errorf("write what was agreed: %w", err))
	}
	if err := s.commit(txn); err != nil {
		return s.fail(fmt.Errorf("commit %d blocks and %d milestones: %w", len(c.Entries), len(c.Milestones), err))
	}
	s.wrote(w, append(ordered, w.ordered...), c.Certified)
	return nil
}

// wrote takes note of a transaction that is durable.
func (s *Store) wrote(w *writer, ordered []uint64, certified uint32) {
	s.recent.add(w.numbers)
	s.count.Store(w.next)
	if w.attached != 0 {
		s.last.Store(w.attached)
	}
	if w.lastMilestone != 0 {
		s.milestone.Store(w.lastMilestone)
	}
	if certified > 0 {
		s.certified.Store(certified)
	}
	if w.pruned != nil {
		s.pruned.Store(w.pruned.gone())
	}
	s.advance(w.next, w.bodies, ordered)
	s.guard.wrote(w.bytes)
}

// fail takes note of the first write that failed: Commit and the shelves write
// at the same time.
func (s *Store) fail(err error) error {
	s.failed.CompareAndSwap(nil, &err)
	return err
}

// Ready implements [ledger.Store].
func (s *Store) Ready() error { return s.mayWrite(false) }

// mayWrite returns nil if something may be written; to prune, also at the store's
// limit.
func (s *Store) mayWrite(prune bool) error {
	if err := s.failed.Load(); err != nil {
		return fmt.Errorf("store in doubt since an earlier write: %w", *err)
	}
	if err := s.guard.check(prune); err != nil {
		return fmt.Errorf("%w: %w", ledger.ErrBusy, err)
	}
	return nil
}

// Count implements [ledger.Store].
func (s *Store) Count() (position, pruned uint64, last time.Time, err error) {
	if ms := s.last.Load(); ms != 0 {
		last = time.UnixMilli(ms)
	}
	return s.count.Load(), s.pruned.Load(), last, nil
}

// DiskBytes returns what the store occupies on disk.
func (s *Store) DiskBytes() (int64, error) { return s.guard.occupied() }

// logger passes badger's messages on. It is also the only way to hear of a
// write that failed in the background: badger logs it and goes on, with a
// manifest that may name what is not there.
type logger struct {
	log    *slog.Logger
	failed *atomic.Pointer[error]
}

func (l logger) Errorf(f string, a ...any) {
	l.heed(a)
	l.log.Error("badger", "text", text(f, a))
}

func (l logger) Warningf(f string, a ...any) {
	l.heed(a)
	l.log.Warn("badger", "text", text(f, a))
}

func (l logger) Infof(f string, a ...any)  { l.log.Debug("badger", "text", text(f, a)) }
func (l logger) Debugf(f string, a ...any) { l.log.Debug("badger", "text", text(f, a)) }

// heed takes note of an error of the operating system among what is logged.
func (l logger) heed(a []any) {
	for _, v := range a {
		err, ok := v.(error)
		var errno syscall.Errno
		if ok && errors.As(err, &errno) {
			l.failed.CompareAndSwap(nil, &err)
		}
	}
}
