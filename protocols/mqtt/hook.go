package mqtt

import (
	"errors"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/hedgerow-iot/hedgerow/batching/reading"
	"github.com/hedgerow-iot/hedgerow/protocols"
)

const (
	maxClientID  = 256   // bytes
	maxKeepalive = 43690 // seconds; the library's 1.5 times overflows above
)

var errSessions = errors.New("too many sessions")

// A hook is the only one in the library: hooks that allow are OR-ed, so a
// second could only weaken this one.
type hook struct {
	mochi.HookBase
	b *Broker
}

func (h *hook) ID() string { return "hedgerow" }

func (h *hook) Provides(method byte) bool {
	switch method {
	case mochi.OnConnect, mochi.OnConnectAuthenticate, mochi.OnACLCheck, mochi.OnSessionEstablish,
		mochi.OnSessionEstablished, mochi.OnDisconnect, mochi.OnPacketRead, mochi.OnPacketEncode, mochi.OnSubscribe, mochi.OnSubscribed,
		mochi.OnUnsubscribed, mochi.OnClientExpired, mochi.OnRetainedExpired,
		mochi.OnPublishDropped, mochi.OnPacketIDExhausted, mochi.OnQosComplete, mochi.OnPacketProcessed:
		return true
	}
	return false
}

// guarded returns our side of a client's connection. Clients that the library
// made for us, to forward in a name, have none.
func guarded(cl *mochi.Client) *conn {
	c, _ := cl.Net.Conn.(*conn)
	return c
}

// OnConnect checks what the library leaves unchecked in a CONNECT.
func (h *hook) OnConnect(cl *mochi.Client, pk packets.Packet) error {
	b := h.b
	if pk.Connect.WillFlag && pk.Connect.WillQos > 2 {
		return packets.ErrMalformedPacket
	}
	if guarded(cl).guest {
		makeGuest(cl)
	}
	if len(cl.ID) > maxClientID {
		b.counts.denied.Add(1)
		_ = b.server.SendConnack(cl, packets.ErrClientIdentifierNotValid, false, nil) // ends either way
		return packets.ErrClientIdentifierNotValid
	}
	// A client that asks for no lasting session is bounded by its connection:
	// what others left behind must not keep it out.
	lasting := !cl.Properties.Clean
	if cl.Properties.ProtocolVersion == 5 {
		lasting = cl.Properties.Props.SessionExpiryInterval > 0
	}
	if _, known := b.server.Clients.Get(cl.ID); lasting && !known && b.sessions() >= b.limits.Sessions {
		b.counts.surplus.Add(1)
		code := packets.ErrServerBusy
		if cl.Properties.ProtocolVersion < 5 {
			code = packets.ErrServerUnavailable
		}
		_ = b.server.SendConnack(cl, code, false, nil) // ends either way
		return errSessions
	}
	if cl.State.Keepalive > maxKeepalive {
		cl.State.Keepalive = maxKeepalive
		cl.State.ServerKeepalive = true
	}
	// The library may drop the message that introduces an alias and then send
	// the alias alone.
	cl.Properties.Props.TopicAliasMaximum = 0
	// The library keeps what exceeds the client's Receive Maximum for later, and
	// looks for it with a read lock taken twice: a publisher that asks for the
	// write lock in between stops both for ever. So it is told of no maximum,
	// and deliveries are paced by ours.
	guarded(cl).flow.receiveMax = int(cl.Properties.Props.ReceiveMaximum)
	cl.Properties.Props.ReceiveMaximum = 0
	cl.State.Inflight.ResetSendQuota(0)
	return nil
}

// sessions returns how many connected and remembered clients there are, guests
// not counted.
func (b *Broker) sessions() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.server.Clients.Len() - b.guests
}

