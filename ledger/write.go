package ledger

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// What one Commit holds at most: enough to make a sync cheap, and together
// below what one transaction of the store takes. One block always fits.
const (
	groupBlocks = 256
	groupBytes  = 512 << 10
	groupKeys   = 8192 // index entries: runs, parents and a few more per block
)

// A job is a block on its way into the store.
type job struct {
	id    stardust.BlockID
	raw   []byte
	block *stardust.Block
	runs  [][2]uint64
	from  string // the gateway that sent it; "": it is attached, not received
	vote  bool   // our own: nobody waits for it

	agreed  consensus.Block // what consensus needs of it
	decoded bool            // agreed is filled; if not, it is a vote of an epoch to come

	looked uint64 // position up to which the block was not stored when it was looked for

	// What became of it: written before the answer is given, by the writer.
	err     error
	missing []stardust.BlockID // held until these come
	useless bool               // see Outcome
	later   bool
	answers *answers // nil once answered
}

// answers are what one call of Attach or Receive waits for.
type answers struct {
	left  int           // owned by the writer
	given chan struct{} // closed when none is left
}

func newAnswers(n int) *answers { return &answers{left: n, given: make(chan struct{})} }

func (j *job) answer(err error) {
	if j.answers == nil {
		return
	}
	j.err = err
	if j.answers.left--; j.answers.left == 0 {
		close(j.answers.given)
	}
	j.answers = nil
}

// A group is what one Commit stores.
type group struct {
	entries []Entry
	jobs    []*job                               // to answer afterwards
	ids     map[stardust.BlockID]bool            // of entries
	staged  map[stardust.BlockID]consensus.Block // of entries that are blocks
	order   []stardust.BlockID                   // of those
	runs    []mark
	bytes   int
	keys    int
}

type mark struct {
	run   [2]uint64
	block stardust.BlockID
}

func newGroup() *group {
	return &group{ids: map[stardust.BlockID]bool{}, staged: map[stardust.BlockID]consensus.Block{}}
}

// takes reports whether the group has room for the job.
func (g *group) takes(j *job) bool {
	return len(g.entries) == 0 ||
		len(g.entries) < groupBlocks && g.bytes+len(j.raw) <= groupBytes && g.keys+j.keys() <= groupKeys
}

// keys is the largest number of index entries that the job may need.
func (j *job) keys() int { return 4 + stardust.MaxParents + len(j.runs) }

// write stores the jobs and whatever else waits. An error means that the store
// is in doubt; jobs without an answer learn of it when Run ends.
func (l *Ledger) write(work []*job) error {
	for len(work) < groupBlocks && len(l.queue) > 0 {
		work = append(work, <-l.queue) // this goroutine alone receives
	}
	if l.syncing.Load() {
		for _, j := range work {
			j.answer(errSyncing)
		}
		return nil
	}
	for len(work) > 0 {
		g := newGroup()
		for len(work) > 0 && g.takes(work[0]) {
			j := work[0]
			work = work[1:]
			ready, err := l.stage(g, j)
			if err != nil {
				return err
			}
			if len(ready) > 0 { // children that waited come before what was queued later
				work = append(ready, work...)
			}
		}
		if err := l.commit(g); err != nil && !errors.Is(err, ErrBusy) {
			return err
		}
		work = append(l.unpark(), work...)
	}
	return nil
}

// unpark returns the votes that were parked, if their epoch has begun.
func (l *Ledger) unpark() []*job {
	jobs := l.agreement.parked.leave(l.agreement.state.File().Epoch)
	if len(jobs) > 0 {
		l.counts.parked.Store(0)
	}
	return jobs
}

// stage puts the job into the group, holds it, or answers it. It returns the
// held jobs that waited for this one only.
func (l *Ledger) stage(g *group, j *job) (ready []*job, err error) {
	known, err := l.storedSince(g, j)
	if err != nil {
		return nil, err
	}
	runs, err := l.newRuns(g, j)
	switch {
	case errors.Is(err, ErrMarked):
		j.answer(err)
		return nil, nil
	case err != nil:
		return nil, err
	}
	if known {
		l.counts.duplicates.Add(1)
		if len(runs) > 0 {
			g.add(j, Entry{ID: j.id, Runs: runs})
		}
		g.jobs = append(g.jobs, j) // what it repeats may be in this group
		return nil, nil
	}
	missing, err := l.missing(g, j.block.Parents)
	if err != nil {
		return nil, err
	}
	if len(missing) == 0 {
		switch admitted, err := l.admit(g, j); {
		case err != nil:
			return nil, err
		case !admitted:
			return nil, nil
		}
	}
	switch {
	case len(missing) == 0:
		g.add(j, Entry{ID: j.id, Block: j.block, Raw: j.raw, Attached: time.Now(), Runs: runs})
		g.jobs = append(g.jobs, j)
		return l.hold.release(j.id), nil
	case j.from != "":
		j.missing = slices.Clone(missing) // hold shortens its own
		l.hold.add(j, missing)
		l.countHeld()
		j.answer(nil)
	default:
		j.answer(fmt.Errorf("%w: %v", ErrUnknownParent, missing[0]))
	}
	return nil, nil
}

func (g *group) add(j *job, e Entry) {
	g.entries = append(g.entries, e)
	g.ids[e.ID] = true
	if e.Block != nil {
		g.staged[e.ID] = j.agreed
		g.order = append(g.order, e.ID)
	}
	g.bytes += len(e.Raw)
	g.keys += j.keys()
	for _, r := range e.Runs {
		g.runs = append(g.runs, mark{r, e.ID})
	}
}

