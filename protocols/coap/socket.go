package coap

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/protocols"
)

// Times of RFC 7252, section 4.8, and our own for the empty acknowledgement,
// which must arrive before the device's ACK_TIMEOUT of 2 s.
const (
	ackDelay      = 1500 * time.Millisecond
	ackTimeout    = 2 * time.Second
	maxRetransmit = 4
	tick          = 100 * time.Millisecond // between looks at what waits
	maxSeparate   = 1024                   // separate answers retransmitted at a time; more are sent once
)

// How old a repetition may be (contract, "CoAP").
const (
	withinCON = 50 * time.Second
	withinNON = 5 * time.Second
)

// A socket is one UDP socket's half that writes, and what waits for answers
// on it. receive is called by the goroutine that reads.
type socket struct {
	s     *Server
	write func([]byte, netip.AddrPort) (int, error)
	mid   atomic.Uint32 // last message id of ours
	queue queue
	out   []byte // the reader's space for an answer

	mu       sync.Mutex // guards separate
	separate map[ending]*separate
}

// A queue holds what waits for its receipt, in the order of submission. It is
// bounded by what a flight admits. Nobody is woken for what joins a queue that
// is not empty: the receipts of one commit are resolved together, and the
// answerer looks again then.
type queue struct {
	wake chan struct{} // capacity 1: the queue is no longer empty, or closed

	mu      sync.Mutex // guards what follows
	waiting []*pending
	closed  bool // nothing joins any more
}

// join appends p.
func (q *queue) join(p *pending) {
	q.mu.Lock()
	q.waiting = append(q.waiting, p)
	first := len(q.waiting) == 1
	q.mu.Unlock()
	if first {
		q.signal()
	}
}

func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.signal()
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// front returns the oldest, or nil, and whether another may come.
func (q *queue) front() (p *pending, open bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) > 0 {
		p = q.waiting[0]
	}
	return p, !q.closed
}

// take removes those in front whose receipts are resolved and appends them to
// done.
func (q *queue) take(done []*pending) []*pending {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := 0
	for n < len(q.waiting) && q.waiting[n].resolved() {
		n++
	}
	done = append(done, q.waiting[:n]...)
	q.waiting = slices.Delete(q.waiting, 0, n)
	return done
}

// all returns what waits.
func (q *queue) all() []*pending {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.waiting)
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
	c := &socket{
		s: s, write: write,
		queue:    queue{wake: make(chan struct{}, 1)},
		separate: make(map[ending]*separate),
	}
	c.mid.Store(rand.Uint32())
	return c
}

// receive serves one datagram. A panic ends with it.
func (c *socket) receive(data []byte, from netip.AddrPort) {
	defer c.guard()
	c.s.stats.datagrams.Add(1)
	var req request
	v, a := gate(data, c.s.cfg.Limits.Body, &req)
	req.addr = from
	switch v {
	case ignore:
		c.s.stats.malformed.Add(1)
		return
	case reset:
		if len(data) != 4 || req.code != codes.Empty { // a ping is in order
			c.s.stats.malformed.Add(1)
		}
		c.empty(from, message.Reset, req.mid)
		return
	case settle:
		c.mu.Lock()
		delete(c.separate, ending{from, req.mid})
		c.mu.Unlock()
		return
	}
	c.s.stats.requests.Add(1)
	req.trusted = from.Addr().IsLoopback() || c.s.echo.verify(req.echo, from, time.Now())
	if v == pass {
		var now bool
		if a, now = c.serve(&req, data); !now {
			return
		}
	}
	c.out = c.answer(c.out, &req.exchange, a)
}

// guard keeps a panic from ending more than the message it was caused by.
func (c *socket) guard() {
	if p := recover(); p != nil {
		c.s.stats.panics.Add(1)
		c.s.log.Error("coap panic", "panic", p, "stack", string(debug.Stack()))
	}
}

// submit hands the readings of a request over and returns an answer only if
// there is one already.
func (c *socket) submit(req *request, data []byte, m protocols.Message) (a answer, now bool) {
	p := &pending{exchange: req.exchange, arrived: time.Now()}
	p.key = batching.Key{Sender: endpointKey(req.addr), Message: protocols.Digest(data)}
	switch c.s.flight.enter(p) {
	case repeated:
		c.s.stats.repeated.Add(1)
		c.s.intake.CountDuplicate(m.Target.Device)
		return answer{}, false // the first one's answer is on its way
	case answered:
		c.s.stats.repeated.Add(1)
		c.s.intake.CountDuplicate(m.Target.Device)
		if req.typ == message.Confirmable {
			c.empty(req.addr, message.Acknowledgement, req.mid)
		}
		return answer{}, false
	case greedy:
		// Silence is what a device that keeps to the protocol's window never
		// sees, and it costs a flood more than us.
		c.s.stats.overLimit.Add(1)
		return answer{}, false
	case full:
		return refusal(codes.ServiceUnavailable, "too many requests in flight"), true
	}
	handed := false
	defer func() {
		if !handed {
			c.s.flight.leave(p)
		}
	}()
	m.Key, m.Recall, m.Within = p.key, true, withinCON
	if req.typ == message.NonConfirmable {
		m.Within = withinNON
	}
	var err error
	if p.receipt, err = c.s.intake.Submit(m); err != nil {
		return failure(err), true
	}
	handed = true
	c.queue.join(p)
	return answer{}, false
}

func endpointKey(addr netip.AddrPort) [16]byte {
	ip := addr.Addr().As16()
	return protocols.Digest([]byte("coap"), ip[:], binary.BigEndian.AppendUint16(nil, addr.Port()))
}

// answerAll answers submitted requests as their receipts resolve, until the
// reader has ended and nothing waits, or drainTime after the reader ended.
func (c *socket) answerAll() {
	var done []*pending
	var out []byte
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	ticking := true // an idle gateway sleeps
	var deadline <-chan time.Time
	for {
		first, open := c.queue.front()
		if !open && deadline == nil {
			deadline = time.After(drainTime)
		}
		var resolved <-chan struct{}
		switch {
		case first != nil:
			resolved = first.receipt.Done()
		case !open:
			return
		}
		if busy := first != nil || c.separates() > 0; busy != ticking {
			if ticking = busy; busy {
				ticker.Reset(tick)
			} else {
				ticker.Stop()
			}
		}
		select {
		case <-c.queue.wake:
		case <-resolved:
			done = c.queue.take(done[:0])
			for _, p := range done {
				out = c.finish(out, p)
			}
			clear(done)
		case now := <-ticker.C:
			c.acknowledge(c.queue.all(), now)
			c.retransmit(now)
		case <-deadline:
			for _, p := range c.queue.all() {
				c.s.flight.leave(p)
			}
			return
		}
	}
}

// finish answers a request whose receipt is resolved.
func (c *socket) finish(out []byte, p *pending) []byte {
	defer c.guard()
	a := answer{code: codes.Changed}
	if err := p.receipt.Err(); err != nil {
		a = failure(err)
	}
	c.s.flight.leave(p)
	if p.settled { // only this goroutine writes it
		c.sendSeparate(p, a)
		return out
	}
	return c.answer(out, &p.exchange, a)
}

// acknowledge tells devices that have waited long that their request arrived,
// so that they stop sending it again (section 5.2.2).
func (c *socket) acknowledge(waiting []*pending, now time.Time) {
	for _, p := range waiting {
		if now.Sub(p.arrived) < ackDelay {
			return // those behind came later
		}
		if p.typ == message.Confirmable && !p.settled {
			c.s.flight.settle(p)
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
