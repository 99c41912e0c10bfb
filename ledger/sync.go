package ledger

import (
	"context"
	"errors"
	"fmt"

	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// A replica that lacks blocks of which the others have lost the bodies cannot
// derive the milestones that order them. It takes those over instead, one after
// the other, up to a certified one (consensus.md §7 "Too far behind", §8
// "Joining"). Each is stored for good when it comes; until the last one has, and
// what follows it was gone over, the replica neither votes nor attaches, and after
// a restart it goes on from there.

// ErrForeign means that what is to be taken over is not what the milestones
// say, or does not follow those that the replica has.
var ErrForeign = errors.New("does not fit the milestones")

// errSyncing is what Attach and Receive answer meanwhile.
var errSyncing = fmt.Errorf("%w: milestones are being taken over from other gateways", ErrBusy)

// An Import is a stretch of milestones to take over. Who calls [Ledger.Import]
// has checked that they lie below a certified one.
type Import struct {
	Networks   []*network.File // of the epochs after those known, as far as the milestones reach
	Milestones []Imported      // ascending, following what the replica has, up to Top at most
	// Top is the index of the certified milestone, with which the taking over
	// ends. Its blocks, and those of the one before, have bodies.
	Top uint32
}

func (s *Import) last() *Imported { return &s.Milestones[len(s.Milestones)-1] }

// An Imported is a milestone with all of its blocks, in their order.
type Imported struct {
	consensus.Essence
	Blocks     []Listed
	Signatures []consensus.Signature // of a quorum, by ascending keys; nil: not known
}

type importJob struct {
	step *Import
	err  error // of the step, not of the store
	done chan struct{}
}

// Syncing reports whether milestones are being taken over: until that has ended
// nothing can be attached or received.
func (l *Ledger) Syncing() bool { return l.syncing.Load() }

// Import takes over milestones and waits until they are durable. Those that the
// replica has are left out, so a step may be repeated. Since they lie below a
// certificate, milestones that contradict those of the replica are a conflict;
// see [Trouble]. The error wraps [ErrForeign], [ErrBusy], [ErrClosed], or is that
// of ctx or the store.
func (l *Ledger) Import(ctx context.Context, step *Import) error {
	if err := l.checkImport(step); err != nil {
		return err
	}
	j := &importJob{step: step, done: make(chan struct{})}
	select {
	case l.imports <- j:
	case <-l.closed:
		return l.whyClosed()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case <-j.done:
		return j.err
	case <-l.closed:
		return l.whyClosed()
	}
}

func foreign(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrForeign}, args...)...)
}

// checkImport checks what a step says by itself.
func (l *Ledger) checkImport(step *Import) error {
	if len(step.Milestones) == 0 {
		return foreign("no milestones")
	}
	if at := step.last().Index; at > step.Top {
		return foreign("milestone %d is above %d, the certified one", at, step.Top)
	}
	files, err := l.store.Networks()
	if err != nil {
		return fmt.Errorf("read network files: %w", err)
	}
	if len(files) == 0 {
		files = []*network.File{l.network}
	}
	for _, f := range step.Networks {
		if int(f.Epoch) < len(files) {
			continue
		}
		if err := f.Follows(files[len(files)-1]); err != nil {
			return foreign("network file of epoch %d: %v", f.Epoch, err)
		}
		files = append(files, f)
	}
	for i := range step.Milestones {
		m := &step.Milestones[i]
		if int(m.Epoch) >= len(files) || m.NetworkHash != files[m.Epoch].Hash() {
			return foreign("milestone %d is of an unknown network file", m.Index)
		}
		if m.Signatures != nil {
			if err := consensus.VerifyCertificate(files[m.Epoch], m.ID(), m.Signatures); err != nil {
				return foreign("certificate of milestone %d: %v", m.Index, err)
			}
		}
		if err := m.check(len(files[m.Epoch].Gateways)); err != nil {
			return err
		}
	}
	return nil
}

// check holds the blocks of a milestone of a network of so many gateways against
// its roots.
func (m *Imported) check(gateways int) error {
	if m.LedgerRoot != nil && *m.LedgerRoot != stardust.MerkleRoot(nil) {
		return foreign("milestone %d is of a ledger with value, which cannot be taken over", m.Index)
	}
	var all, applied [][]byte
	for i := range m.Blocks {
		b := &m.Blocks[i]
		all = append(all, b.ID[:])
		if b.Inclusion == consensus.Included {
			applied = append(applied, b.ID[:])
		}
		if c := &b.Claim; b.Vote && b.Raw == nil && (c.Epoch > m.Epoch || c.Epoch == m.Epoch && int(c.Gateway) >= gateways ||
			c.Gateway >= network.MaxGateways || c.Round == 0 || c.Merges > consensus.MaxMerges) {
			return foreign("vote %v claims %+v", b.ID, *c)
		}
		if b.Raw != nil && stardust.IDOf(b.Raw) != b.ID {
			return foreign("body of block %v is of another block", b.ID)
		}
	}
	if stardust.MerkleRoot(all) != m.InclusionRoot || stardust.MerkleRoot(applied) != m.AppliedRoot {
		return foreign("%d blocks do not give the roots of milestone %d", len(m.Blocks), m.Index)
	}
	return nil
}

