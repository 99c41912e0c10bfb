package peer

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// A state sync takes from a member the milestones up to the first certified one
// above which the member has all bodies, and leaves the rest to walks
// (consensus.md §7, §8).
const (
	stuckFor     = 5 * time.Second // without a milestone, before milestones are taken over
	importBlocks = 4096            // of the milestones in one step, unless there is only one
	importBytes  = 8 << 20         // of their bodies, likewise
	askTries     = 20              // of a request in a state sync
	askPause     = 250 * time.Millisecond

	// How many bytes of bodies are kept of one milestone: from the first number
	// on what comes is made a stub of, unless it is needed, of which more than
	// the second number is not taken.
	maxBodies = 64 << 20
	maxNeeded = 128 << 20

	// How long a state sync with one member takes before another one has its
	// turn. What was stored until then stays; while that is nothing, because a
	// milestone takes longer, the time doubles.
	turnFirst   = time.Minute
	turnLongest = time.Hour

	// otherSource is how long others are preferred to a member with which a state
	// sync failed.
	otherSource = 10 * time.Minute
)

// errShort means that a member does not keep what a state sync needs of it.
var errShort = errors.New("too little is kept")

// A progress says since when the replica has had its last milestone.
type progress struct {
	milestone uint32
	since     time.Time
	turn      time.Duration         // of the next state sync
	failed    map[*member]time.Time // until then a state sync is tried with others
}

// tooFar reports whether m has lost bodies of blocks that this replica lacks,
// so that there is no use in walking its order, and whether it is time to take
// over its milestones.
func (p *Peers) tooFar(m *member) (far, now bool) {
	own, at := p.agreed.Word(), time.Now()
	if own.Milestone != p.progress.milestone || p.progress.since.IsZero() {
		p.progress = progress{own.Milestone, at, turnFirst, p.progress.failed}
	}
	if p.replica.Syncing() {
		return true, true
	}
	far = own.Milestone < m.lastWord().Whole
	return far, far && (own.Milestone == 0 || at.Sub(p.progress.since) >= stuckFor)
}

// source returns the member to take milestones over from, instead of m if another
// one says that it keeps payloads of more of them: what the source leaves out
// nobody is asked for afterwards, and a liar that says so has to hand it out.
func (p *Peers) source(m *member, now time.Time) *member {
	maps.DeleteFunc(p.progress.failed, func(_ *member, until time.Time) bool { return !now.Before(until) })
	failed := func(o *member) bool { return p.progress.failed[o] != time.Time{} }
	others := p.others()
	for _, o := range others {
		if o != m && !failed(o) && o.isUp(now, len(others)) && o.mayWalk(now) && (failed(m) || o.lastWord().Payloads < m.lastWord().Payloads) {
			m = o
		}
	}
	return m
}

// takeOver does a state sync with m, or with whom [Peers.source] prefers. The
// error means that the replica takes nothing more at all.
func (p *Peers) takeOver(ctx context.Context, m *member) error {
	m = p.source(m, time.Now())
	s := &stateSync{p: p, m: m, own: p.agreed.Word(), mute: map[*member]bool{}}
	turn, cancel := context.WithTimeout(ctx, p.progress.turn)
	defer cancel()
	err := s.run(turn)
	if err != nil {
		if p.progress.failed == nil {
			p.progress.failed = map[*member]time.Time{}
		}
		p.progress.failed[m] = time.Now().Add(otherSource)
	}
	switch {
	case err != nil && turn.Err() != nil && ctx.Err() == nil:
		p.progress.turn = min(2*p.progress.turn, turnLongest) // tooFar makes it the first again when there are more milestones
		p.log.Warn("state sync takes long, another peer has its turn", "peer", m.Name, "err", err)
		return nil
	case err == nil:
		p.log.Info("milestones taken over", "peer", m.Name, "up_to", s.chain.Top())
	case errors.Is(err, errShort):
		p.log.Warn("state sync not possible now", "peer", m.Name, "err", err)
		return nil
	case errors.Is(err, ledger.ErrForeign), errors.Is(err, consensus.ErrChain), errors.Is(err, consensus.ErrBadSignature):
		p.log.Warn("peer handed out milestones that do not hold", "peer", m.Name, "err", err)
		p.blame(m, forMalformed, err)
		return nil
	default:
		p.log.Warn("state sync interrupted", "peer", m.Name, "err", err)
		return p.gaveUp(ctx, m, err)
	}
	return nil
}

