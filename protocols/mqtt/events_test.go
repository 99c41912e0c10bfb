package mqtt

import (
	"fmt"
	"strings"
	"testing"

	"github.com/hedgerow-iot/hedgerow/protocols"
)

// stateOf answers every filter with what the map has for it.
type stateOf map[string][]Event

func (s stateOf) Present(filter string) []Event { return s[filter] }

// deviceOnly lets a device read its own commands and no more.
type deviceOnly struct{ protocols.Anonymous }

func (deviceOnly) MaySubscribe(_ protocols.Device, filter string) bool {
	return strings.HasPrefix(filter, "commands/probe/")
}
func (deviceOnly) MayPublish(protocols.Device, string) bool { return true }

func TestEventsReachWhoSubscribesToTheirTopic(t *testing.T) {
	each(t, func(t *testing.T, v5 bool) {
		b := startWith(t, newSink(true), protocols.AnonymousFrom(true), deviceOnly{}, nil)
		c := connect(t, b.addr, login{id: "probe", v5: v5})
		for i, filter := range []string{"blocks", "outputs/unlock/+/hdg1a", "block-metadata/#"} {
			c.subscribe(uint16(i+1), filter, 1)
		}
		for _, e := range []struct {
			topic string
			comes bool
		}{
			{"blocks", true},
			{"blocks/tagged-data", false},
			{"outputs/unlock/address/hdg1a", true},
			{"outputs/unlock/address/hdg1b", false},
			{"outputs/unlock/address/hdg1a/spent", false},
			{"block-metadata/referenced", true},
			{"milestones", false},
		} {
			if got := b.Wanted(e.topic); got != e.comes {
				t.Errorf("Wanted(%s) = %v, want %v", e.topic, got, e.comes)
			}
			b.Event(e.topic, []byte("of "+e.topic))
			if !e.comes {
				continue
			}
			if topic, payload, retain := c.message(); topic != e.topic || payload != "of "+e.topic || retain {
				t.Errorf("got %s %q retained %v, want the event on %s", topic, payload, retain, e.topic)
			}
		}
		c.quiet("no other event")
		if st := b.Stats(); st.Events != 3 || st.LostEvents != 0 || st.Retained != 0 {
			t.Errorf("Stats = %d events, %d lost, %d retained; want 3, 0, 0", st.Events, st.LostEvents, st.Retained)
		}
	})
}

// A device that looks at everything must not make the gateway encode every
// block, nor be sent it.
func TestLeadingWildcardsDoNotMatchEventTopics(t *testing.T) {
	b := start(t, newSink(true), nil)
	c := connect(t, b.addr, login{id: "probe"})
	c.subscribe(1, "#", 0)
	c.subscribe(2, "+/latest", 0)
	if b.Wanted("milestone-info/latest") {
		t.Error("# makes an event wanted")
	}
	// Somebody else's filter with a wildcard does not change what # matches.
	other := connect(t, b.addr, login{id: "other"})
	other.subscribe(1, "milestone-info/+", 0)
	b.Event("milestone-info/latest", []byte("{}"))
	if topic, _, _ := other.message(); topic != "milestone-info/latest" {
		t.Errorf("got %s", topic)
	}
	c.quiet("no event")
	if n := b.Stats().SlowSkips; n != 0 {
		t.Errorf("SlowSkips = %d, want 0: nobody is slow", n)
	}
}

func TestEventsAreNotSharedAmongSubscribers(t *testing.T) {
	b := start(t, newSink(true), nil)
	c := connect(t, b.addr, login{id: "probe"})
	for i, filter := range []string{"$share/g/blocks", "$SHARE/g/block-metadata/#"} {
		if code := c.trySubscribe(uint16(i+1), filter, 0); code != 0x80 {
			t.Errorf("%s is answered %x, want a failure", filter, code)
		}
	}
	c.subscribe(3, "$share/g/readings/#", 0)
}

