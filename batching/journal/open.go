package journal

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/dgraph-io/badger/v4"
)

// Open opens the journal in dir, which it creates when missing, and replays
// what its indexes do not have yet. It blocks while it reads, well under a
// second for a million readings.
//
// The error wraps [ErrNewer], [ErrCorrupt] or [ErrDiskFull]: below 64 MiB of
// free space nothing is opened, because the store cannot work there.
func Open(dir string, opt Options) (*Journal, error) {
	if err := opt.complete(); err != nil {
		return nil, err
	}
	if err := makeDir(dir); err != nil {
		return nil, fmt.Errorf("create journal %s: %w", dir, err)
	}
	free, err := opt.FreeSpace(dir)
	if err != nil {
		return nil, fmt.Errorf("open journal %s: free space: %w", dir, err)
	}
	if free < lowMark {
		return nil, fmt.Errorf("store not opened: disk of %s: free %d bytes, needed %d: make room and start again: %w",
			dir, free, lowMark, ErrDiskFull)
	}
	j, err := open(dir, opt)
	if err != nil {
		return nil, fmt.Errorf("open journal %s: %w", dir, err)
	}
	return j, nil
}

func open(dir string, opt Options) (*Journal, error) {
	mended, err := mendManifest(dir)
	if err != nil {
		return nil, err
	}
	background := new(atomic.Pointer[error])
	db, err := openStore(dir, opt, background)
	if err != nil {
		return nil, err
	}
	j := &Journal{
		opt: opt, db: db, log: opt.Log, windows: newWindows(db), background: background,
		disk: &disk{dir: dir, maxDisk: opt.MaxDisk, reserve: opt.Reserve, look: opt.FreeSpace, files: freeFiles},
		due:  make(chan struct{}, 1),
		cut:  cut{writerCount, func() {}},
	}
	err = j.load()
	if err == nil && mended {
		opt.Log.Warn("a change to the store was undone because its sync had failed; checking the journal", "dir", dir)
		err = j.Check(context.Background())
	}
	if err != nil {
		if j.head != nil {
			err = errors.Join(err, j.head.close())
		}
		return nil, errors.Join(err, db.Close())
	}
	return j, nil
}

// openStore opens badger with the settings of a small box. It recovers the
// panics with which badger meets damaged files.
func openStore(dir string, opt Options, background *atomic.Pointer[error]) (db *badger.DB, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrCorrupt, p)
		}
	}()
	o := badger.DefaultOptions(dir).
		WithSyncWrites(true).
		WithDetectConflicts(false).
		WithCompression(0).
		WithMemTableSize(memTable).
		WithNumMemtables(2).
		WithBaseTableSize(4 << 20).
		WithBlockSize(64 << 10). // holds a large group: a smaller block is built in several times its bytes
		WithNumLevelZeroTables(2).
		WithNumLevelZeroTablesStall(6).
		WithNumCompactors(2).
		WithBlockCacheSize(8 << 20).
		WithIndexCacheSize(8 << 20).
		WithValueThreshold(1 << 20).
		WithValueLogFileSize(2 << 20).
		WithMetricsEnabled(false).
		WithLogger(storeLog{opt.Log, background})
	o.TableSizeMultiplier = 1 // large tables are built in as much memory
	o.LmaxCompaction = true   // gives back what was trimmed
	db, err = badger.Open(o)
	return db, damage(err)
}

// damage marks the errors that badger opens with and that are neither the
// system's nor another process's doing: it has no names for most of them.
func damage(err error) error {
	var errno syscall.Errno
	if err == nil || errors.As(err, &errno) || strings.Contains(err.Error(), "Cannot acquire directory lock") {
		return err
	}
	for _, n := range []syscall.Errno{
		syscall.EIO, syscall.ENOSPC, syscall.EMFILE, syscall.ENFILE, syscall.EACCES, syscall.EPERM, syscall.EROFS, syscall.ENOMEM,
	} {
		if strings.Contains(err.Error(), n.Error()) { // what badger wraps keeps its text only
			return err
		}
	}
	return fmt.Errorf("%w: %w", ErrCorrupt, err)
}

const memTable = 8 << 20

// makeDir creates dir for its owner only and makes its entry durable.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	parent := filepath.Dir(filepath.Clean(dir))
	if err := makeDir(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return syncDir(parent)
}

// syncDir makes the names in dir durable.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// load reads what is kept in memory and replays what the indexes lack.
func (j *Journal) load() error {
	fresh, err := j.loadMeta()
	if err != nil {
		return err
	}
	if fresh {
		return nil
	}
	if err := j.loadSegments(); err != nil {
		return err
	}
	j.windows.stored(j.checkpoint.next)
	j.windows.horizon = j.checkpoint.received
	return j.replay()
}

