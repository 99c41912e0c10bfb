package peer

import (
	"context"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

// A member that signed another milestone than this replica derived may lie, or
// may have the certificate of that one. It has to say: after doubtFirst, since a
// quorum signs one after the other, and doubtTries times, twice as long each.
const (
	doubtFirst = time.Second
	doubtTries = 4
)

// A doubt is about one milestone that a member signed.
type doubt struct {
	index uint32
	tries int
	next  time.Time
}

// compare asks members that contradict this replica for all signatures that they
// have of such a milestone, until ctx ends. One is asked of one milestone at a
// time: where histories have parted, each later one tells the same.
func (p *Peers) compare(ctx context.Context) error {
	tick := time.NewTicker(lagLook)
	defer tick.Stop()
	for doubts := map[network.PublicKey]*doubt{}; ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		now := time.Now()
		for key, index := range p.agreed.Doubts() {
			if doubts[key] == nil {
				doubts[key] = &doubt{index: index, next: now.Add(doubtFirst)}
			}
		}
		for key, d := range doubts {
			if now.Before(d.next) {
				continue
			}
			if err := p.confront(ctx, key, d.index); err != nil {
				return err
			}
			if d.tries++; d.tries == doubtTries {
				delete(doubts, key)
			}
			d.next = time.Now().Add(doubtFirst << d.tries)
		}
	}
}

// confront asks a member for the signatures of a milestone, if it is there.
func (p *Peers) confront(ctx context.Context, key network.PublicKey, index uint32) error {
	r, now := p.roster.Load(), time.Now()
	m := r.byKey[key]
	if m == nil || !m.isUp(now, len(r.others)) || m.isShunned(now) {
		return nil
	}
	if err := p.fetchSignatures(ctx, m, span{index, index}); err != nil {
		return p.gaveUp(ctx, m, err)
	}
	return nil
}
