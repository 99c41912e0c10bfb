package consensus

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// order makes the committed proposal l of the slot nextSlot the next milestone
// (§5): everything below it that is not ordered yet.
func (s *State) order(l *node) (*Milestone, error) {
	m := &Milestone{Essence: Essence{
		Index: s.pos.Index + 1, Timestamp: s.timestamp(l), Previous: s.pos.Milestone, Parents: []stardust.BlockID{l.id},
		Epoch: s.cur.number, Slot: s.pos.NextSlot, NetworkHash: s.cur.hash,
	}}
	blocks := postOrder(l, m.Index)
	var all, applied [][]byte
	for _, n := range blocks {
		e := Entry{ID: n.id}
		if n.kind == KindTransaction {
			included, err := s.ledger.Apply(m.Index, m.Timestamp, n.id)
			if err != nil {
				return nil, fmt.Errorf("apply transaction of block %v: %w", n.id, err)
			}
			e.Inclusion = Conflicting
			if included {
				e.Inclusion = Included
				applied = append(applied, n.id[:])
			}
		}
		all = append(all, n.id[:])
		m.Blocks = append(m.Blocks, e)
		if m.Next == nil && n.kind == KindUpdate && n.update.Follows(s.cur.file) == nil {
			m.Next = n.update // the first valid one; others are void (§8)
		}
		s.drop(n)
	}
	m.InclusionRoot, m.AppliedRoot = stardust.MerkleRoot(all), stardust.MerkleRoot(applied)
	if m.Index%s.cur.file.SnapshotEvery == 0 {
		root, err := s.ledger.Root()
		if err != nil {
			return nil, fmt.Errorf("root of the ledger at milestone %d: %w", m.Index, err)
		}
		m.LedgerRoot = &root
	}
	s.pos.Index, s.pos.Timestamp, s.pos.Milestone, s.pos.Root = m.Index, m.Timestamp, m.ID(), l.id
	s.committed = m.Slot
	return m, nil
}

// postOrder returns what is not ordered in the past cone of root, parents
// before children and in the order in which blocks list them (TIP-2), and marks
// it as ordered by milestone ms.
func postOrder(root *node, ms uint32) (out []*node) {
	type frame struct {
		n    *node
		next int // index of the parent to visit
	}
	if root.ms != 0 {
		return nil
	}
	root.ms = ms // marked when entered: the DAG has no cycle that could tell
	stack := []frame{{root, 0}}
	for len(stack) > 0 {
		f := &stack[len(stack)-1]
		if f.next == len(f.n.up) {
			out = append(out, f.n)
			stack = stack[:len(stack)-1]
			continue
		}
		p := f.n.up[f.next]
		f.next++
		if p.ms == 0 {
			p.ms = ms
			stack = append(stack, frame{p, 0})
		}
	}
	return out
}

// drop forgets an ordered block (§8), except votes that timestamps or the
// detection of equivocation may still need.
func (s *State) drop(n *node) {
	s.count(n, -1)
	n.sup = nil
	if n.vote {
		s.late = append(s.late, n)
		return
	}
	n.up, n.update = nil, nil
	delete(s.nodes, n.id)
}

// timestamp returns the time of the milestone that orders l: the weighted lower
// median of what the openers of the round before say that are in l's consensus
// cone, and never less than that of the milestone before (§5).
func (s *State) timestamp(l *node) uint32 {
	said := make([]uint64, s.cur.n) // in ms; 0: nothing
	seen := map[*node]bool{l: true}
	stack := []*node{l}
	for len(stack) > 0 {
		n := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if g := n.claim.Gateway; n.opener && n.claim.Round+1 == l.claim.Round && n.timeMs != 0 &&
			(said[g] == 0 || n.timeMs < said[g]) {
			said[g] = n.timeMs
		}
		for _, p := range n.up {
			// Rounds do not grow downwards: nothing below an older one matters.
			if p.vote && p.claim.Round+1 >= l.claim.Round && !seen[p] {
				seen[p] = true
				stack = append(stack, p)
			}
		}
	}
	weights := s.cur.weights
	if s.broken == equalMedian {
		weights = slices.Repeat([]uint64{1}, len(weights))
	}
	seconds := min(median(weights, said)/1000, math.MaxUint32)
	return max(s.pos.Timestamp, uint32(seconds))
}

// median returns the weighted lower median of the values that are not 0, or 0.
func median(weights, said []uint64) uint64 {
	var order []int
	var total uint64
	for g, v := range said {
		if v != 0 {
			order = append(order, g)
			total += weights[g]
		}
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(said[a], said[b]) })
	var below uint64
	for _, g := range order {
		if below += weights[g]; 2*below >= total {
			return said[g]
		}
	}
	return 0
}

// enterEpoch puts a network file into force (§8): rounds start again, and
// approvals are counted anew, because gateways may have other numbers. Votes of
// the epoch before are plain blocks from here on.
func (s *State) enterEpoch(f *network.File) {
	for _, n := range s.late {
		n.up = nil
		delete(s.nodes, n.id)
	}
	s.late = nil
	for _, n := range s.nodes {
		// The last slots of the epoch are decided by votes from the round
		// before the last one on.
		n.outcast = s.excluded(n) && n.claim.Round+1 < s.pos.NextSlot
		n.appr, n.vote, n.sup, n.child = 0, false, nil, nil
	}
	e := s.newEpoch(f)
	s.epochs = &Epochs{s.epochs.genesis, append(slices.Clone(s.epochs.all), e)}
	s.start(e)
	s.retip() // what equivocators decided by has to reach the others
}

// newEpoch is newEpoch with the rule that a test may have left out.
func (s *State) newEpoch(f *network.File) *epoch {
	e := newEpoch(f)
	if s.broken == halfQuorum {
		e.quorum = e.total / 2
	}
	return e
}
