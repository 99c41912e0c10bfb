package ledger

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// A Retention says how long bodies of blocks are kept after the milestone that
// orders them, by the time of milestones; zero fields: for ever. Those of what is not certified, of the
// last milestones and of proofs of equivocation are kept in any case. When the
// store comes near its limit they go sooner: those of votes, those of blocks of
// others than the members, those of all other blocks, the oldest first
// (consensus.md §8).
type Retention struct {
	Blocks time.Duration
	Votes  time.Duration

	// Hold reports that the body of a block that is no vote, and those of what
	// was ordered after it, are not to go yet. It must not block. None is held.
	Hold func(id stardust.BlockID) bool
}

const (
	// keepMilestones is of how many of the last milestones all is kept: of two a
	// restart needs the bodies.
	keepMilestones = 16

	// What one step looks at, and how long the writer does other things between
	// two, and when there is nothing to prune.
	pruneBodies     = 256
	pruneLooks      = 1024
	pruneMilestones = 256
	pruneAgain      = 20 * time.Millisecond
	pruneBusy       = 200 * time.Millisecond
	pruneIdle       = 2 * time.Second
	prunePayloads   = time.Minute

	// Bodies become too old many at a time, and by time that all replicas share,
	// so that those that keep them equally long have the same most of the time.
	pruneTogether      = 6 // one part of the retention in so many
	pruneTogetherMost  = 10 * time.Minute
	pruneTogetherLeast = time.Second
)

// A pruner is the writer's part in forgetting. It belongs to the goroutine of
// Run.
type pruner struct {
	Retention
	reached  Reached
	next     time.Time // no step before
	payloads time.Time // no payload that no milestone orders is deleted before
}

func (l *Ledger) openPruner(r Retention) (err error) {
	if r.Blocks < 0 || r.Votes < 0 {
		return errors.New("a retention is negative")
	}
	if r.Hold == nil {
		r.Hold = func(stardust.BlockID) bool { return false }
	}
	l.pruner.Retention = r
	reached, err := l.store.Pruned()
	l.reached(reached)
	return err
}

// reached takes note of how far pruning has come, or is about to.
func (l *Ledger) reached(r Reached) {
	l.pruner.reached = r
	l.board.mu.Lock()
	defer l.board.mu.Unlock()
	l.board.word.Whole, l.board.word.Payloads, l.board.oldest = r.Whole(), r.Payloads(), r.Stubs.Milestone
	if r.Stubs.Next > 0 {
		l.board.oldest++
	}
}

// prune takes a step of pruning if it is time, and returns when to take the
// next. An error means that the store is in doubt.
func (l *Ledger) prune(busy bool) (next time.Time, err error) {
	p := &l.pruner
	now := time.Now()
	if now.Before(p.next) || l.syncing.Load() {
		return p.next, nil
	}
	step, err := l.nextStep()
	if err != nil {
		return next, err
	}
	switch {
	case step == nil:
		p.next = now.Add(pruneIdle)
		return p.next, nil
	case busy:
		p.next = now.Add(pruneBusy)
	default:
		p.next = now.Add(pruneAgain)
	}
	switch err := l.store.Prune(*step); {
	case errors.Is(err, ErrBusy):
		l.agreement.gone = append(step.Loose, l.agreement.gone...)
		p.next = now.Add(busyPause)
		return p.next, nil
	case err != nil:
		return next, fmt.Errorf("prune: %w", err)
	}
	l.reached(step.Reached)
	_, pruned, _, err := l.store.Count()
	if err != nil {
		return next, err
	}
	l.counts.pruned.Store(pruned)
	l.recent.forget(step.Loose)
	l.log.Debug("pruned", "blocks", len(step.Bodies), "stubs", len(step.Stubs), "votes_to", p.reached.Votes.Milestone,
		"blocks_to", p.reached.Blocks.Milestone, "stubs_to", p.reached.Stubs.Milestone)
	return p.next, nil
}

// A phase prunes one kind of block.
type phase struct {
	reach  *Reach // of the step to come
	limit  uint32 // milestone up to which it may go
	before uint32 // time of milestones, in Unix seconds, from which on it may not
	takes  func(*stardust.Block) bool
	stubs  bool
}

