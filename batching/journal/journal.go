package journal

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/batching/reading"
)

var (
	// ErrNotFound means that no such reading is kept.
	ErrNotFound = errors.New("no such reading")
	// ErrCursor means that a cursor is not one that this query gave out.
	ErrCursor = errors.New("not a cursor of this query")
	// ErrCorrupt means that what is stored is damaged.
	ErrCorrupt = errors.New("journal damaged")
	// ErrNewer means that the journal was written by a newer program.
	ErrNewer = errors.New("journal written by a newer program")
	// ErrDiskFull means that the store was not opened because its disk is too
	// full to work on it safely.
	ErrDiskFull = errors.New("disk full")
	// ErrInDoubt means that a write failed in a way that leaves open whether
	// it is stored. The process must end; opening the journal anew settles it.
	ErrInDoubt = errors.New("journal in doubt")
)

// minDisk is the least MaxDisk: the store's own files take nearly half of it.
const minDisk = 64 << 20

// Options say how large and old a journal may get. Zero fields mean the
// default.
type Options struct {
	// MaxDisk is how many bytes the journal's files may occupy (2 GiB; at
	// least 64 MiB). At nine tenths of it, readings are dropped as far as Trim
	// allows; at all of it Append refuses.
	MaxDisk int64
	// Reserve is the free space below which Append refuses (512 MiB). 64 MiB
	// are reserved in any case.
	Reserve int64
	// Retention is the age at which readings are dropped (400 days).
	Retention time.Duration
	// Log gets what the store has to say; nil discards it.
	Log *slog.Logger
	// FreeSpace tells the free bytes of a directory's disk; nil asks the
	// system. Tests pretend with it.
	FreeSpace func(dir string) (int64, error)
}

