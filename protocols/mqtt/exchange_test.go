package mqtt

import (
	"testing"

	"github.com/hedgerow-iot/hedgerow/batching"
)

func TestQoS1RepetitionIsAnsweredAndNotStoredAgain(t *testing.T) {
	each(t, func(t *testing.T, v5 bool) {
		sink := newSink(true)
		b := start(t, sink, nil)
		c := connect(t, b.addr, login{id: "probe", v5: v5})
		first := pub{topic: temp, payload: "1", qos: 1, id: 5}
		c.publish(first)
		c.want("first", 0x40, 0, 5)

		again := first
		again.dup = true
		c.publish(again)
		c.want("repetition", 0x40, 0, 5)
		if n := sink.count(); n != 1 {
			t.Errorf("%d stored, want the repetition recognised", n)
		}
		if s := b.Stats(); s.Redelivered != 1 {
			t.Errorf("Redelivered = %d, want 1", s.Redelivered)
		}
		for _, other := range []pub{
			{topic: temp, payload: "1", qos: 1, id: 5},                          // DUP=0 is a new reading
			{topic: temp, payload: "2", qos: 1, id: 5, dup: true},               // another value
			{topic: temp, payload: "1", qos: 1, id: 6, dup: true},               // another packet id
			{topic: "readings/probe/t", payload: "1", qos: 1, id: 5, dup: true}, // another topic
		} {
			before := sink.count()
			c.publish(other)
			c.want("ack", 0x40, 0, byte(other.id))
			if sink.count() != before+1 {
				t.Errorf("%+v was taken for a repetition", other)
			}
		}
	})
}

func TestKeysHoldWhatMakesTwoMessagesOne(t *testing.T) {
	sink := newSink(true)
	b := start(t, sink, nil)
	for _, id := range []string{"a", "b"} {
		c := connect(t, b.addr, login{id: id})
		c.publish(pub{topic: temp, payload: "1", qos: 1, id: 1})
		c.want("ack", 0x40, 0, 1)
		c.publish(pub{topic: temp, payload: "1", qos: 2, id: 1, dup: true})
		c.want("ack", 0x50, 0, 1)
		c.publish(pub{topic: temp, payload: "1"})
		c.quiet("QoS 0")
	}
	eventually(t, "all submitted", func() bool { return sink.count() == 6 })
	seen := make(map[batching.Key]bool)
	for i, sub := range sink.stored {
		if i%3 == 2 {
			if sub.Key != (batching.Key{}) || sub.Recall {
				t.Errorf("QoS 0: submission %+v has a key", sub)
			}
			continue
		}
		if seen[sub.Key] || sub.Recall != (i%3 == 1) || sub.Within != recallTime {
			t.Errorf("submission %d: %+v", i, sub)
		}
		seen[sub.Key] = true
	}
	if sink.stored[0].Key.Sender != sink.stored[1].Key.Sender || sink.stored[0].Key.Sender == sink.stored[3].Key.Sender {
		t.Error("Key.Sender must be the client's and nobody else's")
	}
}

func TestRepetitionOfAPendingPublishJoinsItsReceipt(t *testing.T) {
	eachQoS(t, func(t *testing.T, v5 bool, qos byte) {
		sink := newSink(false)
		b := start(t, sink, nil)
		l := login{id: "probe", v5: v5, keep: true}
		old := connect(t, b.addr, l)
		p := pub{topic: temp, payload: "1", qos: qos, id: 5}
		old.publish(p)
		h := sink.next(t)

		c := connect(t, b.addr, l) // takes the session over
		old.ended("taken over")
		p.dup = true
		c.publish(p)
		c.quiet("still not durable")
		h.resolve(1, nil)
		c.want("after the one receipt", ackOf(qos), 0, 5)
		c.quiet("one ack, on the new connection")
		if n := sink.count(); n != 1 {
			t.Errorf("%d stored, want 1", n)
		}
	})
}

func TestQoS2PublishIsOneUntilItsRelease(t *testing.T) {
	each(t, func(t *testing.T, v5 bool) {
		sink := newSink(true)
		b := start(t, sink, nil)
		l := login{id: "probe", v5: v5, keep: true}
		c := connect(t, b.addr, l)
		for i, topic := range []string{temp, "elsewhere"} {
			id := byte(i + 5)
			p := pub{topic: topic, payload: "1", qos: 2, id: uint16(id)}
			stored := sink.count()
			if i == 0 {
				stored++
			}
			c.publish(p)
			c.want("first", 0x50, 0, id)
			c.publish(p) // irrespective of DUP
			c.want("again", 0x50, 0, id)
			c.Close()
			c = connect(t, b.addr, l)
			p.dup = true
			c.publish(p)
			c.want("again on the next connection", 0x50, 0, id)
			c.send(frame(0x62, []byte{0, id}))
			c.want("release", 0x70, 0, id)
			if n := sink.count(); n != stored {
				t.Errorf("%s: %d stored, want %d", topic, n, stored)
			}
		}
		if n := b.Stats().Duplicates; n != 4 {
			t.Errorf("Duplicates = %d, want 4", n)
		}
		c.publish(pub{topic: temp, payload: "1", qos: 2, id: 5})
		c.want("the released id is free", 0x50, 0, 5)
		if n := sink.count(); n != 2 {
			t.Errorf("%d stored, want 2", n)
		}
	})
}

