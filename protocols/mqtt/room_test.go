package mqtt

import (
	"encoding/binary"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
)

// Each of many slow subscribers has its patience; together they must not stop
// a publisher.
func TestManySlowSubscribersStopNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &Broker{limits: Limits{}.withDefaults()}
		unacked := mochi.NewInflights()
		var slow []*conn
		for range 100 {
			near, _ := net.Pipe()
			c := newConn(near, b, false)
			c.flow.queued = highWater
			slow = append(slow, c)
		}
		publish := func() {
			for _, c := range slow {
				if c.admit(&c.b.waits, 0, unacked, false) {
					t.Fatal("a message was let through")
				}
			}
		}
		begin := time.Now()
		publish()
		if took := time.Since(begin); took > patienceForAll+time.Millisecond {
			t.Errorf("one message took %v, want at most %v", took, patienceForAll)
		}
		for range 100 {
			time.Sleep(10 * time.Millisecond)
			publish()
		}
		if took := time.Since(begin); took > 2*time.Second+2*patienceForAll {
			t.Errorf("1 s of publishing took %v", took)
		}
	})
}

func TestTheBytesWaitingForOneClientAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, unacked := flowConn(0), mochi.NewInflights()
		const cost = 200 << 10
		n := 0
		for range writesPending {
			if c.admit(&c.b.waits, cost, unacked, false) {
				n++
			}
		}
		if n != maxWaiting/cost {
			t.Errorf("%d messages of %d bytes wait for one client, want %d", n, cost, maxWaiting/cost)
		}
		c.flow.sent(cost)
		if !c.admit(&c.b.waits, cost, unacked, false) {
			t.Error("a message was left out though one was written")
		}
	})
}

// Thousands of clients may be remembered, and what each missed is a copy.
func TestTheBytesKeptForAbsentClientsAreBounded(t *testing.T) {
	for _, tt := range []struct {
		name    string
		limit   int
		clients int
		size    int
		most    int // bytes of payload
	}{
		{"of one", 64 << 20, 1, 200 << 10, maxKept},
		{"of all", 4 << 20, 8, 200 << 10, 4 << 20},
		{"of all, small messages", 100 << 10, 8, 10, 100 << 10 / overheadOfOne * 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := start(t, newSink(true), func(c *Config) { c.Limits.QueuedBytes = tt.limit })
			for i := range tt.clients {
				sub := connect(t, b.addr, login{id: fmt.Sprint("sub", i), keep: true})
				sub.subscribe(1, "big", 1)
				sub.Close()
			}
			eventually(t, "all gone", func() bool { return b.Stats().Connections == 0 })
			c := connect(t, b.addr, login{id: "probe"})
			for range 40 {
				c.publish(pub{topic: "big", payload: strings.Repeat("x", tt.size), qos: 1, id: 1})
				c.want("ack", 0x40, 0, 1)
			}
			kept := 0
			for _, cl := range b.server.Clients.GetAll() {
				for _, pk := range cl.State.Inflight.GetAll(false) {
					kept += len(pk.Payload)
				}
			}
			if kept == 0 || kept > tt.most {
				t.Errorf("%d bytes of %d are kept, want some and at most %d", kept, tt.clients*40*tt.size, tt.most)
			}
		})
	}
}

func TestWhatWasAcknowledgedMakesRoomAgain(t *testing.T) {
	b := start(t, newSink(true), func(c *Config) { c.Limits.QueuedBytes = 8 << 10 })
	sub := connect(t, b.addr, login{id: "sub"})
	sub.subscribe(1, "x", 1)
	c := connect(t, b.addr, login{id: "probe"})
	deadline := time.Now().Add(patienceInTests)
	for got := 0; got < 20; {
		c.publish(pub{topic: "x", payload: "1", qos: 1, id: 1})
		c.want("ack", 0x40, 0, 1)
		if head, body, err := sub.receive(20 * time.Millisecond); err == nil {
			if head != 0x32 {
				t.Fatalf("got packet %x %x, want a PUBLISH", head, body)
			}
			id := body[3:5]
			sub.send([]byte{0x40, 2, id[0], id[1]})
			got++
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d messages came, want more once the first were acknowledged", got)
		}
	}
}

// manyProperties is a PUBLISH whose bytes are empty user properties.
func manyProperties(topic string, n int, head byte) []byte {
	props := []byte(strings.Repeat("\x26\x00\x00\x00\x00", n))
	return frame(head, str(topic), binary.AppendUvarint(nil, uint64(len(props))), props, []byte("1"))
}

