package journal

import (
	"container/list"
	"encoding/binary"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/hedgerow-iot/hedgerow/batching"
)

const (
	// windowSize is how many packets of a sender are looked at: twice the
	// largest receive maximum of an MQTT client.
	windowSize = 512
	// windowEntry is how many bytes a packet of a window takes at most.
	windowEntry = 16 + 2*binary.MaxVarintLen64
	// windowAge is how long a stored window is kept after it was written: the
	// longest time that a repetition may take (24 h), and some.
	windowAge = 25 * time.Hour
	// maxWindowKeys bounds the packets of all windows in memory, beyond those
	// of the tail.
	maxWindowKeys = 32 << 10
	// clockUnset is the time before which a clock has not been set: the age of
	// what was stamped then is unknown once it has.
	clockUnset = 1_735_689_600_000 // 2025-01-01
	// unsetAge is how long a window is kept that was written by such a clock.
	unsetAge = 80 * 365 * 24 * time.Hour
	// evictFew is how many windows are looked at for each group, so that many
	// that are not in the store yet hold up nobody.
	evictFew = 128
)

// windows finds the packets that a sender repeats. The latest ones are in
// memory; the others are read from the store when one could matter.
type windows struct {
	db *badger.DB

	mu      sync.Mutex // guards everything below
	senders map[[16]byte]*window
	used    *list.List // of *window, the longest unused first
	keys    int        // entries of all windows
	next    uint64     // what is below this is in the store, too
	// horizon is the latest received time of anything that is in the store but
	// perhaps not in memory.
	horizon int64
}

type window struct {
	sender  [16]byte
	keyed   []keyed // oldest first; the last windowSize count
	whole   bool    // nothing older is in the store
	element *list.Element
}

func newWindows(db *badger.DB) *windows {
	return &windows{
		db: db, senders: make(map[[16]byte]*window), used: list.New(), horizon: math.MinInt64,
	}
}

func (w *window) recent() []keyed { return w.keyed[max(0, len(w.keyed)-windowSize):] }

// find looks for a packet that came at oldest or later, or when the clock was
// not set yet but is now.
func (w *window) find(message [16]byte, oldest int64, set bool) (uint64, bool) {
	recent := w.recent()
	for i := len(recent) - 1; i >= 0; i-- {
		if at := recent[i].received; recent[i].message == message && (at >= oldest || set && at < clockUnset) {
			return recent[i].seq, true
		}
	}
	return 0, false
}

// add takes in the packets of a group.
func (ws *windows) add(g *group) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	g.keyed(func(sender [16]byte, k keyed) {
		w := ws.touch(sender)
		if len(w.keyed) == 2*windowSize {
			copy(w.keyed, w.keyed[windowSize:])
			w.keyed = w.keyed[:windowSize]
			ws.keys -= windowSize
		}
		w.keyed = append(w.keyed, k)
		ws.keys++
	})
	ws.evict(evictFew)
}

// touch returns the sender's window, the most recently used from now on.
func (ws *windows) touch(sender [16]byte) *window {
	w := ws.senders[sender]
	if w == nil {
		w = &window{sender: sender}
		w.element = ws.used.PushBack(w)
		ws.senders[sender] = w
	}
	ws.used.MoveToBack(w.element)
	return w
}

// evict forgets windows that are in the store, the longest unused first, and
// looks at that many at most. A window without entries costs about as much as
// one with two.
func (ws *windows) evict(most int) {
	for e := ws.used.Front(); e != nil && most > 0 && ws.keys+2*len(ws.senders) > maxWindowKeys; most-- {
		w := e.Value.(*window)
		e = e.Next()
		if n := len(w.keyed); n > 0 && w.keyed[n-1].seq >= ws.next {
			continue
		}
		for _, k := range w.keyed {
			ws.horizon = max(ws.horizon, k.received)
		}
		ws.keys -= len(w.keyed)
		ws.used.Remove(w.element)
		delete(ws.senders, w.sender)
	}
}

// stored says that everything below next is in the store.
func (ws *windows) stored(next uint64) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.next = next
	ws.evict(len(ws.senders))
}