func (o *Options) complete() error {
	if o.MaxDisk == 0 {
		o.MaxDisk = 2 << 30
	}
	if o.Reserve == 0 {
		o.Reserve = 512 << 20
	}
	if o.Retention == 0 {
		o.Retention = 400 * 24 * time.Hour
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.FreeSpace == nil {
		o.FreeSpace = freeSpace
	}
	if o.MaxDisk < minDisk || o.Reserve < 0 || o.Retention < 0 {
		return fmt.Errorf("journal: max disk %d, reserve %d, retention %s: want at least %d, 0 and 0s",
			o.MaxDisk, o.Reserve, o.Retention, minDisk)
	}
	return nil
}

// A Journal holds the readings of one gateway. It implements
// [batching.Journal]; its methods may be called concurrently, except that
// there is one appender and one Run.
type Journal struct {
	opt     Options
	db      *badger.DB
	head    *head
	disk    *disk
	windows *windows
	log     *slog.Logger
	cut     cut
	due     chan struct{} // holds a token when the tail wants flushing
	// background is the first error of a write that badger made by itself.
	background *atomic.Pointer[error]

	life     sync.RWMutex // held by everybody who reads the store; Close excludes them
	appendMu sync.Mutex   // held by Append and SkipTo: owns the numbers
	indexMu  sync.Mutex   // held by flush, trim and check: owns the indexes
	dropped  int64        // bytes that the store may not have given back yet; guarded by indexMu
	pruner   pruner       // guarded by indexMu

	mu          sync.RWMutex // guards everything below
	closed      bool
	failed      error // wraps ErrInDoubt
	incarnation [8]byte
	first, next uint64 // kept are [first, next)
	checkpoint  checkpoint
	segments    []segment // those of the indexes, in order
	frozen      *tail     // on its way into the indexes, or nil
	tail        *tail     // what follows it
	recent      recent
	through     uint64 // what Trim allowed
	stats       Stats
}

// Stats are figures for status and metrics.
type Stats struct {
	First, Next uint64 // kept are the numbers from First to Next-1
	Readings    uint64 // kept
	Unindexed   uint64 // of them, those that a restart would replay
	Appended    uint64 // since Open
	Groups      uint64 // since Open: commits on the way of acknowledgements
	Bytes       uint64 // since Open: of encoded groups
	Trimmed     uint64 // since Open
	Refused     uint64 // calls of Append that returned ErrBusy
	DiskBytes   int64  // that the files occupy
	FreeBytes   int64  // of the disk
}

// Close indexes what is left, so that the next Open has nothing to replay,
// and closes the store. No method but Close may be called after it.
//
// A journal in doubt is left as a crash would leave it, which is what Open is
// made for: badger tries for ever to write out what cannot be synced. The same
// on a full disk, where tidying up is a fault ([ErrDiskFull]): everything that
// was appended is durable, and Close may be called again.
func (j *Journal) Close() error {
	j.mu.Lock()
	done := j.closed
	j.closed = true
	j.mu.Unlock()
	if done {
		return nil
	}
	if j.inBackground() != nil || j.inDoubt() != nil {
		return nil
	}
	if free, _, err := j.disk.figures(true); err == nil && free < closeMark {
		j.mu.Lock()
		j.closed = false
		j.mu.Unlock()
		return fmt.Errorf("close journal: disk of %s has %d bytes free, %d are needed to tidy up: %w",
			j.disk.dir, free, closeMark, ErrDiskFull)
	}
	if err := j.flush(); err != nil {
		return err
	}
	j.life.Lock()
	defer j.life.Unlock()
	err := errors.Join(j.head.close(), j.db.Close())
	return errors.Join(err, j.inBackground()) // a write of closing itself
}

func (j *Journal) inDoubt() error {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.failed
}

// Append implements [batching.Journal]: each group is one synced commit.
//
// A packet that is not valid leaves the journal as it was, and the others of
// the call are not stored either; the error wraps [reading.ErrLimit]. The
// stage asks [batching.Packet.Validate] before.
func (j *Journal) Append(packets []batching.Packet, at batching.Stamp) (uint64, error) {
	j.appendMu.Lock()
	defer j.appendMu.Unlock()
	first := j.Next()
	groups, values, err := encode(packets, first, at)
	if err != nil {
		return 0, j.refuse(err)
	}
	var bytes int64
	for _, v := range values {
		bytes += int64(len(v))
	}
	if err := j.ready(bytes); err != nil {
		return 0, j.refuse(err)
	}
	for i, g := range groups {
		if err := j.store(g, values[i]); err != nil {
			return 0, err
		}
		j.apply(g, len(values[i]))
	}
	j.disk.wrote(bytes)
	if err := j.flushDue(); err != nil {
		return 0, err
	}
	return first, nil
}

// store makes a group durable. Its failure leaves the journal in doubt for
// good: what the kernel dropped is gone, though a second try succeed.
func (j *Journal) store(g *group, value []byte) error {
	err := j.head.append(g.first, g.next(), value)
	if errors.Is(err, errHeadFull) { // Run is late
		if err := j.flush(); err != nil {
			return err
		}
		err = j.head.append(g.first, g.next(), value)
	}
	if err != nil {
		return j.fail(err)
	}
	return nil
}

// encode makes groups of at most about maxGroup bytes.
func encode(packets []batching.Packet, first uint64, at batching.Stamp) (groups []*group, values [][]byte, err error) {
	if len(packets) == 0 || at.Clock > reading.ClockBad {
		return nil, nil, fmt.Errorf("append %d packets with clock quality %d", len(packets), at.Clock)
	}
	var w *groupWriter
	finish := func() {
		if w != nil {
			g := w.g // not w, which holds what encoding needed
			values, groups = append(values, w.value()), append(groups, &g)
			first = w.g.next()
		}
	}
	for i := range packets {
		p := &packets[i]
		if err := p.Validate(); err != nil {
			return nil, nil, fmt.Errorf("append: %w", err)
		}
		if w == nil || len(w.buf)+p.Bytes() > maxGroup {
			finish()
			w = newGroupWriter(first, at)
		}
		w.add(p)
	}
	finish()
	return groups, values, nil
}

// refuse counts a refusal.
func (j *Journal) refuse(err error) error {
	if errors.Is(err, batching.ErrBusy) {
		j.mu.Lock()
		j.stats.Refused++
		j.mu.Unlock()
	}
	return err
}

func (j *Journal) fail(err error) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.failed == nil {
		j.failed = fmt.Errorf("%w: commit: %w", ErrInDoubt, err)
	}
	return j.failed
}

