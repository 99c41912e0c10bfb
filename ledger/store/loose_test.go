package store

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// A looseBlock is one that no milestone will order.
func looseBlock(t *testing.T, name string, parents ...stardust.BlockID) ledger.Entry {
	t.Helper()
	b := &stardust.Block{Version: 2, Parents: stardust.SortParents(parents), Payload: &stardust.TaggedData{Tag: []byte("loose"), Data: []byte(name)}}
	raw, err := b.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	return ledger.Entry{ID: stardust.IDOf(raw), Block: b, Raw: raw, Attached: time.Unix(1_790_000_000, 0)}
}

func TestLooseBlocksAreDeletedWithAllThatLeadsToThem(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	st := newStage(t, 4, s)
	st.play(10, 100)
	var chain []ledger.Entry // children first
	under := stardust.GenesisID
	for i := range 4 {
		e := looseBlock(t, fmt.Sprint(i), under)
		if err := s.Commit(ledger.Change{Entries: []ledger.Entry{e}}); err != nil {
			t.Fatal(err)
		}
		chain, under = append([]ledger.Entry{e}, chain...), e.ID
	}
	has := func() (n int) {
		for _, e := range chain {
			if ok, err := s.Has(e.ID); err != nil {
				t.Fatal(err)
			} else if ok {
				n++
			}
		}
		return n
	}
	prune := func(entries ...ledger.Entry) {
		t.Helper()
		reached, err := s.Pruned()
		if err != nil {
			t.Fatal(err)
		}
		p := ledger.Pruning{Reached: reached}
		for _, e := range entries {
			p.Loose = append(p.Loose, e.ID)
		}
		if err := s.Prune(p); err != nil {
			t.Fatal(err)
		}
	}
	prune(chain...)
	if n := has(); n != 4 {
		t.Fatalf("%d of 4 blocks are left, of which the one that came last must stay, and those that it refers to", n)
	}
	last := looseBlock(t, "last", stardust.GenesisID)
	if err := s.Commit(ledger.Change{Entries: []ledger.Entry{last}}); err != nil {
		t.Fatal(err)
	}
	prune(chain[1:]...)
	if n := has(); n != 4 {
		t.Fatalf("%d of 4 blocks are left although one above them is", n)
	}
	ordered, err := s.MilestoneBlocks(1)
	if err != nil {
		t.Fatal(err)
	}
	prune(ledger.Entry{ID: ordered[0].ID})
	if ok, err := s.Has(ordered[0].ID); !ok || err != nil {
		t.Errorf("a block that a milestone orders is gone: %v", err)
	}
	position, before, _, _ := s.Count()
	prune(chain...)
	if n := has(); n != 0 {
		t.Errorf("%d of 4 blocks are left", n)
	}
	if now, pruned, _, _ := s.Count(); now != position || pruned != before+4 {
		t.Errorf("Count = %d, %d; want %d, %d", now, pruned, position, before+4)
	}
	tagged := 0
	_ = s.Tagged([]byte("loose"), 0, func(uint64, stardust.BlockID) bool { tagged++; return true })
	_ = s.Children(stardust.GenesisID, func(id stardust.BlockID) bool {
		if id == chain[3].ID {
			t.Error("a deleted block is a child of the genesis")
		}
		return true
	})
	if tagged != 1 {
		t.Errorf("%d blocks have the tag, want the last one", tagged)
	}
	// One comes again, with a child.
	again := []ledger.Entry{chain[3], looseBlock(t, "child", chain[3].ID)}
	if err := s.Commit(ledger.Change{Entries: again}); err != nil {
		t.Fatal(err)
	}
	if id, err := s.At(position + 1); id != chain[3].ID || err != nil {
		t.Errorf("what came again is not at a position of its own: %v, %v", id, err)
	}
	rec, err := s.Load(again[1].ID)
	if err != nil || stardust.IDOf(rec.Raw) != again[1].ID {
		t.Errorf("a child of what came again: %v", err)
	}
	opened := maps.Clone(s.open)
	if err := s.Check(t.Context()); err != nil {
		t.Error(err)
	}
	copied := copyDir(t, dir)
	other := open(t, copied)
	if !maps.Equal(other.open, opened) {
		t.Errorf("after a start %v are not ordered, before it %v", other.open, opened)
	}
	if now, pruned, _, _ := other.Count(); now != position+2 || pruned != before+4 {
		t.Errorf("after a start Count = %d, %d", now, pruned)
	}
	st.play(10, 100)
}
