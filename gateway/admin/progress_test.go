package admin

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

func block(n int) stardust.BlockID { return stardust.BlockID{byte(n >> 8), byte(n), 31: 1} }

// A followed is a progress over a tangle, and what it told.
type followed struct {
	*progress
	tangle *fakeTangle
	told   []string
}

func newFollowed() *followed {
	l := &fakeLedger{}
	f := &followed{tangle: &l.fakeTangle}
	f.progress = newProgress(l, func(t *tracked) { f.told = append(f.told, fmt.Sprintf("%s %v %d", t.state, t.runs, t.milestone)) })
	return f
}

// attach marks readings and tells of it, as batching does.
func (f *followed) attach(t *testing.T, first, last uint64, id stardust.BlockID) {
	t.Helper()
	f.tangle.mark(first, last, id)
	if err := f.attached(id, [][2]uint64{{first, last}}); err != nil {
		t.Fatal(err)
	}
}

func (f *followed) want(t *testing.T, when string, attached, approved, confirmed uint64) {
	t.Helper()
	want := backlog{Attached: attached, Approved: approved, Confirmed: confirmed}
	if got := f.progress.backlog(batching.Backlog{}); got != want {
		t.Errorf("%s the backlog is %+v, want %+v", when, got, want)
	}
}

func TestReadingsAreCountedByTheStateOfTheirBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFollowed()
		f.attach(t, 1, 10, block(1))
		f.attach(t, 11, 15, block(2))
		f.want(t, "at first", 15, 0, 0)
		time.Sleep(100 * time.Millisecond)
		f.reach(block(1), ledger.Progress{Approved: true})
		f.reach(block(9), ledger.Progress{Approved: true}) // of somebody else
		f.want(t, "after an approval", 5, 10, 0)
		time.Sleep(200 * time.Millisecond)
		f.reach(block(1), ledger.Progress{Approved: true, Milestone: 7})
		f.reach(block(2), ledger.Progress{Approved: true, Milestone: 8}) // never seen approved
		f.reach(block(1), ledger.Progress{Approved: true})               // late
		f.want(t, "after milestones", 0, 0, 15)
		f.certify(7)
		f.want(t, "after a certificate", 0, 0, 5)
		time.Sleep(time.Second)
		f.certify(9)
		f.want(t, "at last", 0, 0, 0)
		want := []string{
			"attached [[1 10]] 0", "attached [[11 15]] 0", "approved [[1 10]] 0", "confirmed [[1 10]] 7", "confirmed [[11 15]] 8",
			"certified [[1 10]] 7", "certified [[11 15]] 8",
		}
		if !slices.Equal(f.told, want) {
			t.Errorf("told %q, want %q", f.told, want)
		}
		s := f.stats()
		if s.confirm.Count() != 2 || s.certify.Count() != 2 || s.confirm.Sum < 0.599 || s.confirm.Sum > 0.601 || s.certify.Sum < 1.599 || s.certify.Sum > 1.601 {
			t.Errorf("confirmed %+v, certified %+v; want 2 in 0.3 s each, and after 0.3 s and 1.3 s", s.confirm, s.certify)
		}
		if len(f.blocks)+len(f.confirmed) != 0 {
			t.Errorf("%d blocks and %d milestones are still followed", len(f.blocks), len(f.confirmed))
		}
	})
}

// What a block reached between its attachment and the telling of it is found.
func TestABlockMayBeFurtherThanAttachedWhenItIsToldOf(t *testing.T) {
	for _, tt := range []struct {
		p    ledger.Progress
		want []string
	}{
		{ledger.Progress{Approved: true}, []string{"attached [[1 4]] 0", "approved [[1 4]] 0"}},
		{ledger.Progress{Approved: true, Milestone: 3, Certified: true}, []string{"attached [[1 4]] 0", "certified [[1 4]] 3"}},
	} {
		f := newFollowed()
		f.tangle.mark(1, 4, block(1))
		f.tangle.progress[block(1)] = tt.p
		if err := f.attached(block(1), [][2]uint64{{1, 4}}); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(f.told, tt.want) {
			t.Errorf("with %+v told %q, want %q", tt.p, f.told, tt.want)
		}
	}
}

