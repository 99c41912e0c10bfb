package ledger_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

func TestStoresConform(t *testing.T) {
	t.Run("memory", func(t *testing.T) {
		conform(t, func(*testing.T) ledger.Store { return newMemory() })
	})
	t.Run("badger", func(t *testing.T) {
		conform(t, func(t *testing.T) ledger.Store { return open(t, t.TempDir()) })
	})
}

// conform checks what ledger.Store promises.
func conform(t *testing.T, newStore func(*testing.T) ledger.Store) {
	t.Run("an empty store has nothing", func(t *testing.T) { conformEmpty(t, newStore(t)) })
	t.Run("what is committed is read back", func(t *testing.T) { conformBlocks(t, newStore(t)) })
	t.Run("marks ascend and are found from any number", func(t *testing.T) { conformMarks(t, newStore(t)) })
	t.Run("ids are yielded in ascending order", func(t *testing.T) { conformIDs(t, newStore(t)) })
	t.Run("children are in order of arrival", func(t *testing.T) { conformChildren(t, newStore(t)) })
	t.Run("tags do not match prefixes and positions go on", func(t *testing.T) { conformTags(t, newStore(t)) })
}

var attachTime = time.UnixMilli(1_790_000_000_123)

// entries returns the blocks of the drawing with these names, all without.
func (d *dag) entries(names ...string) (es []ledger.Entry) {
	if len(names) == 0 {
		names = d.order
	}
	for _, name := range names {
		es = append(es, ledger.Entry{
			ID: d.ids[name], Block: d.blocks[name], Raw: d.raws[name], Attached: attachTime,
		})
	}
	return es
}

func commit(t *testing.T, s ledger.Store, entries ...ledger.Entry) {
	t.Helper()
	if err := s.Commit(ledger.Change{Entries: entries}); err != nil {
		t.Fatal(err)
	}
}

func conformEmpty(t *testing.T, s ledger.Store) {
	id := stardust.IDOf(nil)
	if ok, err := s.Has(id); ok || err != nil {
		t.Errorf("Has = %v, %v", ok, err)
	}
	for _, id := range []stardust.BlockID{id, stardust.GenesisID} {
		if _, err := s.Load(id); !errors.Is(err, ledger.ErrNotFound) {
			t.Errorf("Load(%v) = %v, want ErrNotFound", id, err)
		}
		if ids := children(t, s, id); len(ids) > 0 {
			t.Errorf("children of %v are %v", id, ids)
		}
	}
	if n, _, last, err := s.Count(); n != 0 || !last.IsZero() || err != nil {
		t.Errorf("Count = %d, %v, %v", n, last, err)
	}
	if got := marks(t, s, 0); got != "" {
		t.Errorf("marks are %s", got)
	}
}

func conformBlocks(t *testing.T, s ledger.Store) {
	d := draw(t, "g -> a; g a -> b; a b -> c; g a b c -> d")
	commit(t, s, d.entries("a")...)
	commit(t, s, d.entries("b", "c")...) // c refers to b of the same Commit
	commit(t, s, d.entries("d")...)
	for name, raw := range d.raws {
		rec, err := s.Load(d.ids[name])
		if err != nil {
			t.Errorf("Load(%s): %v", name, err)
			continue
		}
		if string(rec.Raw) != string(raw) || !slices.Equal(rec.Parents, d.blocks[name].Parents) || !rec.Attached.Equal(attachTime) {
			t.Errorf("Load(%s) = %x, %v, %v; want %x", name, rec.Raw, d.named(rec.Parents), rec.Attached, raw)
		}
		if ok, err := s.Has(d.ids[name]); !ok || err != nil {
			t.Errorf("Has(%s) = %v, %v", name, ok, err)
		}
	}
	for name, want := range map[string]string{"g": "a b d", "a": "b c d", "b": "c d", "c": "d", "d": ""} {
		if got := d.named(children(t, s, d.ids[name])); got != want {
			t.Errorf("children of %s are %q, want %q", name, got, want)
		}
	}
	if n, _, last, err := s.Count(); n != 4 || !last.Equal(attachTime) || err != nil {
		t.Errorf("Count = %d, %v, %v", n, last, err)
	}
}

