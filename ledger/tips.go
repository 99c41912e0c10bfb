package ledger

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// wideTips is the number of tips above which more than two are approved at a
// time, so that the pool shrinks.
const wideTips = 8

// A pool holds the tips: solid blocks without children. It is a value: with
// returns a changed copy.
type pool struct {
	tips []tip // oldest first
	max  int
}

type tip struct {
	id      stardust.BlockID
	parents []stardust.BlockID // none: the genesis
}

// loadPool returns the pool as the last Commit left it.
func loadPool(store Store, max int) (*pool, error) {
	ids, err := store.Tips()
	if err != nil {
		return nil, fmt.Errorf("read tips: %w", err)
	}
	p := &pool{max: max}
	if len(ids) == 0 {
		p.tips = []tip{{id: stardust.GenesisID}}
	}
	for _, id := range ids {
		rec, err := store.Load(id)
		if err != nil {
			return nil, fmt.Errorf("read tip %v: %w", id, err)
		}
		p.tips = append(p.tips, tip{id, rec.Parents})
	}
	return p, nil
}

// with returns the pool after the blocks were attached in their order. Above
// the limit the oldest tips are forgotten.
func (p *pool) with(entries []Entry) *pool {
	tips := slices.Clone(p.tips)
	for _, e := range entries {
		if e.Block == nil {
			continue
		}
		tips = slices.DeleteFunc(tips, func(t tip) bool { return slices.Contains(e.Block.Parents, t.id) })
		tips = append(tips, tip{e.ID, e.Block.Parents})
	}
	return &pool{tips: tips[max(0, len(tips)-p.max):], max: p.max}
}

func (p *pool) ids() []stardust.BlockID {
	ids := make([]stardust.BlockID, len(p.tips))
	for i, t := range p.tips {
		ids[i] = t.id
	}
	return ids
}

// Tips returns 1 to 8 solid block ids, ascending, to approve: at least two
// whenever there are two, the genesis counted. They are chosen uniformly among
// the tips: two of them, more when there are many (TIP-3, stardust.md trap 16).
func (l *Ledger) Tips() []stardust.BlockID {
	p := l.pool.Load()
	if len(p.tips) == 1 {
		return besideParent(p.tips[0])
	}
	n := min(2, len(p.tips))
	if len(p.tips) > wideTips {
		n = min(2+len(p.tips)/wideTips, stardust.MaxParents)
	}
	ids := make([]stardust.BlockID, 0, n)
	for len(ids) < n { // n is at most half of the tips or 2: ends soon
		id := p.tips[rand.IntN(len(p.tips))].id
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return stardust.SortParents(ids)
}

// besideParent returns the only tip and one of its parents.
func besideParent(t tip) []stardust.BlockID {
	ids := []stardust.BlockID{t.id}
	if len(t.parents) > 0 {
		ids = append(ids, t.parents[rand.IntN(len(t.parents))])
	}
	return stardust.SortParents(ids)
}
