package ledger

import (
	"math/rand/v2"
	"slices"

	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// wideTips is the number of tips above which more than two are approved at a
// time, so that the pool shrinks.
const wideTips = 8

// A pool holds the tips to choose from. It never changes.
type pool struct {
	tips     []stardust.BlockID // oldest first, at least one
	parents  []stardust.BlockID // those of them for blocks that are no votes, at least one
	beside   stardust.BlockID   // second parent when there is one of these
	all      bool               // these are all tips
	outcasts []stardust.BlockID // openers of equivocators, which are no tips
}

// showTips makes the tips of the state those to choose from, the newest of them.
func (l *Ledger) showTips() {
	s := l.agreement.state
	p := &pool{tips: s.Tips(), all: true, outcasts: s.Outcasts()}
	if more := len(p.tips) - l.maxTips; more > 0 {
		p.tips, p.all = p.tips[more:], false
	}
	p.parents = s.Shallow()
	p.parents = p.parents[max(0, len(p.parents)-l.maxTips):]
	if len(p.parents) == 1 {
		p.beside = l.beside(p.parents[0])
	}
	l.pool.Store(p)
}

// beside returns the second parent of a block when there is one tip: the own
// last vote, or the root of the last milestone, or a parent of the tip. None of
// them is far back (consensus.md §6).
func (l *Ledger) beside(tip stardust.BlockID) stardust.BlockID {
	a := &l.agreement
	candidates := []stardust.BlockID{a.own.Head, a.state.Position().Root}
	for _, id := range append(candidates, a.state.Parents(tip)...) {
		if id != tip && id != stardust.GenesisID {
			return id
		}
	}
	return stardust.GenesisID
}

// Tips returns 1 to 8 solid block ids, ascending, to approve: at least two
// whenever there are two, the genesis counted. They are chosen uniformly among
// the tips: two of them, more when there are many (TIP-3, stardust.md trap 16).
func (l *Ledger) Tips() []stardust.BlockID {
	p := l.pool.Load()
	if len(p.parents) == 1 {
		if p.parents[0] == p.beside {
			return []stardust.BlockID{p.beside} // the genesis
		}
		return stardust.SortParents([]stardust.BlockID{p.parents[0], p.beside})
	}
	n := min(2, len(p.parents))
	if len(p.parents) > wideTips {
		n = min(2+len(p.parents)/wideTips, stardust.MaxParents)
	}
	ids := make([]stardust.BlockID, 0, n)
	for len(ids) < n { // n is at most half of the tips or 2: ends soon
		id := p.parents[rand.IntN(len(p.parents))]
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return stardust.SortParents(ids)
}
