package ledger

import (
	"slices"
	"sync"

	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// recentBlocks is how many of the newest blocks a ledger remembers: those that
// most parents are among.
const recentBlocks = 2048

// A recent remembers the newest blocks, so that the store is not asked for
// them.
type recent struct {
	mu   sync.RWMutex // guards what follows
	ids  map[stardust.BlockID]struct{}
	ring [recentBlocks]stardust.BlockID // by position
	last uint64                         // position of the newest
	from uint64                         // position from which on blocks are remembered, if not more than fit
}

func (r *recent) init(last uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ids, r.last, r.from = make(map[stardust.BlockID]struct{}, recentBlocks), last, last
}

// add remembers the block behind the newest.
func (r *recent) add(id stardust.BlockID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last++
	old := &r.ring[r.last%recentBlocks]
	delete(r.ids, *old)
	*old = id
	r.ids[id] = struct{}{}
}

func (r *recent) has(id stardust.BlockID) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	_, ok := r.ids[id]
	return ok
}

// newest returns the id of the block that came last; the genesis if none came
// since the start.
func (r *recent) newest() stardust.BlockID {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.ring[r.last%recentBlocks]
}

// position returns that of the newest block.
func (r *recent) position() uint64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.last
}

// cameSince reports whether the block came after a position, if that is not too
// long ago to tell.
func (r *recent) cameSince(position uint64, id stardust.BlockID) (came, ok bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	_, came = r.ids[id]
	return came, position >= r.from && r.last-position <= recentBlocks
}

// forget forgets blocks that were stored and are no more.
func (r *recent) forget(ids []stardust.BlockID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range ids {
		if _, ok := r.ids[id]; !ok {
			continue
		}
		delete(r.ids, id)
		r.ring[slices.Index(r.ring[:], id)] = stardust.GenesisID // it may come again
	}
}
