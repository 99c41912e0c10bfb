package mqtt

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestSubscribersGetAReadingAfterItsCommitAndBeforeItsAck(t *testing.T) {
	sink := newSink(false)
	b := start(t, sink, nil)
	sub := connect(t, b.addr, login{id: "sub"})
	sub.subscribe(1, "readings/#", 0)
	for _, qos := range []byte{0, 1, 2} {
		c := connect(t, b.addr, login{id: "probe"})
		c.publish(pub{topic: temp, payload: "1", qos: qos, id: qos16(qos, 4)})
		h := sink.next(t)
		sub.quiet("before the commit")
		h.resolve(1, nil)
		if topic, payload, retain := sub.message(); topic != temp || payload != "1" || retain {
			t.Errorf("QoS %d: got %s %s retain %v", qos, topic, payload, retain)
		}
		if qos > 0 {
			c.want("ack", ackOf(qos), 0, 4)
		}
		c.Close()
	}
}

func TestARefusedReadingIsNotForwarded(t *testing.T) {
	sink := newSink(false)
	b := start(t, sink, nil)
	sub := connect(t, b.addr, login{id: "sub"})
	sub.subscribe(1, "readings/#", 0)
	c := connect(t, b.addr, login{id: "probe", v5: true})
	c.publish(pub{topic: temp, payload: "1", qos: 1, id: 4})
	sink.next(t).resolve(0, fmt.Errorf("no"))
	c.ended("in doubt")
	sub.quiet("nothing was stored")
}

func TestRetainedReadingAndNoLocal(t *testing.T) {
	sink := newSink(true)
	b := start(t, sink, nil)
	for _, topic := range []string{temp, "elsewhere"} {
		for _, qos := range []byte{0, 1, 2} {
			c := connect(t, b.addr, login{id: "probe", v5: true})
			c.subscribe(1, topic, 4) // No Local
			payload := fmt.Sprint(qos)
			c.publish(pub{topic: topic, payload: payload, qos: qos, id: qos16(qos, 2), retain: true})
			if qos > 0 {
				c.want("ack", ackOf(qos), 0, 2)
			}
			c.quiet("No Local")
			c.Close()
			eventually(t, "retained", func() bool {
				ms := b.server.Topics.Messages(topic)
				return len(ms) == 1 && string(ms[0].Payload) == payload
			})
			late := connect(t, b.addr, login{id: "late"})
			late.subscribe(1, topic, 0)
			if _, got, retain := late.message(); got != payload || !retain {
				t.Errorf("%s QoS %d: late subscriber got %s, retain %v", topic, qos, got, retain)
			}
			late.Close()
		}
	}
}

func TestPropertiesTravelWithAReading(t *testing.T) {
	b := start(t, newSink(true), nil)
	sub := connect(t, b.addr, login{id: "sub", v5: true})
	sub.subscribe(1, "readings/#", 0)
	c := connect(t, b.addr, login{id: "probe", v5: true})
	props := append([]byte{0x03}, str("text/plain")...)
	c.send(frame(0x32, str(temp), []byte{0, 1, byte(len(props))}, props, []byte("1")))
	c.want("ack", 0x40, 0, 1)
	if _, body := sub.read(); !strings.Contains(string(body), "text/plain") {
		t.Errorf("subscriber got %q, want the content type kept", body)
	}
}

// Whether anybody listens is remembered; a new subscriber must be noticed.
func TestANewSubscriberIsHeardAtOnce(t *testing.T) {
	b := start(t, newSink(true), nil)
	c := connect(t, b.addr, login{id: "probe"})
	for i := range 20 {
		c.publish(pub{topic: temp, payload: "0", qos: 1, id: 1})
		c.want("ack", 0x40, 0, 1)
		sub := connect(t, b.addr, login{id: fmt.Sprint("sub", i)})
		sub.subscribe(1, []string{"readings/#", temp, "$share/g/readings/+/temp", "#"}[i%4], 0)
		c.publish(pub{topic: temp, payload: "1", qos: 1, id: 1})
		c.want("ack", 0x40, 0, 1)
		if _, payload, _ := sub.message(); payload != "1" {
			t.Fatalf("subscriber %d got %s, want 1", i, payload)
		}
		sub.Close()
		eventually(t, "subscription gone", func() bool { return b.Stats().Subscriptions == 0 })
	}
}

func TestRetainedMessagesAreBounded(t *testing.T) {
	b := start(t, newSink(true), func(c *Config) { c.Limits.Retained = 2; c.Limits.RetainedBytes = 40 })
	c := connect(t, b.addr, login{id: "probe"})
	for i, p := range []pub{
		{topic: "a", payload: "1"}, {topic: "b", payload: "1"},
		{topic: "c", payload: "1"},                     // one too many
		{topic: "a", payload: strings.Repeat("x", 50)}, // too many bytes
		{topic: "a", payload: "2"},
		{topic: "b"}, {topic: "c", payload: "3"},
	} {
		p.qos, p.id, p.retain = 1, uint16(i+1), true
		c.publish(p)
		c.want("ack", 0x40, 0, byte(i+1))
	}
	sub := connect(t, b.addr, login{id: "sub"})
	for i, want := range []string{"2", "", "3"} {
		topic := string(rune('a' + i))
		sub.subscribe(uint16(i+1), topic, 0)
		if want == "" {
			sub.quiet(topic)
		} else if _, got, _ := sub.message(); got != want {
			t.Errorf("retained on %s: %q, want %q", topic, got, want)
		}
	}
	if s := b.Stats(); s.Unretained != 2 || s.Retained != 2 {
		t.Errorf("stats %+v, want 2 retained and 2 not", s)
	}
}

