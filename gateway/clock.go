package gateway

import (
	"sync/atomic"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching/reading"
)

// programMade is a time that no right clock shows any more: the end of the
// year before this program was first built.
const programMade = 1735689600 // 2025-01-01T00:00:00Z

// newClock returns the gateway's clock: the time and how far it can be
// trusted. It is asked for every commit, the kernel once a second.
func newClock() func() (time.Time, reading.Clock) {
	var asked atomic.Int64 // Unix seconds
	var synced atomic.Bool
	return func() (time.Time, reading.Clock) {
		now := time.Now()
		if s := now.Unix(); asked.Swap(s) != s {
			synced.Store(synchronised())
		}
		return now, quality(now, synced.Load())
	}
}

// quality is bad for a time before the program was made, as boxes without a
// battery show it after a power cut, good while the kernel says that its clock
// is synchronised, unsure otherwise.
func quality(now time.Time, synced bool) reading.Clock {
	switch {
	case now.Unix() < programMade:
		return reading.ClockBad
	case synced:
		return reading.ClockGood
	}
	return reading.ClockUnsure
}
