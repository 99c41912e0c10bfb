package consensus

import (
	"container/heap"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/crypto/blake2b"

	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// A sim is one seeded schedule: gateways that run the shipped code over a
// network, disks and clocks of its own. Nothing in it depends on anything but
// the plan.
type sim struct {
	plan    plan
	rng     *rand.Rand
	now     int64 // ms
	events  events
	seq     int
	nodes   []*simNode
	genesis *network.File
	blocks  map[stardust.BlockID]*simBlock
	chaos   bool
	groups  []int // of the nodes, while the network is parted
	outputs []uint64
	check   *checker
}

// A plan is what a seed stands for.
type plan struct {
	seed      uint64
	weights   []uint32
	byzantine []int // gateways of the genesis that do as they like
	silent    bool  // they fall silent when the chaos ends
	twin      bool  // the Byzantine keys also run on second machines
	split     bool  // which stand on the two sides of a parted network
	cunning   bool  // they look honest until a slot is theirs
	flicker   bool  // partings are short and cut off one gateway
	flood     bool  // they send votes without end
	signed    bool  // votes carry real signatures, which are checked
	certs     bool  // milestones are signed
	early     bool  // before they are durable
	deep      bool  // ids are forgotten soon, and third parties attach to old blocks
	loss      float64
	slow      int64 // ms: the slowest message
	chaosFor  int64 // ms
	parts     bool
	crashes   bool
	disks     bool // lose disks and restore backups
	updates   bool
	broken    mutant
	noRule    bool // restore without the recovery rule
	hasty     bool // honest ones often do not wait for leaders
	// agreement leaves out the invariants that a broken rule contradicts by
	// its definition: only what replicas derive is compared.
	agreement bool
	only      string // if set, what a violation must begin with to count
}

const genesisOutputs = 100

type simBlock struct {
	Block
	spends, creates uint64 // outputs; 0: no transaction
}

type event struct {
	at  int64
	seq int
	do  func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	old := *e
	x := old[len(old)-1]
	old[len(old)-1] = event{}
	*e = old[:len(old)-1]
	return x
}

func (s *sim) after(ms int64, do func()) {
	s.seq++
	heap.Push(&s.events, event{s.now + ms, s.seq, do})
}

func (s *sim) odds(p float64) bool { return s.rng.Float64() < p }

func (s *sim) time() time.Time { return time.UnixMilli(1_700_000_000_000 + s.now) }

func simKey(i int) ed25519.PrivateKey {
	var seed [32]byte
	binary.LittleEndian.PutUint32(seed[:], uint32(i)+1)
	return ed25519.NewKeyFromSeed(seed[:])
}

func publicKey(k ed25519.PrivateKey) (p network.PublicKey) {
	copy(p[:], k.Public().(ed25519.PublicKey))
	return p
}

func simFile(name string, weights []uint32) *network.File {
	var gs []network.Gateway
	for i, w := range weights {
		gs = append(gs, network.Gateway{Name: fmt.Sprintf("g%d", i), PublicKey: publicKey(simKey(i)), Weight: w})
	}
	f := network.Create(name, gs)
	f.RoundInterval, f.DataRoundInterval = network.Duration(100*time.Millisecond), network.Duration(200*time.Millisecond)
	f.SnapshotEvery = 3
	return f
}

func newSim(p plan) *sim {
	s := &sim{
		plan: p, rng: rand.New(rand.NewPCG(p.seed, 7)), blocks: map[stardust.BlockID]*simBlock{},
		genesis: simFile(fmt.Sprintf("sim-%d", p.seed), p.weights),
	}
	if p.deep {
		s.genesis.IDHorizon = simHorizon
	}
	s.check = newChecker(s)
	machines := len(p.weights) + 1 // one that may be added
	for i := range machines {
		s.addNode(i, i)
	}
	for _, b := range p.byzantine {
		s.nodes[b].evil = true
	}
	if p.twin {
		for _, b := range p.byzantine {
			s.nodes[b].twin = true
			n := s.addNode(len(s.nodes), b)
			n.evil, n.twin, n.second = true, true, true
		}
	}
	s.groups = make([]int, len(s.nodes))
	for o := range uint64(genesisOutputs) {
		s.outputs = append(s.outputs, o+1)
	}
	for _, n := range s.nodes {
		n.skew = s.rng.Int64N(20_000) - 10_000
		n.disk = newDisk(s)
		n.boot()
		s.every(n, 200, 600, n.sync)
		s.every(n, 100, 700, n.work)
	}
	return s
}

// every repeats do of a node, as long as it is up, in steps of from to to ms.
func (s *sim) every(n *simNode, from, to int64, do func()) {
	s.after(s.rng.Int64N(to), func() {
		if n.up {
			do()
		}
		s.every(n, from, to, do)
	})
}

// run lets chaos pass and then waits until everything is ordered everywhere.
// It returns the first violation.
func (s *sim) run() error {
	s.chaos = true
	s.plots()
	s.until(s.plan.chaosFor)
	s.chaos = false
	if s.plan.only != "" {
		return s.check.err // what cannot agree does not come to rest
	}
	clear(s.groups)
	for _, n := range s.nodes {
		if !n.up {
			n.boot()
		}
	}
	for end := s.now + 240_000; s.now < end && s.check.err == nil; {
		s.until(s.now + 500)
		if s.check.settled() || s.now > s.plan.chaosFor+30_000 && !s.check.live() {
			break
		}
	}
	if s.check.err == nil {
		s.check.end()
	}
	return s.check.err
}

func (s *sim) until(end int64) {
	for len(s.events) > 0 && s.events[0].at <= end && s.check.err == nil {
		e := heap.Pop(&s.events).(event)
		s.now = e.at
		e.do()
	}
	s.now = max(s.now, end)
}

// plots lays out what goes wrong.
func (s *sim) plots() {
	if s.plan.parts {
		s.after(s.rng.Int64N(1500), s.part)
	}
	if s.plan.crashes {
		s.after(s.rng.Int64N(1500), s.kill)
	}
	if s.plan.disks {
		s.after(500+s.rng.Int64N(2000), s.backup)
		s.after(2500+s.rng.Int64N(2000), s.loseDisk)
	}
	if s.plan.updates {
		for range 1 + s.rng.IntN(3) {
			s.after(500+s.rng.Int64N(s.plan.chaosFor), s.update)
		}
	}
}

func (s *sim) part() {
	if !s.chaos {
		return
	}
	k, wait := 1+s.rng.IntN(3), 300+s.rng.Int64N(2500)
	if s.plan.flicker {
		k, wait = 1, 60+s.rng.Int64N(300)
	}
	for i, n := range s.nodes {
		s.groups[i] = s.rng.IntN(k)
		if n.twin && s.plan.split {
			s.groups[i] = map[bool]int{true: 1}[n.second]
		}
	}
	if s.plan.flicker {
		s.groups[s.rng.IntN(len(s.nodes))] = 1
	}
	s.after(wait, s.part)
}

func (s *sim) kill() {
	if !s.chaos {
		return
	}
	if n := s.nodes[s.rng.IntN(len(s.nodes))]; n.up {
		n.crash()
		s.after(100+s.rng.Int64N(2000), n.boot)
	}
	s.after(300+s.rng.Int64N(2000), s.kill)
}

func (s *sim) backup() {
	for _, n := range s.nodes {
		n.backup = n.disk.clone()
	}
}

// loseDisk takes the disks of some gateways at once, or puts old ones in their
// place.
func (s *sim) loseDisk() {
	lost := map[*simNode]bool{}
	for range 1 + max(0, s.rng.IntN(4)-1) {
		if n := s.nodes[s.rng.IntN(len(s.plan.weights))]; !n.evil {
			lost[n] = true
		}
	}
	if !s.chaos || s.odds(0.9) && !s.bearable(lost) && !s.plan.noRule {
		return
	}
	if len(lost) > 1 {
		s.check.count.several++
	}
	for _, n := range s.nodes { // in a fixed order
		if !lost[n] {
			continue
		}
		n.crash()
		if s.odds(0.5) {
			n.disk = newDisk(s)
			n.resync = true
			s.check.snapshot(n)
			s.check.count.disksLost++
		} else {
			n.disk = n.backup.clone()
			s.check.snapshot(n)
			s.check.count.restores++
		}
		if !s.plan.noRule {
			n.disk.own.Recovering = true
		}
		s.after(s.rng.Int64N(1000), n.boot)
	}
}

// bearable reports whether the network is live without those that lose their
// disks.
func (s *sim) bearable(lost map[*simNode]bool) bool {
	var set uint64
	file := s.nodes[0]
	for _, n := range s.nodes {
		if lost[n] {
			file = n
		}
	}
	for _, o := range s.nodes {
		if g, ok := file.state.File().Index(o.public[:]); ok && !o.evil && !lost[o] && !o.issuer.Recovering() && !o.disk.own.Sticky {
			set |= bit(uint8(g))
		}
	}
	return file.state.cur.isQuorum(set)
}

// update has a quorum sign the next network file; sometimes two.
func (s *sim) update() {
	n := s.nodes[s.rng.IntN(len(s.nodes))]
	if !n.up || n.evil {
		return
	}
	for range 1 + s.rng.IntN(2) {
		f := n.state.File().Next()
		if !s.change(f) {
			continue
		}
		for i := range len(s.plan.weights) + 1 {
			if _, ok := n.state.File().Index(simKey(i).Public().(ed25519.PublicKey)); ok {
				f.Sign(simKey(i))
			}
		}
		b := &simBlock{Block: Block{Kind: KindUpdate, Update: f}}
		s.attach(n, b)
	}
}

// change makes a random change that keeps the Byzantine weight below B.
func (s *sim) change(f *network.File) bool {
	i := s.rng.IntN(len(s.plan.weights) + 1)
	key := publicKey(simKey(i))
	at, member := f.Index(key[:])
	switch {
	case !member:
		f.Add(network.Gateway{Name: fmt.Sprintf("g%d", i), PublicKey: key, Weight: 1 + uint32(s.rng.IntN(2))})
	case s.odds(0.5) && len(f.Gateways) > 1:
		if f.Remove(f.Gateways[at].Name) != nil {
			return false
		}
	default:
		if f.SetWeight(f.Gateways[at].Name, 1+uint32(s.rng.IntN(3))) != nil {
			return false
		}
	}
	var evil uint32
	for _, n := range s.nodes[:len(s.plan.weights)] {
		if at, ok := f.Index(n.public[:]); ok && n.evil {
			evil += f.Gateways[at].Weight
		}
	}
	return evil <= f.ByzantineWeight && f.Validate() == nil
}

// attach gives a payload block parents and hands it to node n.
func (s *sim) attach(n *simNode, b *simBlock) {
	tips := n.state.Tips()
	s.rng.Shuffle(len(tips), func(i, j int) { tips[i], tips[j] = tips[j], tips[i] })
	tips = tips[:min(len(tips), 2+s.rng.IntN(3))]
	if old, ok := n.oldBlock(); ok && s.plan.deep && b.Third && b.Kind == KindData {
		tips = append(tips[:1], old)
	}
	b.Parents = stardust.SortParents(tips)
	buf := binary.LittleEndian.AppendUint64(nil, uint64(len(s.blocks)))
	for _, p := range b.Parents {
		buf = append(buf, p[:]...)
	}
	b.ID = blake2b.Sum256(buf)
	s.blocks[b.ID] = b
	s.check.onAttach(b)
	n.receive(b)
	n.publish(b)
}

// send delivers something to a node, late, twice or never.
func (s *sim) send(from, to *simNode, do func()) {
	if from == to {
		return
	}
	loss, slow := 0.0, int64(30)
	if s.chaos {
		loss, slow = s.plan.loss, s.plan.slow
		if s.groups[from.index] != s.groups[to.index] {
			return
		}
	}
	copies := 1
	if s.odds(0.05) {
		copies = 2
	}
	for range copies {
		if s.odds(loss) {
			continue
		}
		d := 1 + s.rng.Int64N(20)
		if s.odds(0.1) {
			d = 1 + s.rng.Int64N(slow)
		}
		s.after(max(d, to.held-s.now), func() {
			if to.up {
				do()
			}
		})
	}
}
