package remote

import "time"

// A budget bounds how many signatures that claim to be one sender's are
// checked: a check costs some tens of microseconds, a forged message nothing.
// Messages that continue what a checked one has begun, which takes a random
// number that only some have heard, have a budget apart: forged ones leave it
// alone.
type budget struct {
	rate float64 // checks per second, and so many at once
	last time.Time
	left float64
}

// take tells whether one more check is allowed now.
func (b *budget) take(now time.Time) bool {
	if b.last.IsZero() {
		b.left = b.rate
	} else if d := now.Sub(b.last); d > 0 {
		b.left = min(b.rate, b.left+b.rate*d.Seconds())
	}
	b.last = now
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}
