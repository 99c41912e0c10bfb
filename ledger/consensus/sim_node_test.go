package consensus

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// A disk is what survives a crash. It is the View of its node.
type disk struct {
	own     Durable
	pos     Position
	files   []*network.File
	bodies  map[stardust.BlockID]bool
	log     []stardust.BlockID // bodies, parents first
	ordered map[stardust.BlockID]Ordered
	coins   coins
	faulty  []network.PublicKey
	horizon uint32    // milestones after which ids are forgotten; 0: never
	chain   []Essence // of the milestones from 1 on
	certs   map[uint32][]Signature
	sealed  uint32 // up to this one all have certificates
}

func newDisk(s *sim) *disk {
	d := &disk{
		files: []*network.File{s.genesis}, bodies: map[stardust.BlockID]bool{},
		ordered: map[stardust.BlockID]Ordered{}, certs: map[uint32][]Signature{}, coins: coins{sim: s, unspent: map[uint64]bool{}},
	}
	if s.plan.deep {
		d.horizon = simHorizon
	}
	for o := range uint64(genesisOutputs) {
		d.coins.create(o + 1)
	}
	return d
}

func (d *disk) clone() *disk {
	c := *d
	c.files, c.log, c.faulty = slices.Clone(d.files), slices.Clone(d.log), slices.Clone(d.faulty)
	c.chain, c.certs = slices.Clone(d.chain), maps.Clone(d.certs)
	c.bodies, c.ordered = maps.Clone(d.bodies), maps.Clone(d.ordered)
	c.coins.unspent = maps.Clone(d.coins.unspent)
	return &c
}

func (d *disk) Ordered(id stardust.BlockID) (Ordered, bool, error) {
	o, ok := d.ordered[id]
	if ok && d.horizon > 0 && o.Milestone+d.horizon < d.pos.Index {
		return Ordered{}, false, nil
	}
	return o, ok, nil
}

// prune drops bodies ordered before the milestone.
func (d *disk) prune(before uint32) {
	d.log = slices.DeleteFunc(d.log, func(id stardust.BlockID) bool {
		o, ok := d.ordered[id]
		if ok && o.Milestone < before {
			delete(d.bodies, id)
			return true
		}
		return false
	})
}

// coins is a ledger of numbered outputs.
type coins struct {
	sim     *sim
	unspent map[uint64]bool
	root    [32]byte
	done    []*simBlock // applied since the last milestone was written
}

func (c *coins) create(o uint64) { c.unspent[o] = true; c.mix(o) }

func (c *coins) mix(o uint64) {
	for i := range 8 {
		c.root[i] ^= byte(o * 0x9e3779b97f4a7c15 >> (8 * i))
	}
}

func (c *coins) Apply(_, _ uint32, id stardust.BlockID) (bool, error) {
	b := c.sim.blocks[id]
	if !c.unspent[b.spends] {
		return false, nil
	}
	c.done = append(c.done, b)
	delete(c.unspent, b.spends)
	c.mix(b.spends)
	c.create(b.creates)
	return true, nil
}

// undo takes back what no milestone was written for.
func (c *coins) undo() {
	for _, b := range slices.Backward(c.done) {
		delete(c.unspent, b.creates)
		c.unspent[b.spends] = true
		c.mix(b.creates)
		c.mix(b.spends)
	}
	c.done = nil
}

func (c *coins) Root() ([32]byte, error) { return c.root, nil }

// A simNode is a gateway: disk, memory and the code under test.
type simNode struct {
	sim    *sim
	index  int
	key    ed25519.PrivateKey
	public network.PublicKey
	evil   bool // does as it likes
	twin   bool // has a key that runs on two machines
	second bool // is the second of them
	skew   int64
	held   int64 // the network delivers nothing to it before
	up     bool
	disk   *disk
	backup *disk
	resync bool // needs a snapshot of somebody else's

	state   *State
	issuer  *Issuer
	certs   *Certificates
	inbox   map[stardust.BlockID]*simBlock   // not solid
	came    map[stardust.BlockID]int64       // into the inbox, when
	wanted  map[stardust.BlockID]int         // to how many in the inbox one is a parent
	waiting map[stardust.BlockID][]*simBlock // by missing parent
	parked  []*simBlock                      // of the next epoch
	bad     map[stardust.BlockID]bool
	wake    int64         // when Try is planned
	epoch   int           // counts boots, so that events of an earlier life are void
	opened  uint32        // of an evil node
	flooded int64         // when it last did
	tick    int64         // the interval in which
	taken   map[uint8]int // so many votes of a gateway came by gossip
}

func (s *sim) addNode(index, key int) *simNode {
	n := &simNode{sim: s, index: index, key: simKey(key), public: publicKey(simKey(key))}
	s.nodes = append(s.nodes, n)
	return n
}

func (n *simNode) crash() { n.up = false }