// OnConnectAuthenticate asks the registry and checks the will.
func (h *hook) OnConnectAuthenticate(cl *mochi.Client, pk packets.Packet) bool {
	b, c := h.b, guarded(cl)
	var dev protocols.Device // a guest's, whatever it says of itself
	var err error
	if !c.guest {
		dev, err = b.registry.Authenticate(protocols.Credentials{
			Source:   reading.SourceMQTT,
			Remote:   remote(c.RemoteAddr()),
			ClientID: cl.ID,
			User:     string(pk.Connect.Username),
			Password: pk.Connect.Password,
		})
	}
	if err == nil && pk.Connect.WillFlag {
		err = b.checkWill(c.guest, dev, &pk)
	}
	if err != nil {
		b.counts.denied.Add(1)
		if left, ok := b.denials.allow(); ok {
			b.log.Warn("client refused", "client", cl.ID, "remote", c.RemoteAddr().String(), "err", err, "suppressed", left)
		}
		return false
	}
	c.sess = &session{
		b: b, c: c, cl: cl, dev: dev,
		sender: protocols.Digest([]byte(cl.ID)),
		v5:     cl.Properties.ProtocolVersion == 5,
	}
	return true
}

// OnSessionEstablish takes over or ends what an earlier session of the client
// left.
func (h *hook) OnSessionEstablish(cl *mochi.Client, pk packets.Packet) {
	b, s := h.b, guarded(cl).sess
	s.will = takeWill(cl, &pk)
	b.wills.cancel(cl.ID)
	old, ok := b.server.Clients.Get(cl.ID)
	ended := ok && old.Properties.Clean && old.Properties.ProtocolVersion < 5
	if pk.Connect.Clean || ended {
		b.receiving.drop(cl.ID, nil)
	}
	s.ids = b.receiving.find(cl.ID)
}

// OnSessionEstablished looks at the subscriptions that the session had.
func (h *hook) OnSessionEstablished(cl *mochi.Client, _ packets.Packet) {
	none := true
	for _, sub := range cl.State.Subscriptions.GetAll() {
		none = none && sub.Qos == 0
	}
	guarded(cl).sess.atMostOnce.Store(none)
}

// OnDisconnect sends the will and ends the session's state.
func (h *hook) OnDisconnect(cl *mochi.Client, _ error, expire bool) {
	if c := guarded(cl); c != nil && c.sess != nil {
		c.sess.disconnected(expire)
	}
}

// lost does what the library leaves out when its reader panics.
func (s *session) lost() {
	pr := &s.cl.Properties
	expire := pr.ProtocolVersion == 5 && pr.Props.SessionExpiryInterval == 0 || pr.ProtocolVersion < 5 && pr.Clean
	s.disconnected(expire)
	if now, ok := s.b.server.Clients.Get(s.cl.ID); expire && ok && now == s.cl {
		s.cl.ClearInflights()
		s.b.server.UnsubscribeClient(s.cl)
		s.b.server.Clients.Delete(s.cl.ID)
	}
}

// OnClientExpired ends the session of a client that stayed away: the library
// would leave its subscriptions in the index for ever.
func (h *hook) OnClientExpired(cl *mochi.Client) {
	h.b.server.UnsubscribeClient(cl)
	h.b.receiving.drop(cl.ID, nil)
}

// OnRetainedExpired keeps the count of retained messages.
func (h *hook) OnRetainedExpired(topic string) { h.b.retained.expired(topic) }

// OnPacketRead takes PUBLISH and PUBREL out of the stream: the library's own
// path acknowledges too early, answers a refused QoS 2 publish with the wrong
// packet, and confuses the packet ids of both directions. In place of what was
// taken it gets a PUBACK for packet id 0, which it ignores.
func (h *hook) OnPacketRead(cl *mochi.Client, pk packets.Packet) (packets.Packet, error) {
	c := guarded(cl)
	if c == nil || c.sess == nil {
		return pk, nil
	}
	if c.guest {
		c.sess.slow(&pk)
	}
	switch pk.FixedHeader.Type {
	case packets.Publish:
		if pk.PublishValidate(maxAliases) != packets.CodeSuccess {
			return pk, nil // the library finds the same and ends the connection
		}
		if !c.sess.publish(&pk) {
			return pk, packets.ErrRejectPacket
		}
	case packets.Pubrel:
		c.sess.release(&pk)
	case packets.Subscribe, packets.Unsubscribe:
		c.sess.lendID(&pk)
		return pk, nil
	case packets.Disconnect:
		// The library caps the expiry of CONNECT, but not of DISCONNECT.
		expiry := &pk.Properties.SessionExpiryInterval
		*expiry = min(*expiry, uint32(h.b.limits.SessionExpiry/time.Second))
		if c.guest {
			*expiry = 0
		}
		return pk, nil
	default:
		return pk, nil
	}
	return packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Puback}}, nil
}

