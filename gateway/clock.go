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

// mostLeap is how far the clock may leap from the monotonic one and still count,
// and steadyFor how long it has to go on steadily after it leapt further.
const (
	mostLeap  = time.Hour
	steadyFor = time.Hour
)

// A steadyClock tells what votes say of the time: nothing while the clock cannot be
// right, or after it leapt (consensus.md §5), until the kernel calls it synchronised
// or it has been steady for an hour. Else one that is not synchronised counts: it is
// the best guess of a site without a time server. It is not for concurrent use.
type steadyClock struct {
	synced  func() bool
	trusted bool
	offset  time.Duration // of the clock from the monotonic one, while it was trusted
	leapt   bool
	other   time.Duration // the offset since it leapt
	since   time.Duration // when, by the monotonic clock
}

// read returns what to say at a time, in Unix milliseconds; 0: nothing.
func (c *steadyClock) read(now time.Time, monotonic time.Duration) uint64 {
	if quality(now, true) == reading.ClockBad {
		c.trusted, c.leapt = false, false
		return 0
	}
	offset := time.Duration(now.UnixNano()) - monotonic
	switch {
	case !c.trusted: // it was not set before
		c.trusted, c.offset = true, offset
	case (offset - c.offset).Abs() <= mostLeap:
		c.leapt = false
	case c.synced(), c.leapt && (offset-c.other).Abs() <= mostLeap && monotonic-c.since >= steadyFor:
		c.leapt, c.offset = false, offset
	default:
		if !c.leapt || (offset-c.other).Abs() > mostLeap {
			c.leapt, c.other, c.since = true, offset, monotonic
		}
		return 0
	}
	return uint64(now.UnixMilli())
}

// voteClock returns the clock of the votes, for one goroutine.
func voteClock() func() uint64 {
	start := time.Now()
	c := &steadyClock{synced: synchronised}
	return func() uint64 {
		now := time.Now()
		return c.read(now, now.Sub(start))
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