// commit stores the group and what was agreed, learns what follows from it,
// moves the tips and answers. The error wraps ErrBusy if nothing was stored.
func (l *Ledger) commit(g *group) error {
	if len(g.entries) > 0 {
		c := l.agreement.take()
		c.Entries = g.entries
		switch err := l.store.Commit(c); {
		case errors.Is(err, ErrBusy):
			l.agreement.put(c)
			if doubt := l.giveBack(g, err); doubt != nil {
				return doubt
			}
			return err
		case err != nil:
			return fmt.Errorf("store %d blocks: %w", len(g.entries), err)
		}
		l.settle(c)
		if err := l.follow(g); err != nil {
			return err
		}
		l.count(g.entries)
	}
	l.countHeld()
	for _, j := range g.jobs {
		if j.from == "" && j.block != nil {
			l.announce(j.id, j.raw)
		}
		j.answer(nil)
	}
	return nil
}

// follow tells the state of the blocks that were stored.
func (l *Ledger) follow(g *group) error {
	for _, id := range g.order {
		l.agreement.fresh = id
		if err := l.learn(g.staged[id]); err != nil {
			return err
		}
		if l.agreement.blocks < pendingBlocks {
			continue
		}
		if err := l.flush(); err != nil && !errors.Is(err, ErrBusy) {
			return err
		}
	}
	l.evict()
	l.showTips()
	return nil
}

// giveBack answers a group that was not stored. Held blocks whose last parent
// was in it are held again.
func (l *Ledger) giveBack(g *group, cause error) error {
	for _, j := range g.jobs {
		if j.answers != nil || j.vote {
			continue
		}
		missing, err := l.missing(nil, j.block.Parents)
		if err != nil {
			return err
		}
		l.hold.add(j, missing)
	}
	l.countHeld()
	for _, j := range g.jobs {
		j.answer(cause)
	}
	return nil
}

// countHeld shows the hold's figures, before the answer that they belong to.
func (l *Ledger) countHeld() {
	l.counts.held.Store(uint64(len(l.hold.held)))
	l.counts.heldBytes.Store(uint64(l.hold.bytes))
	l.counts.dropped.Store(l.hold.dropped)
}

func (l *Ledger) count(entries []Entry) {
	for _, e := range entries {
		if e.Block != nil {
			l.counts.position.Add(1)
			l.recent.add(e.ID)
			l.counts.lastAttached.Store(e.Attached.UnixMilli())
			l.log.Debug("block attached", "block", e.ID, "bytes", len(e.Raw), "parents", len(e.Block.Parents))
		}
	}
	l.growth.reach(l.counts.position.Load())
}

// storedSince reports whether the job's block was stored, or put into the
// group, since it was looked for.
func (l *Ledger) storedSince(g *group, j *job) (bool, error) {
	if g.ids[j.id] {
		return true, nil
	}
	if came, ok := l.recent.cameSince(j.looked, j.id); ok && len(j.runs) == 0 {
		return came, nil
	}
	return l.solid(g, j.id)
}

// solid reports whether the block is the genesis, stored, or in the group, if
// there is one.
func (l *Ledger) solid(g *group, id stardust.BlockID) (bool, error) {
	if id == stardust.GenesisID || g != nil && g.ids[id] || l.recent.has(id) {
		return true, nil
	}
	ok, err := l.store.Has(id)
	if err != nil {
		return false, fmt.Errorf("look for block %v: %w", id, err)
	}
	return ok, nil
}

// missing returns those of the parents that are not solid.
func (l *Ledger) missing(g *group, parents []stardust.BlockID) (ids []stardust.BlockID, err error) {
	for _, p := range parents {
		switch ok, err := l.solid(g, p); {
		case err != nil:
			return nil, err
		case !ok:
			ids = append(ids, p)
		}
	}
	return ids, nil
}

// newRuns returns the runs of the job that are not yet marked as its block's.
// The error wraps ErrMarked if a reading stands in another block, or in this
// one by another run.
func (l *Ledger) newRuns(g *group, j *job) (runs [][2]uint64, err error) {
	if len(j.runs) == 0 {
		return nil, nil
	}
	marked := make([]bool, len(j.runs))
	meet := func(i int, m mark) error { // m overlaps run i
		if r := j.runs[i]; m != (mark{r, j.id}) {
			return fmt.Errorf("%w: %d-%d stand in block %v, so %d-%d cannot stand in %v",
				ErrMarked, m.run[0], m.run[1], m.block, r[0], r[1], j.id)
		}
		marked[i] = true
		return nil
	}
	for _, m := range g.runs {
		for i, r := range j.runs {
			if m.run[0] <= r[1] && r[0] <= m.run[1] {
				if err := meet(i, m); err != nil {
					return nil, err
				}
			}
		}
	}
	i, conflict := 0, error(nil) // both ascend: one pass over the marks
	if err := l.store.Marks(j.runs[0][0], func(run [2]uint64, block stardust.BlockID) bool {
		for i < len(j.runs) && j.runs[i][1] < run[0] {
			i++
		}
		if i < len(j.runs) && j.runs[i][0] <= run[1] {
			conflict = meet(i, mark{run, block})
		}
		return i < len(j.runs) && conflict == nil
	}); err != nil {
		return nil, fmt.Errorf("marks from %d: %w", j.runs[0][0], err)
	}
	if conflict != nil {
		return nil, conflict
	}
	for i, r := range j.runs {
		if !marked[i] {
			runs = append(runs, r)
		}
	}
	return runs, nil
}
