package peer

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// A synced says whose blocks this replica has had since the start.
type synced struct {
	mu      sync.Mutex // guards what follows
	members map[*member]bool
	more    chan struct{} // closed, and made anew, when there is another one
}

func (s *synced) init() {
	s.members, s.more = map[*member]bool{}, make(chan struct{})
}

// with notes that this replica has everything that m had at the time.
func (s *synced) with(m *member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.members[m] {
		s.members[m] = true
		close(s.more)
		s.more = make(chan struct{})
	}
}

// keep forgets those that are no members any more.
func (s *synced) keep(r *roster) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.members, func(m *member, _ bool) bool { return !r.has(m) })
}

// Restoring tells the others, from now on, that this replica waits itself for
// what they have, or that it does not any more.
func (p *Peers) Restoring(on bool) {
	p.restoring.Store(on)
	signal(p.news)
}

// Synced waits until this replica has had everything, since the start, of so
// many others that they make a quorum with this gateway, and of every other one
// that is up. Those that are restoring themselves do not count unless all others
// were reached. The error is that of ctx.
func (p *Peers) Synced(ctx context.Context) error {
	tick := time.NewTicker(time.Second) // members come and go
	defer tick.Stop()
	for {
		enough, more := p.enough()
		if enough {
			return nil
		}
		select {
		case <-more:
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (p *Peers) enough() (enough bool, more <-chan struct{}) {
	s := &p.synced
	s.mu.Lock()
	defer s.mu.Unlock()
	r, now, weight, reached, up := p.roster.Load(), time.Now(), uint64(0), 0, true
	for i, m := range r.others {
		m.mu.Lock()
		restoring := m.frontier.restoring
		m.mu.Unlock()
		if s.members[m] {
			reached++
		}
		switch {
		case s.members[m] && !restoring:
			weight += uint64(r.says[i].Weight)
		case !s.members[m] && m.isUp(now, len(r.others)) && m.mayWalk(now):
			up = false
		}
	}
	return reached == len(r.others) || up && weight >= r.needed, s.more
}

// Met waits until another gateway was heard of since the start, or returns the
// error of ctx.
func (p *Peers) Met(ctx context.Context) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		now := time.Now()
		all := p.others()
		for _, m := range all {
			if m.isUp(now, len(all)) {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Fetch asks one member after the other for a block, for which it takes up to a
// few seconds, and returns its bytes. The error wraps [ledger.ErrNotFound] when
// nobody hands it out.
func (p *Peers) Fetch(ctx context.Context, id stardust.BlockID) ([]byte, error) {
	all := p.others()
	for _, i := range rand.Perm(len(all)) {
		m := all[i]
		if !m.isUp(time.Now(), len(all)) {
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