// takeOver does the writer's part of Import. The error is the store's.
func (l *Ledger) takeOver(j *importJob) error {
	defer close(j.done)
	j.err = l.importStep(j.step)
	if errors.Is(j.err, ErrForeign) || errors.Is(j.err, ErrBusy) {
		return nil
	}
	return j.err
}

func (l *Ledger) importStep(step *Import) error {
	a := &l.agreement
	if len(a.change.Milestones)+len(a.change.Networks) > 0 || a.change.Own != nil || a.change.Conflict != nil {
		if err := l.flush(); err != nil {
			return err
		}
	}
	rest, contradicted, err := l.follows(step.Milestones)
	if contradicted > 0 && !a.alarmed {
		l.conflict(contradicted)
		if err := l.flush(); err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	in := importer{l: l, reached: l.pruner.reached}
	if in.files, err = l.store.Networks(); err != nil {
		return err
	}
	if last, _ := l.store.Last(); last == 0 && len(rest) > 0 {
		before := Reach{Milestone: rest[0].Index - 1} // of what came earlier nothing is known
		in.reached.Votes, in.reached.Guests, in.reached.Blocks, in.reached.Stubs = before, before, before, before
	}
	if err := in.measure(); err != nil {
		return err
	}
	for i := range rest {
		if err := in.milestone(&rest[i], step); err != nil {
			return err
		}
	}
	if err := in.commit(); err != nil {
		return err
	}
	if last := step.last(); last.Index == step.Top && l.syncing.Load() {
		return in.end(last)
	}
	return nil
}

// follows returns those of the milestones that the replica does not have, and
// with the error, if that is why, the one of the replica's that they contradict.
func (l *Ledger) follows(ms []Imported) (rest []Imported, contradicted uint32, err error) {
	last, _ := l.store.Last()
	for len(ms) > 0 && ms[0].Index <= last {
		e, _, err := l.store.Milestone(ms[0].Index)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return nil, 0, err
		}
		if err == nil && e.ID() != ms[0].ID() {
			return nil, e.Index, foreign("milestone %d is another one here", e.Index)
		}
		ms = ms[1:]
	}
	at, previous := last+1, l.agreement.genesis
	if last > 0 {
		e, _, err := l.store.Milestone(last)
		if err != nil {
			return nil, 0, err
		}
		previous = e.ID()
		if len(ms) > 0 && ms[0].Index == at && ms[0].Previous != previous {
			return nil, last, foreign("milestone %d follows another milestone %d than the one here", at, last)
		}
	} else if len(ms) > 0 && ms[0].Index > 1 {
		at, previous = ms[0].Index, ms[0].Previous
	}
	for i := range ms {
		if ms[i].Index != at || ms[i].Previous != previous {
			return nil, 0, foreign("milestone %d does not follow %d", ms[i].Index, at-1)
		}
		at, previous = at+1, ms[i].ID()
	}
	return ms, 0, nil
}

// endSync begins again after the last milestone that was taken over. Only when
// that has succeeded it is durable that the state sync is over: if what the votes
// in stubs claimed is not what later ones build on, the replica must not have to
// find that at every start.
func (l *Ledger) endSync(last uint32) error {
	epoch, reached := l.board.epoch(), l.pruner.reached
	l.agreement = agreement{}
	l.syncing.Store(false)
	l.board.forgetApprovals()
	if err := l.openAgreement(); err != nil {
		reached.Synced = max(reached.Synced, last) // so that the next end lies behind all this
		return l.syncOn(reached, foreign("go on after milestone %d, the last one taken over: %v", last, err))
	}
	if err := l.store.Commit(Change{Sync: &SyncChange{Reached: reached}}); errors.Is(err, ErrBusy) {
		return l.syncOn(reached, err)
	} else if err != nil {
		return fmt.Errorf("end the taking over of milestones: %w", err)
	}
	position := l.counts.position.Load()
	l.recent.init(position)
	l.growth.reach(position)
	a := l.Agreed()
	l.log.Info("milestones taken over", "milestone", a.Milestone, "blocks", position)
	if a.Epoch > epoch {
		l.onEpoch(l.epochs.Load().File())
	}
	ready, err := l.unhold()
	if err != nil {
		return err
	}
	return l.write(ready)
}

// syncOn goes back to taking over milestones, which could not be ended, and
// returns why.
func (l *Ledger) syncOn(reached Reached, cause error) error {
	l.syncing.Store(true)
	l.agreement = agreement{}
	if err := l.openAgreement(); err != nil {
		return fmt.Errorf("go on taking over milestones: %w", err)
	}
	if reached != l.pruner.reached {
		l.log.Error("what votes claimed, as far as it was taken over, does not hold; later milestones are needed", "err", cause)
		if err := l.store.Commit(Change{Sync: &SyncChange{Going: true, Reached: reached}}); err != nil {
			return fmt.Errorf("go on taking over milestones: %w", err)
		}
		l.reached(reached)
	}
	return cause
}

// unhold returns the held blocks whose last missing parents were taken over.
func (l *Ledger) unhold() (ready []*job, err error) {
	for _, id := range l.hold.missed() {
		ok, err := l.store.Has(id)
		if err != nil {
			return nil, err
		}
		if ok {
			ready = append(ready, l.hold.release(id)...)
		}
	}
	return ready, nil
}
