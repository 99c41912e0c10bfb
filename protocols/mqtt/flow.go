package mqtt

import (
	"runtime"
	"sync"
	"time"
)

const (
	// writesPending is the length of the library's queue to one client. What
	// finds it full is dropped, at any QoS.
	writesPending = 256
	// highWater leaves room in it for publishers that look at the same time.
	highWater = writesPending - 64
	// patience is how long publishers together wait for one subscriber before
	// they leave it out. A socket buffer of unread messages lies before that.
	patience = 250 * time.Millisecond
)

// A flow paces what is delivered to one client. A burst waits for the client
// to catch up instead of being dropped; a client that does not catch up within
// patience is left out until it has read everything, so that it stops nobody.
type flow struct {
	wake chan struct{} // holds one token while there may be room

	mu     sync.Mutex
	queued int           // messages let through and not yet written
	waited time.Duration // since the queue was empty
	slow   bool
}

// admit lets a message through to the client, or tells that it is too slow.
//
// locking says that the client subscribes above QoS 0. Then admit also waits
// until no write is under way: the library holds a lock during a write that
// it needs for every such delivery, so one subscriber that does not read would
// stop all publishers until its write times out. counted is false when the
// library may refuse the message without saying so.
func (c *conn) admit(locking, counted bool) bool {
	f := &c.flow
	f.mu.Lock()
	left := patience - f.waited
	switch {
	case f.slow || left <= 0:
		f.slow = true
		f.mu.Unlock()
		return false
	case f.queued < highWater && (!locking || c.idle()):
		if counted {
			f.queued++
		}
		f.mu.Unlock()
		return true
	}
	f.mu.Unlock()

	begin, timer := time.Now(), time.NewTimer(left)
	defer timer.Stop()
	ok := f.room(timer.C)
	if ok && locking {
		select {
		case c.writing <- struct{}{}:
			<-c.writing
		case <-timer.C:
			ok = false
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waited += time.Since(begin)
	f.slow = !ok
	if ok && counted {
		f.queued++
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

// room waits until the queue is below its mark.
func (f *flow) room(timeout <-chan time.Time) bool {
	for {
		f.mu.Lock()
		ok := f.queued < highWater
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
func (f *flow) sent() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queued = max(0, f.queued-1) // what was resent was never counted
	if f.queued == 0 {
		f.slow, f.waited = false, 0
	}
	if f.queued < highWater {
		select {
		case f.wake <- struct{}{}:
		default:
		}
	}
}