func TestNobodyPublishesOnEventTopics(t *testing.T) {
	each(t, func(t *testing.T, v5 bool) {
		b := startWith(t, newSink(true), protocols.AnonymousFrom(true), deviceOnly{}, nil)
		sub := connect(t, b.addr, login{id: "sub"})
		topics := []string{
			"milestone-info/latest", "milestones", "blocks", "blocks/tagged-data", "block-metadata/0x00",
			"transactions/0x00/included-block", "outputs/0x00", "receipts",
		}
		for i, topic := range topics {
			sub.subscribe(uint16(i+1), topic, 0)
			for qos := range byte(3) {
				c := connect(t, b.addr, login{id: "probe", v5: v5})
				c.publish(pub{topic: topic, payload: "forged", qos: qos, id: 7, retain: true})
				switch {
				case qos == 0:
					c.quiet("QoS 0 is dropped")
				case v5:
					c.want("refusal", 0x30+0x10*qos, 0, 7, 0x87)
				default:
					c.ended("refused publish")
				}
				c.Close()
			}
			c := dial(t, b.addr)
			c.send(login{id: "dying", v5: v5, will: topic}.packet())
			if head, body := c.read(); head != 0x20 || body[1] == 0 {
				t.Errorf("CONNECT with a will on %s is answered %x %x, want a refusal", topic, head, body)
			}
		}
		sub.quiet("nothing forged")
		if n := b.Stats().Retained; n != 0 {
			t.Errorf("%d forged messages are retained", n)
		}
	})
}

func TestSubscribersAreToldThePresentState(t *testing.T) {
	each(t, func(t *testing.T, v5 bool) {
		many := make([]Event, 2*maxPresent)
		for i := range many {
			many[i] = Event{fmt.Sprint("outputs/", i), []byte("x")}
		}
		b := start(t, newSink(true), func(c *Config) {
			c.Events = stateOf{
				"milestone-info/latest": {{"milestone-info/latest", []byte(`{"index":7}`)}},
				"outputs/#":             many,
				"readings/x":            {{"readings/x", []byte("never asked for")}},
			}
		})
		c := connect(t, b.addr, login{id: "probe", v5: v5})
		for id := range uint16(2) { // subscribing again asks again
			c.subscribe(id+1, "milestone-info/latest", 1)
			if topic, payload, retain := c.message(); topic != "milestone-info/latest" || payload != `{"index":7}` || !retain {
				t.Errorf("got %s %q retained %v, want the present milestone", topic, payload, retain)
			}
		}
		c.subscribe(3, "blocks", 0)
		c.subscribe(4, "readings/x", 0)
		c.quiet("topics without state")
		c.subscribe(5, "outputs/#", 0)
		for range maxPresent {
			c.message()
		}
		c.quiet("no more than the bound")
		if v5 {
			c.subscribe(6, "milestone-info/latest", 0x20) // retain handling 2
			c.quiet("did not want it")
			c.subscribe(7, "milestone-info/latest", 0x10) // 1: only for a new subscription
			c.quiet("knows it already")
		}
	})
}

func TestThePresentStateNamesItsSubscription(t *testing.T) {
	b := start(t, newSink(true), func(c *Config) { c.Events = stateOf{"outputs/0x00": {{"outputs/0x00", []byte("{}")}}} })
	c := connect(t, b.addr, login{id: "probe", v5: true})
	c.send(frame(0x82, []byte{0, 1, 2, 0x0b, 5}, str("outputs/0x00"), []byte{0})) // subscription identifier 5
	c.want("SUBACK", 0x90, 0, 1, 0, 0)
	c.want("state", 0x31, append(str("outputs/0x00"), 2, 0x0b, 5, '{', '}')...)
}

func TestInterestEndsWithTheSubscription(t *testing.T) {
	b := start(t, newSink(true), nil)
	in := &b.events.interest
	wants := func(what string, n int64) {
		t.Helper()
		eventually(t, what, func() bool { return in.filters.Load() == n && b.Wanted("blocks") == (n > 0) })
	}
	c := connect(t, b.addr, login{id: "probe"})
	c.subscribe(1, "blocks", 0)
	c.subscribe(2, "blocks", 1)
	c.subscribe(3, "blocks/#", 0)
	wants("two filters", 2)
	c.send(frame(0xa2, []byte{0, 4}, str("blocks/#"), str("milestones")))
	c.want("UNSUBACK", 0xb0, 0, 4)
	wants("unsubscribed", 1)
	c.Close()
	wants("disconnected", 0)

	c = connect(t, b.addr, login{id: "keeper", keep: true})
	c.subscribe(1, "blocks", 1)
	c.Close()
	c = connect(t, b.addr, login{id: "keeper", keep: true})
	wants("the session lasts", 1)
	b.Event("blocks", []byte("x"))
	c.message()
	c.Close()
	connect(t, b.addr, login{id: "keeper"}).quiet("clean session")
	wants("the session is over", 0)
	if len(in.of)+len(in.plain)+in.wild != 0 {
		t.Errorf("left over: %v, %v, %d", in.of, in.plain, in.wild)
	}
}

