package consensus

import (
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// A gateway draws what gateway 0 of n would issue.
func newGateway(t *testing.T, n int, d Durable) (*drawing, *Issuer) {
	dr := &drawing{t: t, s: newTestState(t, n), now: time.Unix(1000, 0)}
	return dr, NewIssuer(dr.s, publicKey(simKey(0)), d)
}

func try(t *testing.T, i *Issuer, now time.Time) Step {
	t.Helper()
	s, err := i.Try(now)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestNoRoundBeforeOthersHaveReported(t *testing.T) {
	d, i := newGateway(t, 4, Durable{})
	d.data("x", "g")
	for from, want := range []bool{false, false, true} { // from gateway 0: itself does not count
		i.Report(from, 0, 0)
		if got := try(t, i, d.now).Draft != nil; got != want {
			t.Errorf("after the report of gateway %d: a vote %v, want %v", from, got, want)
		}
	}
}

// Votes that reach back too far are no parents, until no round could be opened
// for long: then the network would stand still for good.
func TestDepthIsOverlookedWhenNobodyCanGoOn(t *testing.T) {
	d, i := newGateway(t, 4, Durable{})
	d.s.cur.file.IDHorizon = 40
	d.s.pos.Index = 100
	d.s.view = ordered{nameID("old"): {Milestone: 70}, nameID("new"): {Milestone: 99}}
	i.Report(1, 0, 0)
	i.Report(2, 0, 0)
	d.data("x", "new")
	d.data("deep", "old", "x")
	own := try(t, i, d.now).Draft
	own.Vote.TimeMs = 1
	b := Block{ID: nameID("own"), Parents: own.Parents, Kind: KindVote, Vote: own.Vote}
	i.Issued(own, b.ID, d.now)
	if err := d.add(b); err != nil {
		t.Fatal(err)
	}
	d.vote("a", 1, "", "x")
	d.vote("b", 2, "", "x", "deep") // the third that makes a quorum
	d.now = d.now.Add(time.Second)
	step := try(t, i, d.now)
	if step.Draft != nil && step.Draft.Opens || step.Wake.IsZero() {
		t.Fatalf("with two votes of the round that may be referred to: %+v, want a later look", step)
	}
	for range 100 {
		d.now = step.Wake
		if step = try(t, i, d.now); step.Draft != nil || step.Wake.IsZero() {
			break
		}
	}
	for ; step.Draft != nil && !step.Draft.Opens; step = try(t, i, d.now) {
		i.Issued(step.Draft, nameID("own"), d.now)
		d.now = d.now.Add(time.Minute)
	}
	if step.Draft == nil || step.Draft.Vote.Round != 2 {
		t.Errorf("after long: %+v, want round 2", step)
	}
}

// A peer that says it knows more of us is believed when it shows it.
func TestUnknownOwnVoteMeansRecovery(t *testing.T) {
	d, i := newGateway(t, 4, Durable{})
	d.data("x", "g")
	i.Report(1, 0, 7)
	i.Report(2, 0, 0)
	if i.Recovering() || i.Confirmed() {
		t.Errorf("after a claim: recovering %v, confirmed %v; want neither", i.Recovering(), i.Confirmed())
	}
	d.vote("own", 0, "", "x")
	if !i.Recovering() {
		t.Error("not recovering though a vote of ours is known that we do not remember")
	}
	if _, _, ok := i.Answer(); ok {
		t.Error("answers a recovering peer while recovering itself")
	}
}

func TestRecoveryOpensBeyondWhatWasLost(t *testing.T) {
	d, i := newGateway(t, 4, Durable{Recovering: true})
	d.data("x", "g")
	var heads []string
	round := func(k int) {
		var next []string
		for g := 1; g < 4; g++ {
			name := string(rune('a'+k)) + string(rune('0'+g))
			ps := []string{"x"}
			if k > 0 {
				ps = heads
			}
			d.opener(name, uint8(g), ps)
			next = append(next, name)
		}
		heads = next
	}
	for k := range 3 {
		round(k)
	}
	i.Heard(1, 0, 3)
	i.Heard(2, 0, 3)
	i.Heard(1, 0, 3) // twice is once
	i.Heard(3, 1, 3) // of another epoch
	if got := i.Target(); got != 0 {
		t.Errorf("target %d by two answers of three needed", got)
	}
	i.Heard(3, 0, 99) // beyond what can be
	if got := i.Target(); got != 0 {
		t.Errorf("target %d by an answer that the DAG contradicts", got)
	}
	i = NewIssuer(d.s, i.key, Durable{Recovering: true})
	for g := 1; g < 4; g++ {
		i.Heard(g, 0, 3)
	}
	if got := i.Target(); got != 5 {
		t.Fatalf("target %d, want 5", got)
	}
	if s := try(t, i, d.now); s.Draft != nil {
		t.Errorf("opens round %d before the target", s.Draft.Vote.Round)
	}
	round(3)
	s := try(t, i, d.now)
	if s.Draft == nil || s.Draft.Vote.Round != 5 || s.Draft.Vote.HasSelf {
		t.Fatalf("got %+v, want an opener of round 5 without self parent", s.Draft)
	}
	own := i.Issued(s.Draft, stardust.BlockID{1}, d.now)
	if own.Recovering || !own.Sticky || own.Opened != 5 {
		t.Errorf("record %+v after recovery, want opened 5, sticky, not recovering", own)
	}
}

// Without its own head a gateway only opens new rounds.
func TestWithoutSelfParentOnlyANewRound(t *testing.T) {
	d, i := newGateway(t, 4, Durable{Opened: 1, Head: stardust.BlockID{9}})
	i.checked = true
	d.data("x", "g")
	d.vote("b1", 1, "", "x")
	d.vote("c1", 2, "", "x")
	if s := try(t, i, d.now); s.Draft != nil {
		t.Errorf("issues %+v in a round that it has opened", s.Draft.Vote.Claim)
	}
	d.vote("e1", 3, "", "x")
	s := try(t, i, d.now.Add(time.Minute))
	if s.Draft == nil || s.Draft.Vote.Round != 2 || s.Draft.Vote.HasSelf {
		t.Errorf("got %+v, want an opener of round 2 without self parent", s.Draft)
	}
}

// The first opener of a round keeps the pace; those after it open at once.
func TestPaceIsKeptByTheFirst(t *testing.T) {
	d, i := newGateway(t, 4, Durable{})
	i.checked = true
	d.data("x", "g")
	for g, name := range []string{"a1", "b1", "c1", "e1"} {
		d.vote(name, uint8(g), "", "x")
	}
	i.d = Durable{Opened: 1, Head: nameID("a1")}
	i.lastOpen = d.now.Add(-time.Minute)
	interval := time.Duration(d.s.cur.file.DataRoundInterval)
	if s := try(t, i, d.now); s.Draft != nil || !s.Wake.Equal(d.now.Add(interval)) {
		t.Errorf("got %+v, want to wait until %v", s, d.now.Add(interval))
	}
	d.vote("b2", 1, "b1", "b1", "c1", "e1")
	if s := try(t, i, d.now); s.Draft == nil || s.Draft.Vote.Round != 2 {
		t.Errorf("got %+v, want to follow into round 2 at once", s)
	}
}

// Blocks whose unordered cone reaches too far back are no parents.
func TestDepthRule(t *testing.T) {
	s := newTestState(t, 1)
	s.cur.file.IDHorizon = 1000
	s.pos.Index, s.pos.Root = 2000, stardust.BlockID{7}
	old := &node{id: stardust.BlockID{1}, base: 1400, reach: 1400}
	above := &node{id: stardust.BlockID{2}, base: 2001, reach: 1400, up: []*node{old}}
	if s.usable(old) || s.usable(above) {
		t.Error("a cone that reaches 600 milestones back of 500 is used")
	}
	old.ms = 2000 // ordered since: the cone of above ends there
	if !s.usable(above) {
		t.Error("a cone that reaches no further than the last milestone is not used")
	}
	if !s.usable(&node{id: s.pos.Root, ms: 1}) {
		t.Error("the last root is not used")
	}
}

// While equivocation of our own key is known we do not vote: somebody else has
// the key.
func TestClonedKeyIsSilent(t *testing.T) {
	d, i := newGateway(t, 4, Durable{})
	i.checked = true
	d.data("x", "g")
	d.vote("a", 0, "", "x")
	d.vote("b", 0, "", "g")
	i.d = Durable{Opened: 1, Head: nameID("a")}
	if s := try(t, i, d.now.Add(time.Hour)); s.Draft != nil {
		t.Errorf("issues %+v", s.Draft.Vote.Claim)
	}
}
