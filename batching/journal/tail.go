package journal

import (
	"maps"
	"slices"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/hedgerow-iot/hedgerow/batching"
)

// A tail is the part of the journal that is not in the store yet: its groups,
// which are in the head, and what the indexes will hold of them.
type tail struct {
	segment
	groups []*group
	series map[series][]entry
	keys   map[[16]byte][]keyed
	// latest is the highest received time of a packet with a key.
	latest int64
}

// A keyed is one packet in the window of its sender.
type keyed struct {
	message  [16]byte
	seq      uint64
	received int64
}

func newTail(first uint64) *tail {
	return &tail{
		segment: segment{first: first, next: first},
		series:  make(map[series][]entry),
		keys:    make(map[[16]byte][]keyed),
	}
}

// add takes in the next group. What it takes in the store is added to bytes by
// whoever knows it.
func (t *tail) add(g *group) {
	if t.next == t.first {
		t.minReceived, t.maxReceived = g.at.Received, g.at.Received
	}
	for i := range g.readings {
		r := &g.readings[i]
		t.minReceived = min(t.minReceived, r.Received)
		t.maxReceived = max(t.maxReceived, r.Received)
		s := series{r.Device, r.Name}
		t.series[s] = append(t.series[s], entry{r.Seq, r.Received})
	}
	g.keyed(func(sender [16]byte, k keyed) {
		if len(t.keys) == 0 {
			t.latest = k.received
		}
		t.latest = max(t.latest, k.received)
		t.keys[sender] = append(t.keys[sender], k)
	})
	t.next = g.next()
}

// keyed calls yield with every packet that can be recognised.
func (g *group) keyed(yield func(sender [16]byte, k keyed)) {
	seq := g.first
	for _, p := range g.packets {
		if p.key != (batching.Key{}) {
			yield(p.key.Sender, keyed{p.key.Message, seq, g.at.Received})
		}
		seq += uint64(p.n)
	}
}

// last returns the newest entry of s, if it has one here.
func (t *tail) last(s series) (entry, bool) {
	if t == nil || len(t.series[s]) == 0 {
		return entry{}, false
	}
	es := t.series[s]
	return es[len(es)-1], true
}

// index calls yield with every key and value that the indexes get from t,
// always the same ones for the same groups: flush writes them, trim deletes
// them, check compares them.
func (t *tail) index(yield func(key, value []byte) error) error {
	for _, s := range slices.SortedFunc(maps.Keys(t.series), compareSeries) {
		var err error
		chunks(t.series[s], func(es []entry) {
			if err == nil {
				err = yield(chunkKey(s, es[0]), encodeChunk(es))
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// A writer cuts many small changes into synced transactions that badger takes.
type writer struct {
	db    *badger.DB
	cut   cut
	txn   *badger.Txn
	bytes int
	count int
}

const (
	writerBytes = 512 << 10
	writerCount = 2048
)

// A cut says how many changes a transaction takes, and is told when one is
// durable: a test pulls the plug there.
type cut struct {
	most int
	done func()
}

func (j *Journal) newWriter() *writer { return &writer{db: j.db, cut: j.cut} }

func (w *writer) set(key, value []byte, ttl time.Duration) error {
	e := badger.NewEntry(key, value)
	if ttl > 0 {
		e = e.WithTTL(ttl)
	}
	return w.change(len(key)+len(value), func(txn *badger.Txn) error { return txn.SetEntry(e) })
}

func (w *writer) delete(key []byte) error {
	return w.change(len(key), func(txn *badger.Txn) error { return txn.Delete(key) })
}

func (w *writer) change(bytes int, do func(*badger.Txn) error) error {
	if w.txn != nil && (w.bytes+bytes > writerBytes || w.count >= w.cut.most) {
		if err := w.commit(); err != nil {
			return err
		}
	}
	if w.txn == nil {
		w.txn = w.db.NewTransaction(true)
	}
	w.bytes, w.count = w.bytes+bytes, w.count+1
	return do(w.txn)
}

func (w *writer) commit() error {
	if w.txn == nil {
		return nil
	}
	err := w.txn.Commit()
	w.txn, w.bytes, w.count = nil, 0, 0
	if err == nil {
		w.cut.done()
	}
	return err
}

func (w *writer) discard() {
	if w.txn != nil {
		w.txn.Discard()
		w.txn = nil
	}
}
