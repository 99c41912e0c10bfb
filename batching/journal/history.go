package journal

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"maps"
	"math"
	"slices"

	"github.com/dgraph-io/badger/v4"

	"github.com/hedgerow-iot/hedgerow/batching/reading"
)

// scanMost bounds how many readings one call in journal order looks at.
const scanMost = 100_000

// A Query asks for readings by received time.
type Query struct {
	// Device and Name restrict the query to one device, one name or both.
	Device, Name string
	// From and To bound the received time in Unix milliseconds: from From on,
	// before To; 0 leaves that end open.
	From, To int64
	// Limit bounds the readings of a page; 0 means 1000, the most is MaxLimit.
	Limit int
	// Cursor goes on where a page of the same query ended; empty begins.
	Cursor string
}

func (q *Query) bounds() (from, to int64) {
	from, to = q.From, q.To
	if from == 0 {
		from = math.MinInt64
	}
	if to == 0 {
		to = math.MaxInt64
	}
	return from, to
}

// History returns the next page of readings that q asks for. Those of one
// device come in the order of received time, the ones of equal time by
// number; those of all devices in the order of the journal.
//
// next is the cursor of the next page, empty after the last. A page may be
// short, even empty, though others follow: one call looks at a bounded number
// of readings. The error wraps [ErrCursor] when the cursor is not of this
// query.
func (j *Journal) History(q Query) (rs []reading.Reading, next string, err error) {
	limit := pageSize(q.Limit)
	after, err := parseCursor(&q)
	if err != nil {
		return nil, "", err
	}
	var more *entry
	if q.Device == "" {
		rs, more, err = j.inOrder(&q, after, limit)
	} else {
		rs, more, err = j.byTime(&q, after, limit)
	}
	if err != nil {
		return nil, "", fmt.Errorf("history: %w", err)
	}
	if more != nil {
		next = formatCursor(&q, *more)
	}
	return rs, next, nil
}

const cursorFormat = 1

// formatCursor makes a cursor that stands behind e: format, checksum of the
// query, received time and number of e.
func formatCursor(q *Query, e entry) string {
	b := binary.BigEndian.AppendUint32([]byte{cursorFormat}, q.sum())
	b = binary.BigEndian.AppendUint64(b, uint64(e.received))
	b = binary.BigEndian.AppendUint64(b, e.seq)
	return base64.RawURLEncoding.EncodeToString(b)
}