// lendID gives a SUBSCRIBE or UNSUBSCRIBE another packet id while the library
// handles it, if a message on its way to the client happens to have the same:
// the library would refuse the packet, though the two are independent.
func (s *session) lendID(pk *packets.Packet) {
	if _, taken := s.cl.State.Inflight.Get(pk.PacketID); !taken {
		return
	}
	for id := uint16(65535); id > 0; id-- {
		if _, taken := s.cl.State.Inflight.Get(id); !taken {
			s.alias, s.aliasFor, pk.PacketID = id, pk.PacketID, id
			return
		}
	}
}

// OnPacketEncode completes what the library announces and answers.
func (h *hook) OnPacketEncode(cl *mochi.Client, pk packets.Packet) packets.Packet {
	switch pk.FixedHeader.Type {
	case packets.Publish:
		sent(cl, &pk)
	case packets.Connack:
		switch {
		case cl.Properties.ProtocolVersion == 5:
			pk.Properties.MaximumPacketSize = uint32(h.b.limits.Packet)
			pk.Properties.TopicAliasMaximum = maxAliases
			if c := guarded(cl); c != nil && c.guest {
				pk.Properties.MaximumPacketSize = guestPacket
				pk.Properties.SessionExpiryInterval, pk.Properties.SessionExpiryIntervalFlag = 0, true
			}
		case pk.ReasonCode > packets.Err3NotAuthorized.Code: // a code that 3.1.1 does not have
			pk.ReasonCode = packets.Err3ServerUnavailable.Code
		}
	case packets.Suback, packets.Unsuback:
		c := guarded(cl)
		if c == nil || c.sess == nil {
			break
		}
		if c.sess.alias != 0 && c.sess.alias == pk.PacketID {
			pk.PacketID, c.sess.alias = c.sess.aliasFor, 0
		}
		for _, i := range c.sess.surplus { // the library says that the filter is wrong
			if cl.Properties.ProtocolVersion == 5 && i < len(pk.ReasonCodes) {
				pk.ReasonCodes[i] = packets.ErrQuotaExceeded.Code
			}
		}
		c.sess.surplus = nil
	}
	return pk
}

// OnSubscribe makes filters outside the limits invalid, so that the library
// refuses them one by one.
func (h *hook) OnSubscribe(cl *mochi.Client, pk packets.Packet) packets.Packet {
	c := guarded(cl)
	if c == nil || c.sess == nil {
		return pk
	}
	c.sess.subscribing.Store(true)
	if slices.ContainsFunc(pk.Filters, func(f packets.Subscription) bool { return f.Qos > 0 }) {
		c.sess.atMostOnce.Store(false)
	}
	have := cl.State.Subscriptions.Len()
	limit := h.b.limits.AllSubscriptions
	all := int(atomic.LoadInt64(&h.b.server.Info.Subscriptions) - h.b.events.interest.guests.Load())
	if c.guest { // bounded by the number of guests, and not to be kept out by devices
		limit, all = math.MaxInt, 0
	}
	for i := range pk.Filters {
		f := &pk.Filters[i]
		_, known := cl.State.Subscriptions.Get(f.Filter)
		if !known {
			have++
			all++
		}
		// One packet can hold tens of thousands of filters, and each that is
		// granted costs a walk over the retained messages.
		switch {
		case protocols.CheckFilter(f.Filter) != nil:
			f.Filter = ""
			continue
		case i >= h.b.limits.Subscriptions, have > h.b.limits.Subscriptions, !known && all > limit:
			f.Filter = ""
			c.sess.surplus = append(c.sess.surplus, i)
			continue
		}
		f.Filter = strings.Clone(f.Filter) // a subscription would keep the packet
		twice := slices.ContainsFunc(pk.Filters[:i], func(o packets.Subscription) bool { return o.Filter == f.Filter })
		if twice || known && f.RetainHandling == 1 {
			f.RetainHandling = 2 // the retained messages are sent for the first one
		}
	}
	return pk
}