// boot starts the node from its disk.
func (n *simNode) boot() {
	if n.up {
		return
	}
	d := n.disk
	st, err := newState(d.files, d.pos, d, &d.coins, d.faulty, n.sim.plan.broken)
	if err != nil {
		panic(err)
	}
	n.up, n.wake = true, 0
	n.epoch++
	n.state, n.issuer = st, NewIssuer(st, n.public, d.own)
	n.issuer.checked = n.sim.plan.noRule
	n.inbox, n.waiting, n.parked = map[stardust.BlockID]*simBlock{}, map[stardust.BlockID][]*simBlock{}, nil
	n.reseal()
	n.came = map[stardust.BlockID]int64{}
	n.bad, n.wanted = map[stardust.BlockID]bool{}, map[stardust.BlockID]int{}
	n.dropTooOld()
	for _, id := range slices.Clone(d.log) {
		if o, ok := d.ordered[id]; ok && o.Milestone+2 <= d.pos.Index {
			continue
		}
		n.add(n.sim.blocks[id])
	}
	n.plan(n.sim.rng.Int64N(50))
}

// receive takes a block off the network.
func (n *simNode) receive(b *simBlock) {
	_, done := n.disk.ordered[b.ID]
	if done || !n.up || n.disk.bodies[b.ID] || n.bad[b.ID] || n.inbox[b.ID] != nil {
		return
	}
	if n.useless(b) {
		return // until something else refers to it
	}
	n.inbox[b.ID], n.came[b.ID] = b, n.sim.now
	for _, p := range b.Parents {
		n.wanted[p]++
	}
	n.tryAdd(b)
	n.evict()
}

// drop takes a block out of the inbox.
func (n *simNode) drop(b *simBlock) {
	if n.inbox[b.ID] == nil {
		return
	}
	delete(n.inbox, b.ID)
	delete(n.came, b.ID)
	for _, p := range b.Parents {
		if n.wanted[p]--; n.wanted[p] == 0 {
			delete(n.wanted, p)
		}
	}
}

// useless reports whether a vote is not to be taken.
func (n *simNode) useless(b *simBlock) bool {
	return n.state.Useless(b.Block) && n.waiting[b.ID] == nil && b.Vote.Gateway != n.gateway()
}

// gateway returns the node's number as a member, or 255.
func (n *simNode) gateway() uint8 {
	if g, ok := n.state.File().Index(n.public[:]); ok {
		return uint8(g)
	}
	return 255
}

func (n *simNode) tryAdd(b *simBlock) {
	queue := []*simBlock{b}
	for len(queue) > 0 {
		b := queue[0]
		queue = queue[1:]
		if n.inbox[b.ID] == nil || !n.up {
			continue
		}
		if n.tooOld(b) {
			n.drop(b)
			continue
		}
		if p, missing := n.missing(b); missing {
			n.waiting[p] = append(n.waiting[p], b)
			if n.inbox[p] == nil {
				n.want(p)
			}
			continue
		}
		if n.add(b) {
			queue = append(queue, n.waiting[b.ID]...)
			delete(n.waiting, b.ID)
		}
	}
}

func (n *simNode) missing(b *simBlock) (stardust.BlockID, bool) {
	for _, p := range b.Parents {
		if _, ok := n.disk.ordered[p]; !ok && !n.disk.bodies[p] && p != stardust.GenesisID {
			return p, true
		}
	}
	return stardust.BlockID{}, false
}

// add stores a solid block and gives it to the State, as the ledger would.
func (n *simNode) add(b *simBlock) bool {
	if !n.disk.bodies[b.ID] && n.useless(b) {
		n.drop(b)
		return false
	}
	err := n.state.Check(b.Block, nil)
	if errors.Is(err, ErrFutureEpoch) {
		n.parked = append(n.parked, b)
		return false
	}
	n.drop(b)
	n.sim.check.validity(n, b, err)
	if err != nil {
		n.bad[b.ID] = true
		return false
	}
	if !n.disk.bodies[b.ID] {
		n.disk.bodies[b.ID] = true
		n.disk.log = append(n.disk.log, b.ID)
	}
	n.sim.check.stored(n, b)
	res, err := n.state.Add(b.Block, n.sim.time())
	if err != nil {
		n.sim.check.fail("node %d adds %v after Check: %v", n.index, b.ID, err)
		return false
	}
	if n.unwritten(b, &res) {
		return false
	}
	n.sim.check.added(n, b, &res)
	n.keep(&res)
	n.plan(0)
	return true
}

// keep writes what a Result says.
func (n *simNode) keep(res *Result) {
	d := n.disk
	d.coins.done = nil
	for i := range res.Milestones {
		m := &res.Milestones[i]
		for _, e := range m.Blocks {
			b := n.sim.blocks[e.ID]
			d.ordered[e.ID] = Ordered{Milestone: m.Index, Vote: b.Kind == KindVote, Claim: b.Vote.Claim}
		}
		d.pos = m.Position()
		d.chain = append(d.chain, m.Essence)
		if m.Next != nil {
			d.files = append(d.files, m.Next)
		}
		n.sim.check.milestone(n, m)
		n.certify(m)
	}
	for _, e := range res.Equivocations {
		d.faulty = append(d.faulty, e.Key)
	}
	if len(res.Milestones) > 0 && n.sim.odds(0.2) {
		if c := n.sim.check.certified(); c > 2 {
			d.prune(max(2, min(c, d.pos.Index)) - 2)
		}
	}
	if res.NewEpoch {
		parked := n.parked
		n.parked = nil
		for _, b := range parked {
			n.tryAdd(b)
		}
	}
}

