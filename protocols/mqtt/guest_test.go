package mqtt

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching/reading"
	"github.com/hedgerow-iot/hedgerow/protocols"
)

// members lets in who says that it is a probe, as a registry would.
type members struct{ protocols.Anonymous }

func (members) Authenticate(c protocols.Credentials) (protocols.Device, error) {
	if !strings.HasPrefix(c.ClientID, "probe") {
		return protocols.Device{}, protocols.ErrNotAllowed
	}
	return protocols.Device{Name: "probe", Auth: reading.AuthPassword}, nil
}

// startPublic runs a broker for members with the public path for events.
func startPublic(t testing.TB, sink protocols.Sink, change func(*Config)) (b *running, url string) {
	t.Helper()
	b = startWith(t, sink, members{}, protocols.AnonymousFrom(true), change)
	srv := httptest.NewServer(b.GuestEvents())
	t.Cleanup(srv.Close)
	return b, "ws" + strings.TrimPrefix(srv.URL, "http") + "/api/mqtt/v1"
}

func TestGuestsSubscribeToEventsWithoutLogin(t *testing.T) {
	each(t, func(t *testing.T, v5 bool) {
		b, url := startPublic(t, newSink(true), func(c *Config) {
			c.Events = stateOf{"milestone-info/#": {{"milestone-info/latest", []byte("{}")}}}
		})
		c, status := tryWeb(t, url, "https://any.example")
		if c == nil {
			t.Fatalf("a page of any origin is answered %d", status)
		}
		c.login(login{id: "", v5: v5})
		c.subscribe(1, "blocks", 0)
		c.subscribe(2, "milestone-info/#", 0)
		if topic, _, _ := c.message(); topic != "milestone-info/latest" {
			t.Errorf("got %s, want the present milestone", topic)
		}
		b.Event("blocks", []byte("a block"))
		if topic, payload, _ := c.message(); topic != "blocks" || payload != "a block" {
			t.Errorf("got %s %q, want the block", topic, payload)
		}
		if st := b.Stats(); st.Guests != 1 || st.Connections != 1 {
			t.Errorf("Stats = %d guests of %d, want 1 of 1", st.Guests, st.Connections)
		}
		c.Close()
		eventually(t, "nothing left", func() bool { s := b.Stats(); return s.Sessions+s.Subscriptions+s.Connections+s.Guests == 0 })
	})
}

func TestGuestsHaveEventTopicsOnly(t *testing.T) {
	each(t, func(t *testing.T, v5 bool) {
		sink := newSink(true)
		b, url := startPublic(t, sink, nil)
		probe := connect(t, b.addr, login{id: "probe"})
		all := connect(t, b.addr, login{id: "probe-2"})
		all.subscribe(1, "#", 0)
		all.quiet("nothing is retained yet") // the library looks after the SUBACK
		probe.publish(pub{topic: temp, payload: "1", qos: 1, id: 1, retain: true})
		all.message()
		probe.want("stored", 0x40, 0, 1)

		c := dialWeb(t, url).login(login{id: "guest", v5: v5})
		for i, filter := range []string{
			"#", "+", "+/#", "+/latest", "/blocks", "/#", "readings/#", temp, "commands/#", "commands/probe/1", "out/#", "wallet/#",
			"$SYS/#", "$share/g/#", "$share/g/blocks", "$share/g/readings/#", "$SHARE/g/+/#", "Blocks", "BLOCKS/#", "blocks2", "+locks", "blocks#", "$blocks",
		} {
			if code := c.trySubscribe(uint16(i+1), filter, 0); code < 0x80 {
				t.Errorf("a guest's subscription to %s is granted", filter)
			}
		}
		c.subscribe(100, "blocks/#", 0)
		probe.publish(pub{topic: temp, payload: "2", qos: 1, id: 2})
		all.message()
		probe.want("stored", 0x40, 0, 2)
		c.quiet("no reading")

		for _, topic := range []string{temp, "readings/probe", "commands/probe/1", "any", "blocks", "milestones"} {
			c := dialWeb(t, url).login(login{id: "guest", v5: v5})
			c.publish(pub{topic: topic, payload: "9", retain: true})
			c.quiet("QoS 0 is dropped")
			c.publish(pub{topic: topic, payload: "9", qos: 1, id: 7, retain: true})
			if v5 {
				c.want("refusal", 0x40, 0, 7, 0x87)
			} else {
				c.ended("refused publish")
			}
			c = dialWeb(t, url)
			c.send(login{id: "guest", v5: v5, will: topic}.packet())
			if head, body := c.read(); head != 0x20 || body[1] == 0 {
				t.Errorf("CONNECT with a will on %s is answered %x %x, want a refusal", topic, head, body)
			}
			c.Close()
		}
		all.quiet("nothing of a guest")
		if n := sink.count(); n != 2 {
			t.Errorf("%d readings stored, want 2", n)
		}
	})
}

