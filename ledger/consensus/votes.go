package consensus

import (
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// enter takes a vote of the epoch in force into account (§4 onSolid).
func (s *State) enter(n *node, self *parent, now time.Time, res *Result) {
	c := &n.claim
	n.opener = self == nil || self.claim.Round < c.Round
	for _, p := range n.up {
		if p.vote {
			n.sup = mergeSup(n.sup, p.sup, s.pos.NextSlot)
		}
	}
	if self != nil && self.node != nil {
		s.chain(self.node, n, res)
	}
	s.watch(n, now, res)
	if n.opener {
		n.told = s.pos.NextSlot == 1 || c.Round >= s.pos.NextSlot+2
		s.ballot(n)
	}
	if n.opener || s.broken == anyCertifies {
		s.certify(n)
	}
	if s.excluded(n) {
		s.suspectNow(n)
	}
	if n.opener && s.cur.leader(c.Round) == int(c.Gateway) && c.Round >= s.pos.NextSlot {
		r := s.round(c.Round)
		r.props = append(r.props, n)
		n.sup = append(n.sup, support{slot: c.Round, proposal: n})
	}
	s.backApprove(n, bit(c.Gateway), res)
}

// ballot records what the opener n votes on the slot before its round (§3).
func (s *State) ballot(n *node) {
	slot := n.claim.Round - 1
	if slot < s.pos.NextSlot {
		return
	}
	only, _ := onlyProposal(n.sup, slot)
	for i := range n.sup {
		if e := &n.sup[i]; e.proposal == only || s.broken == supportTwo && e.slot == slot {
			e.by |= bit(n.claim.Gateway)
		}
	}
	r := s.round(slot)
	r.ballots = append(r.ballots, ballot{n.claim.Gateway, only, n})
	n.ballot = only
}

// certify records which proposals the opener n certifies (§3).
func (s *State) certify(n *node) {
	for _, e := range n.sup {
		of := e.slot+2 == n.claim.Round || s.broken == anyCertifies && e.slot+2 <= n.claim.Round
		if of && s.cur.isQuorum(e.by) {
			e.proposal.certs |= bit(n.claim.Gateway)
			n.certifies = true
		}
	}
}

// watch keeps heads and the first openers, and finds equivocation (§7).
func (s *State) watch(n *node, now time.Time, res *Result) {
	c := &n.claim
	s.maxRound = max(s.maxRound, c.Round)
	s.heard[c.Gateway] = now
	if h := s.heads[c.Gateway]; h == nil || c.Round > h.claim.Round ||
		c.Round == h.claim.Round && h.claim.Seen&^c.Seen == 0 {
		s.heads[c.Gateway] = n
	}
	if c.Round+keepRounds < s.pos.NextSlot {
		return
	}
	r := s.round(c.Round)
	if r.first.IsZero() {
		r.first = now
	}
	if !n.opener {
		return
	}
	if r.opened&bit(c.Gateway) == 0 {
		r.opened |= bit(c.Gateway)
		r.openers = append(r.openers, n)
		return
	}
	for _, o := range r.openers {
		if o.claim.Gateway == c.Gateway {
			s.prove(o, n, res)
		}
	}
}

// chain notes that n follows self, and finds a fork of a gateway's own votes.
func (s *State) chain(self, n *node, res *Result) {
	if self.child == nil {
		self.child = n
		return
	}
	s.prove(self.child, n, res)
}

// prove records the first two votes of a gateway that exclude each other.
func (s *State) prove(first, second *node, res *Result) {
	g := second.claim.Gateway
	key := s.cur.file.Gateways[g].PublicKey
	if s.faulty&bit(g) != 0 {
		return // one proof is enough
	}
	s.faulty |= bit(g)
	s.equivocators[key] = true
	s.retip()
	res.Equivocations = append(res.Equivocations, Equivocation{
		Key: key, Epoch: s.cur.number, Round: second.claim.Round, First: first.id, Second: second.id,
	})
}

// round returns the record of a round, new if need be.
func (s *State) round(r uint32) *round {
	if s.rounds[r] == nil {
		s.rounds[r] = &round{}
	}
	return s.rounds[r]
}

// backApprove marks everything below the vote n that is not ordered as
// approved by a gateway (§4). Walks stop where the mark is, so that each pair
// of block and gateway is visited once.
func (s *State) backApprove(n *node, g uint64, res *Result) {
	stack := []*node{n}
	for len(stack) > 0 {
		b := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if b.ms != 0 || b.appr&g != 0 {
			continue
		}
		b.appr |= g
		if !b.approved && s.cur.isQuorum(b.appr) {
			b.approved = true
			res.Approved = append(res.Approved, b.id)
		}
		stack = append(stack, b.up...)
	}
}

// Approval returns the gateways of the epoch with a vote above an unordered
// block, and whether it was ever approved by a quorum.
func (s *State) Approval(id stardust.BlockID) (gateways uint64, approved bool) {
	if n := s.nodes[id]; n != nil {
		return n.appr, n.approved
	}
	return 0, false
}
