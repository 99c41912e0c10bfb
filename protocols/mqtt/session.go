package mqtt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/batching/reading"
	"github.com/hedgerow-iot/hedgerow/protocols"
	"github.com/hedgerow-iot/hedgerow/protocols/payload"
)

const (
	maxAliases = 16             // topic aliases that a client may set: each is a topic kept
	recallTime = 24 * time.Hour // contract, "MQTT": how old an original may be
)

// A session is one connection of one client after its login. Its reader is the
// library's goroutine for the connection; its ack writer is started with the
// first publish.
type session struct {
	b      *Broker
	c      *conn
	cl     *mochi.Client
	dev    protocols.Device
	sender [16]byte
	v5     bool

	// The reader's.
	pace     pace     // of a guest
	ids      *openIDs // nil until the first QoS 2 publish of the session
	will     *will
	alias    uint16 // packet id lent to a SUBSCRIBE whose own is taken
	aliasFor uint16
	surplus  []int                  // filters of a SUBSCRIBE beyond the limits
	fresh    []packets.Subscription // event filters of a SUBSCRIBE whose present state is to be sent
	queue    *ackQueue              // nil until the first publish
	done     chan struct{}          // closed when the ack writer has ended

	subscribing atomic.Bool // the reader is inside a SUBSCRIBE
	atMostOnce  atomic.Bool // no subscription is above QoS 0

	// The ack writer's.
	acks   []byte
	heard  map[string]bool // topics that somebody listens to, or nobody
	heardG uint64          // generation of the subscription index that heard is true for
	inline *mochi.Client   // forwards in the client's name
}

// publish takes in a PUBLISH that the library decoded and found valid. It
// blocks while too many of the client's publishes are unanswered, and reports
// false when the connection must end.
func (s *session) publish(pk *packets.Packet) bool {
	s.b.counts.published.Add(1)
	p := pending{
		topic: pk.TopicName, payload: pk.Payload, id: pk.PacketID,
		qos: pk.FixedHeader.Qos, retain: pk.FixedHeader.Retain, cost: costOf(pk),
	}
	if pk.Properties.TopicAliasFlag {
		// An alias outlives the packet, and its topic would keep it whole.
		p.topic = strings.Clone(p.topic)
		if p.topic = s.cl.State.TopicAliases.Inbound.Set(pk.Properties.TopicAlias, p.topic); p.topic == "" {
			return s.kick(packets.ErrTopicAliasInvalid)
		}
	}
	if p.qos == 2 {
		if s.ids == nil {
			s.ids = s.b.receiving.obtain(s.cl.ID)
		}
		if x := s.ids.get(p.id); x != nil {
			s.b.counts.duplicates.Add(1)
			if target, mapped, err := protocols.MapTopic(p.topic); mapped && err == nil {
				s.b.in.CountDuplicate(target.Device)
			}
			s.push(pending{receipt: x.receipt, open: x, id: p.id, qos: 2})
			return true
		}
		if s.ids.len() >= 2*s.b.limits.Inflight {
			return s.kick(packets.ErrReceiveMaximum)
		}
	}
	if s.v5 {
		p.props = forwarded(&pk.Properties)
	}
	s.submit(&p, pk.FixedHeader.Dup, payload.FormatOf(pk.Properties.ContentType))
	if p.qos == 2 && p.err == nil {
		p.open = &exchange{receipt: p.receipt}
		s.ids.add(p.id, p.open)
	}
	s.push(p)
	return true
}

// kick tells an MQTT 5 client why its connection ends. It returns false.
func (s *session) kick(why packets.Code) bool {
	if s.v5 {
		_ = s.b.server.DisconnectClient(s.cl, why) // ends either way
	}
	return false
}

