package consensus

import (
	"fmt"
	"strings"

	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// counts says what a run went through.
type counts struct {
	runs, votes, milestones, direct, indirect, skips       int
	recoveries, restores, disksLost, snapshots, epochs     int
	equivocations, unpublished, invalid, merges, conflicts int
	outside                                                int // runs that ended outside the liveness condition
	flooded, evicted, deep, limited, several               int
	certified, forged, times                               int
	doubtful                                               int // most votes of equivocators that one replica kept unordered
}

func (c *counts) add(o counts) {
	c.runs += o.runs
	c.votes += o.votes
	c.milestones += o.milestones
	c.direct += o.direct
	c.indirect += o.indirect
	c.skips += o.skips
	c.recoveries += o.recoveries
	c.restores += o.restores
	c.disksLost += o.disksLost
	c.snapshots += o.snapshots
	c.epochs += o.epochs
	c.equivocations += o.equivocations
	c.unpublished += o.unpublished
	c.invalid += o.invalid
	c.merges += o.merges
	c.conflicts += o.conflicts
	c.outside += o.outside
	c.flooded += o.flooded
	c.evicted += o.evicted
	c.deep += o.deep
	c.limited += o.limited
	c.several += o.several
	c.certified += o.certified
	c.forged += o.forged
	c.times += o.times
	c.doubtful = max(c.doubtful, o.doubtful)
}

type opening struct {
	key          network.PublicKey
	epoch, round uint32
}

type slotKey struct{ epoch, slot uint32 }

// A verdictOf is what must be equal on all replicas of a block (INV-3).
type verdictOf struct {
	valid    bool
	entered  bool // opener and proposal are known
	opener   bool
	voted    bool // proposal is known: its slot was open
	proposal stardust.BlockID
}

// A checker holds the invariants of §11 against everything that happens.
type checker struct {
	sim        *sim
	err        error
	count      counts
	milestones [][32]byte // INV-1, by index
	derived    []map[int]bool
	outcomes   map[slotKey]Decision
	verdicts   map[stardust.BlockID]*verdictOf
	openings   map[opening]stardust.BlockID // INV-4
	supported  map[slotKey]stardust.BlockID // INV-6
	holders    map[stardust.BlockID]map[int]bool
	last       map[*simNode]Position       // INV-5
	spent      map[uint64]stardust.BlockID // INV-2
	orderedAt  map[stardust.BlockID]uint32
	times      []uint32 // of the milestones
	clocks     map[slotKey]span
	signed     map[signing][32]byte
	complete   map[uint32][32]byte // what certificates are of
	onAttach   func(*simBlock)
	onOrder    func(*simNode, stardust.BlockID)
}

func newChecker(s *sim) *checker {
	return &checker{
		sim: s, milestones: make([][32]byte, 1), derived: make([]map[int]bool, 1),
		outcomes: map[slotKey]Decision{}, verdicts: map[stardust.BlockID]*verdictOf{},
		openings: map[opening]stardust.BlockID{}, supported: map[slotKey]stardust.BlockID{},
		holders: map[stardust.BlockID]map[int]bool{}, last: map[*simNode]Position{},
		orderedAt: map[stardust.BlockID]uint32{}, times: []uint32{0}, clocks: map[slotKey]span{},
		signed: map[signing][32]byte{}, complete: map[uint32][32]byte{},
		spent: map[uint64]stardust.BlockID{}, count: counts{runs: 1}, onAttach: func(*simBlock) {}, onOrder: func(*simNode, stardust.BlockID) {},
	}
}

func (c *checker) fail(format string, args ...any) {
	if !strings.HasPrefix(format, c.sim.plan.only) {
		return
	}
	if c.err == nil && !(c.sim.plan.agreement && strings.HasPrefix(format, "INV-") && !strings.HasPrefix(format, "INV-1")) {
		c.err = fmt.Errorf("at %d ms: "+format, append([]any{c.sim.now}, args...)...)
	}
}

// validity holds INV-3 and INV-9 for the answer of a replica.
func (c *checker) validity(n *simNode, b *simBlock, err error) {
	v := c.verdicts[b.ID]
	if v == nil {
		v = &verdictOf{valid: err == nil}
		c.verdicts[b.ID] = v
		if b.Kind == KindVote {
			if want := c.claimHolds(n, b); want != v.valid {
				c.fail("INV-9: node %d says %v of vote %v %+v", n.index, err, b.ID, b.Vote.Claim)
			}
			c.count.votes++
			if err != nil {
				c.count.invalid++
			}
			if b.Vote.Merges > 0 {
				c.count.merges++
			}
		}
	}
	if v.valid != (err == nil) {
		c.fail("INV-3: node %d says %v of block %v, another the contrary", n.index, err, b.ID)
	}
}

// claimHolds is section 2 once more, written from the text.
func (c *checker) claimHolds(n *simNode, b *simBlock) bool {
	v := b.Vote
	file := c.file(n, v.Epoch)
	var top uint32
	for _, p := range b.Parents {
		if q := c.sim.blocks[p]; q != nil && q.Kind == KindVote && q.Vote.Epoch == v.Epoch {
			top = max(top, q.Vote.Round)
		}
	}
	var seen uint64
	for _, p := range b.Parents {
		if q := c.sim.blocks[p]; q != nil && q.Kind == KindVote && q.Vote.Epoch == v.Epoch && q.Vote.Round == top {
			seen |= q.Vote.Seen
		}
	}
	var w uint64
	for g, m := range file.Gateways {
		if seen>>g&1 == 1 {
			w += uint64(m.Weight)
		}
	}
	round, want := top, seen|1<<v.Gateway
	if top == 0 || w >= file.Quorum() {
		round, want = top+1, 1<<v.Gateway
	}
	var m uint8
	if v.HasSelf {
		self := c.sim.blocks[b.Parents[v.SelfIndex]]
		if self == nil || self.Kind != KindVote || self.Vote.Gateway != v.Gateway || self.Vote.Epoch != v.Epoch {
			return false
		}
		if self.Vote.Round == round {
			m = self.Vote.Merges
			if self.Vote.Seen == want {
				m++
			}
		}
	}
	return v.Round == round && v.Seen == want && v.Merges == m && m <= 8
}

func (c *checker) file(n *simNode, epoch uint32) *network.File { return n.disk.files[epoch] }

// stored notes who has a block on disk.
func (c *checker) stored(n *simNode, b *simBlock) {
	if n.evil {
		return
	}
	if c.holders[b.ID] == nil {
		c.holders[b.ID] = map[int]bool{}
	}
	c.holders[b.ID][n.index] = true
}

// added holds INV-3, 6 and 7 after every block.
func (c *checker) added(n *simNode, b *simBlock, res *Result) {
	c.decided(n, res)
	for _, e := range res.Equivocations {
		c.count.equivocations++
		for _, o := range c.sim.nodes {
			if o.public == e.Key && !o.evil && !c.sim.plan.noRule {
				c.fail("node %d finds that honest node %d equivocated: %+v", n.index, o.index, e)
			}
		}
	}
	if n.evil {
		return
	}
	for _, id := range res.Approved {
		e := n.state.cur
		if res.NewEpoch { // approved just before
			e = n.state.epochs.all[e.number-1]
		}
		c.approved(n, e, id)
	}
	v := n.state.nodes[b.ID]
	if v == nil || !v.vote || v.ms != 0 {
		return
	}
	c.sameVote(n, v)
	e := n.state.cur
	for _, s := range v.sup {
		if !e.isQuorum(s.by) || s.slot < n.state.pos.NextSlot {
			continue
		}
		key := slotKey{e.number, s.slot}
		if other, ok := c.supported[key]; ok && other != s.proposal.id {
			c.fail("INV-6: %v and %v of slot %v both have a quorum", other, s.proposal.id, key)
		}
		c.supported[key] = s.proposal.id
	}
}

func (c *checker) sameVote(n *simNode, v *node) {
	want := c.verdicts[v.id]
	if !want.entered {
		want.entered, want.opener = true, v.opener
	}
	if want.opener != v.opener {
		c.fail("INV-3: node %d says opener %v of vote %v, another the contrary", n.index, v.opener, v.id)
	}
	slot := v.claim.Round - 1
	if !v.opener || slot < n.state.pos.NextSlot {
		return
	}
	var proposal stardust.BlockID
	for _, s := range v.sup {
		if s.slot == slot && s.by&bit(v.claim.Gateway) != 0 && len(v.up) > 0 {
			if only, _ := onlyProposal(v.sup, slot); only == s.proposal || n.state.broken == supportTwo {
				proposal = s.proposal.id
			}
		}
	}
	if !want.voted {
		want.voted, want.proposal = true, proposal
	}
	if want.proposal != proposal {
		c.fail("INV-3: node %d: vote %v is for %v, elsewhere for %v", n.index, v.id, proposal, want.proposal)
	}
}

// snapshot notes that a node takes over a ledger: it holds what is ordered.
func (c *checker) snapshot(n *simNode) {
	c.last[n] = n.disk.pos
	for id := range n.disk.ordered {
		c.stored(n, c.sim.blocks[id])
	}
}

// approved holds INV-7.
func (c *checker) approved(n *simNode, e *epoch, id stardust.BlockID) {
	var w uint64
	for i := range c.holders[id] {
		if g, ok := e.file.Index(c.sim.nodes[i].public[:]); ok {
			w += e.weights[g]
		}
	}
	if w+e.byzantine < e.quorum {
		c.fail("INV-7: block %v approved at node %d, held by honest weight %d", id, n.index, w)
	}
}

// decided compares the outcomes of slots.
func (c *checker) decided(n *simNode, res *Result) {
	if n.evil {
		return
	}
	for _, d := range res.Decisions {
		key := slotKey{d.Epoch, d.Slot}
		was, known := c.outcomes[key]
		if known && (was.Outcome != d.Outcome || was.Proposal != d.Proposal) {
			c.fail("slot %v: node %d decides %+v, another %+v", key, n.index, d, was)
		}
		if !known || !d.Direct && was.Direct {
			c.outcomes[key] = d
			switch {
			case !d.Direct:
				c.count.indirect++
			case !known:
				c.count.direct++
			}
			if !known && d.Outcome == Skip {
				c.count.skips++
			}
		}
	}
}

// milestone holds INV-1, 2 and 5.
func (c *checker) milestone(n *simNode, m *Milestone) {
	if n.evil {
		return
	}
	if before, ok := c.last[n]; ok && m.Index > before.Index+1 {
		c.fail("INV-5: node %d goes from milestone %d to %d", n.index, before.Index, m.Index)
	}
	c.last[n] = m.Position()
	for _, e := range m.Blocks {
		c.onOrder(n, e.ID)
	}
	id := m.ID()
	if int(m.Index) == len(c.milestones) {
		c.milestones = append(c.milestones, id)
		c.derived = append(c.derived, map[int]bool{})
		c.count.milestones++
		for _, e := range m.Blocks {
			spends := c.sim.blocks[e.ID].spends
			switch other, twice := c.spent[spends]; {
			case e.Inclusion == Conflicting:
				c.count.conflicts++
			case e.Inclusion == Included && twice:
				c.fail("INV-2: output %d is spent by %v and %v", spends, other, e.ID)
			case e.Inclusion == Included:
				c.spent[spends] = e.ID
			}
		}
		if m.Next != nil {
			c.count.epochs++
		}
		c.depth(m)
		c.time(n, m)
	}
	if int(m.Index) > len(c.milestones) || c.milestones[m.Index] != id {
		c.fail("INV-1: node %d derives milestone %d of slot %d as %x", n.index, m.Index, m.Slot, id[:4])
		return
	}
	c.derived[m.Index][n.index] = true
	if m.Index > 1 && m.Previous != c.milestones[m.Index-1] {
		c.fail("INV-5: milestone %d does not follow the one before", m.Index)
	}
}

// certified returns the last milestone that a quorum has derived.
func (c *checker) certified() uint32 {
	for i := len(c.derived) - 1; i > 0; i-- {
		weight := map[int]bool{}
		for k := range c.derived[i] {
			weight[k] = true
		}
		honest := 0
		for _, n := range c.sim.nodes {
			if !n.evil {
				honest++
			}
		}
		if 2*len(weight) > honest {
			return uint32(i)
		}
	}
	return 0
}

// issued holds INV-4.
func (c *checker) issued(n *simNode, b *simBlock, d *Draft, recovering bool) {
	if n.evil || !d.Opens {
		return
	}
	c.clock(b)
	if recovering {
		c.count.recoveries++
	}
	key := opening{n.public, b.Vote.Epoch, b.Vote.Round}
	if other, ok := c.openings[key]; ok && other != b.ID {
		c.fail("INV-4: node %d opens round %d of epoch %d twice", n.index, b.Vote.Round, b.Vote.Epoch)
	}
	c.openings[key] = b.ID
}

// settled reports whether nothing waits anywhere.
func (c *checker) settled() bool {
	var at *Position
	for _, n := range c.sim.nodes {
		if n.evil {
			continue
		}
		if !n.up || n.resync || c.sim.plan.certs && n.disk.sealed != n.disk.pos.Index || n.state.Waiting() || at != nil && at.Milestone != n.state.pos.Milestone {
			return false
		}
		at = &n.state.pos
	}
	return true
}

// end holds INV-8.
func (c *checker) end() {
	if !c.settled() {
		if !c.live() {
			c.count.outside++
			return
		}
		var all strings.Builder
		for _, n := range c.sim.nodes {
			fmt.Fprintf(&all, "\nnode %d evil %v at %+v, round %d, own %+v, confirmed %v, waiting %v, unsolid %d, parked %d, resync %v",
				n.index, n.evil, n.state.pos, n.state.maxRound, n.issuer.d, n.issuer.checked,
				n.state.unordered, len(n.inbox), len(n.parked), n.resync)
		}
		c.fail("INV-8: not everything is ordered:%s", all.String())
		return
	}
	var root [32]byte
	for _, n := range c.sim.nodes {
		if root == [32]byte{} && !n.evil {
			root = n.disk.coins.root
		}
		if !n.evil && n.disk.coins.root != root {
			c.fail("INV-2: the ledger of node %d is another", n.index)
		}
	}
	for _, n := range c.sim.nodes {
		for id := range n.disk.bodies {
			b := c.sim.blocks[id]
			if v := n.state.nodes[id]; n.evil || b.Kind == KindVote || v != nil && !n.state.usable(v) {
				continue // what lies too deep is not ordered
			}
			for _, o := range c.sim.nodes {
				if _, ok := o.disk.ordered[id]; !ok && !o.evil {
					c.fail("INV-8: block %v of node %d is not ordered at node %d", id, n.index, o.index)
				}
			}
		}
	}
}

// live reports whether honest members that know their past weigh a quorum.
func (c *checker) live() bool {
	var of *State
	for _, n := range c.sim.nodes {
		if !n.evil && (of == nil || n.state.pos.Epoch > of.pos.Epoch) {
			of = n.state
		}
	}
	var set uint64
	for _, n := range c.sim.nodes {
		if g, ok := of.File().Index(n.public[:]); ok && !n.evil && !n.issuer.Recovering() {
			set |= bit(uint8(g))
		}
	}
	return of.cur.isQuorum(set)
}