// nextStep returns the next step of pruning; nil: there is nothing to prune.
func (l *Ledger) nextStep() (*Pruning, error) {
	step := &Pruning{Reached: l.pruner.reached}
	var err error
	if step.Loose, err = l.loose(); err != nil {
		return nil, fmt.Errorf("look for what to delete: %w", err)
	}
	phases, err := l.phases(&step.Reached)
	if err != nil {
		return nil, err
	}
	for _, ph := range phases {
		if err := l.gather(ph, step); err != nil {
			return nil, fmt.Errorf("look for what to prune: %w", err)
		}
		if step.Reached != l.pruner.reached {
			return step, nil
		}
	}
	if len(step.Loose) > 0 {
		return step, nil
	}
	return nil, nil
}

// loose takes, from what the state has forgotten, what is to be deleted now: not
// what it was told of again, or what a held block refers to. Payloads wait until
// the marks are looked at.
func (l *Ledger) loose() (ids []stardust.BlockID, err error) {
	a := &l.agreement
	last, wait := l.recent.newest(), a.gone[:0]
	for _, id := range a.gone {
		switch {
		case a.state.Has(id) || a.evidence[id]:
			continue
		case id == last || l.hold.refers(id) || len(ids) == pruneBodies:
			wait = append(wait, id)
			continue
		}
		switch vote, err := l.isStoredVote(id); {
		case errors.Is(err, ErrNotFound):
		case err != nil:
			return nil, err
		case vote:
			ids = append(ids, id)
		case len(a.payloads) < maxGone:
			a.payloads = append(a.payloads, id)
		}
	}
	a.gone = wait
	if len(ids) > 0 || len(a.payloads) == 0 || time.Now().Before(l.pruner.payloads) {
		return ids, nil
	}
	return l.loosePayloads()
}

// loosePayloads is loose for payloads, but for those in which readings of this
// gateway stand, which may be nowhere else. It looks at all marks, and therefore
// seldom.
func (l *Ledger) loosePayloads() ([]stardust.BlockID, error) {
	a := &l.agreement
	n := min(len(a.payloads), pruneBodies)
	ids := slices.DeleteFunc(slices.Clone(a.payloads[:n]), func(id stardust.BlockID) bool {
		return a.state.Has(id) || l.hold.refers(id)
	})
	a.payloads = a.payloads[n:]
	return l.unmarked(ids)
}

func (l *Ledger) isStoredVote(id stardust.BlockID) (bool, error) {
	rec, err := l.load(id)
	if err != nil {
		return false, err
	}
	b, err := stardust.ParseBlock(rec.Raw)
	return err == nil && isVote(b), err
}

// unmarked leaves out those blocks in which readings of this gateway stand.
func (l *Ledger) unmarked(ids []stardust.BlockID) ([]stardust.BlockID, error) {
	l.pruner.payloads = time.Now().Add(prunePayloads)
	marked := map[stardust.BlockID]bool{}
	for _, id := range ids {
		marked[id] = false
	}
	if err := l.store.Marks(0, func(_ [2]uint64, block stardust.BlockID) bool {
		if _, ok := marked[block]; ok {
			marked[block] = true
		}
		return true
	}); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(ids, func(id stardust.BlockID) bool { return marked[id] }), nil
}

// phases returns the kinds to prune in the order in which they go.
func (l *Ledger) phases(r *Reached) ([]*phase, error) {
	last, certified := l.store.Last()
	limit := min(certified, max(last, keepMilestones)-keepMilestones)
	excess, err := l.store.Excess()
	if err != nil {
		return nil, err
	}
	votes := &phase{reach: &r.Votes, limit: limit, before: l.boundary(l.pruner.Votes), takes: isVote}
	guests := &phase{reach: &r.Guests, limit: limit, before: l.boundary(l.pruner.Blocks), takes: l.isGuest}
	blocks := &phase{reach: &r.Blocks, limit: limit, before: guests.before, takes: func(b *stardust.Block) bool { return !isVote(b) }}
	if excess > 0 {
		votes.before, guests.before, blocks.before = never, never, never
	}
	horizon := l.network.IDHorizon
	stubs := &phase{reach: &r.Stubs, before: never, stubs: true}
	stubs.limit = min(max(last, horizon)-horizon, r.Votes.Milestone, r.Guests.Milestone, r.Blocks.Milestone)
	return []*phase{votes, guests, blocks, stubs}, nil
}

// never is a time behind those of all milestones.
const never = 1<<32 - 1

