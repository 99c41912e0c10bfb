package mqtt

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/protocols"
)

const temp = "readings/probe/temp"

// ackOf returns the head of the answer to a publish.
func ackOf(qos byte) byte { return map[byte]byte{1: 0x40, 2: 0x50}[qos] }

func eachQoS(t *testing.T, f func(t *testing.T, v5 bool, qos byte)) {
	each(t, func(t *testing.T, v5 bool) {
		for _, qos := range []byte{1, 2} {
			t.Run(fmt.Sprintf("QoS %d", qos), func(t *testing.T) { f(t, v5, qos) })
		}
	})
}

func TestAckComesAfterTheReceiptOnly(t *testing.T) {
	eachQoS(t, func(t *testing.T, v5 bool, qos byte) {
		sink := newSink(false)
		b := start(t, sink, nil)
		c := connect(t, b.addr, login{id: "probe", v5: v5})
		c.publish(pub{topic: temp, payload: "21.5", qos: qos, id: 7})
		h := sink.next(t)
		if r := h.Readings[0]; r.Device != "probe" || r.Name != "temp" || r.Value.AsFloat() != 21.5 {
			t.Errorf("stored %+v, want probe temp 21.5", r)
		}
		c.quiet("before the receipt")
		h.resolve(1, nil)
		c.want("after the receipt", ackOf(qos), 0, 7)
		if got := b.Stats().Acked; got != 1 {
			t.Errorf("Acked = %d, want 1", got)
		}
	})
}

func TestAcksKeepTheOrderOfPublishes(t *testing.T) {
	sink := newSink(false)
	b := start(t, sink, nil)
	c := connect(t, b.addr, login{id: "probe"})
	// One that need not be stored waits for its turn as well.
	for i, topic := range []string{temp, "elsewhere", temp, temp} {
		c.publish(pub{topic: topic, payload: "1", qos: 1, id: uint16(i + 1)})
	}
	first, second, third := sink.next(t), sink.next(t), sink.next(t)
	third.resolve(3, nil)
	second.resolve(2, nil)
	c.quiet("the first is not durable")
	first.resolve(1, nil)
	for id := byte(1); id <= 4; id++ {
		c.want("in order", 0x40, 0, id)
	}
}

func TestWhatIsNotStoredIsNotAcknowledgedAsSuccess(t *testing.T) {
	denied := fmt.Errorf("%w: today", protocols.ErrNotAllowed)
	for _, tt := range []struct {
		name   string
		err    error
		code   byte // of MQTT 5; 0 ends the connection
		atOnce bool // an error of Submit rather than of the receipt
	}{
		{"busy at submit", batching.ErrBusy, 0x97, true},
		{"disk full at append", fmt.Errorf("append: %w", batching.ErrBusy), 0x97, false},
		{"stopping at submit", batching.ErrClosed, 0, true},
		{"stopping at append", batching.ErrClosed, 0, false},
		{"journal in doubt", errors.New("fsync: input/output error"), 0, false},
		{"refused", denied, 0x87, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			eachQoS(t, func(t *testing.T, v5 bool, qos byte) {
				sink := newSink(false)
				b := start(t, sink, nil)
				c := connect(t, b.addr, login{id: "probe", v5: v5, keep: true})
				if tt.atOnce {
					sink.setRefuse(tt.err)
				}
				c.publish(pub{topic: temp, payload: "1", qos: qos, id: 9})
				if !tt.atOnce {
					sink.next(t).resolve(0, tt.err)
				}
				if v5 && tt.code != 0 {
					c.want("refusal", ackOf(qos), 0, 9, tt.code)
					c.quiet("the connection goes on")
				} else {
					c.ended("no ack")
					c = connect(t, b.addr, login{id: "probe", v5: v5, keep: true})
				}
				if s := b.Stats(); s.Acked != 0 || s.Busy+s.Refused != 1 {
					t.Errorf("stats %+v, want nothing acked and one refusal", s)
				}
				// The device sends it again, and now it is stored.
				sink.setRefuse(nil)
				clear(sink.known)
				c.publish(pub{topic: temp, payload: "1", qos: qos, id: 9, dup: true})
				sink.next(t).resolve(1, nil)
				c.want("second attempt", ackOf(qos), 0, 9)
			})
		})
	}
}