// recall looks for the message among the last windowSize packets of its sender.
func (ws *windows) recall(key batching.Key, within time.Duration, now int64) (uint64, bool, error) {
	oldest, set := now-within.Milliseconds(), now >= clockUnset
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if w := ws.senders[key.Sender]; w != nil {
		if seq, ok := w.find(key.Message, oldest, set); ok {
			return seq, true, nil
		}
		if w.whole || len(w.keyed) >= windowSize {
			return 0, false, nil
		}
	}
	unset := ws.horizon < clockUnset && ws.horizon != math.MinInt64
	if ws.horizon < oldest && !(set && unset) {
		return 0, false, nil
	}
	w := ws.touch(key.Sender)
	if err := ws.load(w); err != nil {
		return 0, false, err
	}
	defer ws.evict(evictFew)
	seq, ok := w.find(key.Message, oldest, set)
	return seq, ok, nil
}

// load puts what the store has before the entries in memory.
func (ws *windows) load(w *window) error {
	below := uint64(math.MaxUint64)
	if len(w.keyed) > 0 {
		below = w.keyed[0].seq
	}
	missing := windowSize - len(w.keyed)
	older := make([]keyed, 0, min(missing, 16)) // newest first
	err := ws.db.View(func(txn *badger.Txn) error {
		opt := badger.DefaultIteratorOptions
		opt.PrefetchValues, opt.Reverse, opt.Prefix = false, true, windowPrefix(w.sender)
		it := txn.NewIterator(opt)
		defer it.Close()
		for it.Seek(windowKey(w.sender, math.MaxUint64)); it.Valid() && len(older) < missing; it.Next() {
			var ks []keyed
			err := it.Item().Value(func(v []byte) (err error) {
				ks, err = decodeWindow(it.Item().Key(), v)
				return err
			})
			if err != nil {
				return err
			}
			for i := len(ks) - 1; i >= 0 && len(older) < missing; i-- {
				if ks[i].seq < below {
					older = append(older, ks[i])
				}
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read window of sender %x: %w", w.sender, err)
	}
	whole := make([]keyed, 0, len(older)+len(w.keyed))
	for i := len(older) - 1; i >= 0; i-- {
		whole = append(whole, older[i])
	}
	w.keyed, w.whole = append(whole, w.keyed...), true
	ws.keys += len(older)
	return nil
}

// windowTTL is how long a window is kept that is written now. The store counts
// by the system's clock: what is written before that was set would be gone the
// moment it is.
func windowTTL(now time.Time) time.Duration {
	if now.UnixMilli() < clockUnset {
		return unsetAge
	}
	return windowAge
}

// encodeWindow encodes packets for a window key of first.
func encodeWindow(first uint64, ks []keyed) []byte {
	b := make([]byte, 0, len(ks)*20+10)
	seq, received := first, int64(0)
	for _, k := range ks {
		b = append(b, k.message[:]...)
		b = binary.AppendUvarint(b, k.seq-seq)
		b = binary.AppendVarint(b, k.received-received)
		seq, received = k.seq, k.received
	}
	return b
}

func decodeWindow(key, b []byte) ([]keyed, error) {
	_, seq, ok := parseWindowKey(key)
	if !ok || len(b) == 0 {
		return nil, fmt.Errorf("%w: window %x", ErrCorrupt, key)
	}
	ks := make([]keyed, 0, len(b)/18+1)
	received := int64(0)
	for len(b) > 0 {
		k := keyed{}
		n := copy(k.message[:], b)
		d, n1 := binary.Uvarint(b[n:])
		t, n2 := binary.Varint(b[min(len(b), n+max(n1, 0)):])
		if n < len(k.message) || n1 <= 0 || n2 <= 0 {
			return nil, fmt.Errorf("%w: window %x ends early", ErrCorrupt, key)
		}
		seq, received = seq+d, received+t
		k.seq, k.received = seq, received
		ks, b = append(ks, k), b[n+n1+n2:]
	}
	return ks, nil
}