// inBackground returns an error that wraps ErrInDoubt once a write that badger
// made by itself has failed.
func (j *Journal) inBackground() error {
	if err := j.background.Load(); err != nil {
		return j.fail(fmt.Errorf("in the background: %w", *err))
	}
	return nil
}

// apply takes a stored group into memory: after its commit, and again when it
// is replayed.
func (j *Journal) apply(g *group, bytes int) {
	j.windows.add(g)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.tail.add(g)
	j.tail.groups = append(j.tail.groups, g)
	j.recent.add(g)
	j.recent.shrink(j.checkpoint.next)
	j.next = g.next()
	j.stats.Appended += uint64(len(g.readings))
	j.stats.Groups++
	j.stats.Bytes += uint64(bytes)
}

// Recall implements [batching.Journal]: it looks among the last 512 packets of
// the sender. It reads the store only for a sender that was forgotten and
// whose packets could be young enough.
func (j *Journal) Recall(key batching.Key, within time.Duration, now int64) (uint64, bool) {
	if key == (batching.Key{}) {
		return 0, false
	}
	j.life.RLock()
	defer j.life.RUnlock()
	seq, ok, err := j.windows.recall(key, within, now)
	if err != nil {
		// A reading stored twice is better than one refused.
		j.log.Error("look for an earlier packet", "err", err)
	}
	return seq, ok
}

// Next implements [batching.Journal].
func (j *Journal) Next() uint64 {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.next
}

// Incarnation implements [batching.Journal].
func (j *Journal) Incarnation() [8]byte {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.incarnation
}

// SkipTo implements [batching.Journal].
func (j *Journal) SkipTo(next uint64) error {
	j.appendMu.Lock()
	defer j.appendMu.Unlock()
	if err := j.ready(0); err != nil {
		return err
	}
	if err := j.flush(); err != nil { // a segment holds no gap
		return err
	}
	j.indexMu.Lock()
	defer j.indexMu.Unlock()
	from := j.Next()
	next = max(from, next)
	c := j.checkpoint
	c.next = next
	incarnation := newIncarnation()
	if err := j.db.Update(func(txn *badger.Txn) error {
		if next > from {
			gap := binary.BigEndian.AppendUint64(nil, from)
			if err := txn.Set(seqKey(prefixGap, next), gap); err != nil {
				return err
			}
		}
		if err := txn.Set([]byte(metaCheckpoint), encodeCheckpoint(c)); err != nil {
			return err
		}
		return txn.Set([]byte(metaIncarnation), incarnation[:])
	}); err != nil {
		return j.fail(err)
	}
	j.windows.stored(next)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.next, j.checkpoint, j.incarnation = next, c, incarnation
	j.tail = newTail(next)
	j.recent.clear()
	if len(j.segments) == 0 {
		j.first = next
	}
	return nil
}

func newIncarnation() (id [8]byte) {
	_, _ = rand.Read(id[:]) // it never fails
	return id
}

// Ready implements [batching.Journal]: it asks for room for the largest group.
func (j *Journal) Ready() error { return j.ready(maxGroup) }

func (j *Journal) ready(bytes int64) error {
	if err := j.inBackground(); err != nil {
		return err
	}
	j.mu.RLock()
	closed, failed := j.closed, j.failed
	j.mu.RUnlock()
	switch {
	case failed != nil:
		return failed
	case closed:
		return fmt.Errorf("journal: %w", batching.ErrClosed)
	}
	return j.disk.admit(bytes)
}

// Stats returns the journal's figures.
func (j *Journal) Stats() Stats {
	free, used, _ := j.disk.figures(false)
	j.mu.RLock()
	defer j.mu.RUnlock()
	s := j.stats
	s.First, s.Next, s.FreeBytes, s.DiskBytes = j.first, j.next, free, used
	for i := range j.segments {
		s.Readings += j.segments[i].count()
	}
	s.Unindexed = j.tail.count()
	if j.frozen != nil {
		s.Unindexed += j.frozen.count()
	}
	s.Readings += s.Unindexed
	return s
}

var _ batching.Journal = (*Journal)(nil)
