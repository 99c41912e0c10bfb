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

// voteClock returns what votes say of the time, in Unix milliseconds: nothing
// while the clock cannot be right, or after it leapt by more than an hour
// (consensus.md §5). A clock that the kernel does not call synchronised counts:
// it is the best guess of a site without a time server.
func voteClock() func() uint64 {
	start := time.Now()
	return func() uint64 {
		now := time.Now()
		leap := now.Round(0).Sub(start.Round(0)) - now.Sub(start)
		if quality(now, true) == reading.ClockBad || leap.Abs() > time.Hour {
			return 0
		}
		return uint64(now.UnixMilli())
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
