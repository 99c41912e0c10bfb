package consensus

import (
	"errors"
	"testing"

	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// A vote that claims another place than its parents give it is refused, and so
// is what stands on it.
func TestAddRefusesFalseClaims(t *testing.T) {
	d := &drawing{t: t, s: newTestState(t, 4)}
	d.vote("a1", 0, "", "g")
	d.vote("b1", 1, "", "g")
	d.vote("c1", 2, "", "g")
	for _, tt := range []struct {
		name   string
		change func(v *Vote)
	}{
		{"a round too high", func(v *Vote) { v.Round++ }},
		{"a round too low", func(v *Vote) { v.Round-- }},
		{"somebody it has not seen", func(v *Vote) { v.Seen |= 8 }},
		{"itself not seen", func(v *Vote) { v.Seen = 0 }},
		{"a merge in an opener", func(v *Vote) { v.Merges = 1 }},
		{"a self parent of another gateway", func(v *Vote) { v.SelfIndex = 1 }},
	} {
		b := d.draft("a2", 0, "a1", "a1", "b1", "c1")
		tt.change(&b.Vote)
		if err := d.add(b); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", tt.name, err)
		}
	}
	if err := d.add(Block{ID: nameID("x"), Parents: []stardust.BlockID{nameID("a2")}}); !errors.Is(err, ErrNotSolid) {
		t.Errorf("a block on a refused one: got %v, want ErrNotSolid", err)
	}
	d.vote("a2", 0, "a1", "a1", "b1", "c1") // control
	if got, want := d.s.nodes[nameID("a2")].claim, (Claim{Round: 2, Seen: 1}); got != want {
		t.Errorf("opener over a quorum claims %+v, want %+v", got, want)
	}
}

// Eight votes that widen nothing may stand in one round, no more.
func TestMergesAreBounded(t *testing.T) {
	d := &drawing{t: t, s: newTestState(t, 4)}
	d.vote("a0", 0, "", "g")
	names := []string{"a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8"}
	for i, name := range names[1:] {
		d.vote(name, 0, names[i], names[i])
	}
	b := d.draft("a9", 0, "a8", "a8")
	if err := d.add(b); !errors.Is(err, ErrInvalid) {
		t.Errorf("the ninth: got %v, want ErrInvalid", err)
	}
	d.vote("b0", 1, "", "g")
	d.vote("aw", 0, "a8", "a8", "b0") // widens: allowed
}

func TestEquivocationIsProven(t *testing.T) {
	for _, tt := range []struct {
		name string
		draw func(d *drawing)
		want [2]string // none: no equivocation
	}{
		{"two openers of a round", func(d *drawing) {
			d.vote("a", 0, "", "g")
			d.vote("b", 0, "", "g")
		}, [2]string{"a", "b"}},
		{"two votes on one vote of its own", func(d *drawing) {
			d.vote("a", 0, "", "g")
			d.vote("b", 0, "a", "a")
			d.data("x", "g")
			d.vote("c", 0, "a", "a", "x")
		}, [2]string{"b", "c"}},
		{"a chain", func(d *drawing) {
			d.vote("a", 0, "", "g")
			d.vote("b", 0, "a", "a")
			d.vote("c", 0, "b", "b")
		}, [2]string{}},
		{"two gateways", func(d *drawing) {
			d.vote("a", 0, "", "g")
			d.vote("b", 1, "", "g")
		}, [2]string{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := &drawing{t: t, s: newTestState(t, 4)}
			tt.draw(d)
			if tt.want == [2]string{} {
				if len(d.all.Equivocations) > 0 {
					t.Errorf("got %+v, want none", d.all.Equivocations)
				}
				return
			}
			if len(d.all.Equivocations) != 1 {
				t.Fatalf("got %d equivocations, want 1", len(d.all.Equivocations))
			}
			e := d.all.Equivocations[0]
			if e.First != nameID(tt.want[0]) || e.Second != nameID(tt.want[1]) || e.Key != publicKey(simKey(0)) {
				t.Errorf("got %+v, want %v of gateway 0", e, tt.want)
			}
		})
	}
}

// What only an equivocator's vote covers stays a tip, or nobody would ever
// order it.
func TestExcludedVotesCoverNothing(t *testing.T) {
	d := &drawing{t: t, s: newTestState(t, 4)}
	d.data("x", "g")
	d.vote("a", 0, "", "x")
	d.vote("b", 0, "", "g")
	if got := d.s.Tips(); len(got) != 1 || got[0] != nameID("x") {
		t.Errorf("tips %v after gateway 0 equivocated, want x", got)
	}
	d.data("y", "g")
	d.vote("c", 0, "b", "b", "y")
	if got := d.s.Tips(); len(got) != 2 {
		t.Errorf("tips %v, want x and y", got)
	}
	d.vote("v", 1, "", "x", "y")
	if got := d.s.Tips(); len(got) != 1 || got[0] != nameID("v") {
		t.Errorf("tips %v, want v", got)
	}
}

// A block is approved once votes of a quorum stand above it.
func TestApprovalNeedsAQuorum(t *testing.T) {
	d := &drawing{t: t, s: newTestState(t, 4)}
	d.data("x", "g")
	d.vote("a", 0, "", "x")
	d.vote("b", 1, "", "x")
	if len(d.all.Approved) != 0 {
		t.Errorf("approved %v by two of four", d.all.Approved)
	}
	d.vote("c", 2, "", "a", "b")
	if len(d.all.Approved) != 1 || d.all.Approved[0] != nameID("x") {
		t.Errorf("approved %v, want x", d.all.Approved)
	}
}
