package gateway

import "golang.org/x/sys/unix"

// synchronised reports whether the kernel believes that something disciplines
// its clock (adjtimex; NTP daemons clear STA_UNSYNC).
func synchronised() bool {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	return err == nil && state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0
}
