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

// Who has the blocks of a quorum waits for another member that is up for so long
// after it has had its turn to be walked and while no page of its order comes,
// and for all of them together, whatever comes, for some times as long. An honest
// one hands out a page in a second, and over a line of 70 kB/s in less than two
// minutes; one that never gets there must not keep readings from being attached.
const (
	patience    = 2 * time.Minute
	patienceAll = 5
)

// A synced says whose blocks this replica has had since the start.
type synced struct {
	patience time.Duration

	mu      sync.Mutex // guards what follows
	members map[*member]bool
	more    chan struct{} // closed, and made anew, when there is another one
}

func (s *synced) init() {
	s.patience, s.members, s.more = patience, map[*member]bool{}, make(chan struct{})
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

// A waiting is what a call of [Peers.Synced] knows of the members that it waits
// for although it has the blocks of a quorum.
type waiting struct {
	since   time.Time // that it has them; zero: it has not
	members map[*member]*awaited
}

// An awaited is how far a member was when it brought something last.
type awaited struct {
	at     uint64    // in its order
	walked time.Time // the last time until then
	idle   time.Time // the time of the turn that brought nothing; zero: it had none
}

// isOver reports whether m is not waited for any more.
func (w *waiting) isOver(m *member, now time.Time, limit time.Duration) bool {
	if w.since.IsZero() {
		w.since, w.members = now, map[*member]*awaited{}
	}
	m.mu.Lock()
	at, walked := m.cursor.at, m.walked
	done := !walked.IsZero() && m.cursor.store == m.frontier.store && at == m.frontier.position
	m.mu.Unlock()
	a := w.members[m]
	if a == nil || at > a.at {
		a = &awaited{at: at, walked: walked}
		w.members[m] = a
	}
	if a.idle.IsZero() && (done || !walked.Equal(a.walked)) { // who is done has no more turns
		a.idle = now
	}
	return !a.idle.IsZero() && now.Sub(a.idle) >= limit || now.Sub(w.since) >= patienceAll*limit
}

// Synced waits until this replica has had everything, since the start, of so
// many others that they make a quorum with this gateway, and of every other one
// that is up. Those that are restoring themselves do not count unless all others
// were reached. Once there is the quorum, a member that brings nothing is waited
// for two minutes, and all of them ten: what one says of itself may be wrong, and
// it may not answer. The error is that of ctx.
func (p *Peers) Synced(ctx context.Context) error {
	tick := time.NewTicker(time.Second) // members come and go
	defer tick.Stop()
	var w waiting
	for {
		enough, more := p.enough(&w, time.Now())
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

// enough reports whether a call of Synced has waited for enough members.
func (p *Peers) enough(w *waiting, now time.Time) (enough bool, more <-chan struct{}) {
	s := &p.synced
	s.mu.Lock()
	defer s.mu.Unlock()
	r, weight, reached := p.roster.Load(), uint64(0), 0
	var missing []*member
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
			missing = append(missing, m)
		}
	}
	switch {
	case reached == len(r.others):
		return true, s.more
	case weight < r.needed:
		*w = waiting{}
		return false, s.more
	}
	over := true
	for _, m := range missing { // the time of each of them runs
		over = w.isOver(m, now, s.patience) && over
	}
	if !over {
		return false, s.more
	}
	for _, m := range missing {
		p.log.Warn("a peer is up and what it has does not come; it is not waited for", "peer", m.Name)
	}
	return true, s.more
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