func conformMarks(t *testing.T, s ledger.Store) {
	d := draw(t, "g -> a b")
	es := d.entries()
	es[0].Runs = [][2]uint64{{1, 5}, {300, 300}}
	es[1].Runs = [][2]uint64{{7, 299}, {70_000, 70_001}}
	commit(t, s, es...)
	commit(t, s, ledger.Entry{ID: d.ids["a"], Runs: [][2]uint64{{6, 6}}})
	for _, tt := range []struct {
		from uint64
		want string
	}{
		{0, "1-5 a, 6-6 a, 7-299 b, 300-300 a, 70000-70001 b"},
		{5, "1-5 a, 6-6 a, 7-299 b, 300-300 a, 70000-70001 b"},
		{6, "6-6 a, 7-299 b, 300-300 a, 70000-70001 b"},
		{100, "7-299 b, 300-300 a, 70000-70001 b"},
		{301, "70000-70001 b"},
		{70_001, "70000-70001 b"},
		{70_002, ""},
		{1<<64 - 1, ""},
	} {
		var got string
		if err := s.Marks(tt.from, func(run [2]uint64, id stardust.BlockID) bool {
			got += fmt.Sprintf(", %d-%d %s", run[0], run[1], d.names[id])
			return true
		}); err != nil {
			t.Error(err)
		}
		if got = trimList(got); got != tt.want {
			t.Errorf("marks from %d are %q, want %q", tt.from, got, tt.want)
		}
	}
}

func trimList(s string) string { return s[min(2, len(s)):] }

func conformIDs(t *testing.T, s ledger.Store) {
	d := draw(t, "g -> a b c d e f; a b -> h; c -> i")
	commit(t, s, d.entries()...)
	var got, want []stardust.BlockID
	for _, name := range d.order {
		want = append(want, d.ids[name])
	}
	want = stardust.SortParents(want)
	if err := s.IDs(func(id stardust.BlockID) bool {
		got = append(got, id)
		return true
	}); err != nil || !slices.Equal(got, want) {
		t.Errorf("IDs = %s, %v; want %s", d.named(got), err, d.named(want))
	}
}

func conformChildren(t *testing.T, s ledger.Store) {
	var parents, want []stardust.BlockID
	d := draw(t, "g -> a")
	parents = append(parents, d.ids["a"])
	for i := range 300 { // over several buckets of numbers
		name := fmt.Sprint("n", i)
		d.add(name, newBlock(name, "", parents[i/2], parents[i]))
		parents = append(parents, d.ids[name])
		if i%50 == 0 {
			name := fmt.Sprint("late", i)
			d.add(name, newBlock(name, "", d.ids["a"]))
			want = append(want, d.ids[name])
		}
	}
	commit(t, s, d.entries()...)
	var got []stardust.BlockID
	for _, id := range children(t, s, d.ids["a"]) {
		if d.names[id][0] == 'l' {
			got = append(got, id)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("children of a are %v, want %v", got, want)
	}
	for i := range 150 {
		if n := len(children(t, s, parents[i])); i > 0 && n != 3 {
			t.Errorf("block %d has %d children, want 3", i, n)
		}
	}
}

func conformTags(t *testing.T, s ledger.Store) {
	d := draw(t, "g -> x")
	for _, tag := range []string{"", "a", "ab", "a", "\x00", "a"} {
		d.add(fmt.Sprint(len(d.order), tag), newBlock(tag, fmt.Sprint(len(d.order)), stardust.GenesisID))
	}
	d.add("none", &stardust.Block{Version: stardust.ProtocolVersion, Parents: []stardust.BlockID{d.ids["x"]}})
	commit(t, s, d.entries()...)
	for tag, want := range map[string]string{"": "1", "a": "2a 4a 6a", "ab": "3ab", "\x00": "5\x00", "b": ""} {
		var ids []stardust.BlockID
		var after uint64
		for more := true; more; { // one at a time, as a reader with a cursor does
			more = false
			if err := s.Tagged([]byte(tag), after, func(pos uint64, id stardust.BlockID) bool {
				if pos <= after {
					t.Errorf("position %d follows %d", pos, after)
				}
				ids, after, more = append(ids, id), pos, true
				return false
			}); err != nil {
				t.Fatal(err)
			}
		}
		if got := d.named(ids); got != want {
			t.Errorf("tag %q has %q, want %q", tag, got, want)
		}
	}
}

func children(t *testing.T, s ledger.Store, id stardust.BlockID) (ids []stardust.BlockID) {
	t.Helper()
	if err := s.Children(id, func(child stardust.BlockID) bool {
		ids = append(ids, child)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return ids
}

func marks(t *testing.T, s ledger.Store, from uint64) (text string) {
	t.Helper()
	if err := s.Marks(from, func(run [2]uint64, _ stardust.BlockID) bool {
		text += fmt.Sprintf(", %d-%d", run[0], run[1])
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return trimList(text)
}