// A stateSync is one attempt with one member.
type stateSync struct {
	p        *Peers
	m        *member
	own      ledger.Word
	files    []*network.File // from epoch 0 on
	networks []*network.File // those that the replica does not have
	chain    *consensus.Chain
	mute     map[*member]bool // others that did not answer
}

func (s *stateSync) run(ctx context.Context) error {
	if err := s.learnNetworks(ctx); err != nil {
		return err
	}
	w := s.m.lastWord()
	top := topOf(s.own, w)
	if top > uint64(w.Certified) {
		return fmt.Errorf("%w: %s has certified up to milestone %d, %d is needed", errShort, s.m.Name, w.Certified, top)
	}
	if err := s.climbDown(ctx, uint32(top)); err != nil {
		return err
	}
	for from, to := s.chain.Span(); from != 0; from, to = s.chain.Span() {
		es, err := s.essences(ctx, span{from, to})
		if err != nil {
			return err
		}
		if len(es) == 0 || es[len(es)-1].Index != from {
			return fmt.Errorf("%w: %s has forgotten milestone %d", errShort, s.m.Name, from)
		}
		slices.Reverse(es)
		if err := s.chain.Up(es); err != nil {
			return err
		}
		if err := s.lists(ctx, es); err != nil {
			return err
		}
	}
	return nil
}

// topOf returns the milestone up to which the replica has to take over from a
// member: the member hands out all bodies of it and of the one before, and the
// replica has none of the two without. That may be its last one, after a crash
// just before the end; there need not be a later one before this gateway votes.
// What the member says may be anything.
func topOf(own, w ledger.Word) uint64 {
	return max(uint64(own.Milestone), uint64(own.Whole)+2, uint64(w.Whole)+2)
}

// ask is [Peers.ask] for as long as the member is busy, or does not answer if it
// is the one that hands out.
func (s *stateSync) ask(ctx context.Context, m *member, k kind, body []byte) (answer []byte, err error) {
	again := errOccupied
	if m == s.m {
		again = errUnanswered
	}
	for range askTries {
		if answer, err = s.p.ask(ctx, m, k, body); !errors.Is(err, again) {
			break
		}
		if !wait(ctx, askPause) {
			return nil, ctx.Err()
		}
	}
	if err != nil {
		s.mute[m] = true
	}
	return answer, err
}

// learnNetworks gets the network files of the epochs that this replica does not
// know.
func (s *stateSync) learnNetworks(ctx context.Context) (err error) {
	if s.files, err = s.p.replica.StoredNetworks(0); err != nil {
		return err
	}
	for {
		body, err := s.ask(ctx, s.m, kindNetworks, binary.LittleEndian.AppendUint32(nil, uint32(len(s.files))))
		if err != nil {
			return err
		}
		more, err := parseNetworks(body)
		if err != nil || len(more) == 0 {
			return err
		}
		for _, f := range more {
			if n := len(s.files); n == 0 && f.GenesisHash() != s.p.signer.genesis {
				return fmt.Errorf("%w: network file of another network", ledger.ErrForeign)
			} else if n > 0 {
				if err := f.Follows(s.files[n-1]); err != nil {
					return fmt.Errorf("%w: network file of epoch %d: %w", ledger.ErrForeign, f.Epoch, err)
				}
			}
			s.files, s.networks = append(s.files, f), append(s.networks, f)
		}
	}
}

// climbDown gets the certified milestone and checks those below it, down to
// those that the replica has or does not need.
func (s *stateSync) climbDown(ctx context.Context, top uint32) error {
	es, err := s.essences(ctx, span{top, top})
	if err != nil {
		return err
	}
	if len(es) != 1 || es[0].Index != top || int(es[0].Epoch) >= len(s.files) {
		return fmt.Errorf("%w: %s does not hand out milestone %d", errShort, s.m.Name, top)
	}
	all, err := s.signatures(ctx, s.m, span{top, top})
	if err != nil {
		return err
	}
	if s.chain, err = consensus.NewChain(s.files, &es[0], all[top]); err != nil {
		return err
	}
	horizon := s.files[0].IDHorizon
	least := max(1, s.own.Milestone+1, max(top, horizon)-horizon)
	for {
		lowest, _ := s.chain.Lowest()
		if lowest <= least {
			return nil
		}
		es, err := s.essences(ctx, span{max(least, lowest-min(lowest, maxEssences)), lowest - 1})
		if err != nil {
			return err
		}
		if len(es) == 0 {
			return s.enough(lowest, top)
		}
		for i := range es {
			if err := s.chain.Down(&es[i]); err != nil {
				return err
			}
		}
	}
}