// submit sets p's receipt, its error, or neither when nothing has to be stored.
func (s *session) submit(p *pending, dup bool, format payload.Format) {
	if p.err = protocols.CheckTopic(p.topic); p.err != nil {
		return
	}
	if p.err = refusedTopic(p.topic, s.c.guest); p.err != nil {
		return
	}
	target, mapped, err := protocols.MapTopic(p.topic)
	switch {
	case err != nil:
		p.err = err
		return
	case !mapped:
		if !s.b.acl.MayPublish(s.dev, p.topic) {
			p.err = fmt.Errorf("%w: topic", protocols.ErrNotAllowed)
		}
		return
	}
	s.b.counts.mapped.Add(1)
	m := protocols.Message{
		From: s.dev, Source: reading.SourceMQTT, Target: target, Format: format, Payload: p.payload,
	}
	if p.qos > 0 && !p.will {
		head := [3]byte{p.qos, byte(p.id >> 8), byte(p.id)}
		m.Key = batching.Key{Sender: s.sender, Message: protocols.Digest(head[:], []byte(p.topic), p.payload)}
		m.Recall, m.Within = dup, recallTime
		if dup && p.qos == 1 {
			s.b.counts.redelivered.Add(1)
		}
	}
	p.mapped = true
	p.receipt, p.err = s.b.offer(m)
	if errors.Is(p.err, protocols.ErrNoReading) {
		// An empty payload deletes a retained message; {} and null say nothing
		// that could be lost. Both are ordinary traffic.
		p.mapped, p.err = false, nil
	}
}

// offer submits, and while the sink is full waits a little: the client's TCP
// window then closes, which is gentler than an error for what a moment cures.
func (b *Broker) offer(m protocols.Message) (r *batching.Receipt, err error) {
	for pause := time.Millisecond; ; pause *= 2 {
		r, err = b.in.Submit(m)
		if !errors.Is(err, batching.ErrBusy) || pause > 64*time.Millisecond {
			return r, err
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-b.abort:
			t.Stop()
			return nil, err
		}
	}
}

// forwarded returns those properties of a PUBLISH that travel with it, or nil.
func forwarded(pr *packets.Properties) *packets.Properties {
	if !pr.PayloadFormatFlag && pr.MessageExpiryInterval == 0 && pr.ContentType == "" &&
		pr.ResponseTopic == "" && len(pr.CorrelationData) == 0 && len(pr.User) == 0 {
		return nil
	}
	return &packets.Properties{
		PayloadFormat: pr.PayloadFormat, PayloadFormatFlag: pr.PayloadFormatFlag,
		MessageExpiryInterval: pr.MessageExpiryInterval, ContentType: pr.ContentType,
		ResponseTopic: pr.ResponseTopic, CorrelationData: pr.CorrelationData, User: pr.User,
	}
}

// refusedTopic returns why no client, or no guest, may publish on a topic,
// whatever the access list says, or nil.
func refusedTopic(topic string, guest bool) error {
	first, _, _ := strings.Cut(topic, "/")
	switch {
	case strings.EqualFold(first, mochi.SysPrefix), strings.EqualFold(first, mochi.SharePrefix):
		return fmt.Errorf("%w: topic is the broker's own", protocols.ErrName)
	case protocols.IsEventTopic(topic):
		return fmt.Errorf("%w: events are the gateway's own", protocols.ErrNotAllowed)
	case guest:
		return fmt.Errorf("%w: this path is for subscribers", protocols.ErrNotAllowed)
	}
	return nil
}

// release answers a PUBREL.
func (s *session) release(pk *packets.Packet) {
	known := s.ids.release(pk.PacketID)
	switch {
	case pk.ReasonCode >= packets.ErrUnspecifiedError.Code: // the client gave up
	case s.v5 && !known:
		s.c.replies = appendAck(s.c.replies, packets.Pubcomp, pk.PacketID, packets.ErrPacketIdentifierNotFound.Code)
	default:
		s.c.replies = appendAck(s.c.replies, packets.Pubcomp, pk.PacketID, 0)
	}
}

// push hands a publish to the ack writer.
func (s *session) push(p pending) {
	if s.queue == nil {
		s.queue, s.done = newAckQueue(s.b.limits.Inflight, 2*s.b.limits.Packet), make(chan struct{})
		go s.answer() // waited for by end
	}
	s.queue.push(p)
}

// end waits until everything that was read is answered or forwarded.
func (s *session) end() {
	if s.queue != nil {
		s.queue.close()
		<-s.done
	}
	if s.v5 && s.b.stopping.Load() {
		// The client may be gone already; it is told why otherwise.
		_, _ = s.c.Write([]byte{packets.Disconnect << 4, 1, packets.ErrServerShuttingDown.Code})
	}
	// The library keeps the connection, and with it this, as long as it
	// remembers the client.
	s.queue, s.heard, s.inline, s.acks, s.c.replies = nil, nil, nil, nil, nil
}

