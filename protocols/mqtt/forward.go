package mqtt

import (
	"bytes"
	"slices"
	"strings"
	"sync"

	"github.com/mochi-mqtt/server/v2/packets"
)

// maxHeard bounds the topics of which a session remembers whether anybody
// listens.
const maxHeard = 64

// forward hands a publish to the library's local subscribers and its retained
// messages, in the name of the client that sent it, so that its own
// subscriptions with No Local do not get it.
func (s *session) forward(p *pending) {
	b := s.b
	defer func() {
		// The reading is durable whatever becomes of its copies.
		if r := recover(); r != nil {
			b.panicked("message of client "+s.cl.ID, r)
		}
	}()
	retain := p.retain
	if retain && !b.retained.admit(p, b.limits) {
		b.counts.unretained.Add(1)
		retain = false
	}
	if !retain && !s.isHeard(p.topic) {
		return
	}
	cost := p.cost
	if retain {
		p.detach()
		cost = p.kept()
	}
	defer b.passing.enter(p.topic, cost)()
	if s.inline == nil {
		s.inline = b.server.NewClient(nil, "", s.cl.ID, true)
		s.inline.Properties.ProtocolVersion = s.cl.Properties.ProtocolVersion
	}
	pk := packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: p.qos, Retain: retain, Remaining: cost},
		TopicName:   p.topic,
		Payload:     p.payload,
		PacketID:    p.id,
	}
	if p.props != nil {
		pk.Properties = *p.props
	}
	if err := b.server.InjectPacket(s.inline, pk); err != nil {
		b.log.Warn("forward to subscribers", "topic", p.topic, "err", err)
	}
}

// detach copies what a retained message keeps of the packet that it came in;
// the library copies the payload.
func (p *pending) detach() {
	p.topic = strings.Clone(p.topic)
	if p.props == nil {
		return
	}
	props := *p.props
	props.ContentType, props.ResponseTopic = strings.Clone(props.ContentType), strings.Clone(props.ResponseTopic)
	props.CorrelationData = bytes.Clone(props.CorrelationData)
	props.User = slices.Clone(props.User)
	for i, u := range props.User {
		props.User[i] = packets.UserProperty{Key: strings.Clone(u.Key), Val: strings.Clone(u.Val)}
	}
	p.props = &props
}

// isHeard tells whether anybody subscribes to a topic. Most readings have no
// local subscriber, and looking one up costs more than storing the reading.
func (s *session) isHeard(topic string) bool {
	// The generation is read first: what is found under it is forgotten as
	// soon as anybody subscribes after that.
	if g := s.b.subscribed.Load(); s.heard == nil || g != s.heardG || len(s.heard) >= maxHeard {
		s.heard, s.heardG = make(map[string]bool), g
	}
	heard, ok := s.heard[topic]
	if !ok {
		subs := s.b.server.Topics.Subscribers(topic)
		heard = len(subs.Subscriptions)+len(subs.Shared)+len(subs.InlineSubscriptions) > 0
		s.heard[strings.Clone(topic)] = heard // topic keeps a whole packet alive
	}
	return heard
}

// retained counts the retained messages, which the library does not bound.
type retained struct {
	mu    sync.Mutex
	sizes map[string]int // by topic
	bytes int
}

// admit reports whether a message may be retained under the limits, and
// counts it. An empty payload deletes and is always admitted.
func (r *retained) admit(p *pending, l Limits) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	old, had := r.sizes[p.topic]
	if len(p.payload) == 0 {
		r.bytes -= old
		delete(r.sizes, p.topic)
		return true
	}
	size := p.kept()
	if !had && len(r.sizes) >= l.Retained || r.bytes-old+size > l.RetainedBytes {
		return false
	}
	if r.sizes == nil {
		r.sizes = make(map[string]int)
	}
	r.bytes += size - old
	r.sizes[strings.Clone(p.topic)] = size
	return true
}

// large returns the bytes of the message retained on a topic when it is a
// large one, else 0.
func (r *retained) large(topic string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if size := r.sizes[topic]; size > smallMessage {
		return size
	}
	return 0
}

func (r *retained) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.sizes)
}

// expired takes a message that the library dropped out of the count.
func (r *retained) expired(topic string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bytes -= r.sizes[topic]
	delete(r.sizes, topic)
}
