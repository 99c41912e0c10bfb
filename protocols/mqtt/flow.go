package mqtt

import (
	"runtime"
	"sync"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
)

const (
	// writesPending is the length of the library's queue to one client. What
	// finds it full is dropped, at any QoS.
	writesPending = 256
	// highWater leaves room in it for publishers that look at the same time.
	highWater = writesPending - 64
	// patience is how long publishers wait for one subscriber in a row before
	// they leave it out, and patienceShare of their time how long in the long
	// run. A socket buffer of unread messages lies before that.
	patience      = 250 * time.Millisecond
	patienceShare = 4
)

// A flow paces what is delivered to one client. A burst waits for the client
// to catch up instead of being dropped; a client that stays behind is left
// out of what it has no room for, so that it stops nobody.
type flow struct {
	wake       chan struct{} // holds one token while there may be room
	receiveMax int           // unacknowledged messages the client takes, 0 for any number

	mu     sync.Mutex
	queued int           // messages let through and not yet written
	bytes  int           // of the large ones among them
	left   time.Duration // of the patience
	asOf   time.Time     // when left was so
}

// admit lets a message through to the client, or tells that it is too slow.
// cost is 0 for a small message; w bounds the wait together with others'.
//
// above says that the client subscribes above QoS 0. Then admit also waits
// until the client's Receive Maximum allows one more (publishers that look at
// the same time may exceed it by one each) and until no write is under way:
// the library holds a lock during a write that it needs for every such
// delivery, so one subscriber that does not read would stop all publishers
// until its write times out.
func (c *conn) admit(w *waits, cost int, unacked *mochi.Inflight, above bool) bool {
	f := &c.flow
	if !above {
		unacked = nil
	}
	// What the library refuses for its own limit, it refuses silently.
	counted := unacked == nil || unacked.Len() < c.b.limits.Queue
	f.mu.Lock()
	if f.open(cost, unacked) && (!above || c.idle()) {
		if counted {
			f.take(cost)
		}
		f.mu.Unlock()
		return true
	}
	begin := time.Now()
	f.left = min(patience, f.left+begin.Sub(f.asOf)/patienceShare)
	f.asOf = begin
	left := f.left
	f.mu.Unlock()
	left = min(left, w.begin(begin))
	defer func() { w.end(time.Now()) }()
	if left < time.Millisecond {
		return false
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	ok := f.room(cost, unacked, timer.C)
	if ok && above {
		select {
		case c.writing <- struct{}{}:
			<-c.writing
		case <-timer.C:
			ok = false
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left -= time.Since(begin)
	if ok && counted {
		f.take(cost)
	}
	return ok
}

// idle reports whether no write is under way, with a little patience: most
// writes end within microseconds.
func (c *conn) idle() bool {
	for range 10 {
		select {
		case c.writing <- struct{}{}:
			<-c.writing
			return true
		default:
			runtime.Gosched()
		}
	}
	return false
}

// open tells whether the client has room for one more message. f.mu is held.
func (f *flow) open(cost int, unacked *mochi.Inflight) bool {
	return f.queued < highWater && (f.bytes == 0 || f.bytes+cost <= maxWaiting) && (unacked == nil || f.receiveMax == 0 || unacked.Len() < f.receiveMax)
}

// take counts a message that is let through. f.mu is held.
func (f *flow) take(cost int) {
	f.queued++
	f.bytes += cost
}

// room waits until the client has room.
func (f *flow) room(cost int, unacked *mochi.Inflight, timeout <-chan time.Time) bool {
	for {
		f.mu.Lock()
		ok := f.open(cost, unacked)
		f.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-f.wake:
		case <-timeout:
			return false
		}
	}
}

// sent takes one message out of the count.
func (f *flow) sent(cost int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queued = max(0, f.queued-1) // what was resent was never counted
	f.bytes = max(0, f.bytes-cost)
	if f.queued == 0 {
		f.bytes = 0 // a cost may have been another message's on the same topic
	}
	f.acked()
}

// acked wakes a publisher that waits for room.
func (f *flow) acked() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}
