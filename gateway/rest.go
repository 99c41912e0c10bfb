package gateway

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"
)

// When a gateway rests, and when it does not any more: shares of a processor
// over one look.
const (
	restLook  = time.Second
	restCalm  = 10   // looks in a row that have to be calm before it rests
	calmShare = 0.04 // an idle gateway needs about a hundredth
	busyShare = 0.10
)

// How late timers may fire. An idle gateway waits for nothing that comes within
// milliseconds, but fires a hundred timers a second, most of them those of the
// stores, which look twenty times a second whether there is something to compact.
const (
	restSlack = 4 * time.Millisecond
	busySlack = 50 * time.Microsecond // Linux's own
)

// Rest makes the process cheap while it has next to nothing to do, until ctx ends:
// it gives memory back and lets timers fire late, and runs on one processor. Every
// timer that fires in an idle Go program has a second processor look for work: on
// one, the same takes a quarter less of the time of a box that rests most of its
// life. What needs more gets all of it again within a second. A GOMAXPROCS in the
// environment is left alone.
func Rest(ctx context.Context) {
	tick := time.NewTicker(restLook)
	defer tick.Stop()
	r, last := rester{one: os.Getenv("GOMAXPROCS") == "" && runtime.GOMAXPROCS(0) > 1}, processTime()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		now := processTime()
		switch rest, changed := r.look(float64(now-last) / float64(restLook)); {
		case changed && rest:
			r.rest()
		case changed:
			r.wake()
		}
		last = now
	}
}

// A rester decides when to rest.
type rester struct {
	one     bool // it may change how many processors there are
	resting bool
	calm    int // looks in a row
}

// look takes the share of a processor that was used since the last look.
func (r *rester) look(share float64) (rest, changed bool) {
	if share < calmShare {
		r.calm++
	} else {
		r.calm = 0
	}
	switch {
	case r.resting && share > busyShare:
		r.resting, changed = false, true
	case !r.resting && r.calm >= restCalm:
		r.resting, changed = true, true
	}
	return r.resting, changed
}

func (r *rester) rest() {
	if r.one {
		runtime.GOMAXPROCS(1)
	}
	setTimerSlack(restSlack)
	debug.FreeOSMemory() // what a start or a burst needed; it would take minutes by itself
}

func (r *rester) wake() {
	if r.one {
		runtime.SetDefaultGOMAXPROCS()
	}
	setTimerSlack(busySlack)
}

// processTime is what this process has used of the processors.
func processTime() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0 // it cannot fail
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
