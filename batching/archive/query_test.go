package archive

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/hedgerow-iot/hedgerow/batching/reading"
)

// What queries answer is what a plain list of the readings gives.
func TestQueriesAgreeWithAPlainList(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		signers := []*signer{newSigner("barn", 1), newSigner("mill", 2), newSigner("shed", 3)}
		s, ix := newMemoryStream(), newMemoryIndex()
		a := open(t, s, ix, signers...)
		var model []Item
		taken := map[string]bool{}
		received := func(label string) int64 {
			base := rapid.SampledFrom([]int64{0, 5, 1 << spanBits, 3<<spanBits - 4, 1 << 40, -9}).Draw(rt, label+" base")
			return base + rapid.Int64Range(0, 12).Draw(rt, label)
		}
		for range rapid.IntRange(1, 12).Draw(rt, "blocks") {
			who := rapid.SampledFrom(signers).Draw(rt, "gateway")
			seq := uint64(rapid.IntRange(1, 1030).Draw(rt, "seq"))
			var rs []reading.Reading
			for range rapid.IntRange(1, 12).Draw(rt, "readings") {
				rs = append(rs, one(seq, received("received"), rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "device"),
					rapid.SampledFrom([]string{"x", "y"}).Draw(rt, "name"), rapid.Int64Range(0, 9).Draw(rt, "value")))
				seq += uint64(rapid.SampledFrom([]int{1, 1, 3}).Draw(rt, "step"))
			}
			position := s.put(who.block(t, rs...))
			for _, r := range rs {
				if id := fmt.Sprint(who.name, r.Seq); !taken[id] {
					taken[id] = true
					model = append(model, Item{Gateway: who.name, Reading: r, Position: position})
				}
			}
			if rapid.Bool().Draw(rt, "write") {
				index(t, a)
			}
		}
		index(t, a)
		slices.SortFunc(model, func(a, b Item) int {
			return cmp.Or(cmp.Compare(a.Reading.Received, b.Reading.Received), strings.Compare(a.Gateway, b.Gateway), cmp.Compare(a.Reading.Seq, b.Reading.Seq))
		})
		for range 8 {
			q := Query{
				Gateway: rapid.SampledFrom([]string{"*", "barn", "mill", "none"}).Draw(rt, "asked"),
				Without: rapid.SampledFrom([]string{"", "mill"}).Draw(rt, "without"),
				Device:  rapid.SampledFrom([]string{"", "a", "z"}).Draw(rt, "of"),
				Name:    rapid.SampledFrom([]string{"", "x"}).Draw(rt, "named"),
				Limit:   rapid.SampledFrom([]int{0, 1, 2, 7}).Draw(rt, "limit"),
			}
			if rapid.Bool().Draw(rt, "bounded") {
				q.From, q.To = received("from"), received("to")
			}
			var want []Item
			for _, it := range model {
				r := it.Reading
				if (q.Gateway == it.Gateway || q.Gateway == "*" && q.Without != it.Gateway) && (q.Device == "" || q.Device == r.Device) &&
					(q.Name == "" || q.Name == r.Name) && (q.From == 0 || r.Received >= q.From) && (q.To == 0 || r.Received < q.To) {
					want = append(want, it)
				}
			}
			got := history(t, a, q)
			if ids(got) != ids(want) {
				rt.Fatalf("%+v: %s\nwant %s", q, ids(got), ids(want))
			}
			for i := range got {
				if got[i].Reading != want[i].Reading || got[i].Position != want[i].Position {
					rt.Fatalf("%+v: item %d is %+v, want %+v", q, i, got[i], want[i])
				}
			}
		}
		for _, it := range model {
			if got, err := a.ByID(it.Gateway, it.Reading.Seq); err != nil || got.Reading != it.Reading || got.Position != it.Position {
				rt.Fatalf("ByID(%s, %d) = %+v, %v; want %+v", it.Gateway, it.Reading.Seq, got, err, it)
			}
		}
		checkLatest(rt, a, model)
	})
}

