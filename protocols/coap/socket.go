package coap

import (
	"math/rand/v2"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
)

// Times of RFC 7252, section 4.8, and our own for the empty acknowledgement,
// which must arrive before the device's ACK_TIMEOUT of 2 s.
const (
	ackDelay      = 1500 * time.Millisecond
	ackTimeout    = 2 * time.Second
	maxRetransmit = 4
	tick          = 100 * time.Millisecond // between looks at what waits, and how long a commit may keep a reader
	maxSeparate   = 1024                   // separate answers retransmitted at a time; more are sent once
)

// A socket is one UDP socket's half that writes, and what waits for answers
// on it.
type socket struct {
	s     *Server
	write func([]byte, netip.AddrPort) (int, error)
	mid   atomic.Uint32 // last message id of ours
	queue *queue

	opened     time.Time
	committing atomic.Int64 // since when the reader does, ns after opened; 0: it reads
	relieved   atomic.Bool  // a deputy reads

	mu       sync.Mutex // guards separate
	separate map[ending]*separate
}

// An ending is what an empty ACK or RST says about a message of ours.
type ending struct {
	addr netip.AddrPort
	mid  uint16
}

// A separate is an answer that travels as a confirmable message of its own.
type separate struct {
	datagram []byte
	next     time.Time
	wait     time.Duration
	left     int // retransmissions
}

func newSocket(s *Server, write func([]byte, netip.AddrPort) (int, error)) *socket {
	c := &socket{s: s, write: write, opened: time.Now(), queue: newQueue(), separate: make(map[ending]*separate)}
	c.mid.Store(rand.Uint32())
	return c
}

// guard keeps a panic from ending more than the message it was caused by.
func (c *socket) guard() {
	if p := recover(); p != nil {
		c.s.stats.panics.Add(1)
		c.s.log.Error("coap panic", "panic", p, "stack", string(debug.Stack()))
	}
}

// stuck tells whether the reader has been committing for so long that somebody
// has to read in its place.
func (c *socket) stuck(now time.Time) bool {
	since := time.Duration(c.committing.Load())
	return since != 0 && now.Sub(c.opened)-since >= tick
}

// answerAll answers submitted requests as their receipts resolve and looks
// after what waits, until no reader is left and nothing waits, or drainTime
// after the last reader ended. It calls relieve when the reader is stuck and
// has no deputy.
func (c *socket) answerAll(relieve func()) {
	defer c.queue.timer.Stop()
	var done []*pending
	var out []byte
	var deadline <-chan time.Time
	for {
		done = c.queue.take(done)
		out = c.finishAll(out, done)
		waiting, open := c.queue.state()
		if !open && waiting == 0 {
			return
		}
		if !open && deadline == nil {
			deadline = time.After(drainTime)
		}
		now := time.Now()
		c.acknowledge(now)
		c.retransmit(now)
		if c.stuck(now) && c.relieved.CompareAndSwap(false, true) {
			relieve()
		}
		if waiting > 0 || c.separates() > 0 { // an idle gateway sleeps
			c.queue.timer.Reset(tick)
		}
		select {
		case <-c.queue.wake:
		case <-deadline:
			for _, p := range c.queue.all() {
				c.s.flight.leave(p)
			}
			return
		}
	}
}

// finishAll answers requests whose receipts are resolved. It uses and returns
// space.
func (c *socket) finishAll(space []byte, done []*pending) []byte {
	for _, p := range done {
		space = c.finish(space, p)
	}
	clear(done)
	return space
}

func (c *socket) finish(space []byte, p *pending) []byte {
	defer c.guard()
	a := answer{code: codes.Changed}
	if err := p.receipt.Err(); err != nil {
		a = failure(err)
	}
	if settled := c.s.flight.leave(p); settled {
		c.sendSeparate(p, a)
		return space
	}
	return c.answer(space, &p.exchange, a)
}

// acknowledge tells devices that have waited long that their request arrived,
// so that they stop sending it again (section 5.2.2).
func (c *socket) acknowledge(now time.Time) {
	for _, p := range c.queue.until(now.Add(-ackDelay)) {
		if p.typ == message.Confirmable && c.s.flight.settle(p) {
			c.empty(p.addr, message.Acknowledgement, p.mid)
		}
	}
}

// sendSeparate sends an answer as a message of its own, to be acknowledged by
// the device.
func (c *socket) sendSeparate(p *pending, a answer) {
	mid := c.nextMID()
	if !p.trusted {
		a.body = nil // it is sent up to five times
	}
	datagram, err := p.encode(nil, p.fit(a, &c.s.echo), message.Confirmable, mid)
	if err != nil {
		c.s.log.Error("coap answer", "err", err)
		return
	}
	c.s.stats.separate.Add(1)
	if a.failed() {
		c.s.stats.refused.Add(1)
	}
	wait := ackTimeout + rand.N(ackTimeout/2)
	c.mu.Lock()
	if len(c.separate) < maxSeparate {
		c.separate[ending{p.addr, mid}] = &separate{datagram, time.Now().Add(wait), wait, p.repeats(len(datagram))}
	}
	c.mu.Unlock()
	c.send(datagram, p.addr)
}

func (c *socket) separates() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.separate)
}

// retransmit sends separate answers again that were not acknowledged in time
// (section 4.2).
func (c *socket) retransmit(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for to, x := range c.separate {
		switch {
		case now.Before(x.next):
		case x.left == 0:
			delete(c.separate, to)
		default:
			x.left--
			x.wait *= 2
			x.next = now.Add(x.wait)
			c.s.stats.resent.Add(1)
			c.send(x.datagram, to.addr)
		}
	}
}

// answer sends a as the acknowledgement of a confirmable request or as the
// non-confirmable answer to another one. It uses and returns space.
func (c *socket) answer(space []byte, x *exchange, a answer) []byte {
	typ, mid := message.Acknowledgement, x.mid
	if x.typ == message.NonConfirmable {
		typ, mid = message.NonConfirmable, c.nextMID()
	}
	a = x.fit(a, &c.s.echo)
	if a.failed() {
		c.s.stats.refused.Add(1)
	}
	out, err := x.encode(space[:0], a, typ, mid)
	if err != nil {
		c.s.log.Error("coap answer", "err", err)
		return space
	}
	c.send(out, x.addr)
	return out
}

// empty sends an empty message.
func (c *socket) empty(to netip.AddrPort, typ message.Type, mid uint16) {
	c.send([]byte{1<<6 | byte(typ)<<4, 0, byte(mid >> 8), byte(mid)}, to)
}

func (c *socket) send(datagram []byte, to netip.AddrPort) {
	if _, err := c.write(datagram, to); err != nil {
		c.s.stats.sendError.Add(1)
		c.s.log.Debug("coap send", "err", err)
	}
}

func (c *socket) nextMID() uint16 { return uint16(c.mid.Add(1)) }
