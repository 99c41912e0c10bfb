package store

import (
	"context"
	"errors"
	"maps"
	"reflect"
	"slices"
	"testing"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// What consensus asks must be answered alike before and after the body is gone
// (INV-3).
func TestAPrunedStoreAnswersLikeOneThatIsNot(t *testing.T) {
	s := open(t, t.TempDir())
	st := newStage(t, 4, s)
	st.play(60, 100)
	lists := map[uint32][]consensus.Entry{}
	for index := uint32(1); index <= st.last; index++ {
		var err error
		if lists[index], err = s.MilestoneBlocks(index); err != nil {
			t.Fatal(err)
		}
	}
	ids := orderOf(t, s)
	to := st.last - 16
	st.pruneVotes(to)
	st.pruneBlocks(to / 2)
	gone := 0
	for at, id := range ids {
		o := st.claims[id]
		pruned := o.Milestone > 0 && (o.Vote && o.Milestone <= to || !o.Vote && o.Milestone <= to/2)
		at := uint64(at + 1)
		got, err := s.Ordered(id)
		if err != nil || got.Milestone != o.Milestone || (got.Stub != nil) != pruned || pruned && *got.Stub != o {
			t.Errorf("Ordered(%v) = %+v, %v; want %+v, pruned %v", id, got, err, o, pruned)
		}
		if ok, err := s.Has(id); !ok || err != nil {
			t.Errorf("Has(%v) = %v, %v", id, ok, err)
		}
		if got, err := s.At(at); got != id || err != nil {
			t.Errorf("At(%d) = %v, %v; want %v", at, got, err, id)
		}
		rec, err := s.Load(id)
		if pruned {
			gone++
		}
		if pruned != errors.Is(err, ledger.ErrPruned) || !pruned && stardust.IDOf(rec.Raw) != id {
			t.Errorf("Load(%v) = %x, %v; pruned %v", id, rec.Raw, err, pruned)
		}
	}
	left := orderOf(t, s)
	if len(left) != len(ids)-gone || gone < len(ids)/2 {
		t.Errorf("%d of %d blocks are left, %d are gone", len(left), len(ids), gone)
	}
	var sorted []stardust.BlockID
	_ = s.IDs(func(id stardust.BlockID) bool { sorted = append(sorted, id); return true })
	slices.SortFunc(left, stardust.BlockID.Compare)
	if !slices.Equal(sorted, left) {
		t.Errorf("IDs yields %d, Order %d", len(sorted), len(left))
	}
	for index, want := range lists {
		if got, err := s.MilestoneBlocks(index); err != nil || !slices.Equal(got, want) {
			t.Errorf("blocks of milestone %d: %v, %v; want %v", index, got, err, want)
		}
	}
	if position, pruned, _, err := s.Count(); position != uint64(len(ids)) || pruned != uint64(gone) || err != nil {
		t.Errorf("Count = %d, %d, %v; want %d, %d", position, pruned, err, len(ids), gone)
	}
	marks := 0
	_ = s.Marks(0, func(run [2]uint64, id stardust.BlockID) bool {
		if id != st.batches[run[0]] {
			t.Errorf("mark %v is of %v, want %v", run, id, st.batches[run[0]])
		}
		marks++
		return true
	})
	if marks != len(st.batches) {
		t.Errorf("%d marks for %d batches", marks, len(st.batches))
	}
	st.play(10, 100) // it goes on above stubs
}

func orderOf(t *testing.T, s *Store) (ids []stardust.BlockID) {
	t.Helper()
	if err := s.Order(0, func(_ uint64, id stardust.BlockID) bool { ids = append(ids, id); return true }); err != nil {
		t.Fatal(err)
	}
	return ids
}

func TestPruningSurvivesACrashBetweenItsSteps(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	st := newStage(t, 4, s)
	st.play(40, 100)
	want := map[stardust.BlockID]ledger.Placement{}
	for to := uint32(10); to <= 60; to += 10 {
		st.pruneVotes(to)
		if to >= 30 {
			st.pruneBlocks(to - 20)
		}
		if to >= 50 {
			st.forget(to - 30)
		}
		for id := range st.claims {
			at, err := s.Ordered(id)
			if err != nil {
				t.Fatal(err)
			}
			want[id] = at
		}
		again := open(t, copyDir(t, dir)) // checked when the test ends
		for id, w := range want {
			if got, err := again.Ordered(id); err != nil || !reflect.DeepEqual(got, w) {
				t.Errorf("after a crash at %d: Ordered(%v) = %+v, %v; want %+v", to, id, got, err, w)
			}
		}
		position, pruned, _, _ := s.Count()
		if p, n, _, err := again.Count(); p != position || n != pruned || err != nil {
			t.Errorf("after a crash at %d: Count = %d, %d, %v; want %d, %d", to, p, n, err, position, pruned)
		}
		r, _ := s.Pruned()
		if got, err := again.Pruned(); got != r || err != nil {
			t.Errorf("after a crash: pruned %+v, %v; want %+v", got, err, r)
		}
		if !maps.Equal(again.open, s.open) {
			t.Errorf("after a crash at %d: blocks %v are not ordered, want %v", to, again.open, s.open)
		}
	}
}

func TestStubsAreForgottenOnceNothingRefersToThem(t *testing.T) {
	s := open(t, t.TempDir())
	st := newStage(t, 4, s)
	st.play(40, 100)
	ids := orderOf(t, s)
	st.pruneVotes(60)
	st.pruneBlocks(40)
	st.forget(40)
	check := func(when string) (kept int) {
		t.Helper()
		if err := s.Check(context.Background()); err != nil {
			t.Errorf("%s: %v", when, err)
		}
		for _, id := range ids {
			if ok, err := s.Has(id); err != nil {
				t.Error(err)
			} else if ok && st.claims[id].Milestone > 0 && st.claims[id].Milestone <= 40 {
				kept++
			}
		}
		for _, id := range orderOf(t, s) { // every body can be put together
			if rec, err := s.Load(id); err != nil || stardust.IDOf(rec.Raw) != id {
				t.Errorf("%s: block %v cannot be read: %v", when, id, err)
			}
		}
		return kept
	}
	if kept := check("with children"); kept == 0 || kept > 12 {
		t.Errorf("%d stubs below are kept, want the few that blocks above refer to", kept)
	}
	for _, index := range []uint32{9, 10, 11} {
		_, _, err := s.Milestone(index)
		if kept := index == 10; kept != (err == nil) || !kept && !errors.Is(err, ledger.ErrNotFound) {
			t.Errorf("Milestone(%d): %v", index, err)
		}
		if _, err := s.MilestoneBlocks(index); index != 10 && !errors.Is(err, ledger.ErrNotFound) {
			t.Errorf("MilestoneBlocks(%d): %v", index, err)
		}
	}
	st.pruneBlocks(60)
	if kept := check("without children"); kept != 0 {
		t.Errorf("%d stubs below are kept although their children are gone", kept)
	}
	_ = s.Marks(0, func(run [2]uint64, id stardust.BlockID) bool {
		if want := st.batches[run[0]]; id != want && (id != stardust.GenesisID || st.claims[want].Milestone > 40) {
			t.Errorf("mark %v is of %v, want %v", run, id, want)
		}
		return true
	})
	st.play(5, 100)
}

func TestIDsThatBeginAlikeAreToldApart(t *testing.T) {
	s := open(t, t.TempDir())
	txn := s.db.NewTransaction(true)
	defer txn.Discard()
	w := &pruner{txn: txn, stubs: map[[stubIDSize]byte][]uint64{}}
	var ids []stardust.BlockID
	for i := range 3 {
		id := stardust.BlockID{31: byte(i)}
		ids = append(ids, id)
		numbers, err := w.stubNumbers(id)
		if err != nil {
			t.Fatal(err)
		}
		w.stubs[[stubIDSize]byte(id[:])] = append(numbers, uint64(i+1))
		st := stub{id: id, ordered: consensus.Ordered{Milestone: 1}}
		if err := txn.Set(stubKey(uint64(i+1)), st.encode()); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.stubIndex(); err != nil {
		t.Fatal(err)
	}
	if err := w.stub(ids[1]); err != nil {
		t.Fatal(err)
	}
	if err := w.stubIndex(); err != nil {
		t.Fatal(err)
	}
	for i, id := range ids {
		n, _, err := findStub(txn, id)
		if i == 1 && err == nil || i != 1 && (n != uint64(i+1) || err != nil) {
			t.Errorf("stub %d is %d, %v", i, n, err)
		}
	}
}

func TestPruningGoesOnAtTheLimit(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	st := newStage(t, 4, s)
	st.play(200, 30_000)
	used, err := s.DiskBytes()
	if err != nil {
		t.Fatal(err)
	}
	s.guard.maxDisk, s.guard.written = used, recheckBytes
	over, err := s.Excess()
	if err != nil || over < 2*memTable {
		t.Errorf("Excess at the limit of %d is %d, %v", used, over, err)
	}
	if err := s.Ready(); !errors.Is(err, ledger.ErrBusy) {
		t.Errorf("Ready at the limit: %v", err)
	}
	st.pruneVotes(100)
	st.pruneBlocks(100)
	s.guard.maxDisk = used + 1 // below it what was pruned counts as gone
	less, err := s.Excess()
	if err != nil || less >= over {
		t.Errorf("Excess is %d after pruning, %v; %d before", less, err, over)
	}
	s.guard.maxDisk = 0
}

func FuzzDecodeStub(f *testing.F) {
	s := stub{id: stardust.BlockID{1}, ordered: consensus.Ordered{Milestone: 7}, inclusion: consensus.Conflicting}
	f.Add(s.encode())
	s.ordered.Vote, s.ordered.Claim = true, consensus.Claim{Epoch: 1, Gateway: 2, Round: 300, Seen: 7, Merges: 1}
	f.Add(s.encode())
	f.Fuzz(func(t *testing.T, v []byte) {
		s, err := decodeStub(1, v)
		if err != nil {
			return
		}
		again, err := decodeStub(1, s.encode())
		if err != nil || *again != *s {
			t.Errorf("%x is %+v, and that is %+v, %v", v, s, again, err)
		}
	})
}

func FuzzDecodePruned(f *testing.F) {
	p := pruned{bodies: 300, reached: ledger.Reached{Votes: ledger.Reach{Milestone: 1, Next: 2}}}
	f.Add(p.encode())
	f.Fuzz(func(t *testing.T, v []byte) {
		p, err := decodePruned(v)
		if err != nil {
			return
		}
		if again, err := decodePruned(p.encode()); err != nil || again != p {
			t.Errorf("%x is %+v, and that is %+v, %v", v, p, again, err)
		}
	})
}

func FuzzDecodeNumbers(f *testing.F) {
	f.Add(encodeNumbers([]uint64{1, 300}))
	f.Fuzz(func(t *testing.T, v []byte) {
		numbers, err := decodeNumbers(v)
		if err != nil {
			return
		}
		again, err := decodeNumbers(encodeNumbers(numbers))
		if err != nil || !slices.Equal(again, numbers) {
			t.Errorf("%x is %v, and that is %v, %v", v, numbers, again, err)
		}
	})
}
