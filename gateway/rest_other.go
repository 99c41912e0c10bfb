//go:build !linux

package gateway

import "time"

// setTimerSlack would let the system wake the threads of this process late.
func setTimerSlack(time.Duration) {}
