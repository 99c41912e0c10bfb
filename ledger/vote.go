package ledger

import (
	"errors"
	"fmt"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// agree hears what others said, votes if it is time, and stores what was agreed.
// It returns when to look again at the latest; the zero time: when something
// comes in. An error means that the store is in doubt.
func (l *Ledger) agree() (wake time.Time, err error) {
	a := &l.agreement
	words, signatures := l.board.take()
	if l.syncing.Load() {
		return wake, nil
	}
	for i := range words {
		l.hear(words[i].from, &words[i].word)
	}
	l.certify(signatures)
	for {
		now := time.Now()
		draft, at, err := l.tryVote(now)
		if err != nil {
			return wake, err
		}
		due, later := a.waits(now)
		switch {
		case draft != nil:
			err = l.vote(draft, now)
		case due:
			err = l.flush()
		default:
			l.tell()
			return earlier(at, later), nil
		}
		if errors.Is(err, ErrBusy) {
			return now.Add(busyPause), nil
		} else if err != nil {
			return wake, err
		}
	}
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// tryVote returns the vote to issue now, or when to ask again.
func (l *Ledger) tryVote(now time.Time) (*consensus.Draft, time.Time, error) {
	a := &l.agreement
	if a.issuer == nil {
		return nil, time.Time{}, nil
	}
	// While many blocks come in, what they say would be voted on one by one.
	if len(l.received) > 0 && now.Sub(a.tried) < votePause {
		return nil, a.tried.Add(votePause), nil
	}
	a.tried = now
	step, err := a.issuer.Try(now)
	if err != nil {
		return nil, time.Time{}, err
	}
	// Recovering mode has to outlive a restart.
	if d := a.issuer.Durable(); step.Draft == nil && d != a.own && (d.Recovering || d.Sticky) {
		a.change.Own = &d
	}
	if step.Draft != nil && l.store.Ready() != nil {
		return nil, now.Add(busyPause), nil
	}
	return step.Draft, step.Wake, nil
}

// vote signs a vote, stores it together with the record that it was given, and
// only then tells the others (consensus.md §6).
func (l *Ledger) vote(d *consensus.Draft, now time.Time) error {
	a := &l.agreement
	b := d.Sign(a.key, a.genesis, l.clock())
	raw, err := b.AppendBinary(nil)
	if err != nil {
		return fmt.Errorf("make a vote: %w", err)
	}
	g := newGroup()
	j := &job{block: b, raw: raw, vote: true}
	j.id = stardust.IDOf(raw)
	own := a.issuer.Issued(d, j.id, now)
	if j.agreed, err = a.state.Epochs().Stored(j.id, b); err != nil {
		return fmt.Errorf("make a vote: %w", err)
	}
	g.add(j, Entry{ID: j.id, Block: b, Raw: raw, Attached: now})
	g.jobs = append(g.jobs, j)
	a.change.Own = &own
	l.counts.votes.Add(1)
	return l.commit(g)
}

// flush stores what was agreed.
func (l *Ledger) flush() error {
	c := l.agreement.take()
	switch err := l.store.Commit(c); {
	case errors.Is(err, ErrBusy):
		l.agreement.put(c)
		return err
	case err != nil:
		return fmt.Errorf("store what was agreed: %w", err)
	}
	l.settle(c)
	return nil
}
