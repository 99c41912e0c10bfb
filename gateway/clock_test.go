package gateway

import (
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching/reading"
)

func TestAClockIsAsGoodAsWhatVouchesForIt(t *testing.T) {
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name   string
		now    time.Time
		synced bool
		want   reading.Clock
	}{
		{"synchronised", now, true, reading.ClockGood},
		{"nothing vouches for it", now, false, reading.ClockUnsure},
		{"1970", time.Unix(3, 0), false, reading.ClockBad},
		{"1970, called synchronised", time.Unix(3, 0), true, reading.ClockBad},
	} {
		if got := quality(tt.now, tt.synced); got != tt.want {
			t.Errorf("%s: clock is %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestTheClockGoesOn(t *testing.T) {
	clock := newClock()
	before, _ := clock()
	if after, _ := clock(); after.Before(before) {
		t.Errorf("%v after %v", after, before)
	}
}
