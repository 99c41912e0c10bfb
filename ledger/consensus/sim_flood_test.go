package consensus

import (
	"slices"

	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// floodTry sends many votes of rounds open and past: openers upon anything and
// upon each other, forks of one vote, and chains.
func (n *simNode) floodTry(g uint8) {
	s, st := n.sim, n.state
	if s.now < n.flooded+150 {
		return
	}
	n.flooded = s.now
	epoch := st.pos.Epoch
	var mine []*node
	for _, v := range st.suspects {
		if v.vote && v.claim.Gateway == g {
			mine = append(mine, v)
		}
	}
	for range 4 + s.rng.IntN(12) {
		if st.pos.Epoch != epoch {
			return
		}
		c := n.floodChoice(g, mine)
		if c == nil || len(c.claims) == 0 {
			continue
		}
		d := n.issuer.draft(g, c)
		if d.Vote.Merges > MaxMerges {
			continue
		}
		b := n.sign(d, uint64(s.rng.Int64N(1<<40)))
		s.check.count.flooded++
		n.receive(b)
		if v := st.nodes[b.ID]; v != nil {
			mine = append(mine, v)
		}
		some, _ := n.halves()
		for _, to := range some {
			s.send(n, to, func() { to.gossip(b) })
		}
	}
}

func (n *simNode) floodChoice(g uint8, mine []*node) *choice {
	s, st := n.sim, n.state
	head := st.heads[g]
	last := mine[max(0, len(mine)-8):]
	c := &choice{}
	switch p := s.rng.Float64(); {
	case p < 0.3:
		return n.anyChoice(g, head, s.odds(0.5))
	case p < 0.5 && len(mine) > 0: // one more upon a vote of its own
		c.self = mine[s.rng.IntN(len(mine))]
		c.add(c.self, st.pos.NextSlot)
	case p < 0.8 && len(last) > 0: // a chain or a comb
		for _, v := range last[s.rng.IntN(len(last)):] {
			c.add(v, st.pos.NextSlot)
		}
	default: // of a round that is decided
		r := st.rounds[max(1, st.maxRound-min(st.maxRound, uint32(s.rng.IntN(30))))]
		if r == nil || len(r.openers) == 0 {
			return nil
		}
		for _, v := range r.openers[:1+s.rng.IntN(len(r.openers))] {
			c.add(v, st.pos.NextSlot)
		}
	}
	if len(c.parents) > stardust.MaxParents {
		return nil
	}
	c.round, c.seen = st.cur.next(g, c.claims)
	return c
}

// offers returns the votes of equivocators that peers are told of.
func (n *simNode) offers() []stardust.BlockID {
	ids := n.state.Outcasts()
	if n.evil && len(ids) > 30 {
		n.sim.rng.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
		ids = ids[:30]
	}
	return ids
}

// evict has the State forget what it does not need and what nothing received
// refers to, and drops the bodies.
func (n *simNode) evict() {
	if n.evil || !n.up { // its own votes are what it votes upon
		return
	}
	gone := n.state.Evict(func(id stardust.BlockID) bool { return n.wanted[id] > 0 })
	if len(gone) == 0 {
		return
	}
	for _, id := range gone {
		n.sim.check.evicted(n, id)
		delete(n.disk.bodies, id)
	}
	n.disk.log = slices.DeleteFunc(n.disk.log, func(id stardust.BlockID) bool { return slices.Contains(gone, id) })
	n.sim.check.bounded(n)
}

// evicted notes that a node forgot a block.
func (c *checker) evicted(n *simNode, id stardust.BlockID) {
	if b := c.sim.blocks[id]; b.Kind == KindVote && n.state.equivocators[c.file(n, b.Vote.Epoch).Gateways[b.Vote.Gateway].PublicKey] {
		c.count.evicted++
	} else {
		c.count.deep++
	}
}

// bounded holds what a node keeps of equivocators against the bound: of each
// and each round that matters six openers that nothing refers to, each with a
// cone of its own.
func (c *checker) bounded(n *simNode) {
	type place struct {
		gateway uint8
		round   uint32
	}
	free := map[place]int{}
	held := 0
	for _, v := range n.state.suspects {
		if !n.state.excluded(v) {
			continue
		}
		held++
		if v.refs > 0 || n.wanted[v.id] > 0 {
			continue
		}
		at := place{v.claim.Gateway, v.claim.Round}
		if free[at]++; !v.opener || v.outcast || at.round+1 < n.state.committed || free[at] > 3+untoldLimit {
			c.fail("node %d keeps vote %v of equivocator %d, round %d, number %d", n.index, v.id, at.gateway, at.round, free[at])
		}
	}
	c.count.doubtful = max(c.count.doubtful, held)
}