// boundary returns the time of the milestones from which on something is kept
// that is kept so long; 0: all of it. Ages are up to the last milestone, or up to
// now where that is earlier: what goes is gone for ever, so neither the own clock
// nor those of the others alone decide. While the own one is not known to be good
// nothing is too old.
func (l *Ledger) boundary(keep time.Duration) uint32 {
	now := min(int64(l.Agreed().Timestamp), int64(l.clock()/1000))
	if keep == 0 || now == 0 {
		return 0
	}
	together := max(pruneTogetherLeast, min(keep/pruneTogether, pruneTogetherMost))
	at := time.Unix(now, 0).Add(-keep).Truncate(together).Unix()
	return uint32(max(0, min(at, never)))
}

func isVote(b *stardust.Block) bool { return consensus.IsVote(b.Payload) }

// isGuest reports whether a block is of somebody who is no member. A network
// file is everybody's.
func (l *Ledger) isGuest(b *stardust.Block) bool {
	data, ok := b.Payload.(*stardust.TaggedData)
	update := ok && string(data.Tag) == consensus.TagUpdate
	return !isVote(b) && !update && l.third(b, nil)
}

// gather adds to the step what is next in a phase.
func (l *Ledger) gather(ph *phase, step *Pruning) error {
	for milestones, looks := 0, 0; milestones < pruneMilestones && ph.reach.Milestone < ph.limit; milestones++ {
		index := ph.reach.Milestone + 1
		if ph.before != never {
			at, err := l.timeOf(index, ph.limit)
			if err != nil {
				return err
			}
			if at >= ph.before {
				return nil
			}
		}
		v := visit{l: l, ph: ph, step: step, next: ph.reach.Next, left: ph.reach.Next > 0, looks: looks}
		if err := l.store.Bodies(index, ph.reach.Next, v.block); err != nil {
			return fmt.Errorf("blocks of milestone %d: %w", index, err)
		}
		if v.err != nil {
			return v.err
		}
		if v.stopped {
			ph.reach.Next = v.next
			return nil
		}
		*ph.reach = Reach{Milestone: index}
		looks = v.looks
		l.finish(ph, step, index, v.left)
	}
	return nil
}

// timeOf returns the time of a milestone in Unix seconds. The first ones of a
// network have none (consensus.md §5): they are as old as the first one after
// them that has, or not old at all if none up to the last one given has.
func (l *Ledger) timeOf(index, last uint32) (uint32, error) {
	for ; ; index++ {
		e, _, err := l.store.Milestone(index)
		if err != nil {
			return 0, fmt.Errorf("milestone %d: %w", index, err)
		}
		if e.Timestamp != 0 {
			return e.Timestamp, nil
		}
		if index >= last {
			return never, nil
		}
	}
}

// A visit goes over the blocks of a milestone for a phase.
type visit struct {
	l       *Ledger
	ph      *phase
	step    *Pruning
	next    int  // place in the list
	looks   int  // blocks looked at in this step
	left    bool // bodies are left, as far as is known
	stopped bool // before the end
	err     error
}

func (v *visit) block(e consensus.Entry, raw []byte) (more bool) {
	if v.looks == pruneLooks || len(v.step.Bodies)+len(v.step.Stubs) == pruneBodies {
		v.stopped = true
		return false
	}
	v.looks++
	switch {
	case v.ph.stubs:
		if raw == nil {
			v.step.Stubs = append(v.step.Stubs, e.ID)
		} else {
			v.left = true
		}
	case raw != nil:
		b, err := stardust.ParseBlock(raw)
		if err != nil {
			v.err = fmt.Errorf("block %v: %w", e.ID, err)
			return false
		}
		switch {
		case !v.ph.takes(b) || v.l.agreement.evidence[e.ID]:
			v.left = true
		case !isVote(b) && v.l.pruner.Hold(e.ID):
			v.stopped = true
			return false
		default:
			v.step.Bodies = append(v.step.Bodies, PrunedBody{e.ID, b})
		}
	}
	v.next++
	return true
}

// finish forgets what is of no use once a phase is through with a milestone. A
// milestone is proved as long as one of its bodies is there to be proved by it.
func (l *Ledger) finish(ph *phase, step *Pruning, index uint32, left bool) {
	pillar := index%l.network.SnapshotEvery == 0
	switch {
	case left:
	case !ph.stubs && !pillar:
		step.Certificates = append(step.Certificates, index)
	case ph.stubs:
		step.Lists = append(step.Lists, index)
		if !pillar {
			step.Milestones = append(step.Milestones, index)
		}
	}
}
