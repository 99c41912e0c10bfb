package gateway

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// setTimerSlack lets the kernel fire the timers of this process that much late,
// so that those close to each other wake it once. It does nothing in a program
// with cgo, which has threads that Go does not know.
func setTimerSlack(d time.Duration) {
	_, _, _ = syscall.AllThreadsSyscall(syscall.SYS_PRCTL, unix.PR_SET_TIMERSLACK, uintptr(d), 0)
}
