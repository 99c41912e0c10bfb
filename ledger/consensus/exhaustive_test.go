package consensus

import (
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

var exhaustiveFull = flag.Bool("exhaustive.full", false, "decide every shape, also those that differ in the names of honest gateways alone")

// The model: four gateways of weight 1 (Q = 3, B = 1), of which 3 does as it
// likes. One slot, that of round 1. Its leader may be honest (one proposal or
// none is seen) or Byzantine (two proposals). Each opener of round 2 sees any
// of the proposals; each of round 3 any set of openers of round 2 that weighs a
// quorum and holds its own; each of round 4 likewise of round 3. Gateway 3 may
// have two openers in rounds 2 and 3.
//
// For the slot, a replica can see
//   - a direct commit, as soon as a quorum of openers of round 3 certifies,
//   - a direct skip, in any set of openers of round 2 that it may have,
//   - what any opener of round 4 decides as an anchor. An anchor of a later
//     round has such an opener of a quorum in its cone, and supports only grow.
//
// All that one shape allows must be equal. That later slots then agree is the
// induction of §12, step 4.
type shape struct {
	second  []seat // openers of round 2
	leaders int    // proposals: 0, 1 or 2
}

// A seat is an opener: its gateway and what it sees of the round before, as a
// set of indices.
type seat struct {
	gateway uint8
	sees    uint
}

const evilGateway = 3

// modelNetwork returns a name for which the leader of round 1 is the gateway.
func modelNetwork(leader int) *network.File {
	for i := 0; ; i++ {
		f := simFile(fmt.Sprintf("model-%d", i), []uint32{1, 1, 1, 1})
		if newEpoch(f).leader(1) == leader {
			return f
		}
	}
}

// A model builds shapes with the shipped code.
type model struct {
	t      *testing.T
	file   *network.File
	broken mutant
}

// build adds the openers of round 1 and those seats of round 2 that are in the
// set take, and returns the nodes of round 1's proposals and of round 2.
func (m *model) build(sh shape, take uint, proposals uint) (*drawing, []string) {
	s, err := newState([]*network.File{m.file}, Position{}, nothing{}, nothing{}, nil, m.broken)
	if err != nil {
		m.t.Fatal(err)
	}
	d := &drawing{t: m.t, s: s, now: time.Unix(1, 0)}
	leader := uint8(s.cur.leader(1))
	for g := uint8(0); g < 4; g++ {
		if g != leader {
			d.opener(fmt.Sprintf("r1.%d", g), g, []string{"g"})
		}
	}
	for l := range sh.leaders {
		if proposals>>l&1 == 1 {
			d.opener(fmt.Sprintf("L%d", l), leader, []string{"g"})
		}
	}
	names := make([]string, len(sh.second))
	for i, seat := range sh.second {
		if take>>i&1 == 0 {
			continue
		}
		names[i] = fmt.Sprintf("r2.%d", i)
		d.opener(names[i], seat.gateway, m.parents(sh, seat, leader))
	}
	return d, names
}

// parents returns what a seat of round 2 refers to: all openers of round 1 but
// the leader's, which make a quorum, and the proposals that it sees.
func (m *model) parents(sh shape, seat seat, leader uint8) (ps []string) {
	for g := uint8(0); g < 4; g++ {
		if g != leader {
			ps = append(ps, fmt.Sprintf("r1.%d", g))
		}
	}
	for l := range sh.leaders {
		if seat.sees>>l&1 == 1 {
			ps = append(ps, fmt.Sprintf("L%d", l))
		}
	}
	return ps
}

// opener adds a vote that opens a round over the parents; a parent of the same
// gateway is its self parent.
func (d *drawing) opener(name string, g uint8, parents []string) {
	d.t.Helper()
	self := ""
	for _, p := range parents {
		if n := d.s.nodes[nameID(p)]; n != nil && n.claim.Gateway == g {
			self = p
			break
		}
	}
	d.enter(d.draft(name, g, self, parents...))
}

// enter is Add without deciding: the model asks for every decision itself.
func (d *drawing) enter(b Block) {
	d.t.Helper()
	parents, err := d.s.parents(b, nil)
	if err != nil {
		d.t.Fatal(err)
	}
	self, err := d.s.check(&b, parents)
	if err != nil {
		d.t.Fatal(err)
	}
	n := d.s.newNode(&b, parents)
	d.s.nodes[b.ID] = n
	d.s.enter(n, self, d.now, &Result{})
}

// sets returns the sets of seats that weigh a quorum with the own opener of
// gateway g among them (of the Byzantine one: any).
func sets(seats []seat, g uint8) (out []uint) {
	for set := uint(1); set < 1<<len(seats); set++ {
		var gs uint64
		own := g == evilGateway
		for i, s := range seats {
			if set>>i&1 == 1 {
				gs |= bit(s.gateway)
				own = own || s.gateway == g
			}
		}
		if own && onesCount(gs) >= 3 {
			out = append(out, set)
		}
	}
	return out
}

func onesCount(set uint64) (n int) {
	for ; set != 0; set &= set - 1 {
		n++
	}
	return n
}

// Outcomes are what replicas may decide of the slot, and how: 0 is skip, else 1
// plus the number of the proposal.
type outcomes map[int]string

// A third is an opener of round 3. Above it only what it knows of the supports
// of each proposal matters.
type third struct {
	gateway uint8
	node    *node
	by      [2]uint64
}

// decideAll visits what the shape of round 2 allows with any rounds 3 and 4
// above it, and returns how many those are.
func (m *model) decideAll(sh shape, visit func(outcomes)) (shapes int) {
	skips := m.directSkips(sh)
	d, names := m.build(sh, 1<<len(sh.second)-1, 1<<sh.leaders-1)
	var choices [4][][]third
	for g := range choices {
		choices[g] = picks(m.thirds(d, sh, names, uint8(g)), g == evilGateway)
	}
	for _, a := range choices[0] {
		for _, b := range choices[1] {
			for _, c := range choices[2] {
				for _, e := range choices[evilGateway] {
					shapes++
					visit(decideOne(d, slices.Concat(a, b, c, e), skips))
				}
			}
		}
	}
	return shapes
}

// thirds returns the openers of round 3 that gateway g may issue; of those that
// know the same one.
func (m *model) thirds(d *drawing, sh shape, names []string, g uint8) (out []third) {
	known := map[[2]uint64]bool{}
	for _, set := range sets(sh.second, g) {
		var ps []string
		for i := range sh.second {
			if set>>i&1 == 1 {
				ps = append(ps, names[i])
			}
		}
		name := fmt.Sprintf("r3.%d.%d", g, set)
		d.opener(name, g, ps)
		th := third{gateway: g, node: d.s.nodes[nameID(name)]}
		for i, p := range d.s.rounds[1].props {
			th.by[i] = supporters(th.node.sup, p)
		}
		if !known[th.by] {
			known[th.by] = true
			out = append(out, th)
		}
	}
	return out
}

// picks returns the ways to issue none or one of the openers; or two.
func picks(from []third, two bool) [][]third {
	out := [][]third{nil}
	for i, a := range from {
		out = append(out, []third{a})
		for _, b := range from[i+1:] {
			if two {
				out = append(out, []third{a, b})
			}
		}
	}
	return out
}

// decideOne returns what replicas may decide with these openers of round 3.
// Anchors alone may differ when nothing is decided directly: on one of them the
// slots above agree. Next to a direct decision they may not.
func decideOne(d *drawing, all []third, skips string) outcomes {
	o := outcomes{}
	if skips != "" {
		o[0] = skips
	}
	props := d.s.rounds[1].props
	for i := range props {
		var certs uint64
		for _, th := range all {
			if d.s.cur.isQuorum(th.by[i]) {
				certs |= bit(th.gateway)
			}
		}
		if d.s.cur.isQuorum(certs) {
			o[1+i] = "direct commit"
		}
	}
	if len(o) == 0 {
		return o
	}
	seats := make([]seat, len(all))
	for i, th := range all {
		seats[i].gateway = th.gateway
	}
	for _, set := range sets(seats, evilGateway) { // any quorum: an anchor's cone
		anchor := &node{}
		for i, th := range all {
			if set>>i&1 == 1 {
				anchor.sup = mergeSup(anchor.sup, th.node.sup, 1)
			}
		}
		what := 1 + slices.Index(props, d.s.indirect(1, anchor).proposal)
		if _, known := o[what]; !known {
			o[what] = "anchor"
		}
	}
	return o
}

// directSkips returns how a replica that has some of round 2 and some of the
// proposals can skip the slot, or "".
func (m *model) directSkips(sh shape) string {
	for take := uint(0); take < 1<<len(sh.second); take++ {
		var needs uint
		for i, s := range sh.second {
			if take>>i&1 == 1 {
				needs |= s.sees
			}
		}
		for have := uint(0); have < 1<<sh.leaders; have++ {
			if have&needs != needs {
				continue
			}
			d, _ := m.build(sh, take, have)
			if d.s.direct(1).outcome == Skip {
				return fmt.Sprintf("direct skip with openers %b, proposals %b", take, have)
			}
		}
	}
	return ""
}

// Whatever one replica decides of a slot, no other decides otherwise.
func TestReplicasDecideAlikeInEveryShape(t *testing.T) {
	notShort(t)
	bases, total, kinds, contradiction := decideEveryShape(t, noMutant, *exhaustiveFull)
	if contradiction != "" {
		t.Fatal(contradiction)
	}
	t.Logf("%d shapes of round 2, %d of rounds 2 and 3: %v", bases, total, kinds)
	for _, kind := range []string{"commit, direct", "skip, direct"} {
		if kinds[kind] == 0 {
			t.Errorf("no %s in any shape: %v", kind, kinds)
		}
	}
}

// The model would notice a broken rule.
func TestShapesCatchMutants(t *testing.T) {
	notShort(t)
	for name, broken := range map[string]mutant{"half quorum": halfQuorum, "support of two": supportTwo} {
		if _, _, _, contradiction := decideEveryShape(t, broken, false); contradiction == "" {
			t.Errorf("%s: no shape contradicts itself", name)
		}
	}
}

// decideEveryShape goes through all shapes, until one allows two outcomes.
func decideEveryShape(t *testing.T, broken mutant, full bool) (bases, total int, kinds map[string]int, contradiction string) {
	kinds = map[string]int{}
	for _, proposals := range []uint{2, 1} {
		leader := map[uint]int{1: 0, 2: evilGateway}[proposals]
		m := &model{t: t, file: modelNetwork(leader), broken: broken}
		values := uint(1) << proposals
		for h := range values * values * values {
			sees := []uint{h % values, h / values % values, h / values / values}
			if !full && proposals == 2 && (sees[0] > sees[1] || sees[1] > sees[2]) {
				continue // the names of honest gateways do not matter
			}
			if proposals == 1 && sees[0] == 0 {
				continue // an honest leader knows its own proposal
			}
			for e1 := range values {
				for e2 := e1; e2 < values; e2++ {
					sh := shape{leaders: int(proposals)}
					for g, s := range sees {
						sh.second = append(sh.second, seat{uint8(g), s})
					}
					sh.second = append(sh.second, seat{evilGateway, e1})
					if e2 != e1 {
						sh.second = append(sh.second, seat{evilGateway, e2})
					}
					bases++
					total += m.decideAll(sh, func(o outcomes) {
						if len(o) > 1 && contradiction == "" {
							contradiction = fmt.Sprintf("leader %d, round 2 %+v: replicas decide %v", leader, sh.second, o)
						}
						for what, how := range o {
							kinds[map[bool]string{true: "commit, ", false: "skip, "}[what > 0]+how[:6]]++
						}
					})
					if contradiction != "" {
						return bases, total, kinds, contradiction
					}
				}
			}
		}
	}
	return bases, total, kinds, ""
}