func checkLatest(t *rapid.T, a *Archive, model []Item) {
	newest := map[string]Item{}
	for _, it := range model {
		key := it.Gateway + " " + it.Reading.Device + " " + it.Reading.Name
		if it.Reading.Seq > newest[key].Reading.Seq {
			newest[key] = it
		}
	}
	for _, gateway := range []string{"*", "barn"} {
		for _, device := range []string{"", "b"} {
			var got, want []string
			for key, it := range newest {
				if (gateway == "*" && it.Gateway != "mill" || gateway == it.Gateway) && (device == "" || device == it.Reading.Device) {
					want = append(want, key+" "+fmt.Sprint(it.Reading.Seq))
				}
			}
			slices.Sort(want)
			for next := ""; ; {
				items, more, err := a.Latest(gateway, "mill", device, next, 2)
				if err != nil {
					t.Fatal(err)
				}
				for _, it := range items {
					got = append(got, it.Gateway+" "+it.Reading.Device+" "+it.Reading.Name+" "+fmt.Sprint(it.Reading.Seq))
				}
				if next = more; next == "" {
					break
				}
			}
			if !slices.Equal(got, want) {
				t.Fatalf("Latest(%q, %q) = %q, want %q", gateway, device, got, want)
			}
		}
	}
}

// One call opens a bounded number of batches, and the cursor leads on, also
// through many batches of one moment.
func TestTheWorkOfOneCallIsBounded(t *testing.T) {
	barn := newSigner("barn", 1)
	for name, received := range map[string]func(uint64) int64{
		"apart":         func(seq uint64) int64 { return int64(seq) },
		"of one moment": func(uint64) int64 { return 77 },
	} {
		t.Run(name, func(t *testing.T) {
			s := newMemoryStream()
			for seq := uint64(1); seq <= 2*maxOpens+10; seq++ {
				// Every batch may hold what is asked for, none does: the filter
				// knows device and name, but not which values they have.
				s.put(barn.block(t, one(seq, received(seq), "a", "x", 0)))
			}
			a := open(t, s, newMemoryIndex(), barn)
			index(t, a)
			q := Query{Gateway: "barn", Limit: MaxLimit}
			items, next, err := a.History(q)
			if err != nil {
				t.Fatal(err)
			}
			if name == "apart" && (len(items) != maxOpens || next == "") {
				t.Errorf("first page has %d readings and cursor %q, want %d and more", len(items), next, maxOpens)
			}
			if got := history(t, a, q); len(got) != 2*maxOpens+10 {
				t.Errorf("%d readings, want %d", len(got), 2*maxOpens+10)
			}
		})
	}
}

func TestBatchesThatHoldNothingOfADeviceAreNotOpened(t *testing.T) {
	barn := newSigner("barn", 1)
	s := newMemoryStream()
	for seq := uint64(1); seq <= 500; seq++ {
		s.put(barn.block(t, one(seq, int64(seq), "often", "x", 0)))
	}
	s.put(barn.block(t, one(1000, 700, "seldom", "x", 0)))
	a := open(t, s, newMemoryIndex(), barn)
	index(t, a)
	a.cache = newCache(1 << 30)
	for _, q := range []Query{
		{Gateway: "barn", Device: "seldom"}, {Gateway: "barn", Device: "seldom", Name: "x"},
	} {
		if got := ids(history(t, a, q)); got != "barn/1000" {
			t.Errorf("%+v: %s", q, got)
		}
	}
	if n := a.cache.order.Len(); n > 25 {
		t.Errorf("%d batches opened to find one, of 501", n)
	}
}

