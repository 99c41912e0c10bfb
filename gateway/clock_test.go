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

// Votes tell no time that cannot be right, nor one that has just leapt, and do so
// again by themselves once it can be trusted.
func TestTheClockOfVotesComesBackAfterALeap(t *testing.T) {
	const day = 24 * time.Hour
	right := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	type look struct {
		after  time.Duration // since the start
		clock  time.Time     // what would be shown at the start
		synced bool
		tells  bool
	}
	for name, looks := range map[string][]look{
		"it is right": {{0, right, false, true}, {30 * day, right, false, true}},
		"no battery, and set later": {
			{0, time.Unix(3, 0), false, false}, {time.Minute, time.Unix(3, 0), false, false},
			{2 * time.Minute, right, false, true}, {day, right, false, true},
		},
		"slewed": {{0, right, false, true}, {time.Minute, right.Add(59 * time.Minute), false, true}},
		"put right by a time server": {
			{0, right.Add(-day), false, true}, {time.Minute, right, false, false}, {2 * time.Minute, right, true, true}, {time.Hour, right, false, true},
		},
		"put right by hand": {
			{0, right.Add(-day), false, true}, {time.Minute, right, false, false}, {50 * time.Minute, right, false, false},
			{62 * time.Minute, right, false, true}, {day, right, false, true},
		},
		"there and back": {{0, right, false, true}, {time.Minute, right.Add(day), false, false}, {2 * time.Minute, right, false, true}},
		"again and again": {
			{0, right, false, true}, {time.Minute, right.Add(day), false, false}, {50 * time.Minute, right.Add(2 * day), false, false},
			{90 * time.Minute, right.Add(2 * day), false, false}, {111 * time.Minute, right.Add(2 * day), false, true},
		},
		"leapt to 1970 and back": {{0, right, false, true}, {time.Minute, time.Unix(3, 0), true, false}, {2 * time.Minute, right, false, true}},
	} {
		var synced bool
		c := &steadyClock{synced: func() bool { return synced }}
		for _, l := range looks {
			synced = l.synced
			now := l.clock.Add(l.after)
			want := uint64(0)
			if l.tells {
				want = uint64(now.UnixMilli())
			}
			if got := c.read(now, l.after); got != want {
				t.Errorf("%s: after %v votes tell %d, want %d", name, l.after, got, want)
			}
		}
	}
}
