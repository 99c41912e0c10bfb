package batching

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching/reading"
)

func TestNewRefusesBadConfiguration(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"gateway name": func(c *Config) { c.Gateway = "a b" },
		"identity key": func(c *Config) { c.Key = nil },
		"max age":      func(c *Config) { c.MaxAge = -1 },
		"max readings": func(c *Config) { c.MaxReadings = 1 << 20 },
		"target":       func(c *Config) { c.Target = 100 },
	} {
		cfg := Config{Gateway: "barn-7", Key: testKey}
		change(&cfg)
		if _, err := New(cfg, newMemJournal(), &memProver{}, newMemLedger()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New: %v, want an error about the %s", err, want)
		}
	}
}

func TestReadyTellsWhetherAPacketWouldBeStored(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s, err := New(Config{Gateway: "barn-7", Key: testKey}, newMemJournal(), &memProver{}, newMemLedger())
		if err != nil {
			t.Fatal(err)
		}
		if s.Ready() == nil {
			t.Error("ready before Run")
		}
		r := newRig(t, nil)
		synctest.Wait()
		if err := r.Ready(); err != nil {
			t.Errorf("running and empty: %v", err)
		}
		r.j.full = errBoom
		if r.Ready() == nil {
			t.Error("ready while the journal is not")
		}
		r.end()
		if r.Ready() == nil {
			t.Error("ready after Run")
		}
	})
}

func TestGroupIsStampedOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		at := time.UnixMilli(1764000000123)
		r := newRig(t, func(c *Config) {
			c.Clock = func() (time.Time, reading.Clock) { return at, reading.ClockGood }
		})
		<-r.submit("a", "b").Done()
		for _, got := range r.j.rs {
			if got.Received != at.UnixMilli() || got.Clock != reading.ClockGood {
				t.Errorf("stamped %d, %s", got.Received, got.Clock)
			}
		}
		r.end()
	})
}

// A Receipt made by hand, as front ends' tests do, behaves like a stage's.
func TestNewReceipt(t *testing.T) {
	rec, resolve := NewReceipt()
	if resolved(rec) {
		t.Error("resolved from the start")
	}
	resolve(7, errBoom)
	if <-rec.Done(); rec.First() != 7 || rec.Err() != errBoom {
		t.Errorf("first %d, %v", rec.First(), rec.Err())
	}
}
