package gateway

import (
	"time"

	"github.com/hedgerow-iot/hedgerow/batching/reading"
)

// programMade is a time that no right clock shows any more: the end of the
// year before this program was first built.
const programMade = 1735689600 // 2025-01-01T00:00:00Z

// clock returns the time and how far it can be trusted: bad before the
// program was made, good while the kernel says that its clock is
// synchronised, unsure otherwise.
func clock() (time.Time, reading.Clock) {
	now := time.Now()
	switch {
	case now.Unix() < programMade:
		return now, reading.ClockBad
	case synchronised():
		return now, reading.ClockGood
	}
	return now, reading.ClockUnsure
}
