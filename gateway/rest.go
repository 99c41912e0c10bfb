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

// Rest runs the process on one processor while it has next to nothing to do, and
// gives memory back before, until ctx ends. Every timer that fires in an idle Go program has a second
// processor look for work: on one, the same takes a quarter less of the time of
// a box that rests most of its life. What needs more gets all of them again
// within a second. A GOMAXPROCS in the environment is left alone.
func Rest(ctx context.Context) {
	if os.Getenv("GOMAXPROCS") != "" || runtime.GOMAXPROCS(0) == 1 {
		return
	}
	tick := time.NewTicker(restLook)
	defer tick.Stop()
	r, last := rester{}, processTime()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		now := processTime()
		if rest, changed := r.look(float64(now-last) / float64(restLook)); changed && rest {
			runtime.GOMAXPROCS(1)
			debug.FreeOSMemory() // what a start or a burst needed; it would take minutes by itself
		} else if changed {
			runtime.SetDefaultGOMAXPROCS()
		}
		last = now
	}
}

// A rester decides when to rest.
type rester struct {
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

// processTime is what this process has used of the processors.
func processTime() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0 // it cannot fail
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
