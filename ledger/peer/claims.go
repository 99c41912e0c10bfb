package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash"
	"math/rand/v2"
	"time"

	"golang.org/x/crypto/blake2b"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// What milestones order is proved by their roots; which blocks without bodies were
// votes, and what those claimed, is not. All honest gateways keep the same, so a state sync believes
// what members of more weight than may be faulty say alike.

// maxClaimed is over how many blocks a hash of claims is made at most.
const maxClaimed = 1 << 18

// A claimsHash is over the blocks of milestones and what the votes among them
// claim, bodies or not.
type claimsHash struct {
	hash.Hash
	n int
}

func newClaimsHash() *claimsHash {
	h, err := blake2b.New256(nil)
	if err != nil {
		panic(err) // only for keys that are too long
	}
	return &claimsHash{Hash: h}
}

func (h *claimsHash) add(l ledger.Listed) {
	l.Raw = nil
	h.Write(appendListed(nil, &l))
	h.n++
}

// claimsOf answers a request for the hash over a span of milestones: with
// nothing if it cannot.
func (p *Peers) claimsOf(asked span) ([]byte, error) {
	if last := p.replica.Agreed().Milestone; asked.to > last || asked.to-asked.from >= maxEssences {
		return nil, nil
	}
	h := newClaimsHash()
	for index := asked.from; index <= asked.to; index++ {
		err := p.replica.Listed(index, 0, func(l ledger.Listed) bool {
			h.add(l)
			return h.n <= maxClaimed
		})
		if errors.Is(err, ledger.ErrNotFound) || h.n > maxClaimed {
			return nil, nil
		} else if err != nil {
			return nil, err
		}
	}
	return h.Sum(nil), nil
}

// claimed returns the hash over milestones that a member handed out, and whether
// there are blocks without bodies in them: only the hash says that such a block
// was no vote.
func claimed(ms []ledger.Imported) (sum []byte, bare bool, err error) {
	h := newClaimsHash()
	for i := range ms {
		for _, l := range ms[i].Blocks {
			if err := claim(&l, ms[i].Index); err != nil {
				return nil, false, err
			}
			bare = bare || l.Raw == nil
			h.add(l)
		}
	}
	return h.Sum(nil), bare, nil
}

// claim fills in what the block of a milestone is, if it has a body that says so.
func claim(l *ledger.Listed, index uint32) error {
	if l.Raw == nil {
		return nil
	}
	b, err := stardust.ParseBlock(l.Raw)
	if err != nil {
		return fmt.Errorf("%w: block %v: %w", ledger.ErrForeign, l.ID, err)
	}
	o, err := consensus.OrderedBlock(b, index)
	if err != nil {
		return fmt.Errorf("%w: block %v: %w", ledger.ErrForeign, l.ID, err)
	}
	l.Vote, l.Claim = o.Vote, o.Claim
	return nil
}

// believe returns nil if members of more weight than may be faulty say the same
// of what votes claimed.
func (s *stateSync) believe(ctx context.Context, ms []ledger.Imported) error {
	sum, bare, err := claimed(ms)
	if err != nil || !bare {
		return err
	}
	file, r, now := s.files[len(s.files)-1], s.p.roster.Load(), time.Now()
	weight := uint64(0)
	if g, ok := file.Index(s.m.PublicKey[:]); ok {
		weight = uint64(file.Gateways[g].Weight)
	}
	for _, at := range rand.Perm(len(r.others)) {
		if weight > uint64(file.ByzantineWeight) {
			return nil
		}
		m := r.others[at]
		g, ok := file.Index(m.PublicKey[:])
		if m == s.m || !ok || !m.isUp(now, len(r.others)) || m.isShunned(now) {
			continue
		}
		body, err := s.p.ask(ctx, m, kindClaims, span{ms[0].Index, ms[len(ms)-1].Index}.append(nil))
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil && bytes.Equal(body, sum) {
			weight += uint64(file.Gateways[g].Weight)
		}
	}
	if weight > uint64(file.ByzantineWeight) {
		return nil
	}
	return fmt.Errorf("%w: members of weight %d say of milestones %d to %d what %s says, more than %d is needed",
		errShort, weight, ms[0].Index, ms[len(ms)-1].Index, s.m.Name, file.ByzantineWeight)
}
