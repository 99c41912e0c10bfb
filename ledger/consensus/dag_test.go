package consensus

import (
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// nothing is a View and a Ledger without content.
type nothing struct{}

func (nothing) Ordered(stardust.BlockID) (Ordered, bool, error) { return Ordered{}, false, nil }

func (nothing) Apply(uint32, uint32, stardust.BlockID) (bool, error) { return true, nil }

func (nothing) Root() ([32]byte, error) { return [32]byte{}, nil }

func newTestState(t testing.TB, n int) *State {
	t.Helper()
	weights := make([]uint32, n)
	for i := range weights {
		weights[i] = 1
	}
	s, err := New([]*network.File{simFile("test", weights)}, Position{}, nothing{}, nothing{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A drawing adds blocks with names for ids to a State.
type drawing struct {
	t      testing.TB
	s      *State
	now    time.Time
	timeMs uint64 // what the next votes say
	all    Result
}

func nameID(name string) (id stardust.BlockID) {
	if name != "g" {
		copy(id[:], name)
	}
	return id
}

func (d *drawing) add(b Block) error {
	res, err := d.s.Add(b, d.now)
	d.all.Approved = append(d.all.Approved, res.Approved...)
	d.all.Decisions = append(d.all.Decisions, res.Decisions...)
	d.all.Milestones = append(d.all.Milestones, res.Milestones...)
	d.all.Equivocations = append(d.all.Equivocations, res.Equivocations...)
	return err
}

// vote adds a vote of g with the claim that its parents give; self names the
// self parent or is "".
func (d *drawing) vote(name string, g uint8, self string, parents ...string) {
	d.t.Helper()
	if err := d.add(d.draft(name, g, self, parents...)); err != nil {
		d.t.Fatalf("add vote %s: %v", name, err)
	}
}

func (d *drawing) draft(name string, g uint8, self string, parents ...string) Block {
	b := Block{ID: nameID(name), Kind: KindVote, Vote: Vote{TimeMs: d.timeMs}}
	var claims []Claim
	var own *Claim
	for i, p := range parents {
		b.Parents = append(b.Parents, nameID(p))
		n := d.s.nodes[nameID(p)]
		if n == nil || n.kind != KindVote {
			continue
		}
		claims = append(claims, n.claim)
		if p == self {
			b.Vote.HasSelf, b.Vote.SelfIndex = true, uint8(i)
			own = &n.claim
		}
	}
	round, seen := d.s.cur.next(g, claims)
	b.Vote.Claim = Claim{Epoch: d.s.cur.number, Gateway: g, Round: round, Seen: seen, Merges: merges(round, seen, own)}
	return b
}

func (d *drawing) data(name string, parents ...string) {
	d.t.Helper()
	b := Block{ID: nameID(name)}
	for _, p := range parents {
		b.Parents = append(b.Parents, nameID(p))
	}
	if err := d.add(b); err != nil {
		d.t.Fatalf("add %s: %v", name, err)
	}
}
