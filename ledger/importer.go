package ledger

import (
	"errors"
	"fmt"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// An importer fills Commits with milestones.
type importer struct {
	l       *Ledger
	files   []*network.File // stored, or in change
	reached Reached
	change  Change
	staged  map[stardust.BlockID]bool // entries of change
	bytes   int
	keys    int // index entries of those
	blocks  int // of the milestones in change
	scarce  bool
}

// measure finds out whether the store comes near its limit. Meanwhile nothing is
// pruned, so that what the others keep longer than this replica can would fill
// it: only bodies that are needed are kept then.
func (in *importer) measure() error {
	excess, err := in.l.store.Excess()
	if err != nil {
		return fmt.Errorf("take over milestones: %w", err)
	}
	in.scarce = excess > 0
	return nil
}

// milestone adds a milestone.
func (in *importer) milestone(m *Imported, step *Import) error {
	out := consensus.Milestone{Essence: m.Essence}
	whole := m.Index+1 >= step.Top
	for i := range m.Blocks {
		b := &m.Blocks[i]
		if err := in.block(m, b, whole); err != nil {
			return err
		}
		out.Blocks = append(out.Blocks, b.Entry)
		if in.keys >= groupKeys || in.bytes >= groupBytes {
			if err := in.commit(); err != nil {
				return err
			}
		}
	}
	if in.blocks += len(out.Blocks); in.blocks > pendingBlocks && len(in.change.Milestones) > 0 {
		// The blocks of this one are entries of the change, or stored.
		if err := in.commit(); err != nil {
			return err
		}
		in.blocks = len(out.Blocks)
	}
	for _, f := range step.Networks {
		if int(f.Epoch) == len(in.files) && f.Epoch <= m.Epoch {
			in.enter(f)
		}
	}
	in.change.Milestones = append(in.change.Milestones, out)
	if m.Signatures != nil {
		in.change.Certificates = append(in.change.Certificates, Certificate{m.Index, m.Signatures})
	}
	return nil
}

func (in *importer) enter(f *network.File) {
	in.files, in.change.Networks = append(in.files, f), append(in.change.Networks, f)
}

// next puts the network file into force that the last milestone places, as
// [consensus.State] does.
func (in *importer) next(m *Imported) error {
	if len(in.files) != int(m.Epoch)+1 {
		return nil // it is
	}
	for i := range m.Blocks {
		raw := m.Blocks[i].Raw
		if raw == nil { // it was here
			rec, err := in.l.load(m.Blocks[i].ID)
			if err != nil {
				return err
			}
			raw = rec.Raw
		}
		b, err := stardust.ParseBlock(raw)
		if err != nil {
			return foreign("block %v: %v", m.Blocks[i].ID, err)
		}
		data, ok := b.Payload.(*stardust.TaggedData)
		if !ok || string(data.Tag) != consensus.TagUpdate {
			continue
		}
		if f, err := network.Parse(data.Data); err == nil && f.Epoch > 0 && f.Follows(in.files[len(in.files)-1]) == nil {
			in.enter(f)
			return nil
		}
	}
	return nil
}

// block adds a block, unless it is stored with a body, or is as well as it may
// become.
func (in *importer) block(m *Imported, b *Listed, whole bool) error {
	_, err := in.l.store.Load(b.ID)
	switch {
	case err == nil, in.staged[b.ID]:
		return nil
	case !errors.Is(err, ErrNotFound):
		return fmt.Errorf("block %v: %w", b.ID, err)
	}
	known := errors.Is(err, ErrPruned)
	e := Entry{ID: b.ID, Attached: time.Now()}
	o := consensus.Ordered{Milestone: m.Index, Vote: b.Vote, Claim: b.Claim}
	if b.Raw != nil {
		if e.Block, err = stardust.ParseBlock(b.Raw); err != nil {
			return foreign("block %v: %v", b.ID, err)
		}
		if o, err = consensus.OrderedBlock(e.Block, m.Index); err != nil {
			return foreign("block %v: %v", b.ID, err)
		}
		e.Raw = b.Raw
		if in.scarce && !whole {
			e.Block, e.Raw = nil, nil
		}
	}
	if e.Block != nil {
		// A parent may be older than what is taken over.
		for _, p := range e.Block.Parents {
			if there, err := in.l.store.Has(p); err != nil {
				return err
			} else if !there && !in.staged[p] && p != stardust.GenesisID {
				e.Block, e.Raw = nil, nil
				break
			}
		}
	}
	switch {
	case e.Block != nil:
	case whole:
		return foreign("block %v of milestone %d has no body", b.ID, m.Index)
	case known:
		in.bare(m)
		return nil
	default:
		in.bare(m)
		e.Stub = &Placement{Milestone: m.Index, Inclusion: b.Inclusion, Stub: &o}
	}
	in.change.Entries = append(in.change.Entries, e)
	if in.staged == nil {
		in.staged = map[stardust.BlockID]bool{}
	}
	in.staged[b.ID] = true
	in.bytes += len(e.Raw)
	in.keys += 6
	if e.Block != nil {
		in.keys += len(e.Block.Parents)
	}
	return nil
}

// bare takes note of a stub among the blocks of a milestone, before both are
// stored: after a crash the stub may be there without the milestone.
func (in *importer) bare(m *Imported) { in.reached.Synced = max(in.reached.Synced, m.Index) }

// commit stores what has been added.
func (in *importer) commit() error {
	l, c := in.l, &in.change
	if len(c.Entries)+len(c.Milestones)+len(c.Networks) == 0 && c.Certified == 0 {
		return nil
	}
	c.Sync = &SyncChange{Going: true, Reached: in.reached}
	if err := l.store.Commit(in.change); err != nil {
		return fmt.Errorf("take over milestones: %w", err)
	}
	if !l.syncing.Swap(true) {
		l.log.Warn("milestones are taken over from other gateways, which have pruned what this one lacks")
	}
	l.reached(in.reached)
	in.change, in.staged, in.bytes, in.keys, in.blocks = Change{}, nil, 0, 0, 0
	if err := in.measure(); err != nil {
		return err
	}
	position, pruned, _, err := l.store.Count()
	l.counts.position.Store(position)
	l.counts.pruned.Store(pruned)
	last, _ := l.store.Last()
	l.board.mu.Lock()
	l.board.word.Milestone, l.board.word.Off = last, true
	l.board.mu.Unlock()
	return err
}

// end ends the state sync with the last milestone of the store, which is
// certified, if that one and the one before have the bodies to go on from.
func (in *importer) end(m *Imported) error {
	last, certified := in.l.store.Last()
	if m.Index != last || in.reached.Synced+2 > last {
		return foreign("what is taken over does not end with milestone %d: the last one is %d, and up to %d there are stubs",
			m.Index, last, in.reached.Synced)
	}
	if err := in.next(m); err != nil {
		return err
	}
	if last > certified {
		in.change.Certified = last
	}
	if err := in.commit(); err != nil {
		return err
	}
	return in.l.endSync(last)
}
