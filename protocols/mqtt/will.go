package mqtt

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/hedgerow-iot/hedgerow/protocols"
	"github.com/hedgerow-iot/hedgerow/protocols/payload"
)

// A will is what a client asks to be published when it is lost. The library
// would send it past every check, so it is taken from it at login.
type will struct {
	pending
	format payload.Format
	delay  time.Duration
}

// takeWill moves the will out of the library's client.
func takeWill(cl *mochi.Client, pk *packets.Packet) *will {
	if !pk.Connect.WillFlag {
		return nil
	}
	w, pr := cl.Properties.Will, &pk.Connect.WillProperties
	cl.Properties.Will = mochi.Will{}
	wl := &will{
		pending: pending{
			topic: w.TopicName, payload: w.Payload, props: forwarded(pr), qos: w.Qos, retain: w.Retain,
			id:   uint16(min(w.Qos, 1)), // forwarding at QoS 1 and 2 asks for one
			will: true,
		},
		format: payload.FormatOf(pr.ContentType),
		delay:  time.Duration(w.WillDelayInterval) * time.Second,
	}
	wl.cost = wl.kept()
	return wl
}

// checkWill refuses a will that could never be published.
func (b *Broker) checkWill(guest bool, dev protocols.Device, pk *packets.Packet) error {
	topic := pk.Connect.WillTopic
	if err := protocols.CheckTopic(topic); err != nil {
		return fmt.Errorf("will: %w", err)
	}
	if err := refusedTopic(topic, guest); err != nil {
		return fmt.Errorf("will: %w", err)
	}
	target, mapped, err := protocols.MapTopic(topic)
	switch {
	case err != nil:
		return fmt.Errorf("will: %w", err)
	case mapped && !b.acl.MayReport(dev, target.Device), !mapped && !b.acl.MayPublish(dev, topic):
		return fmt.Errorf("%w: topic of the will", protocols.ErrNotAllowed)
	}
	return nil
}

// disconnected is called by the reader when the connection is over. expire
// says that the session is over too.
func (s *session) disconnected(expire bool) {
	taken := s.cl.IsTakenOver()
	if expire && !taken && s.ids != nil {
		s.b.receiving.drop(s.cl.ID, s.ids)
	}
	w := s.will
	s.will = nil
	// A client that says good-bye does not want its will sent, and a gateway
	// that stops has not lost its clients.
	if w == nil || errors.Is(s.cl.StopCause(), packets.CodeDisconnect) || s.b.stopping.Load() {
		return
	}
	delay := min(w.delay, s.b.limits.SessionExpiry)
	if s.v5 { // the end of the session ends the delay as well (section 3.1.3.2.2)
		delay = min(delay, time.Duration(s.cl.Properties.Props.SessionExpiryInterval)*time.Second)
	}
	if delay > 0 && !expire && s.b.wills.put(s, w, time.Now().Add(delay), s.b.limits.Sessions) {
		return
	}
	s.b.counts.wills.Add(1)
	p := w.pending
	s.submit(&p, false, w.format)
	s.push(p)
}

// wills are the delayed wills of absent clients, one for each session at most.
type wills struct {
	more chan struct{} // capacity 1: there is another one

	mu sync.Mutex          // guards what follows
	of map[string]lateWill // by client id
}

func (ws *wills) init() {
	ws.more, ws.of = make(chan struct{}, 1), make(map[string]lateWill)
}

type lateWill struct {
	s   *session
	w   *will
	due time.Time
}

// put keeps a will, unless limit others are kept: sessions that end at once
// can leave wills faster than they are sent.
func (ws *wills) put(s *session, w *will, due time.Time, limit int) bool {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if len(ws.of) >= limit {
		return false
	}
	ws.of[s.cl.ID] = lateWill{s, w, due}
	select {
	case ws.more <- struct{}{}:
	default:
	}
	return true
}

// cancel forgets the will of a client that is back.
func (ws *wills) cancel(client string) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	delete(ws.of, client)
}

// take removes and returns the wills that are due, and tells when the next one
// is; zero: there is none.
func (ws *wills) take(now time.Time) (due []lateWill, next time.Time) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for id, l := range ws.of {
		switch {
		case !l.due.After(now):
			due = append(due, l)
			delete(ws.of, id)
		case next.IsZero() || l.due.Before(next):
			next = l.due
		}
	}
	return due, next
}

// sendDueWills publishes delayed wills until ctx ends.
func (b *Broker) sendDueWills(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.wills.more:
		case <-timer.C:
		}
		due, next := b.wills.take(time.Now())
		for _, l := range due {
			b.sendLate(ctx, l)
		}
		if timer.Stop(); !next.IsZero() {
			timer.Reset(time.Until(next))
		}
	}
}

// sendLate publishes one delayed will unless its client is back.
func (b *Broker) sendLate(ctx context.Context, l lateWill) {
	if cl, ok := b.server.Clients.Get(l.s.cl.ID); ok && !cl.Closed() {
		return
	}
	b.counts.wills.Add(1)
	// A session of its own: the old one's ack writer may still be at work.
	s := &session{b: b, c: l.s.c, cl: l.s.cl, dev: l.s.dev, sender: l.s.sender, v5: l.s.v5}
	p := l.w.pending
	s.submit(&p, false, l.w.format)
	if p.receipt != nil {
		select {
		case <-p.receipt.Done():
		case <-ctx.Done():
			return
		}
	}
	s.settle(&p)
}
