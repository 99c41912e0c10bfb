package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Kinds of events (contract.md §5).
const (
	eventReading   = "reading"
	eventState     = "state"
	eventBlock     = "block"
	eventMilestone = "milestone"
	eventPeer      = "peer"
	eventAlarm     = "alarm"
	eventMissed    = "missed" // comes with any of them
)

// eventKinds are those that a client can choose.
func eventKinds() []string {
	return []string{eventReading, eventState, eventBlock, eventMilestone, eventPeer, eventAlarm}
}

// Bounds of the event stream.
const (
	maxListeners   = 16
	maxEvents      = 4096    // kept for those who are slow or come back
	maxEventBytes  = 4 << 20 // of their texts
	eventPage      = 256     // events that a listener takes at a time
	eventPageBytes = 256 << 10
	listenerLinger = time.Minute
)

var (
	errListeners = errors.New("too many clients follow the events; try again later")
	errNoEvents  = errors.New("the gateway is not running")
)

// A hub keeps the newest events, once for all who listen: nothing is buffered
// for a single one. Who takes them more slowly than they come is told how many
// were missed and goes on behind them. Kinds that nobody listens to are not
// kept, but for a while after the last listener left, so that one whose
// connection broke finds everything when it is back.
type hub struct {
	birth   string                   // tells the ids of this process from those of others
	sources map[string]func() uint64 // what has a position, and is read only while somebody listens

	mu        sync.Mutex // guards what follows
	running   bool
	events    []event
	first     uint64        // number of events[0]
	bytes     int           // of their texts
	grown     chan struct{} // closed when an event comes, or none any more
	listeners int
	wanted    map[string]int       // listeners by kind
	until     map[string]time.Time // a kind without listeners is kept
	begin     map[string]uint64    // positions of the sources when somebody began to listen
}

type event struct {
	kind string // who gets it
	name string // what it is called
	text []byte // JSON
}

// A listener is one who follows the events. Its fields are its own.
type listener struct {
	kinds map[string]bool
	next  uint64 // number of the event that it takes next
	late  *gap   // to be told first
}

// A gap is what a listener is told when events are missing.
type gap struct {
	Types  []string `json:"types,omitempty"`  // of which some may be missing; absent: of any
	Events uint64   `json:"events,omitempty"` // how many; absent: not known
}

func newHub(sources map[string]func() uint64) *hub {
	return &hub{
		birth: strconv.FormatInt(time.Now().UnixMilli(), 36), sources: sources,
		first: 1, grown: make(chan struct{}),
		wanted: map[string]int{}, until: map[string]time.Time{}, begin: map[string]uint64{},
	}
}

// open lets listeners in.
func (h *hub) open() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.running = true
}

// close ends all listeners.
func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.running = false
	h.wake()
}

// wake wakes all who wait. The caller holds mu.
func (h *hub) wake() {
	close(h.grown)
	h.grown = make(chan struct{})
}

// keeps tells whether events of a kind are kept. The caller holds mu.
func (h *hub) keeps(kind string) bool {
	return h.running && (h.wanted[kind] > 0 || time.Now().Before(h.until[kind]))
}

// wants tells whether events of a kind are kept.
func (h *hub) wants(kind string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.keeps(kind)
}

// await returns once events of a kind are kept, and the position of its source
// from which on they are wanted; or the error of ctx.
func (h *hub) await(ctx context.Context, kind string) (begin uint64, err error) {
	for {
		h.mu.Lock()
		kept, begin, grown := h.keeps(kind), h.begin[kind], h.grown
		h.mu.Unlock()
		if kept {
			return begin, nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// publish hands events to those who listen; they must encode as JSON. It does
// not block.
func (h *hub) publish(kind string, vs ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(vs) == 0 || !h.keeps(kind) {
		return
	}
	for _, v := range vs {
		h.add(kind, kind, v)
	}
	h.wake()
}

// missed tells those who listen to a kind that so many events of it are left
// out.
func (h *hub) missed(kind string, events uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.keeps(kind) {
		h.add(kind, eventMissed, gap{Types: []string{kind}, Events: events})
		h.wake()
	}
}

// add keeps an event, in the place of the oldest ones. The caller holds mu, and
// wakes those who wait.
func (h *hub) add(kind, name string, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("event %s does not encode: %v", name, err)) // its type is wrong
	}
	h.events = append(h.events, event{kind, name, text})
	h.bytes += len(text)
	drop := 0
	for len(h.events)-drop > maxEvents || h.bytes > maxEventBytes {
		h.bytes -= len(h.events[drop].text)
		h.events[drop].text = nil
		drop++
	}
	h.events = h.events[drop:]
	h.first += uint64(drop)
}

// end is the number of the next event.
func (h *hub) end() uint64 { return h.first + uint64(len(h.events)) }

// join adds a listener, which must leave. It begins behind the event with the
// id last, as far as that is kept, or with what comes now when there is none.
func (h *hub) join(kinds []string, last string) (*listener, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case !h.running:
		return nil, errNoEvents
	case h.listeners == maxListeners:
		return nil, errListeners
	}
	l := &listener{kinds: map[string]bool{}, next: h.end()}
	for _, kind := range kinds {
		if !h.keeps(kind) {
			h.begins(kind)
		}
		l.kinds[kind] = true
		h.wanted[kind]++
	}
	h.listeners++
	h.wake()
	switch next, ok := h.after(last); {
	case last == "":
		l.next = h.end()
	case ok:
		l.next = next
	default:
		l.next, l.late = h.end(), &gap{Types: kinds}
	}
	return l, nil
}

// begins notes that somebody listens to a kind that nobody listened to. The
// caller holds mu.
func (h *hub) begins(kind string) {
	if !h.until[kind].IsZero() { // there may be some who come back for it
		h.add(kind, eventMissed, gap{Types: []string{kind}})
	}
	if position := h.sources[kind]; position != nil {
		h.begin[kind] = position()
	}
}

// after returns the number behind an id, if it is one of this process.
func (h *hub) after(id string) (next uint64, ok bool) {
	birth, number, _ := strings.Cut(id, "-")
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil || birth != h.birth || n >= h.end() {
		return 0, false
	}
	return n + 1, true
}

func (h *hub) id(number uint64) string { return h.birth + "-" + strconv.FormatUint(number, 10) }

// leave ends a listener.
func (h *hub) leave(l *listener) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.listeners--
	for kind := range l.kinds {
		if h.wanted[kind]--; h.wanted[kind] == 0 {
			h.until[kind] = time.Now().Add(listenerLinger)
		}
	}
}

// A delivery is one event on its way to a listener.
type delivery struct {
	event
	id string
}

// take returns what comes next for a listener, a page at most. When
// there is nothing, more is closed once that may have changed. open is false
// when nothing comes any more.
func (h *hub) take(l *listener) (out []delivery, more <-chan struct{}, open bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if l.next < h.first {
		l.late = &gap{Events: h.first - l.next}
		l.next = h.first
	}
	if l.late != nil {
		text, _ := json.Marshal(l.late) // strings and a number
		out = append(out, delivery{event{name: eventMissed, text: text}, h.id(l.next - 1)})
		l.late = nil
	}
	for bytes := 0; l.next < h.end() && len(out) < eventPage && bytes < eventPageBytes; l.next++ {
		if e := h.events[l.next-h.first]; l.kinds[e.kind] {
			out = append(out, delivery{e, h.id(l.next)})
			bytes += len(e.text)
		}
	}
	return out, h.grown, h.running
}
