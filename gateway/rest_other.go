//go:build !linux

package gateway

import "time"

// setTimerSlack would let the system fire timers late.
func setTimerSlack(time.Duration) {}
