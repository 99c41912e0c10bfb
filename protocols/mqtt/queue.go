package mqtt

import (
	"sync"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/hedgerow-iot/hedgerow/batching"
)

// A pending publish is on its way from the reader to the ack writer of its
// client.
type pending struct {
	receipt *batching.Receipt   // nil: nothing to wait for
	err     error               // refused before it had a receipt
	open    *exchange           // QoS 2: the open packet id
	topic   string              // where to forward it; "" for a repetition
	payload []byte              //
	props   *packets.Properties // MQTT 5, nil when there are none
	cost    int                 // bytes that it keeps in memory
	id      uint16
	qos     byte
	retain  bool
	mapped  bool
	will    bool
}

// kept returns the bytes of the parts that are forwarded.
func (p *pending) kept() int {
	n := len(p.topic) + len(p.payload)
	if pr := p.props; pr != nil {
		n += len(pr.ContentType) + len(pr.ResponseTopic) + len(pr.CorrelationData)
		for _, u := range pr.User {
			n += len(u.Key) + len(u.Val) + overheadOfUser
		}
	}
	return n
}

// An ackQueue hands pending publishes from one reader to one ack writer. It
// holds at most limit of them and, unless it is one alone, maxBytes of what
// they keep in memory, counted until they are answered.
type ackQueue struct {
	limit, maxBytes int

	mu     sync.Mutex
	more   sync.Cond // something was pushed, or closed
	room   sync.Cond // something was answered
	items  []pending
	held   int
	bytes  int
	closed bool // nothing more is pushed
}

func newAckQueue(limit, maxBytes int) *ackQueue {
	q := &ackQueue{limit: limit, maxBytes: maxBytes}
	q.more.L, q.room.L = &q.mu, &q.mu
	return q
}

// push blocks while the queue is full: that is how a client that publishes
// faster than the disk writes is slowed down.
func (q *ackQueue) push(p pending) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.held >= q.limit || q.held > 0 && q.bytes+p.cost > q.maxBytes {
		q.room.Wait()
	}
	q.items = append(q.items, p)
	q.held++
	q.bytes += p.cost
	if len(q.items) == 1 {
		q.more.Signal()
	}
}

// take waits for pending publishes and returns all of them, in buf's place,
// or none when the queue is closed and empty.
func (q *ackQueue) take(buf []pending) []pending {
	clear(buf) // lets go of payloads
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.items) == 0 && !q.closed {
		q.more.Wait()
	}
	buf, q.items = q.items, buf[:0]
	return buf
}

// answered gives the room of publishes back.
func (q *ackQueue) answered(ps []pending) {
	q.mu.Lock()
	q.held -= len(ps)
	for i := range ps {
		q.bytes -= ps[i].cost
	}
	q.mu.Unlock()
	q.room.Signal()
}

// close ends the ack writer once everything pushed is answered.
func (q *ackQueue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.more.Signal()
}
