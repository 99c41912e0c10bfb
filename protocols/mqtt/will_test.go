package mqtt

import (
	"fmt"
	"testing"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
)

func TestWillOfALostClientIsStoredAndForwarded(t *testing.T) {
	each(t, func(t *testing.T, v5 bool) {
		sink := newSink(false)
		b := start(t, sink, nil)
		sub := connect(t, b.addr, login{id: "sub"})
		sub.subscribe(1, "#", 0)
		c := connect(t, b.addr, login{id: "probe", v5: v5, will: temp, retained: true})
		c.publish(pub{topic: temp, payload: "1", qos: 1, id: 1})
		c.Close()
		sink.next(t).resolve(1, nil)
		h := sink.next(t)
		if r := h.Readings[0]; r.Device != "probe" || r.Value.AsInt() != 7 || h.Recall {
			t.Errorf("stored %+v, want the will 7", h.Submission)
		}
		if _, payload, _ := sub.message(); payload != "1" {
			t.Errorf("got %s, want the reading before the will", payload)
		}
		sub.quiet("the will is not durable yet")
		h.resolve(2, nil)
		if topic, payload, _ := sub.message(); topic != temp || payload != "7" {
			t.Errorf("got %s %s, want the will", topic, payload)
		}
		late := connect(t, b.addr, login{id: "late"})
		late.subscribe(1, temp, 0)
		if _, payload, retain := late.message(); payload != "7" || !retain {
			t.Errorf("late subscriber got %s, retain %v", payload, retain)
		}
	})
}

func TestWillOnAnUnmappedTopicIsForwarded(t *testing.T) {
	sink := newSink(true)
	b := start(t, sink, nil)
	sub := connect(t, b.addr, login{id: "sub"})
	sub.subscribe(1, "#", 0)
	connect(t, b.addr, login{id: "probe", will: "lost"}).Close()
	if topic, payload, _ := sub.message(); topic != "lost" || payload != "7" {
		t.Errorf("got %s %s, want the will", topic, payload)
	}
	if n := sink.count(); n != 0 {
		t.Errorf("%d stored, want none", n)
	}
}

func TestNoWillAfterGoodBye(t *testing.T) {
	sink := newSink(true)
	b := start(t, sink, nil)
	c := connect(t, b.addr, login{id: "probe", will: temp})
	c.send([]byte{0xe0, 0})
	c.ended("DISCONNECT")
	eventually(t, "gone", func() bool { return b.Stats().Connections == 0 })
	if n := sink.count(); n != 0 {
		t.Errorf("%d stored, want none", n)
	}
	c = connect(t, b.addr, login{id: "probe", v5: true, will: temp})
	c.send([]byte{0xe0, 2, 4, 0}) // disconnect with will
	eventually(t, "will", func() bool { return sink.count() == 1 })
}

func TestWillAfterARefusalThatEndsTheConnection(t *testing.T) {
	sink := newSink(false)
	b := start(t, sink, nil)
	c := connect(t, b.addr, login{id: "probe", will: "lost"})
	sub := connect(t, b.addr, login{id: "sub"})
	sub.subscribe(1, "lost", 0)
	c.publish(pub{topic: "$SYS/x", payload: "1", qos: 1, id: 1})
	c.ended("refused")
	if topic, _, _ := sub.message(); topic != "lost" {
		t.Errorf("got %s, want the will", topic)
	}
}

func TestDelayedWill(t *testing.T) {
	sink := newSink(true)
	b := start(t, sink, nil)
	sub := connect(t, b.addr, login{id: "sub"})
	sub.subscribe(1, "#", 0)
	l := login{id: "probe", v5: true, keep: true, will: temp, willDelay: 1}
	connect(t, b.addr, l).Close()
	if topic, payload, _ := sub.message(); topic != temp || payload != "7" {
		t.Errorf("got %s %s, want the will", topic, payload)
	}
	if n := sink.count(); n != 1 {
		t.Errorf("%d stored, want the will before it is forwarded", n)
	}

	l.willDelay = 100
	connect(t, b.addr, l).Close()
	eventually(t, "waiting", func() bool { b.wills.mu.Lock(); defer b.wills.mu.Unlock(); return len(b.wills.of) == 1 })
	connect(t, b.addr, l)
	if len(b.wills.of) != 0 {
		t.Error("the will of a client that is back is still to be sent")
	}
	sub.quiet("no will")
}

// Else a client could leave wills for a day in sessions of a second, with a
// new client id each time.
func TestADelayedWillEndsWithItsSession(t *testing.T) {
	b := start(t, newSink(true), func(c *Config) { c.Limits.SessionExpiry = time.Second })
	sub := connect(t, b.addr, login{id: "sub"})
	sub.subscribe(1, "#", 0)
	l := login{id: "probe", v5: true, keep: true, will: "lost", willDelay: 1000}
	connect(t, b.addr, l).Close()
	if topic, _, _ := sub.message(); topic != "lost" {
		t.Errorf("got %s, want the will", topic)
	}
}

func TestDelayedWillsAreBounded(t *testing.T) {
	ws, s := wills{}, &session{cl: &mochi.Client{}}
	ws.init()
	for i := range 10 {
		s.cl.ID = fmt.Sprint(i)
		if kept := ws.put(s, &will{}, time.Now(), 3); kept != (i < 3) {
			t.Errorf("will %d: kept %v", i, kept)
		}
	}
}
