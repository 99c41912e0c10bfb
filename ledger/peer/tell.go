package peer

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger"
)

// How often a frontier goes to a member. It goes to one after the other, not to a
// random one as in consensus.md §9, so that silence means something.
const (
	tellLeast, tellMost = 200 * time.Millisecond, 600 * time.Millisecond
	tellIdle            = 2 * time.Second // while no block has come for idleAfter: then nobody lacks anything
	idleAfter           = 20 * time.Second
)

// How often it goes to all of them while this gateway waits for their words,
// and how often one of them is answered.
const (
	callEvery   = 500 * time.Millisecond
	callIdle    = time.Second      // between looks who is quiet
	callLong    = 30 * time.Second // after which it goes every tellIdle
	answerPause = 200 * time.Millisecond
)

// tell sends the frontier to one member after the other until ctx ends.
func (p *Peers) tell(ctx context.Context) error {
	last, grew := p.replica.Position(), time.Now()
	for turn := rand.N(1024); ; turn++ {
		pause := tellLeast + rand.N(tellMost-tellLeast)
		if time.Since(grew) > idleAfter {
			pause = tellIdle + rand.N(tellLeast)
		}
		if !wait(ctx, pause) {
			return ctx.Err()
		}
		if position := p.replica.Position(); position != last {
			last, grew = position, time.Now()
		}
		if all := p.others(); len(all) > 0 {
			p.tellTo(all[turn%len(all)], false)
		}
	}
}

// call sends the frontier to all members, at once and again while this gateway
// waits for their words, and when there is news that they wait for, until ctx
// ends. Those that are quiet it asks for a word.
func (p *Peers) call(ctx context.Context) error {
	timer := time.NewTimer(callEvery)
	defer timer.Stop()
	var since, last time.Time // waiting; called
	var target uint32
	for news := true; ; {
		now, word := time.Now(), p.agreed.Word()
		waits := p.waits(word)
		switch {
		case !waits:
			since = time.Time{}
		case since.IsZero():
			since = now
		}
		all := p.others()
		if news || word.Target != target || waits && (now.Sub(since) < callLong || now.Sub(last) >= tellIdle) {
			for _, m := range all {
				p.tellTo(m, false)
			}
			last, target = now, word.Target
		}
		for _, m := range all {
			if m.wantsAsking(now, len(all)) {
				p.tellTo(m, true)
			}
		}
		pause := callIdle
		if waits {
			pause = callEvery
		}
		timer.Reset(pause)
		select {
		case <-p.news:
			news = true
		case <-timer.C:
			news = false
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// waits reports whether this gateway waits for what the others say: until a
// quorum, with itself, has spoken since its start, and while it is recovering
// (consensus.md §7).
func (p *Peers) waits(own ledger.Word) bool {
	r := p.roster.Load()
	recovering := own.Target != 0 || len(own.Highest) > 0 && !own.Answers
	return r.isMember && (recovering || r.weigh((*member).hasSpoken) < r.needed)
}

// tellTo sends the own frontier to a member, and may ask for its.
func (p *Peers) tellTo(m *member, ask bool) {
	p.telling.Lock() // frames of a class come in the order in which they were made
	defer p.telling.Unlock()
	own := p.frontier(m.lastSession())
	own.waiting = own.waiting || ask
	frame := p.signer.seal(kindFrontier, m.PublicKey, nil, own.append(nil))
	if err := p.conn.Publish(p.prefix+".peer."+m.PublicKey.SubjectID(), frame); err != nil {
		p.log.Debug("frontier not sent", "peer", m.Name, "err", err)
	}
}

// frontier returns what this gateway has and knows, for a member with this
// session. The caller got that before, so that the word is later than its start.
func (p *Peers) frontier(session uint64) frontier {
	// The position is read first: a block that comes in between is among
	// the tips, and not said to be known to who knows these tips.
	f := frontier{
		store: p.replica.StoreID(), position: p.replica.Position(),
		restoring: p.restoring.Load(), hears: session, word: p.agreed.Word(),
	}
	f.waiting = p.waits(f.word)
	f.tips, f.all = p.replica.AllTips(maxTips)
	return f
}

// learn takes in a member's frontier. The error is the replica's.
func (p *Peers) learn(m *member, frame frame) error {
	f, err := parseFrontier(frame.body)
	if err != nil {
		p.malformed(m, err)
		return nil
	}
	unknown, err := p.lacking(f.tips)
	if err != nil {
		return err
	}
	speaks := f.hears == p.signer.session
	now := time.Now()
	m.mu.Lock()
	m.frontier, m.session, m.spoke = f, frame.session, m.spoke || speaks
	// The first one after the start is walked in any case: who waits to be in
	// sync should not wait long.
	m.behind = len(unknown) > 0 || !f.all && f.position > m.cursor.at || m.walked.IsZero()
	behind := m.behind
	answer := f.waiting && now.Sub(m.answered) >= answerPause
	if answer {
		m.answered = now
	}
	m.mu.Unlock()
	if answer {
		p.tellTo(m, false)
	}
	if speaks {
		p.agreed.Hear(m.PublicKey, f.word)
	}
	if behind {
		signal(p.walks)
	}
	return nil
}