func TestQoS2StateEndsWithTheSession(t *testing.T) {
	sink := newSink(true)
	b := start(t, sink, nil)
	for range 3 {
		c := connect(t, b.addr, login{id: "probe"})
		c.publish(pub{topic: temp, payload: "1", qos: 2, id: 5})
		c.want("ack", 0x50, 0, 5)
		c.Close()
		eventually(t, "session over", func() bool { return b.receiving.find("probe") == nil })
	}
	if n := sink.count(); n != 3 {
		t.Errorf("%d stored, want 3: a clean session knows no earlier packet id", n)
	}
}

func TestReleaseOfAnUnknownPacketID(t *testing.T) {
	each(t, func(t *testing.T, v5 bool) {
		b := start(t, newSink(true), nil)
		c := connect(t, b.addr, login{id: "probe", v5: v5})
		c.send(frame(0x62, []byte{0, 9}))
		if v5 {
			c.want("PUBCOMP", 0x70, 0, 9, 0x92)
		} else {
			c.want("PUBCOMP", 0x70, 0, 9)
		}
	})
}

func TestOpenQoS2PublishesAreBounded(t *testing.T) {
	b := start(t, newSink(true), func(c *Config) { c.Limits.Inflight = 2 })
	c := connect(t, b.addr, login{id: "probe", v5: true})
	for id := byte(1); id <= 4; id++ {
		c.publish(pub{topic: temp, payload: "1", qos: 2, id: uint16(id)})
		c.want("ack", 0x50, 0, id)
	}
	c.publish(pub{topic: temp, payload: "1", qos: 2, id: 5})
	if head, body := c.read(); head != 0xe0 || body[0] != 0x93 {
		t.Fatalf("got packet %x %x, want DISCONNECT 0x93", head, body)
	}
	c.ended("receive maximum exceeded")
}

// The library keeps one map for the packet ids of both directions.
func TestPacketIDsOfBothDirectionsAreIndependent(t *testing.T) {
	each(t, func(t *testing.T, v5 bool) {
		b := start(t, newSink(true), nil)
		l := login{id: "device", v5: v5, keep: true}
		device := connect(t, b.addr, l)
		device.subscribe(1, "commands/device", 1)
		sender := connect(t, b.addr, login{id: "sender"})
		sender.publish(pub{topic: "commands/device", payload: "open", qos: 1, id: 1})
		sender.want("ack", 0x40, 0, 1)
		head, body := device.read()
		if head != 0x32 {
			t.Fatalf("got packet %x %x, want the command at QoS 1", head, body)
		}
		id := body[2+len("commands/device")+1]

		// The device does not acknowledge it, and uses its packet id otherwise.
		device.publish(pub{topic: temp, payload: "1", qos: 1, id: uint16(id)})
		device.want("ack", 0x40, 0, id)
		device.publish(pub{topic: temp, payload: "1", qos: 2, id: uint16(id)})
		device.want("ack", 0x50, 0, id)
		device.send(frame(0x62, []byte{0, id}))
		device.want("release", 0x70, 0, id)
		device.subscribe(uint16(id), "commands/all", 1)

		device.Close()
		device = connect(t, b.addr, l)
		if head, body := device.read(); head != 0x3a || body[2+len("commands/device")+1] != id {
			t.Fatalf("got packet %x %x, want the command again", head, body)
		}
	})
}

func TestTopicAliases(t *testing.T) {
	sink := newSink(true)
	b := start(t, sink, nil)
	c := connect(t, b.addr, login{id: "probe", v5: true})
	alias := func(topic string, id, alias byte) []byte {
		return frame(0x32, str(topic), []byte{0, id, 3, 0x23, 0, alias}, []byte("1"))
	}
	c.send(alias(temp, 1, 3))
	c.want("sets the alias", 0x40, 0, 1)
	c.send(alias("", 2, 3))
	c.want("uses the alias", 0x40, 0, 2)
	if n := sink.count(); n != 2 || sink.stored[1].Readings[0].Name != "temp" {
		t.Errorf("stored %+v, want two readings of temp", sink.stored)
	}
	c.send(alias("", 3, 4))
	if head, body := c.read(); head != 0xe0 || body[0] != 0x94 {
		t.Errorf("unknown alias: got packet %x %x, want DISCONNECT 0x94", head, body)
	}
	c.ended("unknown alias")
}
