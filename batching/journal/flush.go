package journal

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/dgraph-io/badger/v4"
)

const (
	// flushSize is how many readings the tail holds before it is indexed.
	flushSize = 4096
	// flushLate is when Append indexes the tail itself, because Run is late.
	flushLate = 4 * flushSize
	// upkeepEvery is how often Run looks at disk and retention, and
	// upkeepIdle while nothing was appended for so long: an idle box should
	// not be woken up.
	upkeepEvery = 100 * time.Millisecond
	upkeepIdle  = time.Second
	// restAfter is how long nothing is appended before memory is given back:
	// badger keeps up to eight of its builders' buffers, of some 10 MB each,
	// and lets go of one every two seconds without a compaction.
	restAfter = 20 * time.Second
	// restBytes is how much was appended before that is worth it.
	restBytes = 8 << 20
)

// Run indexes what was appended and drops what Trim and the retention allow,
// until ctx ends. It returns nil then, or the error that leaves the journal in
// doubt and must end the process. Without Run, Append indexes by itself and
// nothing is dropped.
func (j *Journal) Run(ctx context.Context) error {
	tick := time.NewTimer(upkeepEvery)
	defer tick.Stop()
	var rest rest
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-j.due:
			// What is not indexed stays in memory: below the mark nothing is
			// appended either, and the first append after it asks again.
			if free, _, err := j.disk.figures(false); err == nil && free < closeMark {
				continue
			}
			if err := j.flush(); err != nil {
				return err
			}
		case <-tick.C:
			if err := j.inBackground(); err != nil {
				return err
			}
			pruned, err := j.prune()
			if err != nil {
				return err
			}
			dropped, err := j.trim(time.Now().UnixMilli())
			if err != nil {
				return err
			}
			if err := j.reclaim(!dropped && !pruned); err != nil {
				return err
			}
			if rest.due(j.appended(), time.Now()) {
				debug.FreeOSMemory() // after a burst the collector has no reason to run
			}
			next := upkeepEvery
			if time.Since(rest.since) > upkeepIdle {
				next = upkeepIdle
			}
			tick.Reset(next)
		}
	}
}

// A rest finds the moments of quiet after a burst.
type rest struct {
	last, seen uint64    // bytes appended at the last rest, and when last looked
	since      time.Time // when that changed
}

func (r *rest) due(appended uint64, now time.Time) bool {
	if appended != r.seen {
		r.seen, r.since = appended, now
	}
	if appended-r.last < restBytes || now.Sub(r.since) < restAfter {
		return false
	}
	r.last = appended
	return true
}

// appended returns the bytes appended since Open.
func (j *Journal) appended() uint64 {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.stats.Bytes
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
	if n >= flushSize || j.head.used() >= headBytes/2 {
		select {
		case j.due <- struct{}{}:
		default:
		}
	}
	return nil
}

// flush moves the tail from the head into the store, with its indexes, and the
// checkpoint behind it. A crash on the way leaves keys above the checkpoint:
// readers ignore them, and the next flush, which begins at the same number,
// writes the same ones again.
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
	j.recent.shrink(c.next)
	j.head.release(c.next)
	return nil
}

func (j *Journal) writeTail(t *tail, c checkpoint) error {
	w := j.newWriter()
	defer w.discard()
	err := merge(t.groups, func(first uint64, value []byte) error {
		t.bytes += int64(len(value))
		return w.set(seqKey(prefixGroup, first), value, 0)
	})
	if err != nil {
		return err
	}
	if err := t.index(func(k, v []byte) error { return w.set(k, v, 0) }); err != nil {
		return err
	}
	for s, es := range t.series {
		if err := w.set(s.key(prefixLast), encodeLast(es[len(es)-1]), 0); err != nil {
			return err
		}
	}
	ttl := windowTTL(time.Now())
	for sender, ks := range t.keys {
		first := ks[0].seq
		ks = ks[max(0, len(ks)-windowSize):]
		key, value := windowKey(sender, first), encodeWindow(first, ks)
		j.pruner.grown += int64(len(key) + len(value))
		if err := w.set(key, value, ttl); err != nil {
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
