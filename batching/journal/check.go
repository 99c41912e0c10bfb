package journal

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"

	"github.com/hedgerow-iot/hedgerow/batching"
)

// Check reads the whole journal and returns nil when every group decodes,
// their numbers have no gap but those that SkipTo made, the indexes say what
// the groups say, and the files' checksums fit. The error wraps [ErrCorrupt]
// and names the first difference.
//
// Nothing is indexed or dropped meanwhile, so the head fills; Append waits
// while the head is read. When what is appended fills the head to three
// quarters, Check gives way and the error wraps [batching.ErrBusy].
func (j *Journal) Check(ctx context.Context) error {
	j.life.RLock() // before indexMu, as everybody takes them
	defer j.life.RUnlock()
	c, err := j.startCheck(ctx)
	if c != nil {
		defer j.indexMu.Unlock()
	}
	if err == nil {
		err = checkSums(j.db)
	}
	if err == nil {
		err = j.db.View(c.check)
	}
	if err != nil {
		return fmt.Errorf("check journal: %w", err)
	}
	return nil
}

// startCheck checks the head, which nobody appends to meanwhile, and returns a
// checker of what the store had at that moment. It leaves indexMu locked if
// the checker is not nil.
func (j *Journal) startCheck(ctx context.Context) (*checker, error) {
	j.appendMu.Lock()
	defer j.appendMu.Unlock()
	j.mu.RLock()
	closed := j.closed
	j.mu.RUnlock()
	if closed {
		return nil, batching.ErrClosed
	}
	j.indexMu.Lock()
	before := j.head.used()
	c := &checker{last: make(map[series]entry), stopped: func() error {
		if n := j.head.used(); n > before && n > headBytes/4*3 {
			return fmt.Errorf("%w: readings come in too fast to keep the indexes waiting", batching.ErrBusy)
		}
		return ctx.Err()
	}}
	j.mu.RLock()
	c.first, c.indexed, c.segments = j.first, j.checkpoint.next, j.segments
	j.mu.RUnlock()
	return c, j.checkHead(c.indexed)
}

// checkSums holds all blocks of all tables against their checksums, which
// badger does not do when it reads them.
func checkSums(db *badger.DB) (err error) {
	defer func() {
		if p := recover(); p != nil { // badger, of a block whose end is damaged
			err = bad("%v", p)
		}
	}()
	if err := db.VerifyChecksum(); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return nil
}

// checkHead looks for everything above the checkpoint in the head.
func (j *Journal) checkHead(indexed uint64) error {
	groups, err := j.head.read(indexed)
	if err != nil {
		return err
	}
	if n := len(groups); n > 0 {
		indexed = groups[n-1].next
	}
	// A write that failed may have left one more than was acknowledged.
	if next := j.Next(); indexed < next {
		return bad("readings %d to %d are not in %s", indexed, next-1, j.head.path)
	}
	return nil
}

type checker struct {
	stopped        func() error // why Check shall end, or nil
	first, indexed uint64
	segments       []segment
	last           map[series]entry // newest indexed
	chunks         int
}

func bad(format string, a ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrCorrupt}, a...)...)
}

func (c *checker) check(txn *badger.Txn) error {
	if n := len(c.segments); n > 0 && c.segments[n-1].next > c.indexed {
		return bad("checkpoint %d lies before segment %d", c.indexed, c.segments[n-1].first)
	}
	if err := c.groups(txn); err != nil {
		return err
	}
	if err := c.chunkKeys(txn); err != nil {
		return err
	}
	if err := c.lasts(txn); err != nil {
		return err
	}
	return scan(txn, []byte{prefixWindow}, func(key, value []byte) error {
		_, err := decodeWindow(key, value)
		return errors.Join(err, c.stopped())
	})
}

// groups walks all groups and holds each segment's against the indexes.
func (c *checker) groups(txn *badger.Txn) error {
	pos, left := c.first, c.segments
	t := newTail(pos)
	err := groupsFrom(txn, 0, func(g *group, size int) error {
		if err := c.stopped(); err != nil {
			return err
		}
		if g.first >= c.indexed { // left by a flush that was cut off
			return errStop
		}
		if g.first != pos {
			if err := gap(txn, pos, g.first); err != nil {
				return err
			}
			t = newTail(g.first)
		}
		if len(left) == 0 {
			return bad("group %d is in no segment", g.first)
		}
		t.add(g)
		t.bytes += int64(size)
		pos = g.next()
		if len(left) > 0 && pos >= left[0].next {
			if t.segment != left[0] {
				return bad("segment is %+v, its groups make %+v", left[0], t.segment)
			}
			if err := c.segment(txn, t); err != nil {
				return err
			}
			t, left = newTail(pos), left[1:]
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case len(left) > 0:
		return bad("groups of segment %d are missing", left[0].first)
	case pos != c.indexed:
		return gap(txn, pos, c.indexed)
	}
	return nil
}

// gap returns nil when SkipTo left the numbers from pos to next out, in one or
// more steps.
func gap(txn *badger.Txn, pos, next uint64) error {
	for at := next; at != pos; {
		item, err := txn.Get(seqKey(prefixGap, at))
		if errors.Is(err, badger.ErrKeyNotFound) || at < pos {
			return bad("readings %d to %d are missing", pos, next-1)
		}
		if err != nil {
			return err
		}
		err = item.Value(func(v []byte) error {
			if len(v) != 8 || binary.BigEndian.Uint64(v) >= at {
				return bad("gap before %d is %x", at, v)
			}
			at = binary.BigEndian.Uint64(v)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// segment holds the indexes against what the groups of a segment make.
func (c *checker) segment(txn *badger.Txn, t *tail) error {
	for s, es := range t.series {
		c.last[s] = es[len(es)-1]
	}
	return t.index(func(key, value []byte) error {
		c.chunks++
		item, err := txn.Get(key)
		if errors.Is(err, badger.ErrKeyNotFound) {
			return bad("index chunk %x is missing", key)
		}
		if err != nil {
			return err
		}
		return item.Value(func(v []byte) error {
			if !bytes.Equal(v, value) {
				return bad("index chunk %x is %x, groups make %x", key, v, value)
			}
			return nil
		})
	})
}

// chunkKeys looks for chunks that no segment makes.
func (c *checker) chunkKeys(txn *badger.Txn) error {
	found := 0
	err := scan(txn, []byte{prefixChunk}, func(key, _ []byte) error {
		_, start, ok := parseChunkKey(key)
		if !ok {
			return bad("chunk key %x", key)
		}
		if start.seq < c.indexed { // above: left by a flush that was cut off
			found++
		}
		return c.stopped()
	})
	if err == nil && found != c.chunks {
		err = bad("%d index chunks, groups make %d", found, c.chunks)
	}
	return err
}

func (c *checker) lasts(txn *badger.Txn) error {
	found := 0
	err := scan(txn, []byte{prefixLast}, func(key, value []byte) error {
		s, ok := parseSeries(key[1:])
		e, err := decodeLast(value)
		if !ok || err != nil {
			return bad("last value %x", key)
		}
		want, known := c.last[s]
		if known {
			found++
		}
		if e != want && e.seq < c.indexed {
			return bad("last value of %q %q is %d, groups make %d", s.device, s.name, e.seq, want.seq)
		}
		return c.stopped()
	})
	if err == nil && found != len(c.last) {
		err = bad("%d of %d series have a last value", found, len(c.last))
	}
	return err
}