// Empty user properties are a few bytes on the wire and several times as many
// in memory.
func TestPropertiesCountAsRetainedBytes(t *testing.T) {
	b := start(t, newSink(true), func(c *Config) { c.Limits.RetainedBytes = 100 << 10 })
	c := connect(t, b.addr, login{id: "probe", v5: true})
	for i := range 10 {
		c.send(manyProperties(fmt.Sprint("t", i), 1000, 0x31))
	}
	c.quiet("QoS 0")
	eventually(t, "all handled", func() bool { s := b.Stats(); return s.Unretained+uint64(s.Retained) == 10 })
	if n := b.Stats().Retained; n != 3 {
		t.Errorf("%d messages of 32,000 bytes and more are retained in 100 KiB, want 3", n)
	}
}

// A retained message, a subscription and a topic alias must not keep the whole
// packet that they came in.
func TestWhatIsKeptIsCutOutOfItsPacket(t *testing.T) {
	b := start(t, newSink(true), nil)
	c := connect(t, b.addr, login{id: "probe", v5: true})
	padding := strings.Repeat("\x03\x00\x00", 60_000) // content types: the last one counts
	props := append([]byte(padding), 0x23, 0, 1)      // topic alias 1
	c.send(frame(0x31, str("a"), binary.AppendUvarint(nil, uint64(len(props))), props, []byte("1")))
	users := strings.Repeat("\x26\x00\x00\x00\x00", 10_000)
	c.send(frame(0x82, []byte{0, 1}, binary.AppendUvarint(nil, uint64(len(users))), []byte(users), str("b"), []byte{0}))
	c.read() // SUBACK
	eventually(t, "retained", func() bool { return b.Stats().Retained == 1 })
	for _, pk := range b.server.Topics.Messages("a") {
		if pk.FixedHeader.Remaining > 100 {
			t.Errorf("the retained message counts %d bytes", pk.FixedHeader.Remaining)
		}
	}
}

func TestUserPropertiesCountAsUnansweredBytes(t *testing.T) {
	sink := newSink(false)
	b := start(t, sink, func(c *Config) { c.Limits.Packet = 4000 })
	c := connect(t, b.addr, login{id: "probe", v5: true})
	for range 10 {
		c.send(manyProperties(temp, 500, 0x30)) // 2.5 kB, and 16 kB in memory
	}
	var hs []held
	for range 2 { // one is held, the second waits for room
		hs = append(hs, sink.next(t))
	}
	select {
	case <-sink.got:
		t.Fatal("a third publish was taken in before the first was answered")
	case <-time.After(50 * time.Millisecond):
	}
	for _, h := range hs {
		h.resolve(1, nil)
	}
	for range 8 {
		sink.next(t).resolve(1, nil)
	}
}

// A packet can hold thousands of filters, and each granted one is a walk over
// the retained messages.
func TestFiltersOfOnePacketAreBounded(t *testing.T) {
	b := start(t, newSink(true), func(c *Config) { c.Limits.Subscriptions = 10 })
	c := connect(t, b.addr, login{id: "probe"})
	c.publish(pub{topic: "a", payload: "1", qos: 1, id: 1, retain: true})
	c.want("ack", 0x40, 0, 1)
	c.subscribe(1, "#", 0)
	c.message()
	c.send(frame(0x82, []byte{0, 2}, []byte(strings.Repeat("\x00\x01#\x00", 1000))))
	head, body := c.read()
	if head != 0x90 || len(body) != 1002 || body[11] != 0 || body[12] != 0x80 || body[1001] != 0x80 {
		t.Fatalf("got packet %x with %d bytes, want 10 filters granted and 990 refused", head, len(body))
	}
	c.message()
	c.quiet("one retained message for one filter")
}

func TestSubscriptionsOfAllClientsAreBounded(t *testing.T) {
	b := start(t, newSink(true), func(c *Config) { c.Limits.AllSubscriptions = 3 })
	one, two := connect(t, b.addr, login{id: "1"}), connect(t, b.addr, login{id: "2", v5: true})
	one.subscribe(1, "a", 0)
	one.subscribe(2, "b", 0)
	two.subscribe(1, "a", 0)
	if code := two.trySubscribe(2, "b", 0); code != 0x97 {
		t.Errorf("the fourth subscription is answered %x, want quota exceeded", code)
	}
	if code := one.trySubscribe(3, "c", 0); code != 0x80 {
		t.Errorf("the fourth subscription is answered %x, want a failure", code)
	}
	one.subscribe(4, "b", 0) // it has that one
	one.Close()
	eventually(t, "room again", func() bool { return b.Stats().Subscriptions == 1 })
	two.subscribe(3, "b", 0)
}
