package peer

import (
	"context"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

// What looks like a member's signature of another milestone than this replica
// derived may be that, or one of another index that somebody has sent again. The
// member, and then others, are asked for the milestone and all of its
// signatures: after doubtFirst, since a quorum signs one after the other, and
// doubtTries times, twice as long after each.
const (
	doubtFirst = time.Second
	doubtTries = 4
)

// A doubt is about one milestone that a member signed.
type doubt struct {
	consensus.Signature
	tries int
	next  time.Time
}

// compare resolves doubts until ctx ends. Of each member there is one at a time:
// where histories have parted, each later milestone tells the same.
func (p *Peers) compare(ctx context.Context) error {
	tick := time.NewTicker(doubtFirst)
	defer tick.Stop()
	for doubts := map[network.PublicKey]*doubt{}; ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		now := time.Now()
		for key, sig := range p.agreed.Doubts() {
			if doubts[key] == nil {
				doubts[key] = &doubt{Signature: sig, next: now.Add(doubtFirst)}
			}
		}
		for key, d := range doubts {
			if now.Before(d.next) {
				continue
			}
			shown, err := p.confront(ctx, d)
			if err != nil {
				return err
			}
			if d.tries++; shown || d.tries == doubtTries {
				delete(doubts, key)
			}
			d.next = time.Now().Add(doubtFirst << d.tries)
		}
	}
}

// confront asks for the milestone that a member signed, and for its signatures,
// and reports whether it was shown. The error is the replica's.
func (p *Peers) confront(ctx context.Context, d *doubt) (shown bool, err error) {
	m := p.whoHas(p.roster.Load().byKey[d.PublicKey], d.tries > 0)
	if m == nil || m.isShunned(time.Now()) {
		return false, nil
	}
	body, err := p.ask(ctx, m, kindEssences, span{d.Index, d.Index}.append(nil))
	if err != nil {
		return false, p.gaveUp(ctx, m, err)
	}
	es, err := parseEssences(body)
	if err != nil {
		return false, p.gaveUp(ctx, m, err)
	}
	if len(es) != 1 || es[0].Index != d.Index || es[0].ID() != d.Milestone {
		return false, nil
	}
	if err := p.agreed.Contradict(&es[0], d.Signature); err != nil {
		return false, p.gaveUp(ctx, m, err)
	}
	if err := p.fetchSignatures(ctx, m, span{d.Index, d.Index}); err != nil {
		return true, p.gaveUp(ctx, m, err)
	}
	return true, nil
}
