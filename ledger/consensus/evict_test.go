package consensus

import (
	"fmt"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// However many openers of one round an equivocator signs, what is kept is what
// they tell: two different ballots, and the first opener before them.
func TestEvictKeepsWhatAnEquivocatorTells(t *testing.T) {
	d := &drawing{t: t, s: modelState(t, evilGateway), now: time.Unix(1, 0)}
	for i := range 20 {
		d.opener(fmt.Sprint("p", i), evilGateway, []string{"g"})
	}
	gone := d.s.Evict(nil)
	if got := d.s.Outcasts(); len(got) != 1 || got[0] != nameID("p0") || len(gone) != 19 {
		t.Fatalf("of 20 openers %d are kept, %d forgotten; want the first and 19", len(got), len(gone))
	}
	for g := range uint8(3) {
		d.opener(fmt.Sprint("h", g), g, []string{"g"})
	}
	quorum := []string{"h0", "h1", "h2"}
	for i := range 5 {
		d.opener(fmt.Sprint("none", i), evilGateway, quorum)
		d.opener(fmt.Sprint("p0-", i), evilGateway, append(quorum, "p0"))
		d.s.Evict(nil)
	}
	got := d.s.Outcasts()
	if len(got) != 3 || got[1] != nameID("none0") || got[2] != nameID("p0-0") {
		t.Errorf("kept %v; want p0 and one opener of each ballot", got)
	}
	if b := d.s.rounds[1].ballots; len(b) != 2 {
		t.Errorf("%d ballots on slot 1, want those of the openers kept", len(b))
	}
}

func modelState(t *testing.T, leader int) *State {
	t.Helper()
	s, err := New([]*network.File{modelNetwork(leader)}, Position{}, nothing{}, nothing{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// What something refers to stays, and so does what is wanted.
func TestEvictLeavesWhatIsReferredTo(t *testing.T) {
	d := &drawing{t: t, s: modelState(t, 0), now: time.Unix(1, 0)}
	for i := range 6 {
		d.opener(fmt.Sprint("e", i), evilGateway, []string{"g"})
	}
	d.data("x", "e3")
	d.s.Evict(func(id stardust.BlockID) bool { return id == nameID("e4") })
	for i, want := range []bool{false, false, false, true, true, false} {
		if got := d.s.Has(nameID(fmt.Sprint("e", i))); got != want {
			t.Errorf("e%d is kept: %v, want %v", i, got, want)
		}
	}
}

// A vote that brings more of its kind with it than fit is not taken, and what
// was forgotten is not taken again.
func TestUselessVotesOfAnEquivocator(t *testing.T) {
	d := &drawing{t: t, s: modelState(t, 0), now: time.Unix(1, 0)}
	last := "g"
	for i := range coneLimit + 2 {
		b := d.draft(fmt.Sprint("e", i), evilGateway, "", last)
		if got, want := d.s.Useless(b), i > coneLimit; got != want {
			t.Fatalf("with %d of its kind below: useless %v, want %v", i, got, want)
		}
		d.enter(b)
		last = fmt.Sprint("e", i)
	}
	again := d.draft("f", evilGateway, "", "g")
	d.enter(again)
	if d.s.Evict(nil); !d.s.Useless(again) {
		t.Error("a forgotten vote is to be taken again")
	}
}

// A block whose other parent lies too far back does not hide a tip.
func TestDeepBlocksHideNothing(t *testing.T) {
	s := modelState(t, 0)
	s.cur.file.IDHorizon = 40
	s.pos.Index = 100
	d := &drawing{t: t, s: s, now: time.Unix(1, 0)}
	s.view = ordered{nameID("old"): {Milestone: 70}, nameID("new"): {Milestone: 99}}
	d.data("x", "new")
	d.data("deep", "old", "x")
	if s.unordered[KindData] = 1; s.Waiting() { // as if x were ordered
		t.Error("somebody would vote for what cannot be ordered")
	}
	s.unordered[KindData] = 2
	if tips := s.Tips(); len(tips) != 1 || tips[0] != nameID("x") {
		t.Errorf("tips are %v, want x", tips)
	}
	if gone := s.Evict(nil); len(gone) != 1 || gone[0] != nameID("deep") || !s.Has(nameID("x")) {
		t.Errorf("forgotten: %v, want deep", gone)
	}
	if s.unordered[KindData] != 1 {
		t.Errorf("%d blocks wait, want 1: nobody is to vote for what cannot be ordered", s.unordered[KindData])
	}
}

// A block at the very limit that honest gateways have voted for does not make
// their votes unusable when the next milestone comes.
func TestBlocksAtTheDepthLimitStopNobody(t *testing.T) {
	s := modelState(t, 0)
	s.cur.file.IDHorizon = 40
	s.pos.Index = 100
	d := &drawing{t: t, s: s, now: time.Unix(1, 0)}
	s.view = ordered{nameID("old"): {Milestone: 80}}
	d.data("x", "old")
	d.vote("a", 0, "", "x")
	s.pos.Index = 101
	if s.usable(s.nodes[nameID("a")]) {
		t.Error("weight B alone makes a block usable")
	}
	d.vote("b", 1, "", "x")
	for _, name := range []string{"a", "b", "x"} {
		if !s.usable(s.nodes[nameID(name)]) {
			t.Errorf("%s is not usable, although more than B voted for x", name)
		}
	}
}

// A block takes a while to be made: its parents must not lie too deep by then.
func TestTipsForPayloadsLieHalfAsDeepAtMost(t *testing.T) {
	s := modelState(t, 0)
	s.cur.file.IDHorizon = 40
	s.pos.Index = 100
	d := &drawing{t: t, s: s, now: time.Unix(1, 0)}
	s.view = ordered{nameID("old"): {Milestone: 85}, nameID("new"): {Milestone: 90}}
	d.data("x", "new")
	d.data("deep", "old")
	if tips := s.Shallow(); len(tips) != 1 || tips[0] != nameID("x") {
		t.Errorf("tips for payloads are %v, want x", tips)
	}
	if tips := s.Tips(); len(tips) != 2 {
		t.Errorf("%d tips for votes and frontiers, want 2: otherwise nobody would order the other one", len(tips))
	}
}

// ordered is a View of what is listed.
type ordered map[stardust.BlockID]Ordered

func (v ordered) Ordered(id stardust.BlockID) (Ordered, bool, error) {
	o, ok := v[id]
	return o, ok, nil
}