func TestAScanFindsWhatAnEarlierProcessAttached(t *testing.T) {
	f := newFollowed()
	// Blocks of ten readings, two runs each; half of them certified, all but
	// the last 20 approved or more.
	const blocks = 2000
	for i := range blocks {
		first := uint64(10*i + 1)
		f.tangle.mark(first, first+3, block(i))
		f.tangle.mark(first+5, first+9, block(i))
		p := ledger.Progress{Approved: i < blocks-20}
		if i < blocks/2 {
			p.Milestone, p.Certified = 5, true
		}
		f.tangle.progress[block(i)] = p
	}
	f.tangle.progress[block(1500)] = ledger.Progress{Approved: true, Milestone: 9, Certified: true}
	f.tangle.progress[block(900)] = ledger.Progress{Approved: true, Milestone: 9}
	f.attach(t, 10*blocks+1, 10*blocks+7, block(blocks)) // by this process, before the scan
	f.tangle.lookups = 0
	if err := f.scan(t.Context(), 10*blocks+8); err != nil {
		t.Fatal(err)
	}
	f.want(t, "after the scan", 20*9+7, (blocks/2-20-1)*9, 9)
	if f.tangle.lookups > 2*(blocks/2)+scanMargin/10+100 {
		t.Errorf("%d look-ups for %d blocks that are not certified", f.tangle.lookups, blocks/2)
	}
	if len(f.told) != 1 {
		t.Errorf("told %d times, first %q; want only of what this process attached", len(f.told), f.told[0])
	}
	if err := f.scan(t.Context(), 10*blocks+8); err != nil {
		t.Fatal(err)
	}
	f.want(t, "after another scan", 20*9+7, (blocks/2-20-1)*9, 9)
	f.certify(9)
	f.want(t, "after a certificate", 20*9+7, (blocks/2-20-1)*9, 0)
}

// Without a quorum for days, what is followed is bounded; the rest is counted
// and found again when there is room.
func TestBlocksThatAreFollowedAreBounded(t *testing.T) {
	f := newFollowed()
	const more = 100
	for i := range maxTracked + more {
		f.attach(t, uint64(i+1), uint64(i+1), block(i))
	}
	f.want(t, "full,", maxTracked+more, 0, 0)
	if len(f.blocks) != maxTracked || f.crowded() {
		t.Errorf("%d blocks are followed, crowded %v; want %d, no room yet", len(f.blocks), f.crowded(), maxTracked)
	}
	if err := f.scan(t.Context(), maxTracked+more+1); err != nil {
		t.Fatal(err)
	}
	f.want(t, "full after a scan,", maxTracked+more, 0, 0)
	for i := range maxTracked {
		f.tangle.progress[block(i)] = ledger.Progress{Approved: true, Milestone: 1, Certified: true}
	}
	if err := f.checkAll(); err != nil {
		t.Fatal(err)
	}
	if !f.crowded() {
		t.Error("there is room, and nobody looks for those that found none")
	}
	if err := f.scan(t.Context(), maxTracked+more+1); err != nil {
		t.Fatal(err)
	}
	f.want(t, "after a scan with room,", more, 0, 0)
	if len(f.blocks) != more || f.crowded() {
		t.Errorf("%d blocks are followed, crowded %v; want %d", len(f.blocks), f.crowded(), more)
	}
}

func TestReadingsOfAChainThatWasLeftAreNotFollowed(t *testing.T) {
	f := newFollowed()
	f.tangle.mark(1, 3, stardust.GenesisID)
	f.tangle.mark(4, 5, block(1))
	if err := f.scan(t.Context(), 6); err != nil {
		t.Fatal(err)
	}
	f.want(t, "with marks of another chain", 2, 0, 0)
}

func TestABlockThatIsNotKeptIsFollowedNoLonger(t *testing.T) {
	f := newFollowed()
	f.attach(t, 1, 4, block(1))
	delete(f.tangle.progress, block(1))
	if err := f.checkAll(); err != nil {
		t.Fatal(err)
	}
	f.want(t, "without its block", 0, 0, 0)
	f.tangle.broken = errBroken
	if err := f.scan(t.Context(), 5); err == nil {
		t.Error("a broken store is no error")
	}
}