// A guest that takes a device's client id must neither end its session nor
// inherit what it subscribed to or missed.
func TestGuestsCannotTakeASession(t *testing.T) {
	each(t, func(t *testing.T, v5 bool) {
		b, url := startPublic(t, newSink(true), nil)
		probe := connect(t, b.addr, login{id: "probe", v5: v5, keep: true})
		probe.subscribe(1, "commands/probe/#", 1)
		thief := dialWeb(t, url).login(login{id: "probe", v5: v5, keep: true})
		probe.quiet("still connected")
		thief.quiet("nothing of the device's")
		probe.Close()
		eventually(t, "device gone", func() bool { return b.Stats().Connections == 1 })
		thief.Close()
		thief = dialWeb(t, url).login(login{id: "probe", v5: v5, keep: true})
		thief.quiet("nothing of the absent device's")
		if n := b.Stats().Subscriptions; n != 1 {
			t.Errorf("%d subscriptions, want the device's", n)
		}
		thief.Close()
		eventually(t, "no guest's session is kept", func() bool { return b.Stats().Sessions == 1 })
	})
}

func TestGuestsAndDevicesDoNotKeepEachOtherOut(t *testing.T) {
	b, url := startPublic(t, newSink(true), func(c *Config) {
		c.Limits.Guests, c.Limits.GuestsPerAddress, c.Limits.Connections = 3, 2, 1
		c.Limits.Subscriptions, c.Limits.AllSubscriptions = 20, 1
	})
	var guests []*client
	for range 2 {
		guests = append(guests, dialWeb(t, url).login(login{}))
	}
	if _, status := tryWeb(t, url, ""); status != 503 {
		t.Errorf("a third guest of one address is answered %d, want 503", status)
	}
	for i := range 20 {
		guests[0].subscribe(uint16(i+1), fmt.Sprint("outputs/", i), 0)
	}
	if code := guests[0].trySubscribe(21, "blocks", 0); code != 0x80 {
		t.Errorf("a guest's subscription beyond its limit is answered %x, want a failure", code)
	}
	probe := connect(t, b.addr, login{id: "probe"})
	probe.subscribe(1, temp, 0)
	guests[1].subscribe(1, "blocks", 0)
	if n := b.Stats().Surplus; n != 1 {
		t.Errorf("Surplus = %d, want 1", n)
	}
	for _, g := range guests {
		g.Close()
	}
	eventually(t, "room again", func() bool { return b.Stats().Guests == 0 && b.events.interest.guests.Load() == 0 })
	dialWeb(t, url).login(login{})
}

func TestGuestsLeaveWhenRunEnds(t *testing.T) {
	b, url := startPublic(t, newSink(true), nil)
	c := dialWeb(t, url).login(login{v5: true})
	b.stop()
	c.want("good-bye", 0xe0, 0x8b)
	c.ended("stopped")
	if _, status := tryWeb(t, url, ""); status != 503 {
		t.Errorf("a stopped broker answers %d, want 503", status)
	}
}

// A SUBSCRIBE of 256 KiB is megabytes of filters once it is decoded.
func TestPacketsOfGuestsAreBounded(t *testing.T) {
	b, url := startPublic(t, newSink(true), nil)
	c := dialWeb(t, url).login(login{})
	for i := range 3 { // each packet anew
		c.send(frame(0xa2, []byte{0, byte(i + 1)}, str(strings.Repeat("x", 500))))
		c.want("UNSUBACK", 0xb0, 0, byte(i+1))
	}
	c.send([]byte{0x82, 0xff, 0xff, 0xff, 0x7f})
	c.ended("SUBSCRIBE of 256 MB")
	c = dialWeb(t, url).login(login{})
	// The broker closes before it has read everything.
	_, _ = c.Write(frame(0x82, []byte{0, 1}, []byte(strings.Repeat("\x00\x06blocks\x00", 4000))))
	c.ended("SUBSCRIBE of 36 kB")
	eventually(t, "counted", func() bool { return b.Stats().Oversized == 2 })
}

func TestGuestsArePaced(t *testing.T) {
	var p pace
	now := time.Now()
	if d := p.after(now, 129); d != 0 {
		t.Errorf("a first SUBSCRIBE of 128 filters waits %v", d)
	}
	for range 127 {
		if d := p.after(now, 1); d != 0 {
			t.Fatalf("a packet within the burst waits %v", d)
		}
	}
	if d := p.after(now, 10); d != 10*guestUnit {
		t.Errorf("10 units beyond the burst wait %v, want %v", d, 10*guestUnit)
	}
	if d := p.after(now.Add(time.Hour), 256); d != 0 {
		t.Errorf("after a pause a burst waits %v", d)
	}
}

// Readings that nobody subscribes to need no look into the index; a stranger
// must not change that.
func TestGuestsDoNotMakeReadingsDearer(t *testing.T) {
	b, url := startPublic(t, newSink(true), nil)
	g := b.subscribed.Load()
	c := dialWeb(t, url).login(login{})
	c.subscribe(1, "blocks", 0)
	c.send(frame(0xa2, []byte{0, 2}, str("blocks")))
	c.want("UNSUBACK", 0xb0, 0, 2)
	c.subscribe(3, "blocks", 0)
	c.Close()
	eventually(t, "gone", func() bool { return b.Stats().Subscriptions == 0 && b.Stats().Guests == 0 })
	if n := b.subscribed.Load(); n != g {
		t.Errorf("publishers were made to look again %d times", n-g)
	}
}
