package ledger_test

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

func TestTheGenesisIsTheFirstTip(t *testing.T) {
	l := start(t, ledger.Config{}, newMemory())
	if tips := l.Tips(); !slices.Equal(tips, []stardust.BlockID{stardust.GenesisID}) {
		t.Errorf("tips of an empty replica are %v", tips)
	}
	d := draw(t, "g -> a; a -> b; a b -> c")
	for _, tt := range []struct{ attach, tips string }{{"a", "a g"}, {"b", "a b"}} {
		d.attach(l, tt.attach)
		if got := d.named(l.Tips()); got != tt.tips {
			t.Errorf("after %s the tips are %s, want %s", tt.attach, got, tt.tips)
		}
	}
	d.attach(l, "c")
	for range 20 {
		if got := d.named(l.Tips()); got != "a c" && got != "b c" {
			t.Errorf("after c the tips are %s, want c and one of its parents", got)
		}
	}
}

// Whatever the DAG looks like, Tips gives 1 to 8 distinct solid blocks in
// ascending order, two as soon as there are two; and a restart changes nothing.
func TestTipsAreDistinctSolidAndAtLeastTwo(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := newMemory()
		maxTips := rapid.IntRange(1, 12).Draw(rt, "maxTips")
		l := start(t, ledger.Config{MaxTips: maxTips}, s)
		solid := []stardust.BlockID{stardust.GenesisID}
		for i := range rapid.IntRange(0, 30).Draw(rt, "blocks") {
			parents := rapid.SliceOfNDistinct(rapid.SampledFrom(solid), 1, min(8, len(solid)), rapid.ID).Draw(rt, "parents")
			if rapid.Bool().Draw(rt, "approveTips") {
				parents = l.Tips()
			}
			id, err := l.Attach(t.Context(), newBlock("", fmt.Sprint(i), parents...), nil)
			if err != nil {
				rt.Fatal(err)
			}
			solid = append(solid, id)
			again, err := ledger.New(ledger.Config{Network: testNetwork(), MaxTips: maxTips}, s)
			if err != nil {
				rt.Fatal(err)
			}
			if again.Stats().Tips != l.Stats().Tips {
				rt.Fatalf("%d tips after a restart, %d before", again.Stats().Tips, l.Stats().Tips)
			}
			for _, l := range []*ledger.Ledger{l, again} {
				checkTips(rt, l.Tips(), solid)
			}
		}
	})
}

func checkTips(t *rapid.T, tips, solid []stardust.BlockID) {
	t.Helper()
	if n := len(tips); n > stardust.MaxParents || n < min(2, len(solid)) {
		t.Fatalf("%d tips for %d blocks", n, len(solid))
	}
	if !slices.Equal(tips, stardust.SortParents(slices.Clone(tips))) {
		t.Fatalf("tips are not ascending and distinct: %v", tips)
	}
	for _, id := range tips {
		if !slices.Contains(solid, id) {
			t.Fatalf("tip %v is not in the replica", id)
		}
	}
}

func TestManyTipsAreMergedFaster(t *testing.T) {
	l := start(t, ledger.Config{}, newMemory())
	for i := range 100 {
		if _, err := l.Attach(t.Context(), newBlock("", fmt.Sprint(i), stardust.GenesisID), nil); err != nil {
			t.Fatal(err)
		}
		want := 2
		if n := i + 1; n > 8 {
			want = min(8, 2+n/8)
		}
		if got := len(l.Tips()); got != want {
			t.Errorf("%d tips are approved of %d, want %d", got, i+1, want)
		}
	}
	for i := 0; l.Stats().Tips > 8; i++ {
		if i > 50 {
			t.Fatalf("%d tips are left after 50 blocks", l.Stats().Tips)
		}
		if _, err := l.Attach(t.Context(), newBlock("", fmt.Sprint("merge", i), l.Tips()...), nil); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTipsAreChosenUniformly(t *testing.T) {
	l := start(t, ledger.Config{}, newMemory())
	count := map[stardust.BlockID]int{}
	for i := range 5 {
		id, err := l.Attach(t.Context(), newBlock("", fmt.Sprint(i), stardust.GenesisID), nil)
		if err != nil {
			t.Fatal(err)
		}
		count[id] = 0
	}
	const draws = 5000
	for range draws {
		for _, id := range l.Tips() {
			count[id]++
		}
	}
	for id, n := range count { // expected 2000 each, standard deviation 35
		if n < 1750 || n > 2250 {
			t.Errorf("tip %v was chosen %d times of %d, want about %d", id, n, draws, draws*2/5)
		}
	}
}