func TestEventNeverBlocksAndDropsWhatNobodyTakes(t *testing.T) {
	b := start(t, newSink(true), nil)
	slow := connect(t, b.addr, login{id: "slow"})
	slow.subscribe(1, "blocks", 0)
	large := make([]byte, 32<<10)
	eventually(t, "dropped and left out", func() bool {
		for range 1000 {
			b.Event("blocks", large)
		}
		return b.Stats().LostEvents > 0 && b.Stats().SlowSkips > 0
	})
	c := connect(t, b.addr, login{id: "probe"})
	c.publish(pub{topic: temp, payload: "1", qos: 1, id: 1})
	c.want("readings go on", 0x40, 0, 1)
}

// What a milestone confirms is published at once; a subscriber that reads must
// get all of it.
func TestABurstOfEventsReachesAReader(t *testing.T) {
	b := start(t, newSink(true), nil)
	c := connect(t, b.addr, login{id: "probe"})
	c.subscribe(1, "block-metadata/referenced", 0)
	for i := range 3000 {
		b.Event("block-metadata/referenced", fmt.Append(nil, i))
	}
	for i := range 3000 {
		if _, payload, _ := c.message(); payload != fmt.Sprint(i) {
			t.Fatalf("message %d is %s", i, payload)
		}
	}
	if st := b.Stats(); st.LostEvents+st.SlowSkips != 0 {
		t.Errorf("%d events lost, %d left out", st.LostEvents, st.SlowSkips)
	}
}

func TestTheEventQueueIsBounded(t *testing.T) {
	q := eventQueue{more: make(chan struct{}, 1)}
	n := 0
	for q.push(Event{"blocks", make([]byte, 32<<10)}) {
		n++
	}
	if n != pendingBytes/(32<<10)-1 {
		t.Errorf("%d events of 32 KiB in %d bytes", n, pendingBytes)
	}
	if got := q.take(nil); len(got) != n {
		t.Errorf("took %d of %d", len(got), n)
	}
	for n = 0; q.push(Event{Topic: "x"}); n++ {
	}
	if n != maxPending {
		t.Errorf("%d small events, want %d", n, maxPending)
	}
}

func TestFiltersMatchTopics(t *testing.T) {
	for _, tt := range []struct {
		filter, topic string
		want          bool
	}{
		{"a", "a", true}, {"a", "b", false}, {"a", "a/b", false}, {"a/b", "a", false},
		{"a/+", "a/b", true}, {"a/+", "a", false}, {"a/+", "a/", true}, {"a/+", "a/b/c", false},
		{"a/#", "a", true}, {"a/#", "a/b/c", true}, {"a/#", "ab", false}, {"#", "a/b", true},
		{"a/+/c", "a/b/c", true}, {"a/+/#", "a/b", true}, {"a/+/#", "a", false}, {"+/b", "a/b", true},
	} {
		if got := matches(tt.filter, tt.topic); got != tt.want {
			t.Errorf("matches(%s, %s) = %v, want %v", tt.filter, tt.topic, got, tt.want)
		}
	}
}

func BenchmarkWanted(b *testing.B) {
	r := start(b, newSink(true), nil)
	bench := func(name string, want bool) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if r.Wanted("block-metadata/0xaa") != want {
					b.Fatal("wrong")
				}
			}
		})
	}
	bench("nobody subscribes", false)
	c := connect(b, r.addr, login{id: "probe"})
	c.subscribe(1, "blocks", 0)
	bench("to other topics", false)
	c.subscribe(2, "blocks/#", 0)
	bench("to wildcards elsewhere", false)
	c.subscribe(3, "block-metadata/#", 0)
	bench("by a wildcard", true)
}

// What one event costs until n subscribers have it.
func BenchmarkEvent(b *testing.B) {
	for _, n := range []int{1, 64} {
		b.Run(fmt.Sprint(n, " readers"), func(b *testing.B) {
			r := start(b, newSink(true), nil)
			var readers []*client
			for i := range n {
				c := connect(b, r.addr, login{id: fmt.Sprint("reader-", i)})
				c.subscribe(1, "blocks", 0)
				readers = append(readers, c)
			}
			payload := make([]byte, 300)
			const burst = 100
			for b.Loop() {
				for range burst {
					r.Event("blocks", payload)
				}
				for _, c := range readers {
					for range burst {
						c.read()
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*burst), "ns/event")
			b.ReportMetric(float64(b.N*burst*n)/b.Elapsed().Seconds(), "deliveries/s")
		})
	}
}
