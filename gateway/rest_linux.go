package gateway

import (
	"os"
	"strconv"
	"time"
)

// setTimerSlack lets the kernel wake the threads of this process that much late,
// so that timers close to each other wake it once. New threads take it over from
// those that start them. Without the capability SYS_NICE it changes one thread at
// most, which is no harm.
//
// The call that sets it for the calling thread needs no capability, but could
// reach all threads only while nothing runs, and a stalled disk keeps one busy.
func setTimerSlack(d time.Duration) {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return
	}
	value := strconv.AppendInt(nil, d.Nanoseconds(), 10)
	for _, t := range threads {
		_ = os.WriteFile("/proc/"+t.Name()+"/timerslack_ns", value, 0) // it may be gone
	}
}