// enough returns nil if the milestones from lowest to top are all that an honest
// gateway refers to.
func (s *stateSync) enough(lowest, top uint32) error {
	depth := s.files[0].IDHorizon / 2
	if s.own.Milestone > 0 {
		return fmt.Errorf("%w: %s has forgotten the milestones between %d, the last one here, and %d; if all have, stop the gateway and move the directory ledger away: it is made anew from the others",
			errShort, s.m.Name, s.own.Milestone, lowest)
	}
	if lowest > max(top, depth)-depth {
		return fmt.Errorf("%w: %s has forgotten the milestones before %d", errShort, s.m.Name, lowest)
	}
	return nil
}

// essences returns milestones of a span, the last first.
func (s *stateSync) essences(ctx context.Context, asked span) ([]consensus.Essence, error) {
	body, err := s.ask(ctx, s.m, kindEssences, asked.append(nil))
	if err != nil {
		return nil, err
	}
	es, err := parseEssences(body)
	if err == nil && len(es) > 0 && (es[0].Index != asked.to || es[len(es)-1].Index < asked.from) {
		err = fmt.Errorf("%w: milestones from %d down", errBody, es[0].Index)
	}
	return es, err
}

// signatures returns what a member knows of a span of milestones, by index and
// ascending keys.
func (s *stateSync) signatures(ctx context.Context, m *member, asked span) (map[uint32][]consensus.Signature, error) {
	out := map[uint32][]consensus.Signature{}
	for {
		body, err := s.ask(ctx, m, kindSignatures, asked.append(nil))
		if err != nil {
			return nil, err
		}
		all, err := parseSignatures(body, maxSignatures)
		if err == nil {
			err = asked.covers(all)
		}
		if err != nil {
			return nil, err
		}
		for _, sig := range all {
			out[sig.Index] = append(out[sig.Index], sig)
			if len(out[sig.Index]) > network.MaxGateways {
				return nil, fmt.Errorf("%w: more signatures of milestone %d than gateways", errBody, sig.Index)
			}
		}
		if len(all) < maxSignatures {
			break
		}
		asked.from = all[len(all)-1].Index // it may have more than fit into the answer
		delete(out, asked.from)
	}
	for _, of := range out {
		slices.SortFunc(of, func(a, b consensus.Signature) int { return bytes.Compare(a.PublicKey[:], b.PublicKey[:]) })
	}
	return out, nil
}

// lists gets the blocks of milestones, which the chain has checked, and has the
// replica take them over.
func (s *stateSync) lists(ctx context.Context, es []consensus.Essence) error {
	var ready []ledger.Imported
	var open opened
	n, size := 0, 0
	for at := 0; at < len(es); {
		last := &es[len(es)-1]
		body, err := s.ask(ctx, s.m, kindLists, stretch{es[at].Index, uint32(len(open.blocks)), last.Index}.append(nil))
		if err != nil {
			return err
		}
		parts, err := parseLists(body)
		if err != nil {
			return err
		}
		if len(parts) == 0 {
			return fmt.Errorf("%w: %s has forgotten the blocks of milestone %d", errShort, s.m.Name, es[at].Index)
		}
		keeps := s.m.lastWord().Payloads
		for _, pt := range parts {
			if err := pt.has(keeps); err != nil {
				return err
			}
			if at == len(es) || pt.index != es[at].Index || len(pt.blocks) == 0 && !pt.end {
				return fmt.Errorf("%w: part of the list of milestone %d", errBody, pt.index)
			}
			if err := open.add(&pt, pt.index+1 >= s.chain.Top()); err != nil {
				return err
			}
			if !pt.end {
				continue
			}
			ready = append(ready, ledger.Imported{Essence: es[at], Blocks: open.blocks})
			n, size, at = n+len(open.blocks), size+open.bytes, at+1
			open = opened{}
			if n < importBlocks && size < importBytes && at < len(es) {
				continue
			}
			if err := s.hand(ctx, ready); err != nil {
				return err
			}
			ready, n, size = nil, 0, 0
		}
	}
	return nil
}

