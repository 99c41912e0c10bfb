package consensus

import (
	"math"
	"slices"

	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// extend makes n a tip in the place of its parents (§4). What no honest gateway
// may refer to is no tip and takes no parent's place: nobody could refer to what
// only it covers.
func (s *State) extend(n *node) {
	if !s.usable(n) {
		s.suspectNow(n)
		return
	}
	for _, p := range n.up {
		if p.isTip {
			p.isTip = false
			s.stale++
		}
	}
	if s.stale > 16 && 2*s.stale > len(s.tips) {
		s.tips = slices.DeleteFunc(s.tips, func(t *node) bool { return !t.isTip })
		s.stale = 0
	}
	if n.ms == 0 {
		n.isTip = true
		s.tips = append(s.tips, n)
	}
}

// retip finds the tips anew after blocks became ones that no honest gateway may
// refer to.
func (s *State) retip() {
	covered := map[*node]bool{}
	s.tips, s.stale, s.suspects = nil, 0, nil
	for _, n := range s.nodes {
		n.isTip, n.suspect = false, false
		if !s.usable(n) {
			s.suspectNow(n)
			continue
		}
		for _, p := range n.up {
			covered[p] = true
		}
	}
	for _, n := range s.nodes {
		n.isTip = n.ms == 0 && !covered[n] && !n.suspect
		if n.isTip {
			s.tips = append(s.tips, n)
		}
	}
	slices.SortFunc(s.tips, byArrival)
	slices.SortFunc(s.suspects, byArrival)
}

// usableTips returns the tips that an honest gateway may choose.
func (s *State) usableTips(g uint8) (out []*node) {
	for _, t := range s.tips {
		if t.isTip && s.usable(t) && !(t.vote && t.claim.Gateway == g) {
			out = append(out, t)
		}
	}
	return out
}

// Tips returns the tips of the DAG that an honest gateway may refer to, oldest
// first; never none.
func (s *State) Tips() []stardust.BlockID { return s.tipsThat(s.usable) }

// Shallow returns those of the tips that are for blocks which are no votes; never
// none. They reach back half as far at most as an honest gateway may refer to: a
// block takes a while to be made, and milestones come meanwhile. Votes take care
// of the others.
func (s *State) Shallow() []stardust.BlockID {
	return s.tipsThat(func(t *node) bool { return s.within(t, s.cur.file.IDHorizon/4) })
}

func (s *State) tipsThat(ok func(*node) bool) (ids []stardust.BlockID) {
	for _, t := range s.tips {
		if t.isTip && ok(t) {
			ids = append(ids, t.id)
		}
	}
	if len(ids) == 0 {
		ids = append(ids, s.pos.Root) // without a milestone the genesis
	}
	return ids
}

// Parents returns those parents of an unordered block that are not ordered
// either.
func (s *State) Parents(id stardust.BlockID) (ids []stardust.BlockID) {
	if n := s.nodes[id]; n != nil {
		for _, p := range n.up {
			ids = append(ids, p.id)
		}
	}
	return ids
}

// usable reports whether an honest gateway may have n as a direct parent: not
// a vote of one that equivocated (§7), nor a block whose unordered cone reaches
// too far back (§8, honest depth rule), as far as no honest gateway has voted
// for it. While nobody can go on, votes may reach as far as they like.
func (s *State) usable(n *node) bool {
	return s.lenient && n.vote && s.broken != strictDepth && !s.excluded(n) || s.within(n, s.cur.file.IDHorizon/2)
}

// within reports whether n is no vote of one that equivocated, and reaches back
// so many milestones at most.
func (s *State) within(n *node, depth uint32) bool {
	if s.excluded(n) {
		return false
	}
	if s.pos.Index < depth || n.id == s.pos.Root || s.broken == anyDepth {
		return true
	}
	least := s.pos.Index - depth
	return n.reach >= least || s.oldest(n) >= least // reach may be outdated, but is never above
}

// oldest returns the oldest milestone that the unordered cone of n refers to,
// leaving out what gateways of more than weight B have in their votes' cones:
// one of them is honest and has judged it. If that did not count, a block at the
// very limit, voted for by all, would make everybody's last vote unusable with
// the next milestone, and nobody could go on.
func (s *State) oldest(n *node) uint32 {
	if n.ms != 0 {
		return n.ms
	}
	least := uint32(math.MaxUint32)
	seen := map[*node]bool{n: true}
	stack := []*node{n}
	for len(stack) > 0 {
		b := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if s.cur.weight(b.appr) > s.cur.byzantine && s.broken != strictDepth {
			continue // and so has all below it
		}
		least = min(least, b.base)
		for _, p := range b.up {
			if p.ms != 0 {
				least = min(least, p.ms)
			} else if !seen[p] {
				seen[p] = true
				stack = append(stack, p)
			}
		}
	}
	return least
}