func TestReadingsOfBlocksNotKeptAreLeftOut(t *testing.T) {
	barn := newSigner("barn", 1)
	s := newMemoryStream()
	s.put(barn.block(t, run(1, 3)...), barn.block(t, run(4, 6)...))
	a := open(t, s, newMemoryIndex(), barn)
	index(t, a)
	s.drop(1)
	if got := ids(history(t, a, Query{Gateway: "barn"})); got != "barn/4 barn/5 barn/6" {
		t.Errorf("history is %s", got)
	}
	if _, err := a.ByID("barn", 2); !errors.Is(err, ErrNotFound) {
		t.Errorf("ByID = %v, want ErrNotFound", err)
	}
	items, next, err := a.Latest("barn", "", "", "", 0)
	if got := ids(items); got != "barn/4 barn/5 barn/6" || next != "" || err != nil {
		t.Errorf("latest is %s, %q, %v", got, next, err)
	}
	// Nothing to compare with is no evidence.
	changed := run(3, 4)
	changed[0].Value, changed[1].Value = reading.Int(-1), reading.Int(-1)
	s.put(barn.block(t, changed...))
	index(t, a)
	if alarms, err := a.Alarms(); len(alarms) != 1 || alarms[0].Seq != 4 || err != nil {
		t.Errorf("alarms are %+v, %v; want one about number 4", alarms, err)
	}
}

func TestAnUnknownReadingIsNotFound(t *testing.T) {
	barn := newSigner("barn", 1)
	s := newMemoryStream()
	s.put(barn.block(t, run(5, 9)...))
	a := open(t, s, newMemoryIndex(), barn)
	index(t, a)
	for gateway, seq := range map[string]uint64{"barn": 4, "mill": 5, "": 5, "*": 5} {
		if _, err := a.ByID(gateway, seq); !errors.Is(err, ErrNotFound) {
			t.Errorf("ByID(%q, %d) = %v, want ErrNotFound", gateway, seq, err)
		}
	}
	if items, next, err := a.History(Query{Gateway: "mill"}); len(items) > 0 || next != "" || err != nil {
		t.Errorf("history of an unknown gateway = %v, %q, %v", items, next, err)
	}
	if _, _, err := a.History(Query{}); err == nil {
		t.Error("history of no gateway is answered")
	}
}

// A gateway that gets another key keeps its name, and one that gets another
// name keeps its numbers.
func TestKeysAndNamesMayChange(t *testing.T) {
	old, young := newSigner("barn", 1), newSigner("barn", 2)
	renamed := newSigner("mill", 1) // the key of old
	s, ix := newMemoryStream(), newMemoryIndex()
	s.put(old.block(t, run(1, 2)...))
	index(t, open(t, s, ix, old))
	s.put(young.block(t, run(3, 4)...))
	index(t, open(t, s, ix, young))
	s.put(renamed.block(t, run(2, 3)...))
	a := open(t, s, ix, young, renamed)
	index(t, a)
	if got := ids(history(t, a, Query{Gateway: "*"})); got != "barn/1 barn/2 barn/3 mill/3 barn/4" {
		t.Errorf("history is %s", got)
	}
	for id, want := range map[string]uint64{"barn 1": 1, "barn 3": 2, "mill 3": 3} {
		var name string
		var seq uint64
		_, _ = fmt.Sscan(id, &name, &seq)
		if it, err := a.ByID(name, seq); err != nil || it.Position != want {
			t.Errorf("ByID(%s) = %+v, %v; want position %d", id, it, err, want)
		}
	}
}