// answer is the ack writer: it answers publishes in the order in which they
// were read, as MQTT 4.6 asks, each after its receipt.
func (s *session) answer() {
	defer close(s.done)
	var ps []pending
	for {
		if ps = s.queue.take(ps); len(ps) == 0 {
			return
		}
		unsent := 0 // the first one whose answer is not sent
		for i := range ps {
			if r := ps[i].receipt; r != nil && !resolved(r) {
				s.flush(ps[unsent:i])
				unsent = i
				s.b.await(&ps[i])
			}
			s.settle(&ps[i])
		}
		s.flush(ps[unsent:])
	}
}

func resolved(r *batching.Receipt) bool {
	select {
	case <-r.Done():
		return true
	default:
		return false
	}
}

// await waits for the receipt of p. When the broker gives up waiting, p fails.
func (b *Broker) await(p *pending) {
	select {
	case <-p.receipt.Done():
	case <-b.abort:
		p.receipt, p.err = nil, batching.ErrClosed
	}
}

// flush sends the gathered acks in one write; they complete those of done.
func (s *session) flush(done []pending) {
	if len(s.acks) > 0 {
		_, _ = s.c.Write(s.acks) // an error closes the connection; the client sends again
		s.acks = s.acks[:0]
	}
	if len(done) > 0 {
		s.queue.answered(done)
	}
}

// settle forwards and acknowledges a publish whose receipt is resolved, or
// refuses it. A repetition at QoS 1 is forwarded again, at least once being
// what QoS 1 promises: whether the original arrived only the sink knows.
func (s *session) settle(p *pending) {
	err := p.err
	if err == nil && p.receipt != nil {
		err = p.receipt.Err()
	}
	if err != nil {
		s.refuse(p, err)
		return
	}
	if p.topic != "" {
		s.forward(p)
	}
	if p.will || p.qos == 0 {
		return
	}
	ack := packets.Puback
	if p.qos == 2 {
		ack = packets.Pubrec
	}
	s.acks = appendAck(s.acks, ack, p.id, 0)
	s.b.counts.acked.Add(1)
}

// refuse answers a publish that was not stored: MQTT 5 has a word for it. In
// 3.1.1 an ack is always a success, so the connection ends without one and the
// client sends again.
func (s *session) refuse(p *pending, err error) {
	if p.open != nil {
		s.ids.forget(p.id, p.open)
	}
	code := reason(err)
	if code == packets.ErrQuotaExceeded.Code || code == 0 {
		s.b.counts.busy.Add(1)
	} else {
		s.b.counts.refused.Add(1)
	}
	if left, ok := s.b.denials.allow(); ok {
		s.b.log.Warn("message not accepted", "client", s.cl.ID, "topic", p.topic, "err", err, "suppressed", left)
	}
	switch {
	case p.will || p.qos == 0:
	case s.v5 && code != 0:
		ack := packets.Puback
		if p.qos == 2 {
			ack = packets.Pubrec
		}
		s.acks = appendAck(s.acks, ack, p.id, code)
	default:
		s.flush(nil)
		s.c.shut()
	}
}

// reason returns the PUBACK and PUBREC reason code for an error, or 0 when no
// code fits: the gateway is stopping, or its journal is in doubt.
func reason(err error) byte {
	switch {
	case errors.Is(err, batching.ErrBusy):
		return packets.ErrQuotaExceeded.Code
	case errors.Is(err, protocols.ErrNotAllowed):
		return packets.ErrNotAuthorized.Code
	case errors.Is(err, protocols.ErrName):
		return packets.ErrTopicNameInvalid.Code
	case errors.Is(err, protocols.ErrTooLarge), errors.Is(err, protocols.ErrNoReading):
		return packets.ErrPayloadFormatInvalid.Code
	}
	return 0
}

// appendAck appends a PUBACK, PUBREC or PUBCOMP; a zero code is left out, as
// both versions of the protocol read it.
func appendAck(b []byte, kind byte, id uint16, code byte) []byte {
	if code == 0 {
		return binary.BigEndian.AppendUint16(append(b, kind<<4, 2), id)
	}
	return append(binary.BigEndian.AppendUint16(append(b, kind<<4, 3), id), code)
}
