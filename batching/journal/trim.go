package journal

import (
	"encoding/binary"
	"fmt"

	"github.com/dgraph-io/badger/v4"
)

// trim drops the oldest segment when its age or the journal's size wants it
// and Trim allowed it, and reports whether it did. Age is measured against
// the newest reading as well as the clock, so that a clock that jumps ahead
// drops nothing by itself.
func (j *Journal) trim(now int64) (bool, error) {
	j.indexMu.Lock()
	defer j.indexMu.Unlock()
	free, used, err := j.disk.figures(false)
	if err != nil {
		j.log.Warn("look at the journal's disk", "err", err)
		return false, nil
	}
	if free < closeMark {
		return false, nil // to delete is to write
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
	full := used-j.dropped > j.opt.MaxDisk/10*9
	if !full && !anyOlder(segments[:min(len(segments), 16)], oldest) {
		return false, nil
	}
	if err := j.trimSegment(segments[0]); err != nil {
		return false, j.fail(fmt.Errorf("drop readings %d to %d: %w", segments[0].first, segments[0].next-1, err))
	}
	return true, nil
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
	j.dropped += indexTimes * s.bytes
	return nil
}

// drop deletes what the groups of s brought into the indexes, then the groups,
// then s: what a crash leaves is found again by s.
func (j *Journal) drop(s segment) error {
	t := newTail(s.first)
	var groups [][]byte
	err := j.db.View(func(txn *badger.Txn) error {
		return groupsFrom(txn, s.first, func(g *group, _ int) error {
			if g.first >= s.next {
				return errStop
			}
			t.add(g)
			groups = append(groups, seqKey(prefixGroup, g.first))
			return nil
		})
	})
	if err != nil {
		return err
	}
	w := j.newWriter()
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

// reclaim makes the store give back what was dropped, when the journal is near
// its cap: badger merges tables at leisure, and until then a deletion takes
// space.
func (j *Journal) reclaim(idle bool) error {
	free, used, err := j.disk.figures(false)
	if err != nil || free < lowMark {
		return nil // trim said so; to compact is to write
	}
	j.life.RLock()
	defer j.life.RUnlock()
	j.indexMu.Lock()
	dropped := j.dropped
	j.indexMu.Unlock()
	most := j.opt.MaxDisk
	if (used < most/10*9 || dropped < most/16) && (used < most || dropped == 0 || !idle) {
		return nil
	}
	if err := j.writeOut(); err != nil {
		return j.fail(fmt.Errorf("write out the memory table: %w", err))
	}
	if err := j.db.Flatten(1); err != nil {
		j.log.Warn("compact the journal", "err", err)
	}
	_, _, err = j.disk.figures(true)
	return err
}

// writeOut has badger turn its memory table into a table. That it does when a
// prefix is dropped, and only when a key has it.
func (j *Journal) writeOut() error {
	j.indexMu.Lock()
	defer j.indexMu.Unlock()
	j.dropped = 0
	if err := j.db.Update(func(txn *badger.Txn) error { return txn.Set([]byte{prefixDrop}, nil) }); err != nil {
		return err
	}
	return j.db.DropPrefix([]byte{prefixDrop})
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
