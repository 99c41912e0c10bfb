package consensus

import "github.com/hedgerow-iot/hedgerow/ledger/stardust"

const (
	simHorizon  = 40  // milestones: so few that schedules come to it
	simInterval = 100 // ms: the round interval
	simRate     = 8   // votes of a gateway that are taken off the gossip in one
)

// gossip takes what was published: of every gateway so many votes in an
// interval, unless something waits for one.
func (n *simNode) gossip(b *simBlock) {
	if at := n.sim.now / simInterval; at != n.tick || n.taken == nil {
		n.tick, n.taken = at, map[uint8]int{}
	}
	if b.Kind == KindVote && n.waiting[b.ID] == nil {
		if n.taken[b.Vote.Gateway]++; n.taken[b.Vote.Gateway] > simRate {
			n.sim.check.count.limited++
			return
		}
	}
	n.receive(b)
}

// oldBlock returns a block that was ordered some time ago, now and then.
func (n *simNode) oldBlock() (id stardust.BlockID, ok bool) {
	if !n.sim.plan.deep || n.sim.odds(0.3) {
		return id, false
	}
	back := 5 + n.sim.rng.IntN(simHorizon+10)
	if len(n.disk.chain) <= back {
		return id, false
	}
	return n.disk.chain[len(n.disk.chain)-back].Parents[0], true
}

// tooOld reports whether a parent of b was ordered before the horizon: b can
// never be solid here.
func (n *simNode) tooOld(b *simBlock) bool {
	for _, p := range b.Parents {
		_, kept, _ := n.disk.Ordered(p)
		if _, ordered := n.disk.ordered[p]; ordered && !kept {
			return true
		}
	}
	return false
}

// dropTooOld drops the bodies of what can be solid no more: it was, but nothing
// has ordered it, and what it refers to is forgotten.
func (n *simNode) dropTooOld() {
	d := n.disk
	if d.horizon == 0 {
		return
	}
	kept := d.log[:0]
	for _, id := range d.log {
		b := n.sim.blocks[id]
		_, ordered := d.ordered[id]
		if _, missing := n.missing(b); !ordered && (missing || n.tooOld(b)) {
			delete(d.bodies, id)
			continue
		}
		kept = append(kept, id)
	}
	d.log = kept
}

// depth holds that what a milestone orders refers to nothing that a replica may
// have forgotten before it.
func (c *checker) depth(m *Milestone) {
	for _, e := range m.Blocks {
		c.orderedAt[e.ID] = m.Index
	}
	if !c.sim.plan.deep {
		return
	}
	for _, e := range m.Blocks {
		for _, p := range c.sim.blocks[e.ID].Parents {
			if at := c.orderedAt[p]; at > 0 && at+simHorizon < m.Index {
				c.fail("§8: block %v of milestone %d refers to one of milestone %d", e.ID, m.Index, at)
			}
		}
	}
}

// A span is what the clocks of honest gateways said, in ms.
type span struct{ least, most uint64 }

// clock notes what an honest opener says of the time.
func (c *checker) clock(b *simBlock) {
	t := b.Vote.TimeMs
	if t == 0 {
		return
	}
	key := slotKey{b.Vote.Epoch, b.Vote.Round}
	at, ok := c.clocks[key]
	if !ok {
		at = span{t, t}
	}
	c.clocks[key] = span{min(at.least, t), max(at.most, t)}
}

// time holds that the time of milestones never decreases, and lies between what
// honest clocks said where so many of them know the time that they decide.
func (c *checker) time(n *simNode, m *Milestone) {
	before := c.times[len(c.times)-1]
	c.times = append(c.times, m.Timestamp)
	if m.Timestamp < before {
		c.fail("§5: milestone %d is of second %d, the one before of %d", m.Index, m.Timestamp, before)
	}
	file := c.file(n, m.Epoch)
	quorum, evil := file.Quorum(), uint64(0)
	for _, o := range c.sim.nodes {
		g, ok := file.Index(o.public[:])
		switch {
		case !ok || o.second:
		case o.evil:
			evil += uint64(file.Gateways[g].Weight)
		case o.clock() == 0:
			quorum -= min(quorum, uint64(file.Gateways[g].Weight))
		}
	}
	said, ok := c.clocks[slotKey{m.Epoch, m.Slot - 1}]
	if !ok || m.Timestamp == before || quorum <= 2*evil {
		return
	}
	c.count.times++
	if t := uint64(m.Timestamp); t < said.least/1000 || t > said.most/1000 {
		c.fail("§5: milestone %d is of second %d, honest clocks said %d to %d ms", m.Index, t, said.least, said.most)
	}
}
