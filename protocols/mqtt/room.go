package mqtt

import (
	"sync"
	"sync/atomic"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// The library bounds what waits for a client by number only, and copies the
// payload for each: a few hundred messages of the largest size for each of
// thousands of remembered clients are more memory than there is. So the bytes
// are bounded here, of one client and of all.
const (
	// smallMessage is the cost up to which the number alone bounds enough.
	smallMessage = 1 << 10
	// maxWaiting bounds the bytes of large messages that wait to be written to
	// one client; a single one may be larger.
	maxWaiting = 1 << 20
	// maxKept bounds the bytes of large messages that one client has not
	// acknowledged.
	maxKept = 4 << 20
	// overheadOfOne is what the library keeps beside a message's own bytes.
	overheadOfOne = 1 << 10
	// overheadOfUser is what a user property takes beside its texts. On the
	// wire it is 5 bytes.
	overheadOfUser = 32
	// recountEvery is how often, at most, the kept messages are counted.
	recountEvery = time.Second
)

// costOf returns the bytes that a publish keeps while it is on its way. Its
// parts point into the packet, so that it keeps the whole of it.
func costOf(pk *packets.Packet) int {
	return pk.FixedHeader.Remaining + overheadOfUser*len(pk.Properties.User)
}

// large returns a cost when its bytes count, else 0. The cost of a message
// travels through the library as the remaining length, which it writes anew
// when it encodes a packet.
func large(pk *packets.Packet) int {
	if n := pk.FixedHeader.Remaining; n > smallMessage {
		return n
	}
	return 0
}

// passing holds the large messages that are being forwarded, by topic, because
// the library asks whether a subscriber may have a message by its topic alone.
type passing struct {
	n  atomic.Int32 // of them: most of the time there is none to look for
	mu sync.Mutex
	of map[string][]int // costs
}

// enter announces a message; the returned function takes it back.
func (p *passing) enter(topic string, cost int) (leave func()) {
	if cost <= smallMessage {
		return func() {}
	}
	p.n.Add(1)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.of == nil {
		p.of = make(map[string][]int)
	}
	p.of[topic] = append(p.of[topic], cost)
	return func() {
		p.n.Add(-1)
		p.mu.Lock()
		defer p.mu.Unlock()
		costs := p.of[topic]
		for i, c := range costs {
			if c == cost {
				costs[i] = costs[len(costs)-1]
				p.of[topic] = costs[:len(costs)-1]
				break
			}
		}
		if len(p.of[topic]) == 0 {
			delete(p.of, topic)
		}
	}
}

// largest returns the cost of the largest message under way on a topic, 0 when
// there is no large one.
func (p *passing) largest(topic string) (cost int) {
	if p.n.Load() == 0 {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.of[topic] {
		cost = max(cost, c)
	}
	return cost
}

// costOn returns the cost of the message that is about to be delivered on a
// topic, at least, if it is a large one: forwarded now or retained.
func (b *Broker) costOn(topic string) int {
	return max(b.passing.largest(topic), b.retained.large(topic))
}

// A store bounds the bytes of the messages that the library keeps for clients
// until they acknowledge. What is acknowledged is not subtracted but noticed
// when everything is counted again.
type store struct {
	mu      sync.Mutex
	bytes   int // at the last count, and since
	counted time.Time
}

// mayKeep reports whether a message of this cost, 0 for a small one, may be
// kept for a client above QoS 0, and counts it.
func (b *Broker) mayKeep(cl *mochi.Client, cost int) bool {
	if cost > 0 && cl.State.Inflight.Len() > 0 {
		if kept := keptBy(cl); kept > 0 && kept+cost > maxKept {
			return false
		}
	}
	cost = max(cost, smallMessage) + overheadOfOne
	s := &b.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); s.bytes+cost > b.limits.QueuedBytes && now.Sub(s.counted) >= recountEvery {
		s.bytes, s.counted = 0, now
		for _, cl := range b.server.Clients.GetAll() {
			if n := cl.State.Inflight.Len(); n > 0 {
				s.bytes += n*(smallMessage+overheadOfOne) + keptBy(cl)
			}
		}
	}
	if s.bytes+cost > b.limits.QueuedBytes {
		return false
	}
	s.bytes += cost
	return true
}

// keptBy returns the bytes of the large messages kept for a client.
func keptBy(cl *mochi.Client) (bytes int) {
	for _, pk := range cl.State.Inflight.GetAll(false) {
		bytes += large(&pk)
	}
	return bytes
}

// waits bounds how long publishers wait for all subscribers together: each of
// many slow ones would have its own patience otherwise.
type waits struct {
	mu      sync.Mutex
	waiting int           // publishers that wait now
	left    time.Duration // of the patience for all
	asOf    time.Time     // when left was so
}

// patienceForAll is how long publishers wait in a row, and patienceForAllShare
// of the time in which none does how long in the long run, whoever they wait
// for.
const (
	patienceForAll      = 2 * patience
	patienceForAllShare = 2
)

// begin returns how long a publisher may wait; end must follow.
func (w *waits) begin(now time.Time) (left time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.settle(now)
	w.waiting++
	return w.left
}

func (w *waits) end(now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.settle(now)
	w.waiting--
}

func (w *waits) settle(now time.Time) {
	passed := now.Sub(w.asOf)
	w.asOf = now
	if w.waiting > 0 {
		w.left -= passed
	} else {
		w.left = min(patienceForAll, w.left+passed/patienceForAllShare)
	}
}
