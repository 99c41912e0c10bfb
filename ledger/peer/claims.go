package peer

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash"
	"math/rand/v2"
	"slices"
	"time"

	"golang.org/x/crypto/blake2b"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// What milestones order is proved by their roots; which blocks without bodies were
// votes, and what those claimed, is not. All honest gateways keep the same, so a
// state sync believes what members of more weight than may be faulty say alike.

// maxClaimed is over how many blocks a hash of claims is made: few enough that a
// small machine answers in time.
const maxClaimed = 1 << 14

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

// claimsOf answers a request for the hash over the next blocks of a stretch, with
// nothing if it cannot.
func (p *Peers) claimsOf(asked stretch) ([]byte, error) {
	if last := p.replica.Agreed().Milestone; asked.to > last || asked.to-asked.from >= maxEssences {
		return nil, nil
	}
	h := newClaimsHash()
	for index, skip := asked.from, int(asked.skip); index <= asked.to && h.n < maxClaimed; index, skip = index+1, 0 {
		err := p.replica.Listed(index, skip, func(l ledger.Listed) bool {
			h.add(l)
			return h.n < maxClaimed
		})
		if errors.Is(err, ledger.ErrNotFound) {
			return nil, nil
		} else if err != nil {
			return nil, err
		}
	}
	return h.Sum(nil), nil
}

// A claimed is what the blocks of a stretch, as many as one hash is over, are
// said to be.
type claimed struct {
	stretch stretch
	sum     []byte
}

// claimsIn returns the hashes over milestones that a member handed out, and
// whether there are blocks without bodies in them: only the hash says that such a
// block was no vote.
func claimsIn(ms []ledger.Imported) (all []claimed, bare bool, err error) {
	last := ms[len(ms)-1].Index
	at, h := stretch{ms[0].Index, 0, last}, newClaimsHash()
	for i := range ms {
		for k, l := range ms[i].Blocks {
			if err := claim(&l, ms[i].Index); err != nil {
				return nil, false, err
			}
			if h.n == maxClaimed {
				all = append(all, claimed{at, h.Sum(nil)})
				at, h = stretch{ms[i].Index, uint32(k), last}, newClaimsHash()
			}
			bare = bare || l.Raw == nil
			h.add(l)
		}
	}
	return append(all, claimed{at, h.Sum(nil)}), bare, nil
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
// of what blocks without bodies were.
func (s *stateSync) believe(ctx context.Context, ms []ledger.Imported) error {
	all, bare, err := claimsIn(ms)
	if err != nil || !bare {
		return err
	}
	file := s.files[len(s.files)-1]
	weight := weightOf(file, s.m)
	for _, m := range s.others() {
		if weight > uint64(file.ByzantineWeight) {
			return nil
		}
		more := weightOf(file, m)
		if more == 0 {
			continue
		}
		same, err := s.agrees(ctx, m, all)
		if err != nil {
			return err
		}
		if same {
			weight += more
		}
	}
	if weight > uint64(file.ByzantineWeight) {
		return nil
	}
	return fmt.Errorf("%w: members of weight %d say of milestones %d to %d what %s says, more than %d is needed",
		errShort, weight, ms[0].Index, ms[len(ms)-1].Index, s.m.Name, file.ByzantineWeight)
}

// agrees reports whether a member says the same. The error is that of ctx.
func (s *stateSync) agrees(ctx context.Context, m *member, all []claimed) (bool, error) {
	for _, c := range all {
		body, err := s.ask(ctx, m, kindClaims, c.stretch.append(nil))
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if err != nil || !bytes.Equal(body, c.sum) {
			return false, nil
		}
	}
	return true, nil
}

func weightOf(file *network.File, m *member) uint64 {
	g, ok := file.Index(m.PublicKey[:])
	if !ok {
		return 0
	}
	return uint64(file.Gateways[g].Weight)
}

// others returns the members beside the one that hands out that may be asked, in
// random order, but the last those that did not answer in this state sync.
func (s *stateSync) others() (out []*member) {
	r, now := s.p.roster.Load(), time.Now()
	for _, at := range rand.Perm(len(r.others)) {
		if m := r.others[at]; m != s.m && m.isUp(now, len(r.others)) && !m.isShunned(now) {
			out = append(out, m)
		}
	}
	slices.SortStableFunc(out, func(a, b *member) int { return cmp.Compare(flag(s.mute[a]), flag(s.mute[b])) })
	return out
}