// loadMeta reads the meta keys, or writes those of a new journal.
func (j *Journal) loadMeta() (fresh bool, err error) {
	var version, incarnation, head, check, trimmed []byte
	empty := true
	err = j.db.View(func(txn *badger.Txn) error {
		for key, to := range map[string]*[]byte{
			metaVersion: &version, metaIncarnation: &incarnation, metaHead: &head, metaCheckpoint: &check, metaTrimmed: &trimmed,
		} {
			item, err := txn.Get([]byte(key))
			if errors.Is(err, badger.ErrKeyNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			if *to, err = item.ValueCopy(nil); err != nil {
				return err
			}
		}
		it := txn.NewIterator(badger.IteratorOptions{})
		defer it.Close()
		it.Rewind()
		empty = !it.Valid()
		return nil
	})
	if err != nil {
		return false, err
	}
	if empty {
		return true, j.create()
	}
	switch {
	case len(version) != 4:
		return false, fmt.Errorf("%w: no format version", ErrCorrupt)
	case binary.BigEndian.Uint32(version) > Format:
		return false, fmt.Errorf("%w: format %d, this one knows %d", ErrNewer, binary.BigEndian.Uint32(version), Format)
	case binary.BigEndian.Uint32(version) < oldestFormat:
		return false, fmt.Errorf("journal of an earlier build: format %d, this one reads %d", binary.BigEndian.Uint32(version), Format)
	case len(incarnation) != len(j.incarnation) || len(head) != headID || len(trimmed) != 8:
		return false, fmt.Errorf("%w: meta keys", ErrCorrupt)
	}
	if j.head, err = openHead(j.disk.dir, [headID]byte(head)); err != nil {
		return false, err
	}
	if binary.BigEndian.Uint32(version) < Format {
		if err := j.db.Update(func(txn *badger.Txn) error {
			return txn.Set([]byte(metaVersion), binary.BigEndian.AppendUint32(nil, Format))
		}); err != nil {
			return false, fmt.Errorf("bring the journal to format %d: %w", Format, err)
		}
	}
	copy(j.incarnation[:], incarnation)
	j.first = binary.BigEndian.Uint64(trimmed) + 1
	j.checkpoint, err = decodeCheckpoint(check)
	j.next = j.checkpoint.next
	j.tail = newTail(j.next)
	return false, err
}

// create makes the head, then the meta keys that say so.
func (j *Journal) create() error {
	var id [headID]byte
	_, _ = rand.Read(id[:]) // it never fails
	err := createHead(j.disk.dir)
	if err == nil {
		j.head, err = openHead(j.disk.dir, id)
	}
	if err != nil {
		return err
	}
	j.incarnation = newIncarnation()
	j.first, j.next = 1, 1
	j.checkpoint = checkpoint{next: 1, received: math.MinInt64}
	j.tail = newTail(1)
	return j.db.Update(func(txn *badger.Txn) error {
		return errors.Join(
			txn.Set([]byte(metaVersion), binary.BigEndian.AppendUint32(nil, Format)),
			txn.Set([]byte(metaIncarnation), j.incarnation[:]),
			txn.Set([]byte(metaHead), id[:]),
			txn.Set([]byte(metaCheckpoint), encodeCheckpoint(j.checkpoint)),
			txn.Set([]byte(metaTrimmed), make([]byte, 8)))
	})
}

// loadSegments reads the summaries of what is indexed, and finishes dropping
// what an interrupted trim left.
func (j *Journal) loadSegments() error {
	err := j.db.View(func(txn *badger.Txn) error {
		return scan(txn, []byte{prefixSegment}, func(key, value []byte) error {
			s, err := decodeSegment(key, value)
			if err != nil {
				return err
			}
			if n := len(j.segments); s.next > j.checkpoint.next || n > 0 && s.first < j.segments[n-1].next {
				return fmt.Errorf("%w: segment %d to %d overlaps", ErrCorrupt, s.first, s.next-1)
			}
			j.segments = append(j.segments, s)
			return nil
		})
	})
	if err != nil {
		return err
	}
	for len(j.segments) > 0 && j.segments[0].first < j.first {
		if err := j.drop(j.segments[0]); err != nil {
			return err
		}
		j.segments = j.segments[1:]
	}
	j.first = j.checkpoint.next
	if len(j.segments) > 0 {
		j.first = j.segments[0].first
	}
	return nil
}

// replay takes in the groups above the checkpoint as Append did.
func (j *Journal) replay() error {
	groups, err := j.head.load(j.next)
	if err != nil {
		return err
	}
	for i := range groups {
		j.apply(groups[i].group, len(groups[i].value))
	}
	j.stats = Stats{}
	return nil
}
