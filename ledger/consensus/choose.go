package consensus

import (
	"bytes"
	"slices"

	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

const (
	payloadPlaces = 2 // parents kept for tips that are no votes (§6)
	leastParents  = 2
)

// A choice is the parents of a vote to be issued, and what they amount to.
type choice struct {
	parents []*node
	self    *node // among them, or nil
	claims  []Claim
	sup     []support
	round   uint32
	seen    uint64
}

func (c *choice) has(n *node) bool { return slices.Contains(c.parents, n) }

// add takes n among the parents.
func (c *choice) add(n *node, least uint32) {
	c.parents = append(c.parents, n)
	if n.vote {
		c.claims = append(c.claims, n.claim)
		c.sup = mergeSup(c.sup, n.sup, least)
	}
}

// choose selects the parents of gateway g's next vote (§6): its own head, votes
// that raise the round, widen what is seen or who supports, and tips; at most 8.
func (s *State) choose(g uint8, self *node) *choice {
	c := &choice{self: self}
	if self != nil {
		c.add(self, s.pos.NextSlot)
	}
	var payload, votes []*node
	for _, t := range s.usableTips(g) {
		if t.vote {
			votes = append(votes, t)
		} else {
			payload = append(payload, t)
		}
	}
	places := stardust.MaxParents - min(payloadPlaces, len(payload))
	for len(c.parents) < places {
		best := s.bestHead(g, c)
		if best == nil {
			break
		}
		c.add(best, s.pos.NextSlot)
	}
	s.fill(c, rotate(payload, int(g)+len(c.claims)), stardust.MaxParents)
	s.fill(c, rotate(votes, int(g)), stardust.MaxParents)
	if len(c.parents) < leastParents {
		s.fill(c, s.others(c), leastParents)
	}
	c.round, c.seen = s.cur.next(g, c.claims)
	return c
}

func (s *State) fill(c *choice, from []*node, most int) {
	for _, n := range from {
		if len(c.parents) >= most {
			return
		}
		if !c.has(n) {
			c.add(n, s.pos.NextSlot)
		}
	}
}

// rotate makes gateways begin at different tips.
func rotate(tips []*node, by int) []*node {
	if len(tips) == 0 {
		return nil
	}
	by %= len(tips)
	return append(slices.Clone(tips[by:]), tips[:by]...)
}

// others returns blocks that can be second parents when there are no tips: the
// last root, or else the genesis.
func (s *State) others(c *choice) []*node {
	if n := s.nodes[s.pos.Root]; n != nil && n.id != stardust.GenesisID {
		return []*node{n}
	}
	return []*node{{id: s.pos.Root, ms: s.pos.Index}}
}

// bestHead returns the head of another gateway that adds most to the choice,
// or nil if none adds anything.
func (s *State) bestHead(g uint8, c *choice) *node {
	top, seen := merged(c.claims)
	var best *node
	var most uint64
	for i, h := range s.heads {
		if h == nil || i == int(g) || c.has(h) || !s.usable(h) {
			continue
		}
		if gain := s.gain(h, c, top, seen); gain > most {
			best, most = h, gain
		}
	}
	return best
}

// gain weighs what head h adds to a choice that has come to round top and seen:
// a higher round above all, then the proposal of that round, then who is seen
// in it, then who supports.
func (s *State) gain(h *node, c *choice, top uint32, seen uint64) (gain uint64) {
	w := s.cur.total
	if h.claim.Round > top {
		return uint64(h.claim.Round)<<44 + s.cur.weight(h.claim.Seen)
	}
	if h.claim.Round == top {
		gain += 2 * s.cur.weight(h.claim.Seen&^seen)
	}
	for _, e := range h.sup {
		if e.slot < s.pos.NextSlot {
			continue
		}
		known := slices.ContainsFunc(c.sup, func(k support) bool { return k.proposal == e.proposal })
		gain += s.cur.weight(e.by &^ supporters(c.sup, e.proposal))
		if !known {
			gain += 1 + 2*w
		}
	}
	return gain
}

// sortParents puts parents into the order of a block and returns where self is.
func sortParents(parents []*node, self *node) (ids []stardust.BlockID, at int) {
	slices.SortFunc(parents, func(a, b *node) int { return bytes.Compare(a.id[:], b.id[:]) })
	for i, n := range parents {
		ids = append(ids, n.id)
		if n == self {
			at = i
		}
	}
	return ids, at
}