func TestCursorsBelongToTheirQuery(t *testing.T) {
	barn := newSigner("barn", 1)
	s := newMemoryStream()
	s.put(barn.block(t, run(1, 50)...))
	a := open(t, s, newMemoryIndex(), barn)
	index(t, a)
	q := Query{Gateway: "barn", Limit: 5}
	items, next, err := a.History(q)
	if err != nil || next != q.Behind(items[4]) {
		t.Fatalf("next is %q, %v; Behind says %q", next, err, q.Behind(items[4]))
	}
	for name, q := range map[string]Query{
		"another gateway": {Gateway: "*", Cursor: next},
		"another device":  {Gateway: "barn", Device: "a", Cursor: next},
		"another time":    {Gateway: "barn", From: 1, Cursor: next},
		"cut short":       {Gateway: "barn", Cursor: next[:20]},
		"no cursor":       {Gateway: "barn", Cursor: "nonsense"},
		"longer":          {Gateway: "barn", Cursor: next + strings.Repeat("A", 400)},
		"line break":      {Gateway: "barn", Cursor: next[:8] + "\n" + next[8:]},
	} {
		if _, _, err := a.History(q); !errors.Is(err, ErrCursor) {
			t.Errorf("%s: %v, want ErrCursor", name, err)
		}
	}
	for _, after := range []string{"nonsense", "!", next} {
		if _, _, err := a.Latest("barn", "", "", after, 0); !errors.Is(err, ErrCursor) {
			t.Errorf("Latest after %q = %v, want ErrCursor", after, err)
		}
	}
}

// Whatever comes as a cursor is refused or leads on.
func FuzzCursor(f *testing.F) {
	barn := newSigner("barn", 1)
	s := newMemoryStream()
	s.put(barn.block(f, run(1, 9)...))
	a := open(f, s, newMemoryIndex(), barn)
	index(f, a)
	q := Query{Gateway: "barn", Limit: 2}
	_, next, _ := a.History(q)
	_, last, _ := a.Latest("barn", "", "", "", 2)
	f.Add(next)
	f.Add(last)
	f.Fuzz(func(t *testing.T, cursor string) {
		q.Cursor = cursor
		if _, _, err := a.History(q); err != nil && !errors.Is(err, ErrCursor) {
			t.Error(err)
		}
		if _, _, err := a.Latest("*", "", "", cursor, 2); err != nil && !errors.Is(err, ErrCursor) {
			t.Error(err)
		}
	})
}

func TestRunsAreSets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(label string) (runs [][2]uint64, set map[uint64]bool) {
			set = map[uint64]bool{}
			at := uint64(0)
			for range rapid.IntRange(0, 5).Draw(t, label) {
				at += uint64(rapid.IntRange(1, 4).Draw(t, "gap")) + 1
				first := at
				at += uint64(rapid.IntRange(0, 4).Draw(t, "more"))
				runs = append(runs, [2]uint64{first, at})
				for n := first; n <= at; n++ {
					set[n] = true
				}
			}
			return runs, set
		}
		a, inA := draw("a")
		b, inB := draw("b")
		and, not := both(a, b), without(a, b)
		rank := 0
		for n := range uint64(60) {
			_, isAnd := indexOf(and, n)
			_, isNot := indexOf(not, n)
			if isAnd != (inA[n] && inB[n]) || isNot != (inA[n] && !inB[n]) {
				t.Fatalf("%v and %v: both %v, without %v", a, b, and, not)
			}
			if i, ok := indexOf(a, n); ok != inA[n] || ok && i != rank {
				t.Fatalf("indexOf(%v, %d) = %d, %v; want %d", a, n, i, ok, rank)
			}
			if inA[n] {
				rank++
			}
		}
		if length(and)+length(not) != length(a) {
			t.Fatalf("%v and %v: both %v, without %v", a, b, and, not)
		}
	})
}

func TestFiltersForgetNothingAndAreRarelyWrong(t *testing.T) {
	wrong := 0
	for i := range 100 {
		hashes := map[uint64]bool{}
		for k := range 1 + i {
			hashes[element(fmt.Sprintf("probe-%d", k), "temperature")] = true
		}
		f := newFilter(hashes)
		for k := range 1 + i {
			if !f.may(element(fmt.Sprintf("probe-%d", k), "temperature")) {
				t.Fatalf("filter of %d forgot element %d", i+1, k)
			}
		}
		for k := range 100 {
			if f.may(element(fmt.Sprintf("probe-%d", 1000+k), "temperature")) {
				wrong++
			}
		}
	}
	if wrong > 300 {
		t.Errorf("%d of 10000 answers are wrong, want about 100", wrong)
	}
}
