package journal

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/dgraph-io/badger/v4"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/batching/reading"
)

const (
	// MaxLimit bounds what one query returns.
	MaxLimit     = 10000
	defaultLimit = 1000
)

// errStop ends a scan early.
var errStop = errors.New("stop")

// scan calls do with every key and value under prefix, in order. Both are
// valid during the call only.
func scan(txn *badger.Txn, prefix []byte, do func(key, value []byte) error) error {
	return scanFrom(txn, prefix, prefix, do)
}

func scanFrom(txn *badger.Txn, prefix, from []byte, do func(key, value []byte) error) error {
	it := txn.NewIterator(badger.IteratorOptions{Prefix: prefix})
	defer it.Close()
	for it.Seek(from); it.Valid(); it.Next() {
		key := it.Item().Key()
		err := it.Item().Value(func(v []byte) error { return do(key, v) })
		if errors.Is(err, errStop) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// groupsFrom calls do with the groups that begin at from or above.
func groupsFrom(txn *badger.Txn, from uint64, do func(g *group, size int) error) error {
	return scanFrom(txn, []byte{prefixGroup}, seqKey(prefixGroup, from), func(key, value []byte) error {
		first, ok := parseSeqKey(key)
		if !ok {
			return fmt.Errorf("%w: group key %x", ErrCorrupt, key)
		}
		g, err := decodeGroup(first, value)
		if err != nil {
			return err
		}
		return do(g, len(value))
	})
}

// A finder looks up groups by the number of one of their readings.
type finder struct {
	it  *badger.Iterator
	hit *group
}

func newFinder(txn *badger.Txn) *finder {
	return &finder{it: txn.NewIterator(badger.IteratorOptions{Reverse: true, Prefix: []byte{prefixGroup}})}
}

func (f *finder) close() { f.it.Close() }

// find returns the group that holds seq, or nil.
func (f *finder) find(seq uint64) (*group, error) {
	if f.hit != nil && f.hit.first <= seq && seq < f.hit.next() {
		return f.hit, nil
	}
	f.it.Seek(seqKey(prefixGroup, seq))
	if !f.it.Valid() {
		return nil, nil
	}
	first, ok := parseSeqKey(f.it.Item().Key())
	if !ok {
		return nil, fmt.Errorf("%w: group key %x", ErrCorrupt, f.it.Item().Key())
	}
	var g *group
	err := f.it.Item().Value(func(v []byte) (err error) {
		g, err = decodeGroup(first, v)
		return err
	})
	if err != nil {
		return nil, err
	}
	if seq >= g.next() {
		return nil, nil
	}
	f.hit = g
	return g, nil
}

// view runs do on the store as it is now. Whoever needs memory and store to
// agree takes what memory has before it calls view: what leaves memory
// meanwhile is in the store by then.
func (j *Journal) view(do func(*badger.Txn) error) error {
	j.life.RLock()
	defer j.life.RUnlock()
	j.mu.RLock()
	closed := j.closed
	j.mu.RUnlock()
	if closed {
		return fmt.Errorf("journal: %w", batching.ErrClosed)
	}
	return j.db.View(do)
}

// Read implements [batching.Journal]. It returns at most [MaxLimit] readings.
func (j *Journal) Read(from uint64, limit int) ([]reading.Reading, error) {
	limit = min(limit, MaxLimit)
	if limit <= 0 {
		return nil, nil
	}
	j.mu.RLock()
	from, next := max(from, j.first), j.next
	j.mu.RUnlock()
	rs := make([]reading.Reading, 0, room(from, next, limit))
	err := j.span(from, next, func(r *reading.Reading) bool {
		rs = append(rs, *r)
		return len(rs) < limit
	})
	if err != nil {
		return nil, fmt.Errorf("read from %d: %w", from, err)
	}
	return rs, nil
}

// span calls do with the readings of [from, until) until it returns false:
// from the store up to where memory begins, then from memory. What memory
// drops meanwhile is in the store by then.
func (j *Journal) span(from, until uint64, do func(*reading.Reading) bool) error {
	for from < until {
		j.mu.RLock()
		stored := min(until, j.recent.first(j.next))
		groups := j.recent.from(from, spanGroups)
		j.mu.RUnlock()
		if from < stored {
			more := true
			err := j.view(func(txn *badger.Txn) error {
				return readSpan(txn, from, stored, func(r *reading.Reading) bool {
					more = do(r)
					return more
				})
			})
			if err != nil || !more {
				return err
			}
			from = stored
			continue
		}
		if len(groups) == 0 {
			return nil
		}
		for _, g := range groups {
			for i := range g.readings {
				switch r := &g.readings[i]; {
				case r.Seq < from:
				case r.Seq >= until || !do(r):
					return nil
				}
			}
			from = g.next()
		}
	}
	return nil
}

// spanGroups is how many groups span takes from memory at a time.
const spanGroups = 256

// room returns how many readings [from, next) may give, at most limit.
func room(from, next uint64, limit int) int {
	if from >= next {
		return 0
	}
	return int(min(next-from, uint64(limit)))
}

// Get returns the reading with that number. The error wraps [ErrNotFound] when
// it is not kept (any more) or not there yet.
func (j *Journal) Get(seq uint64) (reading.Reading, error) {
	rs, err := j.fetch([]entry{{seq: seq}})
	if err != nil {
		return reading.Reading{}, fmt.Errorf("reading %d: %w", seq, err)
	}
	if len(rs) == 0 {
		return reading.Reading{}, fmt.Errorf("reading %d: %w", seq, ErrNotFound)
	}
	return rs[0], nil
}

// fetch returns the readings of the entries in their order, without those that
// are not kept.
func (j *Journal) fetch(es []entry) ([]reading.Reading, error) {
	order := make([]int, len(es))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(es[a].seq, es[b].seq) })
	rs := make([]reading.Reading, len(es))
	missing := order[:0]
	j.mu.RLock()
	first, next := j.first, j.next
	for _, i := range order {
		seq := es[i].seq
		if seq < first || seq >= next {
			continue
		}
		if seq < j.recent.first(next) {
			missing = append(missing, i)
		} else if gs := j.recent.from(seq, 1); len(gs) == 1 && gs[0].first <= seq {
			rs[i] = gs[0].readings[seq-gs[0].first]
		}
	}
	j.mu.RUnlock()
	if len(missing) > 0 {
		err := j.view(func(txn *badger.Txn) error {
			f := newFinder(txn)
			defer f.close()
			for _, i := range missing {
				g, err := f.find(es[i].seq)
				if err != nil {
					return err
				}
				if g != nil {
					rs[i] = g.readings[es[i].seq-g.first]
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return slices.DeleteFunc(rs, func(r reading.Reading) bool { return r.Seq == 0 }), nil
}

// Last returns the newest reading of the device under that name. The error
// wraps [ErrNotFound] when there is none.
func (j *Journal) Last(device, name string) (reading.Reading, error) {
	s := series{device, name}
	j.mu.RLock()
	e, ok := j.tail.last(s)
	if !ok {
		e, ok = j.frozen.last(s)
	}
	j.mu.RUnlock()
	if !ok {
		err := j.view(func(txn *badger.Txn) (err error) {
			e, ok, err = lastIndexed(txn, s)
			return err
		})
		if err != nil {
			return reading.Reading{}, fmt.Errorf("last %s of %s: %w", name, device, err)
		}
	}
	if !ok {
		return reading.Reading{}, fmt.Errorf("last %s of %s: %w", name, device, ErrNotFound)
	}
	return j.Get(e.seq)
}

func lastIndexed(txn *badger.Txn, s series) (e entry, ok bool, err error) {
	item, err := txn.Get(s.key(prefixLast))
	if errors.Is(err, badger.ErrKeyNotFound) {
		return e, false, nil
	}
	if err != nil {
		return e, false, err
	}
	err = item.Value(func(v []byte) (err error) {
		e, err = decodeLast(v)
		return err
	})
	return e, err == nil, err
}

// Latest returns the newest reading of every name of the device, or of every
// device when it is empty, in the order of device and name. limit 0 means
// 1000, the most is [MaxLimit]. To go on, pass next as after; it is empty at
// the end. The error wraps [ErrCursor] when after is not such a next.
func (j *Journal) Latest(device, after string, limit int) (rs []reading.Reading, next string, err error) {
	limit = pageSize(limit)
	var start series
	if after != "" {
		b, err := base64.RawURLEncoding.Strict().DecodeString(after)
		s, ok := parseSeries(b)
		if err != nil || !ok || device != "" && s.device != device || len(b) > reading.MaxDevice+1+reading.MaxName {
			return nil, "", fmt.Errorf("latest after %.100q: %w", after, ErrCursor)
		}
		start = s
	}
	newest := j.unindexed(device, start)
	indexed := 0
	err = j.view(func(txn *badger.Txn) error {
		return seriesFrom(txn, device, start, func(s series, e entry) error {
			if _, known := newest[s]; !known {
				newest[s] = e
			}
			if indexed++; indexed > limit {
				return errStop
			}
			return nil
		})
	})
	if err != nil {
		return nil, "", fmt.Errorf("latest: %w", err)
	}
	names := slices.SortedFunc(maps.Keys(newest), compareSeries)
	if len(names) > limit {
		names = names[:limit]
		next = base64.RawURLEncoding.EncodeToString(names[limit-1].key(0)[1:])
	}
	es := make([]entry, len(names))
	for i, s := range names {
		es[i] = newest[s]
	}
	rs, err = j.fetch(es)
	if err != nil {
		return nil, "", fmt.Errorf("latest: %w", err)
	}
	return rs, next, nil
}

// unindexed returns the newest entries in memory of the series after start.
func (j *Journal) unindexed(device string, start series) map[series]entry {
	newest := make(map[series]entry)
	j.mu.RLock()
	defer j.mu.RUnlock()
	for _, t := range []*tail{j.frozen, j.tail} {
		if t == nil {
			continue
		}
		for s, es := range t.series {
			if (device == "" || s.device == device) && compareSeries(s, start) > 0 {
				newest[s] = es[len(es)-1]
			}
		}
	}
	return newest
}

// seriesFrom calls do with the indexed series of the device, or of all, that
// come after start.
func seriesFrom(txn *badger.Txn, device string, start series, do func(series, entry) error) error {
	prefix := []byte{prefixLast}
	if device != "" {
		prefix = series{device: device}.key(prefixLast)
	}
	from := prefix
	if start != (series{}) {
		from = append(start.key(prefixLast), 0)
	}
	return scanFrom(txn, prefix, from, func(key, value []byte) error {
		s, ok := parseSeries(key[1:])
		if !ok {
			return fmt.Errorf("%w: last value %x", ErrCorrupt, key)
		}
		e, err := decodeLast(value)
		if err != nil {
			return err
		}
		return do(s, e)
	})
}

func pageSize(limit int) int {
	if limit <= 0 {
		return defaultLimit
	}
	return min(limit, MaxLimit)
}