func TestASlowSubscriberDoesNotStallPublishers(t *testing.T) {
	sink := newSink(true)
	b := start(t, sink, func(c *Config) { c.Limits.WriteTimeout = 2 * time.Second })
	slow := connect(t, b.addr, login{id: "slow"})
	slow.subscribe(1, "readings/#", 1)
	c := connect(t, b.addr, login{id: "probe"})
	c.SetReadDeadline(time.Now().Add(patienceInTests))
	payload := strings.Repeat("x", 8000)
	begin := time.Now()
	for i := range 4000 { // 32 MB, more than any socket buffer
		c.publish(pub{topic: temp, payload: payload, qos: 1, id: uint16(i%1000 + 1)})
		if _, _, err := c.receive(patienceInTests); err != nil {
			t.Fatalf("publish %d after %v: %v", i, time.Since(begin), err)
		}
	}
	if n := b.Stats().SlowSkips; n == 0 {
		t.Error("no delivery was left out: the subscriber was not slow enough to test anything")
	}
	eventually(t, "the slow subscriber is closed", func() bool { return b.Stats().SlowCloses == 1 })
}

// The library drops what finds its queue to a client full, at any QoS.
func TestABurstIsDeliveredWhole(t *testing.T) {
	b := start(t, newSink(true), nil)
	sub := connect(t, b.addr, login{id: "sub"})
	sub.subscribe(1, "readings/#", 0)
	c := connect(t, b.addr, login{id: "probe"})
	const n = 1000
	go func() {
		for i := range n {
			if _, err := c.Write(c.packet(pub{topic: temp, payload: fmt.Sprint(i)})); err != nil {
				return // the subscriber misses the rest
			}
		}
	}()
	for i := range n {
		if _, payload, _ := sub.message(); payload != fmt.Sprint(i) {
			t.Fatalf("got %s, want %d", payload, i)
		}
	}
}

// The library stops for ever when publishers and the acks of a subscriber with
// a Receive Maximum meet: it must not be told of one.
func TestPublishersAndAcksOfASubscriberMeet(t *testing.T) {
	b := start(t, newSink(true), nil)
	sub := connect(t, b.addr, login{id: "sub", v5: true, receive: 30})
	sub.subscribe(1, "readings/#", 1)
	const publishers, n = 4, 500
	var wg sync.WaitGroup
	for i := range publishers {
		c := connect(t, b.addr, login{id: fmt.Sprint("probe", i)})
		wg.Go(func() {
			for id := range uint16(n) {
				_, err := c.Write(c.packet(pub{topic: temp, payload: "1", qos: 1, id: id + 1}))
				if err == nil {
					_, _, err = c.receive(patienceInTests)
				}
				if err != nil {
					t.Errorf("publish %d: %v", id, err)
					return
				}
			}
		})
	}
	go func() {
		for {
			head, body, err := sub.receive(patienceInTests)
			if err != nil || head != 0x32 {
				return // the test is over
			}
			if _, err := sub.Write([]byte{0x40, 2, body[2+len(temp)], body[3+len(temp)]}); err != nil {
				return
			}
		}
	}()
	wg.Wait()
}

func TestManyRetainedMessagesReachANewSubscriber(t *testing.T) {
	b := start(t, newSink(true), nil)
	c := connect(t, b.addr, login{id: "probe"})
	const n = 600
	for i := range n {
		c.publish(pub{topic: fmt.Sprint("site/", i), payload: "1", retain: true})
	}
	eventually(t, "retained", func() bool { return b.Stats().Retained == n })
	sub := connect(t, b.addr, login{id: "sub"})
	sub.subscribe(1, "site/#", 0)
	for range n {
		sub.message()
	}
}

func TestSubscriptionLimits(t *testing.T) {
	each(t, func(t *testing.T, v5 bool) {
		b := start(t, newSink(true), func(c *Config) { c.Limits.Subscriptions = 3 })
		c := connect(t, b.addr, login{id: "sub", v5: v5})
		refused, surplus := byte(0x80), byte(0x80)
		if v5 {
			refused, surplus = 0x8f, 0x97
		}
		for i, tt := range []struct {
			filter string
			code   byte
		}{
			{strings.Repeat("a", 600), refused},
			{strings.Repeat("a/", 20) + "#", refused},
			{"a/b#", refused},
			{"a", 0}, {"b", 0}, {"b", 0}, {"c", 0},
			{"d", surplus},
		} {
			if code := c.trySubscribe(uint16(i+1), tt.filter, 0); code != tt.code {
				t.Errorf("filter %.30q: code %x, want %x", tt.filter, code, tt.code)
			}
		}
		want := byte(0x80)
		if v5 {
			want = 0x87
		}
		c = connect(t, b.addr, login{id: "sub2", v5: v5})
		if code := c.trySubscribe(1, "$SYS/#", 0); code != want {
			t.Errorf("$SYS: code %x, want %x", code, want)
		}
	})
}

func TestPersistentSessionGetsWhatItMissed(t *testing.T) {
	b := start(t, newSink(true), nil)
	l := login{id: "sub", keep: true}
	sub := connect(t, b.addr, l)
	sub.subscribe(1, "readings/#", 1)
	sub.Close()
	eventually(t, "gone", func() bool { return b.Stats().Connections == 0 })
	c := connect(t, b.addr, login{id: "probe"})
	c.publish(pub{topic: temp, payload: "1", qos: 1, id: 1})
	c.want("ack", 0x40, 0, 1)
	sub = connect(t, b.addr, l)
	if head, body := sub.read(); head&0x36 != 0x32 || body[len(body)-1] != '1' {
		t.Errorf("got packet %x %x, want the missed reading", head, body)
	}
}
