package batching

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

// A runset is a set: it agrees with a map of its numbers.
func TestRunsetIsASet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s runset
		has := map[uint64]bool{}
		for range rapid.IntRange(0, 20).Draw(t, "runs") {
			first := rapid.Uint64Range(1, 60).Draw(t, "first")
			last := first + rapid.Uint64Range(0, 6).Draw(t, "more")
			s = s.add([2]uint64{first, last})
			for n := first; n <= last; n++ {
				has[n] = true
			}
		}
		for i := range s {
			if s[i][0] > s[i][1] || i > 0 && s[i][0] <= s[i-1][1]+1 {
				t.Fatalf("%v is not ascending runs that do not touch", s)
			}
		}
		prefix, last := uint64(0), uint64(0)
		for n := uint64(1); n < 100; n++ {
			if has[n] && prefix == n-1 {
				prefix = n
			}
			if has[n] {
				last = n
			}
		}
		if s.count() != uint64(len(has)) || s.prefix() != prefix || s.last() != last {
			t.Fatalf("%v has count %d, prefix %d, last %d; want %d, %d, %d", s, s.count(), s.prefix(), s.last(), len(has), prefix, last)
		}
		taken := [2]uint64{rapid.Uint64Range(1, 60).Draw(t, "taken"), 0}
		taken[1] = taken[0] + rapid.Uint64Range(0, 6).Draw(t, "more taken")
		left := s.without(taken)
		for n := uint64(1); n < 100; n++ {
			if got := left.below(n+1) - left.below(n); (got == 1) != (has[n] && (n < taken[0] || n > taken[1])) {
				t.Fatalf("%v without %v is %v, wrong at %d", s, taken, left, n)
			}
		}
		if got := s.rest().add(taken); got.last() != math.MaxUint64 || got.below(taken[1]+1)-got.below(taken[0]) != taken[1]-taken[0]+1 {
			t.Fatalf("%v with %v is %v", s.rest(), taken, got)
		}
		through, end := rapid.Uint64Range(0, 70).Draw(t, "through"), rapid.Uint64Range(0, 90).Draw(t, "end")
		want := uint64(0)
		for n := through + 1; n < end; n++ {
			if !has[n] {
				want++
			}
		}
		rest := s.rest().above(through)
		if got := rest.below(end); got != want || rest.last() != math.MaxUint64 {
			t.Fatalf("%d numbers of %v above %d and below %d are left, want %d", got, s, through, end, want)
		}
	})
}
