package envelope

import (
	"fmt"
	"math"
)

// Key 2 of an envelope lists sequence numbers as [first, run, gap, run, …]:
// the first number, how many follow without gap (itself included), how many
// are then left out, and so on.

// encodeRuns writes runs, which must ascend and not touch.
func encodeRuns(runs [][2]uint64) []uint64 {
	out := make([]uint64, 0, 2*len(runs))
	for i, run := range runs {
		if i == 0 {
			out = append(out, run[0])
		} else {
			out = append(out, run[0]-runs[i-1][1]-1)
		}
		out = append(out, run[1]-run[0]+1)
	}
	return out
}

// parseRuns is the inverse of encodeRuns. It returns the number of sequence
// numbers; the error wraps [ErrRuns].
func parseRuns(list []uint64) (runs [][2]uint64, count uint64, err error) {
	if len(list) == 0 || len(list)%2 != 0 {
		return nil, 0, fmt.Errorf("%w: %d elements", ErrRuns, len(list))
	}
	runs = make([][2]uint64, 0, len(list)/2)
	next := uint64(0) // the lowest number that the coming run may start with
	for i := 0; i < len(list); i += 2 {
		gap, n := list[i], list[i+1]
		if gap == 0 || n == 0 || gap > math.MaxUint64-next || n > math.MaxUint64-next-gap {
			return nil, 0, fmt.Errorf("%w: run of %d after a gap of %d", ErrRuns, n, gap)
		}
		first := next + gap
		runs = append(runs, [2]uint64{first, first + n - 1})
		count += n // cannot overflow: the runs lie apart in a uint64
		next = first + n
	}
	return runs, count, nil
}
