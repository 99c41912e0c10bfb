package peer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// How long gossip gets to bring what a frontier names, and how often a member is
// walked although no frontier asks for it.
const (
	gossipFirst = 150 * time.Millisecond
	walkAnyway  = 3 * time.Second
	walkLongest = 10 * time.Second // before another member has its turn
	saveEvery   = time.Minute
)

// follow walks the orders of members that are ahead until ctx ends.
func (p *Peers) follow(ctx context.Context) error {
	tick := time.NewTicker(walkAnyway)
	defer tick.Stop()
	save := time.NewTicker(saveEvery)
	defer save.Stop()
	for {
		var m *member
		select {
		case <-p.walks:
			if !wait(ctx, gossipFirst) {
				return ctx.Err()
			}
			var err error
			if m, err = p.ahead(); err != nil {
				return err
			}
		case <-tick.C:
			m = p.longestUnwalked()
		case <-save.C:
			p.saveCursors()
		case <-ctx.Done():
			return ctx.Err()
		}
		if m == nil {
			continue
		}
		if err := p.walk(ctx, m); err != nil {
			return err
		}
		signal(p.walks) // another one may be ahead, too
	}
}

// longestUnwalked returns, of the members that are up and may have what was not
// walked yet, the one that was walked longest ago, or nil. Tips alone do not tell everything
// that a member has: those that are too many for its pool are forgotten.
func (p *Peers) longestUnwalked() (longest *member) {
	now := time.Now()
	var least time.Time
	all := p.others()
	for _, m := range all {
		if !m.isUp(now, len(all)) || !m.mayWalk(now) {
			continue
		}
		m.mu.Lock()
		walked := m.walked
		done := !walked.IsZero() && m.cursor.store == m.frontier.store && m.cursor.at == m.frontier.position
		m.mu.Unlock()
		if done {
			continue
		}
		if longest == nil || walked.Before(least) {
			longest, least = m, walked
		}
	}
	return longest
}

// ahead returns, of the members whose frontier still names an unknown tip, the
// one that was walked longest ago, or nil.
func (p *Peers) ahead() (longest *member, err error) {
	now := time.Now()
	var least time.Time
	for _, m := range p.others() {
		if !m.mayWalk(now) {
			continue
		}
		m.mu.Lock()
		behind, tips, all, walked := m.behind, m.frontier.tips, m.frontier.all, m.walked
		m.mu.Unlock()
		if !behind {
			continue
		}
		unknown, err := p.lacking(tips)
		if err != nil {
			return nil, err
		}
		if len(unknown) == 0 && all && !walked.IsZero() {
			m.mu.Lock()
			m.behind = false // a later frontier says so again
			m.mu.Unlock()
		} else if longest == nil || walked.Before(least) {
			longest, least = m, walked
		}
	}
	return longest, nil
}

// walk goes through the order of a member's blocks from the cursor on, and
// fetches what this replica lacks, until the end, or for a while. The error
// means that the replica takes nothing more at all.
func (p *Peers) walk(ctx context.Context, m *member) error {
	until := time.Now().Add(walkLongest)
	m.mu.Lock()
	m.behind, m.walked = false, time.Now() // a later frontier says so again
	m.mu.Unlock()
	if far, now := p.tooFar(m); now {
		return p.takeOver(ctx, m)
	} else if far {
		return nil
	}
	for time.Now().Before(until) && p.roster.Load().has(m) {
		pg, ids, err := p.askOrder(ctx, m)
		if err != nil {
			return p.gaveUp(ctx, m, err)
		}
		unknown, err := p.lacking(ids)
		if err != nil {
			return err
		}
		// Whole blocks cost fewer round trips than ids when most are wanted.
		if len(ids) == maxIDs && len(unknown) > maxIDs/2 {
			pg.end, err = p.stream(ctx, m, until)
		} else if err = p.fetchAll(ctx, m, unknown, until); err == nil {
			m.has(cursor{pg.store, pg.last})
		}
		if err != nil {
			return p.gaveUp(ctx, m, err)
		}
		if pg.end {
			p.synced.with(m)
			return nil
		}
	}
	return nil
}

// gaveUp says why a walk ended early, and returns the error if it is the
// replica's.
func (p *Peers) gaveUp(ctx context.Context, m *member, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, errUnanswered), errors.Is(err, errLater), errors.Is(err, ledger.ErrBusy), !m.mayWalk(time.Now()):
		p.log.Debug("walk ended early", "peer", m.Name, "err", err)
		return nil
	case errors.Is(err, errBody):
		p.malformed(m, err)
		return nil
	case errors.Is(err, errUndelivered):
		p.blame(m, forUndelivered, err)
		return nil
	}
	return err
}

// errUndelivered means that a member named a block and did not hand it out, or
// only in a form that cannot be stored.
var errUndelivered = errors.New("block named and not handed out")

// errLater means that what a member handed out cannot be stored yet, or that it
// has handed out enough for now.
var errLater = errors.New("not now")

