package consensus

import (
	"fmt"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// A Position is where the sequence of milestones stands. It is stored with
// every milestone; the zero value is the start of a network.
type Position struct {
	Epoch     uint32
	NextSlot  uint32 // the first slot not decided; 0 means 1
	Index     uint32 // of the last milestone; 0: none
	Timestamp uint32
	Milestone [32]byte         // its id; without one the genesis hash
	Root      stardust.BlockID // the proposal that it ordered
}

// A State derives rounds, decisions and milestones from the blocks added to it
// (§4). It is used by one goroutine at a time. After an error that wraps none
// of [ErrInvalid], [ErrFutureEpoch] and [ErrNotSolid] it must not be used
// again: make a new one from what is stored.
type State struct {
	view    View
	ledger  Ledger
	genesis [32]byte
	epochs  *Epochs
	cur     *epoch
	pos     Position // NextSlot moves on with skips as well

	nodes     map[stardust.BlockID]*node
	tips      []*node                   // with some that are none any more
	stale     int                       // how many those are
	suspects  []*node                   // unordered, and no direct parents of honest blocks; oldest first
	refused   map[stardust.BlockID]bool // votes of equivocators that were forgotten, some of them
	lenient   bool                      // the own gateway has long been unable to open a round
	deepAt    uint32                    // the milestone after which it was last looked for deep ones
	added     uint64
	late      []*node // votes that are ordered but have nodes
	rounds    map[uint32]*round
	committed uint32 // the last slot of the epoch that became a milestone; 0: none
	maxRound  uint32
	heads     []*node     // per gateway its last vote
	heard     []time.Time // per gateway when its last vote was added

	equivocators map[network.PublicKey]bool
	faulty       uint64 // the equivocators in this epoch
	unordered    [4]int // payload blocks by Kind
	thirds       int    // those of third parties among them

	broken mutant
}

// keepRounds is how many decided rounds are still watched for equivocation.
const keepRounds = 256

// New returns the State at pos of the network with these files, which are
// those of epoch 0 to that of pos. Its blocks are then to be added again: the
// votes of the last two milestones, then those that no milestone has ordered,
// parents first. equivocators lists the keys known to have equivocated.
func New(files []*network.File, pos Position, view View, ledger Ledger, equivocators []network.PublicKey) (*State, error) {
	return newState(files, pos, view, ledger, equivocators, noMutant)
}

func newState(files []*network.File, pos Position, view View, ledger Ledger, equivocators []network.PublicKey, broken mutant) (*State, error) {
	if len(files) != int(pos.Epoch)+1 {
		return nil, fmt.Errorf("%d network files for epoch %d, want one for each epoch from 0", len(files), pos.Epoch)
	}
	s := &State{
		view: view, ledger: ledger, genesis: files[0].GenesisHash(), pos: pos,
		nodes: map[stardust.BlockID]*node{}, equivocators: map[network.PublicKey]bool{}, broken: broken,
	}
	s.epochs = &Epochs{genesis: s.genesis}
	for i, f := range files {
		if int(f.Epoch) != i {
			return nil, fmt.Errorf("network file %d is of epoch %d", i, f.Epoch)
		}
		s.epochs.all = append(s.epochs.all, s.newEpoch(f))
	}
	for _, key := range equivocators {
		s.equivocators[key] = true
	}
	if pos.Index == 0 {
		s.pos.Milestone = s.genesis
	}
	s.start(s.epochs.all[pos.Epoch])
	s.pos.NextSlot = max(1, pos.NextSlot)
	s.committed = s.pos.NextSlot - 1
	return s, nil
}

// start makes e the epoch in force, with nothing known of it.
func (s *State) start(e *epoch) {
	s.cur = e
	s.pos.Epoch, s.pos.NextSlot, s.maxRound, s.committed = e.number, 1, 0, 0
	s.rounds, s.refused = map[uint32]*round{}, map[stardust.BlockID]bool{}
	s.heads, s.heard = make([]*node, e.n), make([]time.Time, e.n)
	s.faulty = 0
	for g, m := range e.file.Gateways {
		if s.equivocators[m.PublicKey] {
			s.faulty |= bit(uint8(g))
		}
	}
}

// A Result is what one block changed.
type Result struct {
	Approved      []stardust.BlockID // reached the state approved (§10)
	Decisions     []Decision
	Milestones    []Milestone // to be stored before the next call of Add
	Equivocations []Equivocation
	// NewEpoch is set when the last of the milestones ended an epoch: blocks
	// that were refused with ErrFutureEpoch are to be tried again.
	NewEpoch bool
}

// An Equivocation is the proof that one key signed two votes of which an honest
// gateway signs one (§7): two openers of one round, or two votes upon one vote
// of its own. Both blocks are to be kept.
type Equivocation struct {
	Key           network.PublicKey
	Epoch, Round  uint32
	First, Second stardust.BlockID
}

// A parent is what a vote's validity can depend on.
type parent struct {
	vote  bool
	claim Claim
	node  *node // nil if it has none any more
	ms    uint32
}

// Add takes a block that is stored durably and whose parents were added or
// ordered (§4 onSolid). A block that was added before changes nothing. now is
// the caller's monotonic clock and matters for [Issuer] alone.
//
// The error wraps [ErrInvalid] or [ErrNotSolid] if the block was not taken; any
// other is one of the View or the Ledger.
func (s *State) Add(b Block, now time.Time) (Result, error) {
	var res Result
	if s.nodes[b.ID] != nil || b.ID == stardust.GenesisID {
		return res, nil
	}
	o, ordered, err := s.view.Ordered(b.ID)
	if err != nil {
		return res, fmt.Errorf("look up block %v: %w", b.ID, err)
	}
	if ordered && !o.Vote {
		return res, nil
	}
	parents, err := s.parents(b, nil)
	if err != nil {
		return res, err
	}
	self, err := s.check(&b, parents)
	if err != nil {
		return res, err
	}
	n := s.newNode(&b, parents)
	if ordered {
		n.ms = o.Milestone
		if !n.vote || n.claim.Round+1 < s.pos.NextSlot {
			return res, nil
		}
		s.late = append(s.late, n)
	}
	s.nodes[b.ID] = n
	s.count(n, 1)
	s.extend(n)
	if !n.vote {
		return res, nil
	}
	s.enter(n, self, now, &res)
	if n.opener {
		err = s.decide(&res)
	}
	return res, err
}

// Check returns nil if Add would take the block after those that are staged,
// which were checked and will be added before it: what it answers is the same
// at every time and every replica that has the parents (INV-3).
func (s *State) Check(b Block, staged map[stardust.BlockID]Block) error {
	parents, err := s.parents(b, staged)
	if err == nil {
		_, err = s.check(&b, parents)
	}
	return err
}

func (s *State) parents(b Block, staged map[stardust.BlockID]Block) ([]parent, error) {
	out := make([]parent, len(b.Parents))
	for i, id := range b.Parents {
		if p, ok := staged[id]; ok {
			out[i] = parent{vote: p.Kind == KindVote, claim: p.Vote.Claim}
			continue
		}
		if n := s.nodes[id]; n != nil {
			out[i] = parent{n.kind == KindVote, n.claim, n, n.ms}
			continue
		}
		if id == stardust.GenesisID {
			continue
		}
		o, found, err := s.view.Ordered(id)
		if err != nil {
			return nil, fmt.Errorf("look up block %v: %w", id, err)
		}
		if !found {
			return nil, fmt.Errorf("%w: %v, a parent of %v", ErrNotSolid, id, b.ID)
		}
		out[i] = parent{o.Vote, o.Claim, nil, o.Milestone}
	}
	return out, nil
}

// check applies the rules of the vote's own epoch and returns the self parent.
func (s *State) check(b *Block, parents []parent) (self *parent, err error) {
	if b.Kind != KindVote {
		return nil, nil
	}
	v := &b.Vote
	if v.Epoch > s.cur.number {
		return nil, fmt.Errorf("%w: epoch %d, here it is %d", ErrFutureEpoch, v.Epoch, s.cur.number)
	}
	e := s.epochs.all[v.Epoch]
	if s.broken == replicaEpochRules {
		e = s.cur
	}
	var claims []Claim
	var selfClaim *Claim
	for i, p := range parents {
		if !p.vote || s.broken == forgetPruned && p.node == nil {
			continue
		}
		if p.claim.Epoch == v.Epoch {
			claims = append(claims, p.claim)
		}
		if v.HasSelf && i == int(v.SelfIndex) {
			self, selfClaim = &parents[i], &parents[i].claim
		}
	}
	return self, e.checkClaim(v, claims, selfClaim)
}

func (s *State) newNode(b *Block, parents []parent) *node {
	s.added++
	n := &node{
		id: b.ID, at: s.added, kind: b.Kind, third: b.Third, update: b.Update, base: s.pos.Index + 1, reach: s.pos.Index + 1,
	}
	for _, p := range parents {
		switch {
		case p.node == nil:
			n.base = min(n.base, p.ms)
			continue
		case p.ms != 0:
			n.reach = min(n.reach, p.ms)
		default:
			n.reach = min(n.reach, p.node.reach)
		}
		n.up = append(n.up, p.node)
		p.node.refs++
	}
	n.reach = min(n.reach, n.base)
	if b.Kind == KindVote {
		n.claim, n.timeMs = b.Vote.Claim, b.Vote.TimeMs
		n.vote = n.claim.Epoch == s.cur.number
	}
	return n
}

// count keeps the numbers of unordered payload blocks.
func (s *State) count(n *node, by int) {
	if by > 0 && n.ms != 0 {
		return
	}
	s.unordered[n.kind] += by
	if n.third && n.kind != KindVote {
		s.thirds += by
	}
}

// Position returns where the sequence of milestones stands.
func (s *State) Position() Position { return s.pos }

// Epochs returns what blocks are decoded with.
func (s *State) Epochs() *Epochs { return s.epochs }

// File returns the network file in force.
func (s *State) File() *network.File { return s.cur.file }

// Round returns the highest round of the epoch that has a vote.
func (s *State) Round() uint32 { return s.maxRound }

// Has reports whether the block is in the unordered part of the DAG.
func (s *State) Has(id stardust.BlockID) bool {
	n := s.nodes[id]
	return n != nil && n.ms == 0
}

// Highest returns the highest round of the epoch that the gateway with this key
// is known to have opened, and that opener (§7, every start). It is what the
// last 256 rounds and unordered blocks tell; 0 if they tell nothing.
func (s *State) Highest(key network.PublicKey) (round uint32, id stardust.BlockID) {
	g, ok := s.cur.file.Index(key[:])
	if !ok || s.heads[g] == nil {
		return 0, stardust.BlockID{}
	}
	return s.heads[g].claim.Round, s.heads[g].id
}
