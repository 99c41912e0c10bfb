package archive

import (
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"strings"

	"github.com/hedgerow-iot/hedgerow/batching/envelope"
	"github.com/hedgerow-iot/hedgerow/batching/reading"
)

const (
	// MaxLimit bounds what one query returns.
	MaxLimit     = 10000
	defaultLimit = 1000
)

// Bounds of the work of one call.
const (
	maxOpens = 256     // batches opened
	maxParts = 100_000 // entries looked at
	refill   = 64      // entries read at a time
)

// A Query asks for readings by received time.
type Query struct {
	Gateway string // a name, or * for all
	Without string // a gateway that * leaves out
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

// A place is where a reading stands in the order of queries.
type place struct {
	received int64
	gateway  string
	seq      uint64
	position uint64
}

func (a place) compare(b place) int {
	return cmp.Or(cmp.Compare(a.received, b.received), strings.Compare(a.gateway, b.gateway),
		cmp.Compare(a.seq, b.seq), cmp.Compare(a.position, b.position))
}

func (i *Item) place() place {
	return place{i.Reading.Received, i.Gateway, i.Reading.Seq, i.Position}
}

// Behind returns the cursor that goes on behind an item of q.
func (q Query) Behind(i Item) string { return q.cursor(i.place()) }

const cursorFormat = 1

// cursor makes a cursor: format, checksum of the query, place.
func (q *Query) cursor(p place) string {
	b := binary.BigEndian.AppendUint32([]byte{cursorFormat}, q.sum())
	b = binary.BigEndian.AppendUint64(b, uint64(p.received))
	b = binary.BigEndian.AppendUint64(b, p.seq)
	b = binary.BigEndian.AppendUint64(b, p.position)
	return base64.RawURLEncoding.EncodeToString(append(b, p.gateway...))
}

// after returns the place behind which q goes on.
func (q *Query) after() (place, error) {
	if q.Cursor == "" {
		return place{received: math.MinInt64}, nil
	}
	const size, name = 1 + 4 + 3*8, 32
	bad := fmt.Errorf("cursor %.100q: %w", q.Cursor, ErrCursor)
	if len(q.Cursor) > base64.RawURLEncoding.EncodedLen(size+name) {
		return place{}, bad
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(q.Cursor)
	if err != nil || len(b) < size || b[0] != cursorFormat || binary.BigEndian.Uint32(b[1:]) != q.sum() {
		return place{}, bad
	}
	p := place{
		received: int64(binary.BigEndian.Uint64(b[5:])), seq: binary.BigEndian.Uint64(b[13:]),
		position: binary.BigEndian.Uint64(b[21:]), gateway: string(b[size:]),
	}
	if q.cursor(p) != q.Cursor { // line breaks are skipped in decoding
		return place{}, bad
	}
	return p, nil
}

// sum tells queries apart, but for the size of their pages.
func (q *Query) sum() uint32 {
	b := binary.BigEndian.AppendUint64(nil, uint64(q.From))
	b = binary.BigEndian.AppendUint64(b, uint64(q.To))
	b = append(b, strings.Join([]string{q.Gateway, q.Without, q.Device, q.Name}, "\x00")...)
	return crc32.ChecksumIEEE(b)
}

// History returns the next page of readings that q asks for, in the order of
// received time; those of equal time by gateway and number.
//
// next is the cursor of the next page, empty after the last. A page may be
// short, even empty, though others follow: one call opens a bounded number of
// batches. Readings whose blocks are not kept any more are left out. An unknown
// gateway has none. The error wraps [ErrCursor] when the cursor is not of this
// query.
func (a *Archive) History(q Query) (items []Item, next string, err error) {
	if q.Gateway == "" {
		return nil, "", errors.New("history: no gateway named")
	}
	after, err := q.after()
	if err != nil {
		return nil, "", err
	}
	s := newSearch(a, &q, after)
	stopped, err := s.run()
	if err != nil {
		return nil, "", fmt.Errorf("history: %w", err)
	}
	items, next = s.page(stopped)
	return items, next, nil
}

func pageSize(limit int) int {
	if limit <= 0 {
		return defaultLimit
	}
	return min(limit, MaxLimit)
}

// A search walks through the batches of some gateways in the order of their
// lowest received time and collects the first limit+1 readings behind a place.
type search struct {
	archive  *Archive
	query    *Query
	element  uint64
	from, to int64
	after    place
	limit    int
	walkers  []*walker
	items    []Item
	end      place // nothing above it is wanted; set once items was cut
	cut      bool
}

func newSearch(a *Archive, q *Query, after place) *search {
	s := &search{
		archive: a, query: q, element: element(q.Device, q.Name), after: after, limit: pageSize(q.Limit),
		from: q.From, to: q.To,
	}
	if q.From == 0 {
		s.from = math.MinInt64
	}
	if q.To == 0 {
		s.to = math.MaxInt64
	}
	names := []string{q.Gateway}
	if q.Gateway == "*" {
		names = slices.DeleteFunc(a.Gateways(), func(name string) bool { return name == q.Without })
	}
	// No batch begins before the span that holds the first reading wanted.
	start := max(s.from, after.received) >> spanBits << spanBits
	for _, name := range names {
		s.walkers = append(s.walkers, &walker{gateway: name, prefix: batchPrefix(name), from: batchKey(name, start, 0)})
	}
	return s
}

// run collects until nothing is left that belongs to the page, and then
// returns nil, or until it has done enough for one call, and then returns the
// received time below which it is complete.
func (s *search) run() (stopped *int64, err error) {
	opens, seen := 0, 0
	for {
		w, err := s.first()
		if w == nil || err != nil {
			return nil, err
		}
		p := w.parts[0]
		switch {
		case p.low >= s.to || s.cut && p.low > s.end.received:
			return nil, nil
		case (opens >= maxOpens || seen >= maxParts) && p.low > s.after.received:
			return &p.low, nil
		}
		w.parts = w.parts[1:]
		if seen++; p.high < max(s.from, s.after.received) || !p.filter.may(s.element) {
			continue
		}
		opens++
		if err := s.offer(w.gateway, &p); err != nil {
			return nil, err
		}
	}
}

// first returns the walker whose next batch begins first, or nil.
func (s *search) first() (*walker, error) {
	var first *walker
	for _, w := range s.walkers {
		if err := w.fill(s.archive.index); err != nil {
			return nil, err
		}
		if len(w.parts) > 0 && (first == nil || w.parts[0].low < first.parts[0].low) {
			first = w
		}
	}
	return first, nil
}

// offer takes what belongs to the page from a batch.
func (s *search) offer(gateway string, p *part) error {
	o, err := s.archive.open(p.position)
	if err != nil || o == nil {
		return err
	}
	if o.Gateway != gateway {
		return damaged("block %v at %d is of gateway %q, not %q", o.id, p.position, o.Gateway, gateway)
	}
	for i := range o.Readings {
		r := &o.Readings[i]
		switch {
		case r.Received < max(p.low, s.from) || r.Received > p.high || r.Received >= s.to:
			continue
		case s.query.Device != "" && s.query.Device != r.Device || s.query.Name != "" && s.query.Name != r.Name:
			continue
		}
		item := Item{gateway, *r, o.id, o.position}
		if at := item.place(); at.compare(s.after) <= 0 || s.cut && at.compare(s.end) > 0 {
			continue
		}
		if p.counts != nil {
			if _, ok := indexOf(p.counts, r.Seq); !ok {
				continue
			}
		}
		if s.items = append(s.items, item); len(s.items) >= 2*(s.limit+1) {
			s.sort()
		}
	}
	return nil
}

func (s *search) sort() {
	slices.SortFunc(s.items, func(a, b Item) int { return a.place().compare(b.place()) })
	if len(s.items) > s.limit {
		s.items, s.cut = s.items[:s.limit+1], true
		s.end = s.items[s.limit].place()
	}
}

// page returns what was collected and the cursor that goes on.
func (s *search) page(stopped *int64) (items []Item, next string) {
	s.sort()
	if stopped != nil {
		s.items = slices.DeleteFunc(s.items, func(i Item) bool { return i.Reading.Received >= *stopped })
	}
	switch {
	case len(s.items) > s.limit:
		return s.items[:s.limit], s.query.Behind(s.items[s.limit-1])
	case stopped != nil:
		return s.items, s.query.cursor(place{received: *stopped})
	}
	return s.items, ""
}

// A walker reads the entries b of one gateway in their order.
type walker struct {
	gateway string
	prefix  []byte
	from    []byte // key to go on with
	parts   []part
	done    bool
}

// fill reads further entries when there are none left.
func (w *walker) fill(index Index) error {
	if len(w.parts) > 0 || w.done {
		return nil
	}
	err := scan(index, w.prefix, w.from, func(key, value []byte) (bool, error) {
		if len(w.parts) == refill {
			return false, nil
		}
		p, err := decodePart(w.prefix, key, value)
		w.parts = append(w.parts, p)
		w.from = append(append(w.from[:0], key...), 0)
		return true, err
	})
	w.done = len(w.parts) < refill
	return err
}

// readingOf returns the reading of a batch with this number.
func readingOf(b *envelope.Batch, seq uint64) (reading.Reading, bool) {
	i, ok := indexOf(b.Runs, seq)
	if !ok {
		return reading.Reading{}, false
	}
	return b.Readings[i], true
}