// askOrder asks for the ids after the cursor, from the beginning when the
// member's store is another one than before, or an older copy of itself.
func (p *Peers) askOrder(ctx context.Context, m *member) (pg page, ids []stardust.BlockID, err error) {
	at := m.reached()
	body, err := p.ask(ctx, m, kindOrder, at.place.append(nil))
	if err != nil {
		return pg, nil, err
	}
	if pg, err = parsePage(body); err != nil {
		return pg, nil, err
	}
	if pg.store != at.store && pg.after > 0 && at.at > 0 { // it knows the place although the store is new to us
		m.has(cursor{store: pg.store})
		return p.askOrder(ctx, m)
	}
	if pg.after != at.at || pg.store != at.store {
		at = cursor{store: pg.store}
		m.has(at)
	}
	if ids, err = pg.ids(); err != nil {
		return pg, nil, err
	}
	return pg, ids, pg.follows(at.at, len(ids))
}

// follows returns nil if the page, with n entries, is one after a position.
func (m page) follows(after uint64, n int) error {
	if m.after != after || m.last.at < after || (m.last.at == after) != (n == 0) || n == 0 && !m.end {
		return fmt.Errorf("%w: page of %d after %d ends at %d", errBody, n, after, m.last.at)
	}
	return nil
}

// fetchAll gets all of these blocks from m, which must not take longer than
// until.
func (p *Peers) fetchAll(ctx context.Context, m *member, ids []stardust.BlockID, until time.Time) error {
	for len(ids) > 0 {
		if time.Now().After(until) {
			return fmt.Errorf("%w of %s in time for %d blocks", errUnanswered, m.Name, len(ids))
		}
		t, err := p.fetchFrom(ctx, m, ids[:min(len(ids), maxAsked)])
		if err != nil {
			return err
		}
		left, err := p.lacking(ids)
		switch {
		case err != nil:
			return err
		case len(left) < len(ids):
		case t.later > 0:
			return fmt.Errorf("%w: %d blocks wait for others", errLater, t.later)
		default:
			return fmt.Errorf("%w: %d, the first is %v", errUndelivered, len(left), left[0])
		}
		ids = left
	}
	return nil
}

// fetchFrom asks m for blocks with these ids and stores what comes, which may be
// a part of them. The error wraps errUnanswered or errBody when it is the
// member's, errLater, or ledger.ErrBusy when the store takes nothing now.
func (p *Peers) fetchFrom(ctx context.Context, m *member, ids []stardust.BlockID) (t tally, err error) {
	if m.handedEnough(time.Now()) {
		return t, fmt.Errorf("%w: %s has handed out many votes", errLater, m.Name)
	}
	body, err := p.ask(ctx, m, kindBlocks, appendIDs(nil, ids))
	if err != nil {
		return t, err
	}
	raws, err := parseBlocks(body)
	if err != nil {
		return t, err
	}
	if t, err = p.takeIn(ctx, m, raws); err != nil {
		return t, err
	}
	return t, p.replica.Ready()
}

// takeIn stores what m was asked for.
func (p *Peers) takeIn(ctx context.Context, m *member, raws [][]byte) (tally, error) {
	in := make([]sent, len(raws))
	for i, raw := range raws {
		in[i] = sent{m, raw, true}
	}
	return p.receive(ctx, in)
}

// A delivery is one answer of a stream.
type delivery struct {
	page page
	raws [][]byte
	err  error
}

// stream gets all blocks after the cursor, those that are known included, until
// the end, or most of a page is known, or the time is over, and reports whether
// it was the end.
// The next page is on its way while one is stored.
func (p *Peers) stream(ctx context.Context, m *member, until time.Time) (end bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	next := make(chan delivery, 1)
	ask := func(at cursor) { next <- p.askStream(ctx, m, at) }
	at := m.reached()
	go ask(at) // its one answer is read below, or by the deferred function
	waiting := true
	defer func() {
		cancel()
		if waiting {
			<-next
		}
	}()
	for {
		d := <-next
		waiting = false
		if d.err != nil {
			return false, d.err
		}
		at = cursor{d.page.store, d.page.last}
		if !d.page.end {
			waiting = true
			go ask(at)
		}
		before := p.replica.Position()
		t, err := p.takeIn(ctx, m, d.raws)
		if err == nil {
			err = p.replica.Ready()
		}
		switch {
		case err != nil:
			return false, err
		case t.have+t.later < len(d.raws):
			return false, fmt.Errorf("%w: %d of %d blocks up to %d", errUndelivered, len(d.raws)-t.have-t.later, len(d.raws), at.at)
		case t.later > 0:
			return false, fmt.Errorf("%w: %d of %d blocks up to %d wait for others", errLater, t.later, len(d.raws), at.at)
		}
		m.has(at)
		if m.handedEnough(time.Now()) {
			return false, fmt.Errorf("%w: %s has handed out many votes", errLater, m.Name)
		}
		if d.page.end || p.replica.Position()-before < uint64(len(d.raws)+1)/2 || time.Now().After(until) {
			return d.page.end, nil
		}
	}
}

func (p *Peers) askStream(ctx context.Context, m *member, at cursor) (d delivery) {
	var body []byte
	if body, d.err = p.ask(ctx, m, kindStream, at.place.append(nil)); d.err != nil {
		return d
	}
	if d.page, d.err = parsePage(body); d.err != nil {
		return d
	}
	if d.raws, d.err = parseBlocks(d.page.rest); d.err != nil {
		return d
	}
	if d.page.store != at.store || d.page.after != at.at {
		d.err = fmt.Errorf("%w of %s: its store is another one now", errUnanswered, m.Name)
		return d
	}
	d.err = d.page.follows(at.at, len(d.raws))
	return d
}
