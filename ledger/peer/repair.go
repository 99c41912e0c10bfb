package peer

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

// How signatures are asked for that did not come: how often the own word is
// looked at while a milestone lacks some, how long it may, and how seldom the
// word is looked at else, how long that takes at most when asking did not help,
// and how many answers one member gives in a row.
const (
	lagLook    = 250 * time.Millisecond
	lagFirst   = time.Second
	lagLongest = 10 * time.Second
	lagPages   = 16
)

// A lag says when to ask for the signatures of milestones that lack some.
type lag struct {
	certified uint32 // when it was looked at before
	next      time.Time
	pause     time.Duration
}

func (l *lag) due(own ledger.Word, now time.Time) bool {
	if own.Certified >= own.Milestone || own.Certified != l.certified {
		l.certified, l.pause, l.next = own.Certified, lagFirst, now.Add(lagFirst)
		return false
	}
	if now.Before(l.next) {
		return false
	}
	l.pause = min(2*l.pause, lagLongest)
	l.next = now.Add(l.pause)
	return true
}

// repair asks for signatures that this replica lacks, until ctx ends.
func (p *Peers) repair(ctx context.Context) error {
	pause := lagFirst
	for l := (lag{}); ; {
		if !wait(ctx, pause) {
			return ctx.Err()
		}
		own, now := p.agreed.Word(), time.Now()
		if pause = lagFirst; own.Certified < own.Milestone {
			pause = lagLook
		}
		if !l.due(own, now) {
			continue
		}
		m := p.certifier(own.Certified, now)
		if m == nil {
			l.pause = lagFirst // that nobody is there does not mean that asking is no use
			continue
		}
		if err := p.fetchSignatures(ctx, m, span{own.Certified + 1, own.Milestone}); err != nil {
			if err := p.gaveUp(ctx, m, err); err != nil {
				return err
			}
		}
	}
}

// certifier returns a random member that has certified more than this replica,
// or, if none has, that knows more milestones than those; nil: there is none.
func (p *Peers) certifier(certified uint32, now time.Time) (derived *member) {
	all := p.others()
	for _, i := range rand.Perm(len(all)) {
		m := all[i]
		if !m.isUp(now, len(all)) || m.isShunned(now) {
			continue
		}
		switch w := m.lastWord(); {
		case w.Certified > certified:
			return m
		case w.Milestone > certified:
			derived = m
		}
	}
	return derived
}

// fetchSignatures asks m for the signatures of a span of milestones, page by
// page. The error wraps errUnanswered or errBody when it is the member's.
func (p *Peers) fetchSignatures(ctx context.Context, m *member, wanted span) error {
	most := maxSignatures
	if wanted.to-wanted.from < maxSignatures/network.MaxGateways { // each member signs a milestone once
		most = network.MaxGateways * int(wanted.to-wanted.from+1)
	}
	for range lagPages {
		body, err := p.ask(ctx, m, kindSignatures, wanted.append(nil))
		if err != nil {
			return err
		}
		all, err := parseSignatures(body, most)
		if err != nil {
			return err
		}
		if err := wanted.covers(all); err != nil {
			return err
		}
		if err := p.certify(all); err != nil {
			return err
		}
		if len(all) < most {
			return nil
		}
		// The last milestone of a full page may have more; one that fills the
		// page alone has not.
		last := all[len(all)-1].Index
		if wanted.from = max(last, wanted.from+1); wanted.from > wanted.to {
			return nil
		}
	}
	return nil
}

// covers returns nil if the signatures are of milestones of the span, in
// ascending order.
func (m span) covers(all []consensus.Signature) error {
	for _, s := range all {
		if s.Index < m.from || s.Index > m.to {
			return fmt.Errorf("%w: signature of milestone %d out of order", errBody, s.Index)
		}
		m.from = s.Index
	}
	return nil
}
