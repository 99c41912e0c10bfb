package mqtt

import (
	"net"
	"testing"
	"testing/synctest"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

func flowConn(receiveMax int) *conn {
	near, _ := net.Pipe()
	c := newConn(near, &Broker{limits: Limits{}.withDefaults()}, false)
	c.flow.receiveMax = receiveMax
	return c
}

func TestPublishersWaitForAClientThatCatchesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, unacked := flowConn(0), mochi.NewInflights()
		done := make(chan struct{})
		defer func() { <-done }()
		go func() {
			defer close(done)
			for range 5 * writesPending {
				time.Sleep(100 * time.Microsecond)
				c.flow.sent(0)
			}
		}()
		for i := range 5 * writesPending {
			if !c.admit(&c.b.waits, 0, unacked, false) {
				t.Fatalf("message %d was left out", i)
			}
			c.flow.mu.Lock()
			queued := c.flow.queued
			c.flow.mu.Unlock()
			if queued > highWater {
				t.Fatalf("%d messages let through at once", queued)
			}
		}
	})
}

func TestAClientThatDoesNotCatchUpStopsNobody(t *testing.T) {
	for _, tt := range []struct {
		name  string
		above bool
		jam   func(*conn, *mochi.Inflight)
	}{
		{"queue full", false, func(c *conn, _ *mochi.Inflight) { c.flow.queued = highWater }},
		{"write under way", true, func(c *conn, _ *mochi.Inflight) { c.writing <- struct{}{} }},
		{"receive maximum", true, func(_ *conn, in *mochi.Inflight) {
			in.Set(packets.Packet{PacketID: 1})
			in.Set(packets.Packet{PacketID: 2})
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, unacked := flowConn(2), mochi.NewInflights()
				tt.jam(c, unacked)
				begin := time.Now()
				for range 1000 {
					if c.admit(&c.b.waits, 0, unacked, tt.above) {
						t.Fatal("a message was let through")
					}
				}
				if took := time.Since(begin); took < patience || took > patience+patience/2 {
					t.Errorf("publishers waited %v, want about %v", took, patience)
				}
				// In the long run a share of the time.
				for range 1000 {
					time.Sleep(10 * time.Millisecond)
					c.admit(&c.b.waits, 0, unacked, tt.above)
				}
				if took := time.Since(begin); took > 14*time.Second {
					t.Errorf("10 s of publishing took %v", took)
				}
			})
		})
	}
}

func TestAnAckLetsAPublisherGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, unacked := flowConn(1), mochi.NewInflights()
		unacked.Set(packets.Packet{PacketID: 1})
		go func() {
			time.Sleep(10 * time.Millisecond)
			unacked.Delete(1)
			c.flow.acked()
		}()
		if !c.admit(&c.b.waits, 0, unacked, true) {
			t.Error("the message was left out")
		}
	})
}
