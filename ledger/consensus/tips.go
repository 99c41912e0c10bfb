package consensus

import (
	"bytes"
	"slices"

	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// excluded reports whether n is a vote of a gateway that equivocated: no direct
// parent of an honest gateway's blocks (§7). Votes of an epoch that has ended
// are plain blocks, except those that decided nothing.
func (s *State) excluded(n *node) bool {
	return n.outcast || n.vote && s.faulty&bit(n.claim.Gateway) != 0
}

// Useless reports whether a block is a vote that decides nothing any more and
// that nothing honest refers to directly: one of a known equivocator, below the
// slots that are open. It need not be taken, or kept, unless another block
// refers to it (§7, spam). Younger votes of an equivocator must be taken: other
// replicas may have decided by them and be silent since.
func (s *State) Useless(b Block) bool {
	v := &b.Vote
	return b.Kind == KindVote && v.Epoch == s.cur.number && s.faulty&bit(v.Gateway) != 0 && v.Round < s.pos.NextSlot
}

// extend makes n a tip in the place of its parents (§4). An excluded vote is no
// tip and takes no parent's place: nobody could refer to what only it covers.
func (s *State) extend(n *node) {
	if s.excluded(n) {
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

// retip finds the tips anew after another gateway was excluded.
func (s *State) retip() {
	covered := map[*node]bool{}
	for _, n := range s.nodes {
		if !s.excluded(n) {
			for _, p := range n.up {
				covered[p] = true
			}
		}
	}
	s.tips, s.stale, s.outcasts = nil, 0, nil
	for _, n := range s.nodes {
		n.isTip = n.ms == 0 && !covered[n] && !s.excluded(n)
		if n.isTip {
			s.tips = append(s.tips, n)
		}
		if n.ms == 0 && n.opener && n.vote && s.excluded(n) {
			s.outcasts = append(s.outcasts, n)
		}
	}
	byID := func(a, b *node) int { return bytes.Compare(a.id[:], b.id[:]) }
	slices.SortFunc(s.tips, byID)
	slices.SortFunc(s.outcasts, byID)
}

// Outcasts returns the openers of equivocators in the slots that are open or
// were decided last. Nobody refers to them, yet this replica may have decided
// by them: they are sent to peers with tips and heads (§9), as many as fit,
// beginning with another one each time.
func (s *State) Outcasts() []stardust.BlockID {
	var ids []stardust.BlockID
	for _, n := range s.outcasts {
		if n.ms == 0 {
			ids = append(ids, n.id)
		}
	}
	return ids
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
func (s *State) Tips() []stardust.BlockID {
	var ids []stardust.BlockID
	for _, t := range s.tips {
		if t.isTip && s.usable(t) {
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
// too far back (§8, honest depth rule).
func (s *State) usable(n *node) bool {
	if s.excluded(n) {
		return false
	}
	depth := s.cur.file.IDHorizon / 2
	if s.pos.Index < depth || n.id == s.pos.Root {
		return true
	}
	least := s.pos.Index - depth
	return n.reach >= least || s.oldest(n) >= least // reach may be outdated, but is never above
}

// oldest returns the oldest milestone that the unordered cone of n refers to.
func (s *State) oldest(n *node) uint32 {
	if n.ms != 0 {
		return n.ms
	}
	least := n.base
	seen := map[*node]bool{n: true}
	stack := []*node{n}
	for len(stack) > 0 {
		b := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
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