// changed makes publishers look for subscribers again. Guests subscribe to
// nothing that a client publishes, and must not make every reading pay for it.
func (h *hook) changed(c *conn) {
	if c == nil || !c.guest {
		h.b.subscribed.Add(1)
	}
}

// OnSubscribed takes note of what was granted.
func (h *hook) OnSubscribed(cl *mochi.Client, pk packets.Packet, codes []byte) {
	c := guarded(cl)
	h.changed(c)
	if c == nil || c.sess == nil {
		return
	}
	c.sess.subscribing.Store(false)
	for i, f := range pk.Filters {
		if !protocols.IsEventTopic(f.Filter) || codes[i] >= packets.ErrUnspecifiedError.Code {
			continue
		}
		h.b.events.interest.add(cl.ID, f.Filter, c.guest)
		if f.RetainHandling != 2 && h.b.events.state != nil {
			c.sess.fresh = append(c.sess.fresh, f)
		}
	}
}

// OnPacketProcessed sends, after the SUBACK, what new subscribers are to know.
func (h *hook) OnPacketProcessed(cl *mochi.Client, pk packets.Packet, err error) {
	if c := guarded(cl); c != nil && c.sess != nil && pk.FixedHeader.Type == packets.Subscribe && err == nil {
		c.sess.present()
	}
}

// OnUnsubscribed takes note of what is over.
func (h *hook) OnUnsubscribed(cl *mochi.Client, pk packets.Packet) {
	c := guarded(cl)
	h.changed(c)
	for _, f := range pk.Filters {
		if c != nil && protocols.IsEventTopic(f.Filter) {
			h.b.events.interest.remove(cl.ID, f.Filter, c.guest)
		}
	}
}

// OnACLCheck is asked for every filter of a SUBSCRIBE and for every delivery.
func (h *hook) OnACLCheck(cl *mochi.Client, topic string, write bool) bool {
	b, c := h.b, guarded(cl)
	if write || c == nil || c.sess == nil {
		return false // nobody publishes through the library
	}
	s := c.sess
	if !s.maySubscribe(topic) {
		if s.subscribing.Load() {
			b.counts.refused.Add(1)
			if left, ok := b.denials.allow(); ok {
				b.log.Warn("subscription refused", "client", cl.ID, "filter", topic, "suppressed", left)
			}
		}
		return false
	}
	event := protocols.IsEventTopic(topic)
	cost, above := b.costOn(topic), !event && !s.atMostOnce.Load()
	w := &b.waits
	if event {
		w = &b.events.waits
	}
	switch {
	case s.subscribing.Load():
		return true
	case event && !b.events.interest.has(cl.ID, topic):
		return false // only a filter that begins with a wildcard matches
	case (!above || b.mayKeep(cl, cost)) && (cl.Closed() || c.admit(w, cost, cl.State.Inflight, above)):
		return true
	}
	b.counts.slowSkips.Add(1)
	return false
}

// OnPublishDropped and OnPacketIDExhausted take a message that was let through
// to a client, and dropped after all, out of its count.
func (h *hook) OnPublishDropped(cl *mochi.Client, pk packets.Packet)    { sent(cl, &pk) }
func (h *hook) OnPacketIDExhausted(cl *mochi.Client, pk packets.Packet) { sent(cl, &pk) }

// OnQosComplete lets a publisher go on that waits for the client's acks.
func (h *hook) OnQosComplete(cl *mochi.Client, _ packets.Packet) {
	if c := guarded(cl); c != nil {
		c.flow.acked()
	}
}

func sent(cl *mochi.Client, pk *packets.Packet) {
	if c := guarded(cl); c != nil {
		c.flow.sent(large(pk))
	}
}
