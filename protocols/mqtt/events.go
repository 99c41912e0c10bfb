package mqtt

import (
	"context"
	"sync"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// An Event is a message of the gateway's own on an event topic (TIP-28). Its
// payload must not be changed after it was handed over.
type Event struct {
	Topic   string
	Payload []byte
}

// An EventState knows what event topics say now. Somebody who subscribes to
// milestone-info/latest or to block-metadata/{blockId} is told at once, as
// Hornet does, and not only when it changes next.
type EventState interface {
	// Present returns what stands on the topics that the filter matches, and
	// nothing for topics that have no state, such as blocks. A filter may hold
	// wildcards; what exceeds maxPresent messages is not sent. It is called
	// after the filter receives events, by the subscriber's own goroutine, for
	// a few subscribers at a time.
	Present(filter string) []Event
}

const (
	maxPresent   = 16      // messages of state for one filter
	maxLookups   = 4       // calls of Present at a time
	maxPending   = 4096    // events not yet delivered: what a milestone confirms comes at once
	pendingBytes = 4 << 20 // of them
)

// events carry what the gateway publishes itself to local subscribers.
type events struct {
	state    EventState // nil: topics have no present state
	interest interest
	queue    eventQueue
	sender   *mochi.Client // in whose name they are published
	waits    waits         // of their own: events must not use up the patience that readings have
	lookups  chan struct{} // a token per call of Present
}

func (ev *events) init(server *mochi.Server, state EventState) {
	ev.state = state
	ev.queue.more = make(chan struct{}, 1)
	ev.sender = server.NewClient(nil, "", "", true) // no client has an empty id, so No Local concerns nobody
	ev.lookups = make(chan struct{}, maxLookups)
}

// Listening tells whether anybody subscribes to event topics. It may be called
// concurrently.
func (b *Broker) Listening() bool { return b.events.interest.filters.Load() > 0 }

// Wanted tells whether anybody subscribes to an event topic, so that what
// nobody wants need not be encoded; now and then it says yes for nobody. A
// filter that begins with a wildcard does not count: like topics that begin
// with $, event topics are delivered only to those who name their first level.
// It may be called concurrently and takes nanoseconds unless filters on events
// have wildcards.
func (b *Broker) Wanted(topic string) bool {
	in := &b.events.interest
	if !b.Listening() {
		return false
	}
	named, wild := in.named(topic)
	return named || wild && len(b.server.Topics.Subscribers(topic).Subscriptions) > 0
}

// Event publishes on an event topic, at QoS 0 and not retained: who subscribes
// later gets what [EventState] says. It never blocks; events that subscribers
// do not read as fast as they come are dropped and counted in [Stats]. The
// payload must not be changed afterwards. It may be called concurrently;
// events of one caller are delivered in order.
func (b *Broker) Event(topic string, payload []byte) {
	if !b.Wanted(topic) {
		return
	}
	b.counts.events.Add(1)
	if !b.events.queue.push(Event{topic, payload}) {
		b.counts.lostEvents.Add(1)
	}
}

// sendEvents delivers events until ctx ends.
func (b *Broker) sendEvents(ctx context.Context) {
	var batch []Event
	for {
		if batch = b.events.queue.take(batch); len(batch) == 0 {
			select {
			case <-b.events.queue.more:
				continue
			case <-ctx.Done():
				return
			}
		}
		for _, e := range batch {
			if ctx.Err() != nil {
				return
			}
			b.sendEvent(e)
		}
	}
}

func (b *Broker) sendEvent(e Event) {
	defer func() {
		// What the library makes of a client's subscriptions must not end the
		// gateway.
		if p := recover(); p != nil {
			b.panicked("event topic "+e.Topic, p)
		}
	}()
	pk := packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Publish, Remaining: len(e.Topic) + len(e.Payload)},
		TopicName:   e.Topic,
		Payload:     e.Payload,
	}
	defer b.passing.enter(e.Topic, pk.FixedHeader.Remaining)()
	if err := b.server.InjectPacket(b.events.sender, pk); err != nil {
		b.log.Warn("deliver event", "topic", e.Topic, "err", err)
	}
}

// present sends a subscriber what its new filters' topics say now.
func (s *session) present() {
	fresh := s.fresh
	s.fresh = nil
	for _, f := range fresh {
		for _, e := range s.lookUp(f.Filter) {
			if s.cl.Closed() {
				return
			}
			s.sendPresent(f, e)
		}
	}
}

// lookUp asks for the state behind a filter. Few may ask at a time, because an
// answer may need a disk.
func (s *session) lookUp(filter string) []Event {
	ev := &s.b.events
	select {
	case ev.lookups <- struct{}{}:
		defer func() { <-ev.lookups }()
	case <-s.b.abort:
		return nil
	}
	found := ev.state.Present(filter)
	return found[:min(len(found), maxPresent)]
}

// sendPresent writes to the client past its queue: its reader waits meanwhile,
// so that a client that subscribes faster than it reads costs no memory.
func (s *session) sendPresent(f packets.Subscription, e Event) {
	pk := packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Publish, Retain: true, Remaining: len(e.Topic) + len(e.Payload)},
		TopicName:   e.Topic,
		Payload:     e.Payload,
	}
	if f.Identifier > 0 {
		pk.Properties.SubscriptionIdentifier = []int{f.Identifier}
	}
	s.c.flow.mu.Lock()
	s.c.flow.take(large(&pk)) // OnPacketEncode takes it out again
	s.c.flow.mu.Unlock()
	_ = s.cl.WritePacket(pk) // too large for the client, or it is gone
}

// eventQueue holds events on their way from who publishes to sendEvents.
type eventQueue struct {
	more chan struct{} // holds one token while there are events

	mu     sync.Mutex
	events []Event
	bytes  int
}

// push reports false when there is no room.
func (q *eventQueue) push(e Event) bool {
	cost := len(e.Topic) + len(e.Payload)
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.events) >= maxPending || q.bytes+cost > pendingBytes {
		return false
	}
	q.events = append(q.events, e)
	q.bytes += cost
	select {
	case q.more <- struct{}{}:
	default:
	}
	return true
}

// take returns what was pushed, in place of buf.
func (q *eventQueue) take(buf []Event) []Event {
	clear(buf) // lets go of payloads
	q.mu.Lock()
	defer q.mu.Unlock()
	buf, q.events, q.bytes = q.events, buf[:0], 0
	return buf
}