// plan has Try called in so many ms at the latest.
func (n *simNode) plan(ms int64) {
	at := n.sim.now + ms
	if n.wake > n.sim.now && n.wake <= at {
		return
	}
	if n.wake == at && ms == 0 {
		return
	}
	n.wake = at
	life := n.epoch
	n.sim.after(ms, func() {
		if n.up && n.epoch == life && n.wake == at {
			n.wake = -1
			n.try()
		}
	})
}

// try votes if it is time to.
func (n *simNode) try() {
	if n.evil && !(n.twin && (n.sim.plan.split || n.sim.odds(0.8))) {
		n.evilTry()
		return
	}
	if n.sim.plan.hasty && n.sim.chaos && n.sim.odds(0.5) {
		n.issuer.lastOpen = time.Time{} // waiting is a matter of liveness alone
	}
	step, err := n.issuer.Try(n.sim.time())
	if err != nil {
		n.sim.check.fail("node %d: %v", n.index, err)
		return
	}
	n.disk.own = n.issuer.Durable()
	if step.Draft == nil {
		if !step.Wake.IsZero() {
			n.plan(max(1, step.Wake.Sub(n.sim.time()).Milliseconds()))
		}
		return
	}
	if n.sim.chaos && n.sim.plan.crashes && n.sim.odds(0.002) {
		n.crash() // before the write: nothing happened
		n.sim.after(100+n.sim.rng.Int64N(1500), n.boot)
		return
	}
	recovering := n.issuer.Recovering()
	b := n.sign(step.Draft, n.clock())
	own := n.issuer.Issued(step.Draft, b.ID, n.sim.time())
	n.sim.check.issued(n, b, step.Draft, recovering)
	n.disk.own = own
	n.disk.bodies[b.ID] = true
	n.disk.log = append(n.disk.log, b.ID)
	if n.sim.chaos && n.sim.plan.crashes && n.sim.odds(0.004) {
		n.sim.check.count.unpublished++
		n.crash() // after the write, before publishing
		n.sim.after(100+n.sim.rng.Int64N(1500), n.boot)
		return
	}
	n.add(b)
	n.evict()
	n.publish(b)
}

func (n *simNode) clock() uint64 {
	if n.index%5 == 3 {
		return 0
	}
	return uint64(n.sim.time().UnixMilli() + n.skew)
}

// sign makes the block of a draft and decodes it as any replica would.
func (n *simNode) sign(d *Draft, timeMs uint64) *simBlock {
	if n.evil {
		d.Vote.Merges = min(d.Vote.Merges, MaxMerges)
	}
	blk := n.draw(d, timeMs)
	id, err := blk.ID()
	if err != nil {
		panic(fmt.Sprintf("encode vote %+v: %v", d.Vote, err))
	}
	dec, err := n.state.Epochs().decode(id, blk, n.sim.plan.signed)
	if err != nil {
		panic(fmt.Sprintf("decode own vote: %v", err))
	}
	b := &simBlock{Block: dec}
	n.sim.blocks[id] = b
	return b
}

// draw makes the block of a draft, in most schedules with a digest in the place
// of the signature: real ones cost half of the time.
func (n *simNode) draw(d *Draft, timeMs uint64) *stardust.Block {
	if n.sim.plan.signed {
		return d.Sign(n.key, n.state.genesis, timeMs)
	}
	v := d.Vote
	v.TimeMs = timeMs
	digest := v.digest(n.state.genesis, d.Parents)
	copy(v.Signature[:], digest[:])
	return &stardust.Block{
		Version: stardust.ProtocolVersion, Parents: d.Parents,
		Payload: &stardust.TaggedData{Tag: []byte(TagVote), Data: v.AppendBinary(nil)},
	}
}

func (n *simNode) publish(b *simBlock) {
	for _, to := range n.sim.nodes {
		n.sim.send(n, to, func() { to.gossip(b) })
	}
}

// work attaches payload.
func (n *simNode) work() {
	s := n.sim
	if !s.chaos || n.evil && s.odds(0.7) {
		return
	}
	b := &simBlock{}
	b.Third = s.odds(0.1)
	if s.odds(0.5) {
		b.Kind = KindTransaction
		b.spends = s.outputs[s.rng.IntN(len(s.outputs))]
		if s.odds(0.5) { // a double spend of something recent
			b.spends = s.outputs[len(s.outputs)-1-s.rng.IntN(3)]
		}
		b.creates = uint64(len(s.outputs)) + 1
		s.outputs = append(s.outputs, b.creates)
	}
	s.attach(n, b)
}