// parseCursor returns the entry behind which q goes on.
func parseCursor(q *Query) (entry, error) {
	if q.Cursor == "" {
		return entry{received: math.MinInt64}, nil
	}
	const size = 1 + 4 + 8 + 8
	if len(q.Cursor) != base64.RawURLEncoding.EncodedLen(size) {
		return entry{}, fmt.Errorf("cursor %.100q: %w", q.Cursor, ErrCursor)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(q.Cursor)
	// Newlines are skipped in decoding, so b may be short all the same.
	if err != nil || len(b) != size || b[0] != cursorFormat || binary.BigEndian.Uint32(b[1:]) != q.sum() {
		return entry{}, fmt.Errorf("cursor %.100q: %w", q.Cursor, ErrCursor)
	}
	return entry{binary.BigEndian.Uint64(b[13:]), int64(binary.BigEndian.Uint64(b[5:]))}, nil
}

// sum tells queries apart, but for the size of their pages.
func (q *Query) sum() uint32 {
	b := binary.BigEndian.AppendUint64(nil, uint64(q.From))
	b = binary.BigEndian.AppendUint64(b, uint64(q.To))
	b = append(b, q.Device...)
	b = append(b, 0)
	return crc32.Checksum(append(b, q.Name...), castagnoli)
}

// A page collects the first limit+1 entries behind after in a span of time.
type page struct {
	from, to int64
	after    entry
	limit    int
	es       []entry
	end      entry // nothing above it is wanted; set once es was cut
	cut      bool
}

// offer takes e if it belongs to the page, and reports whether a later one of
// the same series might.
func (p *page) offer(e entry) bool {
	if p.beyond(e) {
		return false
	}
	if e.received >= p.from && compareEntries(e, p.after) > 0 {
		p.es = append(p.es, e)
		if len(p.es) >= 2*(p.limit+1) {
			p.sort()
		}
	}
	return true
}

func (p *page) beyond(e entry) bool {
	return e.received >= p.to || p.cut && compareEntries(e, p.end) > 0
}

func (p *page) sort() {
	slices.SortFunc(p.es, compareEntries)
	if len(p.es) > p.limit {
		p.es, p.cut = p.es[:p.limit+1], true
		p.end = p.es[p.limit]
	}
}

// byTime answers a query for one device.
func (j *Journal) byTime(q *Query, after entry, limit int) ([]reading.Reading, *entry, error) {
	p := &page{after: after, limit: limit}
	p.from, p.to = q.bounds()
	first, indexed, names := j.offerUnindexed(q, p)
	err := j.view(func(txn *badger.Txn) error {
		if q.Name == "" {
			err := seriesFrom(txn, q.Device, series{}, func(s series, _ entry) error {
				names[s] = true
				return nil
			})
			if err != nil {
				return err
			}
		}
		it := txn.NewIterator(badger.IteratorOptions{Prefix: series{device: q.Device}.key(prefixChunk)})
		defer it.Close()
		for _, s := range slices.SortedFunc(maps.Keys(names), compareSeries) {
			if err := offerChunks(it, s, first, indexed, p); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	p.sort()
	var more *entry
	if len(p.es) > limit {
		p.es = p.es[:limit]
		more = &p.es[limit-1]
	}
	rs, err := j.fetch(p.es)
	return rs, more, err
}

// offerUnindexed offers what is in memory only, and returns what the indexes
// cover and the series to look for there.
func (j *Journal) offerUnindexed(q *Query, p *page) (first, indexed uint64, names map[series]bool) {
	names = make(map[series]bool)
	if q.Name != "" {
		names[series{q.Device, q.Name}] = true
	}
	j.mu.RLock()
	defer j.mu.RUnlock()
	for _, t := range []*tail{j.frozen, j.tail} {
		if t == nil {
			continue
		}
		for s, es := range t.series {
			if s.device != q.Device || q.Name != "" && s.name != q.Name {
				continue
			}
			for _, e := range es { // times may fall: all of them
				p.offer(e)
			}
		}
	}
	return j.first, j.checkpoint.next, names
}

// offerChunks offers the entries of a series that lie in [first, next).
func offerChunks(it *badger.Iterator, s series, first, next uint64, p *page) error {
	prefix := chunkPrefix(s)
	from := max(max(p.from, p.after.received), math.MinInt64+chunkSpan)
	for it.Seek(chunkKey(s, entry{received: from - chunkSpan})); it.ValidForPrefix(prefix); it.Next() {
		_, start, ok := parseChunkKey(it.Item().Key())
		if !ok {
			return fmt.Errorf("%w: chunk key %x", ErrCorrupt, it.Item().Key())
		}
		if p.beyond(start) {
			return nil // later chunks start later still
		}
		err := it.Item().Value(func(v []byte) error {
			end, err := chunkEnd(start, v)
			if err != nil || end.received < from || end.seq < first || start.seq >= next {
				return err
			}
			return decodeChunk(start, v, func(e entry) bool {
				return e.seq < first || e.seq < next && p.offer(e)
			})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// inOrder answers a query for all devices. Segments that lie outside its time
// are skipped.
func (j *Journal) inOrder(q *Query, after entry, limit int) (rs []reading.Reading, more *entry, err error) {
	from, to := q.bounds()
	j.mu.RLock()
	segments, indexed := j.segments, j.checkpoint.next
	pos, next := max(j.first, after.seq+1), j.next
	j.mu.RUnlock()
	seen := 0
	for pos < next {
		var until uint64
		if pos, until = nextSpan(segments, indexed, next, pos, from, to); pos >= next {
			break
		}
		err := j.span(pos, until, func(r *reading.Reading) bool {
			if len(rs) == limit || seen == scanMost {
				return false
			}
			seen, pos = seen+1, r.Seq+1
			if r.Received >= from && r.Received < to && (q.Name == "" || r.Name == q.Name) {
				rs = append(rs, *r)
			}
			return true
		})
		if err != nil {
			return nil, nil, err
		}
		if len(rs) == limit || seen == scanMost {
			if pos < next {
				more = &entry{seq: pos - 1}
			}
			break
		}
		pos = until
	}
	return rs, more, nil
}

// nextSpan returns the first numbers from pos on that may hold a reading of
// [from, to).
func nextSpan(segments []segment, indexed, next, pos uint64, from, to int64) (start, until uint64) {
	i, _ := slices.BinarySearchFunc(segments, pos, func(s segment, pos uint64) int {
		if s.next <= pos {
			return -1
		}
		return 1
	})
	for ; i < len(segments); i++ {
		if segments[i].overlaps(from, to) {
			return max(pos, segments[i].first), segments[i].next
		}
	}
	return max(pos, indexed), next
}

// readSpan calls do with the readings of [from, until) until it returns false.
func readSpan(txn *badger.Txn, from, until uint64, do func(*reading.Reading) bool) error {
	f := newFinder(txn)
	g, err := f.find(from)
	f.close()
	if err != nil {
		return err
	}
	start := from
	if g != nil {
		start = g.first
	}
	return groupsFrom(txn, start, func(g *group, _ int) error {
		for i := range g.readings {
			switch r := &g.readings[i]; {
			case r.Seq < from:
			case r.Seq >= until || !do(r):
				return errStop
			}
		}
		return nil
	})
}
