package mqtt

import (
	"crypto/rand"
	"strings"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/hedgerow-iot/hedgerow/protocols"
)

// A guest is a client of the public path for events: it is let in without
// login, may subscribe to event topics, and nothing else. Its connection says
// that it is one; nothing that it sends does.

const (
	guestPacket = 32 << 10              // bytes of one packet: room for all the filters that it may have
	guestUnit   = 20 * time.Millisecond // what a packet, and a filter in one, costs it in the long run
	guestBurst  = 256 * guestUnit       // what it may spend at once
)

// A pace slows a guest down that sends more packets and filters than somebody
// who only listens has a reason to: each is a walk over the index, or a look
// into a store, for a stranger.
type pace struct {
	paid time.Time // until when what it sent is paid for
}

// after returns how long to wait before units more are worked on.
func (p *pace) after(now time.Time, units int) time.Duration {
	if p.paid.Before(now) {
		p.paid = now
	}
	p.paid = p.paid.Add(time.Duration(units) * guestUnit)
	return max(0, p.paid.Sub(now)-guestBurst)
}

// slow waits until a packet of a guest is paid for. Filters beyond the limit
// are refused without a look.
func (s *session) slow(pk *packets.Packet) {
	wait := s.pace.after(time.Now(), 1+min(len(pk.Filters), s.b.limits.Subscriptions))
	if wait == 0 {
		return
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.b.abort:
	}
}

// makeGuest takes from a client at CONNECT what could touch others: a client
// id of its choice would end, or inherit, the session of a device with the
// same, and a lasting session would stay behind.
func makeGuest(cl *mochi.Client) {
	cl.ID = "guest-" + rand.Text()
	cl.Properties.Clean = true
	pr := &cl.Properties.Props
	pr.SessionExpiryInterval, pr.SessionExpiryIntervalFlag = 0, false
	if pr.AssignedClientID != "" { // it asked for one
		pr.AssignedClientID = cl.ID
	}
}

// maySubscribe tells whether a client may subscribe to a filter, or have a
// message on a topic. Event topics are everybody's who was let in; a guest has
// nothing else.
func (s *session) maySubscribe(filter string) bool {
	switch {
	case protocols.IsEventTopic(filter):
		return true
	case s.c.guest, sharesEvents(filter):
		return false
	}
	return s.b.acl.MaySubscribe(s.dev, filter)
}

// sharesEvents tells of a shared subscription to event topics. There are none:
// events are sent once, at QoS 0, and a member of the group that does not read
// would take them from the others.
func sharesEvents(filter string) bool {
	if len(filter) == 0 || filter[0] != '$' {
		return false
	}
	prefix, rest, _ := strings.Cut(filter, "/")
	_, inner, _ := strings.Cut(rest, "/")
	return strings.EqualFold(prefix, mochi.SharePrefix) && protocols.IsEventTopic(inner)
}
