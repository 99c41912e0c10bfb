package batching

import (
	"math"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching/envelope"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

func TestTheStepIsTheCheapestForWhatWaits(t *testing.T) {
	const fast = 1e12
	for _, tt := range []struct {
		name    string
		score   uint32
		waiting uint64
		speed   float64
		limit   int
		now     bool
	}{
		{"nothing waits", 100, 0, fast, 1771, false},
		{"less than a block", 100, 20, fast, 1771, false},
		{"two blocks", 100, 80, fast, 1771, false},
		{"three blocks and some", 100, 145, fast, 5314, true},
		{"much", 100, 2000, fast, 15943, true},
		{"much, and the speed is not known", 100, 2000, 0, 1771, false},
		{"much, and two steps up take too long", 100, 2000, 0.3e6, 5314, true},
		{"any number, without proof of work", 0, 5000, 0, stardust.MaxBlockSize, false},
		{"much, at a score at which steps are small", 4000, 5000, fast, 32285, true},
		{"much, at the highest score", math.MaxUint32, 5000, fast, 1775, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var z sizer
			z.init(envelope.Tag("barn-7"))
			got := z.plan(Config{MaxReadings: 10000}, tt.score, tt.waiting, tt.speed, DefaultMaxAge)
			if got.limit != tt.limit || got.now != tt.now {
				t.Errorf("plan = %+v, want %d bytes, now %t", got, tt.limit, tt.now)
			}
		})
	}
}

func TestNoStepIsTakenForMoreThanABatchMayHold(t *testing.T) {
	var z sizer
	z.init(envelope.Tag("barn-7"))
	for most, limit := range map[int]int{1: 1771, 40: 1771, 60: 1771, 150: 5314, 400: 5314, 520: 15943} {
		got := z.plan(Config{MaxReadings: most}, 100, 5000, 1e12, DefaultMaxAge)
		if got.want > most || got.limit != limit {
			t.Errorf("at most %d readings: plan = %+v, want %d bytes", most, got, limit)
		}
	}
}

func TestAChosenTargetIsKept(t *testing.T) {
	var z sizer
	z.init(envelope.Tag("barn-7"))
	if got := z.plan(Config{Target: 3000, MaxReadings: 1000}, 100, 5000, 1e12, DefaultMaxAge); got.limit != 3000 || got.now {
		t.Errorf("plan = %+v, want 3000 bytes", got)
	}
}

func TestSpeedCountsSearchesWithoutFind(t *testing.T) {
	var s speedometer
	s.searched(10, time.Second, false)
	if got := s.speed(); got != 0 {
		t.Errorf("%v tries a second without a find", got)
	}
	s.searched(10, time.Second, true)
	if got, want := s.speed(), 59049/2.0; got != want {
		t.Errorf("%v tries a second, want %v", got, want)
	}
}

func TestSpeedForgets(t *testing.T) {
	var s speedometer
	for range 100 {
		s.searched(8, time.Second, true)
	}
	for range 100 {
		s.searched(10, time.Second, true)
	}
	if got := s.speed(); math.Abs(got-59049) > 59049/20 {
		t.Errorf("%v tries a second, want about 59049", got)
	}
}
