package peer

import (
	"context"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// How missing parents are asked for: at first, shortly after they were missed,
// from the gateway that sent the child, then from others, less and less often.
const (
	maxWants      = 4096
	wantsOfOne    = 1024 // of them, missed by blocks of one gateway
	wantSoon      = 30 * time.Millisecond
	wantAgain     = 500 * time.Millisecond
	maxTimesAsked = 5
)

// wants are the parents that blocks are held for.
type wants struct {
	mu   sync.Mutex // guards what follows
	all  map[stardust.BlockID]*want
	from map[*member]int  // number of all
	busy map[*member]bool // with a request

	more chan struct{} // capacity 1: something was added
}

type want struct {
	from  *member // sent the block that misses it
	next  time.Time
	asked int
}

func (w *wants) init() {
	w.all, w.from, w.busy = map[stardust.BlockID]*want{}, map[*member]int{}, map[*member]bool{}
	w.more = make(chan struct{}, 1)
}

func (w *wants) add(m *member, ids []stardust.BlockID, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range ids {
		if _, ok := w.all[id]; ok || len(w.all) >= maxWants || w.from[m] >= wantsOfOne {
			continue // what is left out, walks find
		}
		w.all[id] = &want{from: m, next: now.Add(wantSoon)}
		w.from[m]++
	}
	signal(w.more)
}

// forget takes ids out.
func (w *wants) forget(ids []stardust.BlockID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range ids {
		if x, ok := w.all[id]; ok {
			w.drop(id, x)
		}
	}
}

// drop is forget for a caller that holds mu.
func (w *wants) drop(id stardust.BlockID, x *want) {
	delete(w.all, id)
	if w.from[x.from]--; w.from[x.from] == 0 {
		delete(w.from, x.from)
	}
}

// due returns the wants to be asked for now, by whom to ask, each of whom is busy
// then until it has answered, and when the next ones are; zero: there are none.
// What was asked for too often is given up, and what there is nobody to ask for.
// The argument again of who says that the member was asked before.
func (w *wants) due(now time.Time, who func(m *member, again bool) *member) (ask map[*member][]stardust.BlockID, next time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	ask = map[*member][]stardust.BlockID{}
	for id, x := range w.all {
		if x.next.After(now) {
			if next.IsZero() || x.next.Before(next) {
				next = x.next
			}
			continue
		}
		if x.asked == maxTimesAsked {
			w.drop(id, x)
			continue
		}
		m := who(x.from, x.asked > 0)
		if m == nil {
			w.drop(id, x)
			continue
		}
		if w.busy[m] || len(ask[m]) == maxAsked {
			continue // when it has answered
		}
		ask[m] = append(ask[m], id)
		x.next = now.Add(wantAgain << x.asked)
		x.asked++
		if next.IsZero() || x.next.Before(next) {
			next = x.next
		}
	}
	for m := range ask {
		w.busy[m] = true
	}
	return ask, next
}

// answered notes that a member may get the next request.
func (w *wants) answered(m *member) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.busy, m)
	signal(w.more)
}

// fetch asks for missing parents until ctx ends. A member that does not answer
// holds up nobody else: each has one request at a time.
func (p *Peers) fetch(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		timer := time.NewTimer(time.Hour)
		defer timer.Stop()
		for {
			select {
			case <-p.wants.more:
				if !wait(ctx, wantSoon) {
					return ctx.Err()
				}
			case <-timer.C:
			case <-ctx.Done():
				return ctx.Err()
			}
			if err := p.forgetKnown(); err != nil {
				return err
			}
			ask, next := p.wants.due(time.Now(), p.whoHas)
			for m, ids := range ask {
				g.Go(func() error { return p.fetchWants(ctx, m, ids) })
			}
			if !next.IsZero() {
				timer.Reset(time.Until(next))
			}
		}
	})
	return g.Wait()
}

// fetchWants asks m for missing parents. The error is the replica's.
func (p *Peers) fetchWants(ctx context.Context, m *member, ids []stardust.BlockID) error {
	defer p.wants.answered(m)
	if _, err := p.fetchFrom(ctx, m, ids); err != nil {
		return p.gaveUp(ctx, m, err)
	}
	return nil
}

// forgetKnown takes out of the wants what has come meanwhile.
func (p *Peers) forgetKnown() error {
	p.wants.mu.Lock()
	ids := make([]stardust.BlockID, 0, len(p.wants.all))
	for id := range maps.Keys(p.wants.all) {
		ids = append(ids, id)
	}
	p.wants.mu.Unlock()
	for _, id := range ids {
		switch ok, err := p.replica.Has(id); {
		case err != nil:
			return err
		case ok:
			p.wants.forget([]stardust.BlockID{id})
		}
	}
	return nil
}

// whoHas returns whom to ask for a parent of a block that m sent: m, then a
// random other one that is up, if there is one. It is nil if m is no member any
// more and no other one is up.
func (p *Peers) whoHas(m *member, again bool) *member {
	r, now := p.roster.Load(), time.Now()
	if !r.has(m) {
		m = nil
	} else if !again {
		return m
	}
	for _, i := range rand.Perm(len(r.others)) {
		if o := r.others[i]; o != m && o.isUp(now, len(r.others)) && !o.isShunned(now) {
			return o
		}
	}
	return m
}
