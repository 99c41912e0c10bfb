package consensus

import (
	"cmp"
	"slices"

	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

const (
	// coneLimit is how many unordered votes of equivocators may lie in the cone
	// of one of them that nobody else refers to.
	coneLimit = 64
	// untoldLimit is how many openers of one equivocator and round are kept of
	// which this replica does not know what they say.
	untoldLimit = 3
	// refusedLimit is how many votes of equivocators that were forgotten are
	// remembered by their ids.
	refusedLimit = 4096
)

// excluded reports whether n is a vote of a gateway that equivocated: no direct
// parent of an honest gateway's blocks (§7). Votes of an epoch that has ended
// are plain blocks, except those that decided nothing.
func (s *State) excluded(n *node) bool {
	return n.outcast || n.vote && s.faulty&bit(n.claim.Gateway) != 0
}

// Useless reports whether a block is a vote that decides nothing any more and
// that nothing honest refers to directly: one of a known equivocator that lies
// below the slots that are open, was forgotten before, or brings more votes of
// equivocators with it than fit. It need not be taken unless another block refers to it (§7, spam).
// Other votes of an equivocator must be taken: other replicas may have decided
// by them and be silent since; [State.Evict] sorts them out. Ask when the
// parents were added, and again when the block is to be.
func (s *State) Useless(b Block) bool {
	v := &b.Vote
	if b.Kind != KindVote || v.Epoch != s.cur.number || s.faulty&bit(v.Gateway) == 0 {
		return false
	}
	return v.Round < s.pos.NextSlot || s.refused[b.ID] || s.doubted(b.Parents) > coneLimit
}

// doubted counts the unordered votes of equivocators that lie below a block
// with these parents and that nothing else but such votes leads to, up to one
// more than the limit.
func (s *State) doubted(parents []stardust.BlockID) int {
	seen := map[*node]bool{}
	var stack []*node
	take := func(p *node) {
		if p != nil && p.ms == 0 && s.excluded(p) && !seen[p] {
			seen[p] = true
			stack = append(stack, p)
		}
	}
	for _, id := range parents {
		take(s.nodes[id])
	}
	for len(stack) > 0 && len(seen) <= coneLimit {
		n := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		for _, p := range n.up {
			take(p)
		}
	}
	return len(seen)
}

// Evict forgets blocks that nothing known refers to and that no honest gateway
// will: votes of equivocators, down to those that tell something of a slot that
// was decided last or is open, and blocks whose cone reaches back too far for
// the honest depth rule. It returns their ids. What wanted reports, because a
// block refers to it that is to be added yet, stays; nil stands for nothing.
//
// If a block turns up later that refers to one of them, add that one again
// first. The body need not be kept for it: whoever holds the child has it. Keep
// those of an [Equivocation] as its proof.
//
// Call it after Add, but not between [State.Check] of a block and its Add.
func (s *State) Evict(wanted func(stardust.BlockID) bool) (gone []stardust.BlockID) {
	s.findDeep()
	usable := false
	for i := len(s.suspects) - 1; i >= 0; i-- { // children before their parents
		n := s.suspects[i]
		switch deep := !s.excluded(n); {
		case n.ms != 0:
		case n.refs > 0 || !deep && s.tells(n) || deep && s.isHead(n) || wanted != nil && wanted(n.id):
			continue
		case deep && s.usable(n):
			usable = true // what reached back too far was ordered meanwhile
		default:
			if !deep {
				s.refuse(n.id)
			}
			s.evict(n)
			gone = append(gone, n.id)
		}
		s.suspects[i] = nil
	}
	s.suspects = slices.DeleteFunc(s.suspects, func(n *node) bool { return n == nil })
	if usable {
		s.retip()
	}
	return gone
}

// refuse remembers a vote that told nothing: it never will, as long as this
// State lives.
func (s *State) refuse(id stardust.BlockID) {
	if len(s.refused) >= refusedLimit {
		clear(s.refused)
	}
	s.refused[id] = true
}

// tells reports whether an excluded vote that nothing refers to says something
// that the other votes held of its gateway and round do not.
//
// What such a vote adds to what is held is its ballot on the slot before its
// round, if it opens one, and the proposal that it certifies. A gateway with two
// different ballots counts against every proposal, so that a third one adds
// nothing; and at most one proposal of a slot can be certified at all (§12,
// step 2). As a proposal it adds nothing either: no quorum supports what
// nothing refers to.
func (s *State) tells(n *node) bool {
	if s.broken == evictOpen || !n.vote || !n.opener || n.claim.Round+1 < s.committed {
		return false
	}
	held, certified, same := 0, false, false
	ballots := map[*node]bool{}
	for _, o := range s.suspects {
		if o == nil || o == n || !o.vote || !o.opener || o.ms != 0 || o.claim.Gateway != n.claim.Gateway || o.claim.Round != n.claim.Round {
			continue
		}
		held++
		if o.told {
			ballots[o.ballot] = true
			same = same || o.ballot == n.ballot
			certified = certified || o.certifies
		}
	}
	if !n.told {
		return held < untoldLimit
	}
	return n.certifies && !certified || !same && len(ballots) < 2
}

// isHead reports whether n is the last vote of its gateway, which the gateway
// may have to be shown after a start (§7).
func (s *State) isHead(n *node) bool {
	return n.vote && s.heads[n.claim.Gateway] == n
}

// findDeep looks, now and then, for blocks that have come to reach back too far.
func (s *State) findDeep() {
	depth := s.cur.file.IDHorizon / 2
	if s.pos.Index < s.deepAt+depth/8+1 {
		return
	}
	s.deepAt = s.pos.Index
	for _, n := range s.nodes {
		if n.ms == 0 && !n.suspect && !s.usable(n) {
			s.retip()
			return
		}
	}
}

// evict forgets an unordered block that nothing refers to.
func (s *State) evict(n *node) {
	delete(s.nodes, n.id)
	s.count(n, -1)
	if n.isTip {
		n.isTip = false
		s.stale++
	}
	for _, p := range n.up {
		p.refs--
		if p.child == n {
			p.child = nil
		}
	}
	if n.vote {
		s.unvote(n)
	}
	n.up, n.sup, n.suspect = nil, nil, false
}

// unvote takes back what a vote told of rounds and slots.
func (s *State) unvote(n *node) {
	g := n.claim.Gateway
	is := func(o *node) bool { return o == n }
	if s.heads[g] == n {
		s.heads[g] = nil
	}
	if r := s.rounds[n.claim.Round]; r != nil && n.opener {
		r.openers, r.props = slices.DeleteFunc(r.openers, is), slices.DeleteFunc(r.props, is)
		if !slices.ContainsFunc(r.openers, func(o *node) bool { return o.claim.Gateway == g }) {
			r.opened &^= bit(g)
		}
	}
	if r := s.rounds[n.claim.Round-1]; r != nil {
		r.ballots = slices.DeleteFunc(r.ballots, func(b ballot) bool { return b.voter == n })
	}
}

// suspectNow notes that n may have to be forgotten.
func (s *State) suspectNow(n *node) {
	if !n.suspect && n.ms == 0 {
		n.suspect = true
		s.suspects = append(s.suspects, n)
	}
}

// byArrival orders nodes by when they were added.
func byArrival(a, b *node) int { return cmp.Compare(a.at, b.at) }

// Outcasts returns the openers of equivocators in the slots that are open or
// were decided last. Nobody refers to them, yet this replica may have decided
// by them: they are sent to peers with tips and heads (§9), as many as fit,
// beginning with another one each time.
func (s *State) Outcasts() []stardust.BlockID {
	var ids []stardust.BlockID
	for _, n := range s.suspects {
		if n.ms == 0 && n.vote && n.opener && s.excluded(n) && n.claim.Round+1 >= s.committed {
			ids = append(ids, n.id)
		}
	}
	return ids
}
