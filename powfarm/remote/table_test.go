package remote

import (
	"math"
	"testing"
	"time"
)

// Whatever a worker announces, it counts as what it finds.
func TestAWorkerThatWithholdsFallsBehind(t *testing.T) {
	now := time.Unix(1e9, 0)
	s := &search{tries: math.Pow(3, 16)}
	worker := func(rate uint64) *entry {
		e := newEntry(Key{}, "")
		e.TriesPerSecond = rate
		e.trust(1e5)
		return e
	}
	liar, honest := worker(maxRate), worker(50e6)
	if got := liar.earned(); got != largeBox {
		t.Errorf("a worker that announces %g counts as %g at first, want %g", float64(maxRate), got, largeBox)
	}
	for i := range 100 {
		began := now
		now = now.Add(time.Second)
		liar.searched(&ask{search: s, began: began}, now, false)
		honest.searched(&ask{search: s, began: began}, now, true)
		if i >= 3 && liar.earned() >= honest.earned() {
			t.Fatalf("after %d searches without a nonce the liar counts as %g tries/s, the honest worker as %g", i+1, liar.earned(), honest.earned())
		}
	}
	if got, want := honest.earned(), s.tries; got < want*0.9 || got > want*1.1 {
		t.Errorf("who needs a second for %g tries counts as %g tries/s", want, got)
	}
	if got, most := liar.earned(), s.tries/40; got > most {
		t.Errorf("who finds nothing in 100 s counts as %g tries/s, want %g at most", got, most)
	}
	if liar.forget(now.Add(24 * time.Hour)); liar.earned() < largeBox/2 {
		t.Errorf("a day later it still counts as %g tries/s", liar.earned())
	}
}

func TestASearchFarBeyondItsTimeIsSilence(t *testing.T) {
	now := time.Unix(1e9, 0)
	for _, tt := range []struct {
		expected, took time.Duration
		silent         bool
	}{
		{time.Millisecond, overdueLeast, false}, // turns and networks take their time
		{time.Millisecond, overdueLeast + 1, true},
		{time.Second, overdueTimes * time.Second, false},
		{time.Second, overdueTimes*time.Second + 1, true},
	} {
		e := newEntry(Key{}, "")
		e.cancelled(&ask{began: now.Add(-tt.took), expected: tt.expected}, now)
		if got := e.LeftAloneUntil.After(now); got != tt.silent || e.Cancelled != 1 {
			t.Errorf("cancelled after %v of %v: left alone %v, want %v", tt.took, tt.expected, got, tt.silent)
		}
	}
}
