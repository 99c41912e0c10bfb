package peer

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// A synced says whose blocks this replica has had since the start.
type synced struct {
	needed uint64 // weight of the others that makes a quorum with this gateway

	mu     sync.Mutex // guards what follows
	with   map[*member]bool
	weight uint64        // theirs
	enough chan struct{} // closed once weight reaches needed
}

func (s *synced) init(needed uint64) {
	s.needed, s.with, s.enough = needed, map[*member]bool{}, make(chan struct{})
	if needed == 0 {
		close(s.enough)
	}
}

// reached notes that this replica has everything that m had at the time.
func (s *synced) reached(m *member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.with[m] {
		return
	}
	s.with[m] = true
	before := s.weight
	s.weight += uint64(m.Weight)
	if before < s.needed && s.weight >= s.needed {
		close(s.enough)
	}
}

// Synced waits until this replica has had everything of so many others since
// the start that they make a quorum with this gateway, or returns the error of
// ctx.
func (p *Peers) Synced(ctx context.Context) error {
	select {
	case <-p.synced.enough:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Fetch asks one member after the other for a block, for which it takes up to a
// few seconds, and returns its bytes. The error wraps [ledger.ErrNotFound] when
// nobody hands it out.
func (p *Peers) Fetch(ctx context.Context, id stardust.BlockID) ([]byte, error) {
	for _, i := range rand.Perm(len(p.members)) {
		m := p.members[i]
		if !m.isUp(time.Now(), len(p.members)) {
			continue
		}
		body, err := p.ask(ctx, m, kindBlocks, id[:])
		if err != nil {
			continue
		}
		if raws, err := parseBlocks(body); err == nil && len(raws) == 1 && stardust.IDOf(raws[0]) == id {
			return raws[0], nil
		}
	}
	return nil, fmt.Errorf("%w at any peer: %v", ledger.ErrNotFound, id)
}
