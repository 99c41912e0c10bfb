package powfarm

import (
	"time"

	"golang.org/x/sys/unix"
)

const threadTimed = true

// threadTime returns the processor time of the calling thread. Only the
// difference of two calls in one batch means anything: between batches a
// goroutine changes threads.
func threadTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		panic(err) // every Linux since 2.6.12 has this clock
	}
	return time.Duration(ts.Nano())
}
