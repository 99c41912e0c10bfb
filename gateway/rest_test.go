package gateway

import (
	"slices"
	"testing"
)

func TestAGatewayRestsWhenItIsCalmForLong(t *testing.T) {
	var r rester
	feed := func(n int, share float64) (changes []bool) {
		for range n {
			if rest, changed := r.look(share); changed {
				changes = append(changes, rest)
			}
		}
		return changes
	}
	for i, step := range []struct {
		looks int
		share float64
		want  []bool
	}{
		{restCalm - 1, 0.01, nil},
		{1, 0.05, nil}, // not calm: from the beginning
		{restCalm - 1, 0.01, nil},
		{5, 0.01, []bool{true}},
		{100, 0.08, nil}, // more than calm, but nothing that one processor is slow at
		{3, 0.5, []bool{false}},
		{restCalm + 5, 0.02, []bool{true}},
	} {
		if got := feed(step.looks, step.share); !slices.Equal(got, step.want) {
			t.Errorf("step %d: it changes to %v, want %v", i, got, step.want)
		}
	}
}

func TestProcessTimeGrows(t *testing.T) {
	from := processTime()
	for x := 0; processTime() == from; x++ {
		if x == 1<<40 {
			t.Fatal(x)
		}
	}
}