func TestRefusedTopicsAndPayloads(t *testing.T) {
	for _, tt := range []struct {
		name, topic, payload string
		code                 byte
	}{
		{"system topic", "$SYS/broker/uptime", "1", 0x90},
		{"system topic in lower case", "$sys/x", "1", 0x90},
		{"share prefix", "$share/g/x", "1", 0x90},
		{"other dollar topic", "$aws/x", "1", 0x87},
		{"event topic", "milestones/latest", "1", 0x87},
		{"too many levels", strings.Repeat("a/", 20) + "a", "1", 0x90},
		{"long topic", strings.Repeat("a", 600), "1", 0x90},
		{"long device", "readings/" + strings.Repeat("d", 65) + "/temp", "1", 0x90},
		{"no name", "readings/probe/", "1", 0x90},
		{"long text", temp, strings.Repeat("x", 9000), 0x99},
	} {
		t.Run(tt.name, func(t *testing.T) {
			eachQoS(t, func(t *testing.T, v5 bool, qos byte) {
				sink := newSink(true)
				b := start(t, sink, nil)
				c := connect(t, b.addr, login{id: "probe", v5: v5})
				c.publish(pub{topic: tt.topic, payload: tt.payload, qos: qos, id: 3})
				if v5 {
					c.want("refusal", ackOf(qos), 0, 3, tt.code)
				} else {
					c.ended("refusal")
				}
				if n, s := sink.count(), b.Stats(); n != 0 || s.Refused != 1 || s.Acked != 0 {
					t.Errorf("%d stored, stats %+v; want nothing stored, one refused", n, s)
				}
			})
		})
	}
}

func TestRefusedQoS0IsDroppedAndCounted(t *testing.T) {
	b := start(t, newSink(true), nil)
	c := connect(t, b.addr, login{id: "probe"})
	c.publish(pub{topic: "$SYS/x", payload: "1"})
	c.quiet("no answer")
	eventually(t, "counted", func() bool { return b.Stats().Refused == 1 })
}

func TestPayloadsWithoutReadingAreOrdinaryTraffic(t *testing.T) {
	sink := newSink(true)
	b := start(t, sink, nil)
	c := connect(t, b.addr, login{id: "probe"})
	c.publish(pub{topic: temp, payload: "5", qos: 1, id: 1, retain: true})
	c.want("ack", 0x40, 0, 1)
	c.publish(pub{topic: temp, payload: "", qos: 1, id: 2, retain: true})
	c.want("ack", 0x40, 0, 2)
	if n, r := sink.count(), b.Stats().Retained; n != 1 || r != 0 {
		t.Errorf("%d stored, %d retained; want the retained reading deleted by the empty payload", n, r)
	}
}

func TestUnansweredPublishesAreBounded(t *testing.T) {
	sink := newSink(false)
	b := start(t, sink, func(c *Config) { c.Limits.Inflight = 4 })
	for _, qos := range []byte{0, 1} {
		c := connect(t, b.addr, login{id: fmt.Sprint("probe", qos)})
		for id := range uint16(20) {
			c.publish(pub{topic: temp, payload: "1", qos: qos, id: qos16(qos, id+1)})
		}
		// Four are held, the fifth has been submitted and waits for room.
		var hs []held
		for range 5 {
			hs = append(hs, sink.next(t))
		}
		c.send([]byte{0xc0, 0})
		select {
		case <-sink.got:
			t.Fatalf("QoS %d: a sixth publish was taken in before the first was answered", qos)
		default:
		}
		for _, h := range hs {
			h.resolve(1, nil)
		}
		for range 15 {
			sink.next(t).resolve(1, nil)
		}
		for id := byte(1); qos == 1 && id <= 20; {
			switch head, body := c.read(); {
			case head == 0xd0:
			case head != 0x40 || body[1] != id:
				t.Fatalf("got packet %x %x, want a PUBACK for %d", head, body, id)
			default:
				id++
			}
		}
	}
}

func TestUnansweredBytesAreBounded(t *testing.T) {
	sink := newSink(false)
	b := start(t, sink, func(c *Config) { c.Limits.Packet = 2000 })
	c := connect(t, b.addr, login{id: "probe"})
	for id := range uint16(10) {
		c.publish(pub{topic: temp, payload: strings.Repeat("x", 1500), qos: 1, id: id + 1})
	}
	var hs []held
	for range 3 { // two are held, the third waits for room
		hs = append(hs, sink.next(t))
	}
	select {
	case <-sink.got:
		t.Fatal("a fourth publish was taken in before the first was answered")
	default:
	}
	for _, h := range hs {
		h.resolve(1, nil)
	}
	for range 7 {
		sink.next(t).resolve(1, nil)
	}
	for id := byte(1); id <= 10; id++ {
		c.want("ack", 0x40, 0, id)
	}
}

func qos16(qos byte, id uint16) uint16 {
	if qos == 0 {
		return 0
	}
	return id
}
