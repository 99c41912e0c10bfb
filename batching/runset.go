package batching

import (
	"math"
	"slices"
	"sort"
)

// A runset is a set of sequence numbers as runs of first and last, ascending
// and not touching.
type runset [][2]uint64

// add returns the set with the numbers of run in it.
func (s runset) add(run [2]uint64) runset {
	// Nothing is added to: an open run ends at the highest number there is.
	i := sort.Search(len(s), func(i int) bool { return s[i][1] >= max(run[0], 1)-1 })
	j := i
	for ; j < len(s) && max(s[j][0], 1)-1 <= run[1]; j++ {
		run[0], run[1] = min(run[0], s[j][0]), max(run[1], s[j][1])
	}
	return slices.Replace(s, i, j, run)
}

// without returns the set without the numbers of run.
func (s runset) without(run [2]uint64) (out runset) {
	for _, r := range s {
		if r[0] < run[0] {
			out = append(out, [2]uint64{r[0], min(r[1], run[0]-1)})
		}
		if r[1] > run[1] {
			out = append(out, [2]uint64{max(r[0], run[1]+1), r[1]})
		}
	}
	return out
}

// count returns how many numbers the set holds.
func (s runset) count() (n uint64) {
	for _, run := range s {
		n += run[1] - run[0] + 1
	}
	return n
}

// prefix returns the number up to which the set holds all, from 1 on.
func (s runset) prefix() uint64 {
	if len(s) > 0 && s[0][0] <= 1 {
		return s[0][1]
	}
	return 0
}

// last returns the highest number in the set, or 0.
func (s runset) last() uint64 {
	if len(s) == 0 {
		return 0
	}
	return s[len(s)-1][1]
}

// rest returns the numbers from 1 that the set does not hold. Its last run is
// open: it ends at [math.MaxUint64].
func (s runset) rest() runset {
	var out runset
	from := uint64(1)
	for _, run := range s {
		if run[0] > from {
			out = append(out, [2]uint64{from, run[0] - 1})
		}
		from = run[1] + 1
	}
	return append(out, [2]uint64{from, math.MaxUint64})
}

// above returns the set without the numbers up to through.
func (s runset) above(through uint64) runset {
	for len(s) > 0 && s[0][1] <= through {
		s = s[1:]
	}
	if len(s) > 0 && s[0][0] <= through {
		s[0][0] = through + 1
	}
	return s
}

// below returns how many numbers lower than end the set holds.
func (s runset) below(end uint64) (n uint64) {
	for _, run := range s {
		if run[0] >= end {
			break
		}
		n += min(run[1], end-1) - run[0] + 1
	}
	return n
}
