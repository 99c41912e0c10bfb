package coap

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/protocols"
)

// How old a repetition may be (contract, "CoAP").
const (
	withinCON = 50 * time.Second
	withinNON = 5 * time.Second
)

// maxPutOff is how many datagrams a commit that is due may wait for: a flood
// must not put it off for ever.
const maxPutOff = 32

// A reader is a goroutine that reads a socket and serves what it reads. It
// lends itself to the sink for commits and answers after them. A deputy reads
// while such a commit is stuck: also from a slow disk, requests that are not
// stored yet must be acknowledged, and those that need no disk be answered.
type reader struct {
	*socket
	deputy bool
	waits  func() bool // whether a datagram waits to be read
	owes   *pending    // the last request that joined, until it was led
	put    int         // so often a commit was put off for the next datagram
	off    bool        // and now again
	out    []byte      // space for an answer
	done   []*pending  // space
}

// run reads u until ctx ends, or, as a deputy, until the reader is back.
func (r *reader) run(ctx context.Context, u *net.UDPConn) error {
	if r.deputy {
		defer r.relieved.Store(false)
	}
	defer r.lead(true)
	buf := make([]byte, maxDatagram)
	failed := 0
	for !r.deputy || r.stuck(time.Now()) {
		n, from, err := u.ReadFromUDPAddrPort(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			failed = 0
			r.receive(buf[:n], netip.AddrPortFrom(from.Addr().Unmap(), from.Port()))
		case errors.Is(err, net.ErrClosed) || failed == maxReadErrors:
			return fmt.Errorf("read coap socket: %w", err)
		default: // such as an ICMP error for an answer sent before
			failed++
			r.s.log.Debug("coap read", "err", err)
		}
	}
	return nil
}

// receive serves one datagram, and commits when it was the last for now.
func (r *reader) receive(data []byte, from netip.AddrPort) {
	r.take(data, from)
	r.lead(false)
}

// take serves one datagram up to the commit. A panic ends with it.
func (r *reader) take(data []byte, from netip.AddrPort) {
	defer r.guard()
	r.s.stats.datagrams.Add(1)
	var req request
	v, a := gate(data, r.s.cfg.Limits.Body, &req)
	req.addr = from
	switch v {
	case ignore:
		r.s.stats.malformed.Add(1)
		return
	case reset:
		if len(data) != 4 || req.code != codes.Empty { // a ping is in order
			r.s.stats.malformed.Add(1)
		}
		r.empty(from, message.Reset, req.mid)
		return
	case settle:
		r.mu.Lock()
		delete(r.separate, ending{from, req.mid})
		r.mu.Unlock()
		return
	}
	r.s.stats.requests.Add(1)
	req.trusted = from.Addr().IsLoopback() || r.s.echo.verify(req.echo, from, time.Now())
	if v == pass {
		var now bool
		if a, now = r.serve(&req, data); !now {
			return
		}
	}
	r.out = r.answer(r.out, &req.exchange, a)
}

// submit hands the readings of a request over and returns an answer only if
// there is one already.
func (r *reader) submit(req *request, data []byte, m protocols.Message) (a answer, now bool) {
	p := &pending{exchange: req.exchange, arrived: time.Now()}
	p.key = batching.Key{Sender: endpointKey(req.addr), Message: protocols.Digest(data)}
	switch r.s.flight.enter(p) {
	case repeated:
		r.s.stats.repeated.Add(1)
		r.s.intake.CountDuplicate(m.Target.Device)
		return answer{}, false // the first one's answer is on its way
	case answered:
		r.s.stats.repeated.Add(1)
		r.s.intake.CountDuplicate(m.Target.Device)
		if req.typ == message.Confirmable {
			r.empty(req.addr, message.Acknowledgement, req.mid)
		}
		return answer{}, false
	case greedy:
		// Silence is what a device that keeps to the protocol's window never
		// sees, and it costs a flood more than us.
		r.s.stats.overLimit.Add(1)
		return answer{}, false
	case full:
		return refusal(codes.ServiceUnavailable, "too many requests in flight"), true
	}
	handed := false
	defer func() {
		if !handed {
			r.s.flight.leave(p)
		}
	}()
	m.Key, m.Recall, m.Within, m.Leader = p.key, true, withinCON, r
	if req.typ == message.NonConfirmable {
		m.Within = withinNON
	}
	var err error
	if p.receipt, err = r.s.intake.Submit(m); err != nil {
		return failure(err), true
	}
	handed = true
	r.queue.join(p)
	r.owes = p
	return answer{}, false
}

// lead commits if that is due, and answers what is durable then. A deputy does
// so after every datagram: it may be the one that the reader put a commit off
// for.
func (r *reader) lead(last bool) {
	p := r.owes
	if p == nil && !r.deputy {
		return
	}
	defer r.guard()
	if last {
		r.put = maxPutOff
	}
	if !r.deputy {
		r.committing.Store(int64(max(time.Since(r.opened), 1)))
		defer r.committing.Store(0)
	}
	if p == nil || p.resolved() { // what is due is others', and nothing here wakes the answerer
		r.queue.timer.Reset(tick)
	}
	r.off = false
	led := r.s.intake.Lead(r)
	if r.off {
		return
	}
	r.owes, r.put = nil, 0
	switch {
	case led:
		r.done = r.queue.take(r.done)
		r.out = r.finishAll(r.out, r.done)
	case p != nil && p.resolved(): // the answerer may have been told before it joined
		r.queue.signal()
	}
}

// Resolved implements [batching.Leader].
func (r *reader) Resolved() { r.queue.signal() }

// More implements [batching.Leader].
func (r *reader) More() bool {
	r.off = r.put < maxPutOff && r.waits()
	if r.off {
		r.put++
	}
	return r.off
}

func endpointKey(addr netip.AddrPort) [16]byte {
	ip := addr.Addr().As16()
	return protocols.Digest([]byte("coap"), ip[:], binary.BigEndian.AppendUint16(nil, addr.Port()))
}

var _ batching.Leader = (*reader)(nil)