// has returns nil unless the part lacks a payload that the member said to keep,
// as it does above a milestone.
func (pt *part) has(keeps uint32) error {
	for _, l := range pt.blocks {
		if l.Raw == nil && !l.Vote && pt.index > keeps {
			return fmt.Errorf("%w: block %v of milestone %d without body, of which payloads are kept above %d", errShort, l.ID, pt.index, keeps)
		}
	}
	return nil
}

// An opened is what has come of a milestone. What it proves comes last, so that
// until then a member may hand out anything.
type opened struct {
	blocks []ledger.Listed
	bytes  int // of bodies
}

// add adds a part of the list, with needed bodies or not.
func (o *opened) add(pt *part, needed bool) error {
	if len(o.blocks)+len(pt.blocks) > maxListed {
		return fmt.Errorf("%w: milestone %d has more than %d blocks", errBody, pt.index, maxListed)
	}
	for _, l := range pt.blocks {
		if l.Raw != nil && stardust.IDOf(l.Raw) != l.ID {
			return fmt.Errorf("%w: body of block %v is of another block", ledger.ErrForeign, l.ID)
		}
		switch o.bytes += len(l.Raw); {
		case needed && o.bytes > maxNeeded:
			return fmt.Errorf("%w: the bodies of milestone %d, one of the last two, are more than %d bytes", errShort, pt.index, maxNeeded)
		case !needed && o.bytes > maxBodies:
			if err := claim(&l, pt.index); err != nil {
				return err
			}
			o.bytes -= len(l.Raw)
			l.Raw = nil
		}
		if l.Raw != nil {
			l.Raw = bytes.Clone(l.Raw) // not all of the answer, of which it may be a small part
		}
		o.blocks = append(o.blocks, l)
	}
	return nil
}

// hand completes milestones with certificates and has the replica take them over.
func (s *stateSync) hand(ctx context.Context, ms []ledger.Imported) error {
	if err := s.believe(ctx, ms); err != nil {
		return err
	}
	step := &ledger.Import{Networks: s.networks, Milestones: ms, Top: s.chain.Top()}
	var proved []*ledger.Imported // with payload to be proved, and the last
	for i := range ms {
		m := &ms[i]
		bare := slices.ContainsFunc(m.Blocks, func(b ledger.Listed) bool { return b.Raw == nil })
		if bare && m.Index+1 >= s.chain.Top() {
			return fmt.Errorf("%w: %s has not all bodies of milestone %d any more", errShort, s.m.Name, m.Index)
		}
		if m.Index == s.chain.Top() || slices.ContainsFunc(m.Blocks, func(b ledger.Listed) bool { return b.Raw != nil && !b.Vote }) {
			proved = append(proved, m)
		}
	}
	if err := s.prove(ctx, proved); err != nil {
		return err
	}
	return s.give(ctx, step)
}

// prove completes milestones with certificates. Those that the member left out
// are asked of others, until members of more weight than may be faulty know none:
// without its certificate nobody can be shown what a milestone confirms.
func (s *stateSync) prove(ctx context.Context, ms []*ledger.Imported) error {
	file, weight := s.files[len(s.files)-1], uint64(0)
	for _, m := range append([]*member{s.m}, s.others()...) {
		if len(ms) == 0 || weight > uint64(file.ByzantineWeight) {
			break
		}
		all, err := s.signatures(ctx, m, span{ms[0].Index, ms[len(ms)-1].Index})
		if err != nil && (m == s.m || ctx.Err() != nil) {
			return err
		} else if err != nil {
			continue
		}
		ms = slices.DeleteFunc(ms, func(i *ledger.Imported) bool {
			of := all[i.Index]
			if consensus.VerifyCertificate(s.files[i.Epoch], i.ID(), of) != nil {
				return false
			}
			i.Signatures = of
			return true
		})
		weight += weightOf(file, m)
	}
	return nil
}

// give has the replica take over a step, also when it is busy for a while.
func (s *stateSync) give(ctx context.Context, step *ledger.Import) (err error) {
	for range askTries {
		if err = s.p.replica.Import(ctx, step); !errors.Is(err, ledger.ErrBusy) {
			return err
		}
		if !wait(ctx, askPause) {
			return ctx.Err()
		}
	}
	return err
}
