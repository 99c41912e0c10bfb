package journal

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/dgraph-io/badger/v4"
)

const (
	// flushSize is how many readings the tail holds before it is indexed.
	flushSize = 4096
	// flushLate is when Append indexes the tail itself, because Run is late.
	flushLate = 4 * flushSize
	// upkeepEvery is how often Run looks at disk and retention.
	upkeepEvery = 100 * time.Millisecond
)

// Run indexes what was appended and drops what Trim and the retention allow,
// until ctx ends. It returns nil then, or the error that leaves the journal in
// doubt and must end the process. Without Run, Append indexes by itself and
// nothing is dropped.
func (j *Journal) Run(ctx context.Context) error {
	tick := time.NewTicker(upkeepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-j.due:
			if err := j.flush(); err != nil {
				return err
			}
		case <-tick.C:
			if _, err := j.trim(time.Now().UnixMilli()); err != nil {
				return err
			}
		}
	}
}

// flushDue has the tail indexed when it is large: by Run, or here and now when
// Run does not keep up.
func (j *Journal) flushDue() error {
	j.mu.RLock()
	n := j.tail.count()
	j.mu.RUnlock()
	if n >= flushLate {
		return j.flush()
	}
	if n >= flushSize {
		select {
		case j.due <- struct{}{}:
		default:
		}
	}
	return nil
}

// flush indexes the tail and moves the checkpoint behind it. A crash on the
// way leaves index entries above the checkpoint: readers ignore them, and the
// next flush, which begins at the same number, writes the same keys again.
func (j *Journal) flush() error {
	j.indexMu.Lock()
	defer j.indexMu.Unlock()
	j.mu.Lock()
	if j.failed != nil || j.tail.count() == 0 {
		defer j.mu.Unlock()
		return j.failed
	}
	t := j.tail
	j.frozen, j.tail = t, newTail(t.next)
	c := checkpoint{next: t.next, received: j.checkpoint.received}
	j.mu.Unlock()
	if len(t.keys) > 0 {
		c.received = max(c.received, t.latest)
	}
	if err := j.writeTail(t, c); err != nil {
		return j.fail(fmt.Errorf("index readings %d to %d: %w", t.first, t.next-1, err))
	}
	j.windows.stored(t.next)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.segments = append(j.segments, t.segment)
	j.checkpoint, j.frozen = c, nil
	return nil
}

func (j *Journal) writeTail(t *tail, c checkpoint) error {
	w := &writer{db: j.db}
	defer w.discard()
	if err := t.index(func(k, v []byte) error { return w.set(k, v, 0) }); err != nil {
		return err
	}
	for s, es := range t.series {
		if err := w.set(s.key(prefixLast), encodeLast(es[len(es)-1]), 0); err != nil {
			return err
		}
	}
	for sender, ks := range t.keys {
		first := ks[0].seq
		ks = ks[max(0, len(ks)-windowSize):]
		if err := w.set(windowKey(sender, first), encodeWindow(first, ks), windowAge); err != nil {
			return err
		}
	}
	if err := w.commit(); err != nil {
		return err
	}
	return j.db.Update(func(txn *badger.Txn) error { // all of the above is synced
		if err := txn.Set(seqKey(prefixSegment, t.first), encodeSegment(&t.segment)); err != nil {
			return err
		}
		return txn.Set([]byte(metaCheckpoint), encodeCheckpoint(c))
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
	for len(j.segments) > 0 && j.segments[0].first < j.first && !j.opt.readOnly {
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
	done := false
	for !done {
		var batch []*group
		var sizes []int
		err := j.db.View(func(txn *badger.Txn) error {
			done = true
			return groupsFrom(txn, j.next, func(g *group, size int) error {
				batch, sizes = append(batch, g), append(sizes, size)
				if len(batch) == 256 {
					done = false
					return errStop
				}
				return nil
			})
		})
		if err != nil {
			return err
		}
		for i, g := range batch {
			if g.first != j.next {
				return fmt.Errorf("%w: group %d where %d belongs", ErrCorrupt, g.first, j.next)
			}
			j.apply(g, sizes[i])
		}
		if j.tail.count() >= flushSize && !j.opt.readOnly {
			if err := j.flush(); err != nil {
				return err
			}
		}
	}
	j.stats = Stats{}
	return nil
}

// trim drops the oldest segment when its age or the journal's size wants it
// and Trim allowed it, and reports whether it did. Age is measured against
// the newest reading as well as the clock, so that a clock that jumps ahead
// drops nothing by itself.
func (j *Journal) trim(now int64) (bool, error) {
	j.indexMu.Lock()
	defer j.indexMu.Unlock()
	_, used, err := j.disk.figures(false)
	if err != nil {
		j.log.Warn("look at the journal's disk", "err", err)
		return false, nil
	}
	j.mu.RLock()
	failed, closed := j.failed, j.closed
	segments, through := j.segments, j.through
	newest := j.tail.maxReceived
	if n := len(segments); j.tail.count() == 0 && n > 0 {
		newest = segments[n-1].maxReceived
	}
	j.mu.RUnlock()
	if failed != nil || closed || len(segments) == 0 || segments[0].next-1 > through {
		return false, failed
	}
	oldest := min(now, newest) - j.opt.Retention.Milliseconds()
	full := used-j.flattens > j.opt.MaxDisk/10*9
	if !full && !anyOlder(segments[:min(len(segments), 16)], oldest) {
		return false, nil
	}
	if err := j.trimSegment(segments[0]); err != nil {
		return false, j.fail(fmt.Errorf("drop readings %d to %d: %w", segments[0].first, segments[0].next-1, err))
	}
	return true, j.reclaim()
}

// anyOlder reports whether the first segment is old: if a later one is, then
// it is, too, whatever a wrong clock wrote into it.
func anyOlder(segments []segment, oldest int64) bool {
	for i := range segments {
		if segments[i].maxReceived < oldest {
			return true
		}
	}
	return false
}

// trimSegment drops the oldest segment: first from sight, durably, then from
// the store.
func (j *Journal) trimSegment(s segment) error {
	err := j.db.Update(func(txn *badger.Txn) error {
		return txn.Set([]byte(metaTrimmed), binary.BigEndian.AppendUint64(nil, s.next-1))
	})
	if err != nil {
		return err
	}
	j.mu.Lock()
	j.segments = j.segments[1:]
	j.first = j.checkpoint.next
	if len(j.segments) > 0 {
		j.first = j.segments[0].first
	}
	j.stats.Trimmed += s.count()
	j.mu.Unlock()
	if err := j.drop(s); err != nil {
		return err
	}
	j.flattens += indexTimes * s.bytes
	return nil
}

// drop deletes what the groups of s brought into the indexes, then the groups,
// then s: what a crash leaves is found again by s.
func (j *Journal) drop(s segment) error {
	t := newTail(s.first)
	var groups [][]byte
	err := j.db.View(func(txn *badger.Txn) error {
		return groupsFrom(txn, s.first, func(g *group, size int) error {
			if g.first >= s.next {
				return errStop
			}
			t.add(g, size)
			groups = append(groups, seqKey(prefixGroup, g.first))
			return nil
		})
	})
	if err != nil {
		return err
	}
	w := &writer{db: j.db}
	defer w.discard()
	if err := t.index(func(k, _ []byte) error { return w.delete(k) }); err != nil {
		return err
	}
	if err := j.dropLast(t, s, w); err != nil {
		return err
	}
	for _, key := range groups {
		if err := w.delete(key); err != nil {
			return err
		}
	}
	if err := w.delete(seqKey(prefixSegment, s.first)); err != nil {
		return err
	}
	return w.commit()
}

// dropLast deletes the last values that are in s.
func (j *Journal) dropLast(t *tail, s segment, w *writer) error {
	return j.db.View(func(txn *badger.Txn) error {
		for name := range t.series {
			e, ok, err := lastIndexed(txn, name)
			if err != nil {
				return err
			}
			if ok && e.seq < s.next {
				if err := w.delete(name.key(prefixLast)); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// indexTimes is about how many bytes of tables a byte of groups comes to.
const indexTimes = 2

// reclaim compacts the store when a good part of it was dropped: badger gives
// space back when it merges tables, which it puts off for long.
func (j *Journal) reclaim() error {
	if j.flattens < max(j.opt.MaxDisk/16, 16<<20) {
		return nil
	}
	j.flattens = 0
	if err := j.db.Flatten(1); err != nil {
		j.log.Warn("compact the journal", "err", err)
	}
	_, _, err := j.disk.figures(true)
	return err
}

// Trim implements [batching.Journal]: it allows Run to drop readings, a few
// thousand at a time, which stay until age or size wants them gone. Readings
// that are not indexed yet stay in any case.
func (j *Journal) Trim(through uint64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.through = max(j.through, through)
	return j.failed
}
