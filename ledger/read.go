package ledger

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/crypto/blake2b"

	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// Metadata is what the replica knows about a block beyond its bytes.
type Metadata struct {
	Parents  []stardust.BlockID // none: the genesis
	Solid    bool               // the whole past is in the replica; so far true of every block held
	Attached time.Time          // by this replica's clock, in milliseconds; zero: the genesis
	Progress
}

// Progress is how far a block has come (consensus.md §10).
type Progress struct {
	Approved  bool                // a quorum of gateways voted above it, or it is confirmed
	Milestone uint32              // that orders it: it is confirmed; 0: none yet
	Certified bool                // that milestone has the signatures of a quorum
	Inclusion consensus.Inclusion // what the milestone did with its transaction
}

// Progress returns how far a block has come; the zero value also for one that
// the replica does not hold.
func (l *Ledger) Progress(id stardust.BlockID) (Progress, error) {
	approved := l.board.isApproved(id) // asked first: what is ordered is forgotten here
	at, err := l.store.Ordered(id)
	if err != nil {
		return Progress{}, fmt.Errorf("progress of block %v: %w", id, err)
	}
	if at.Milestone == 0 {
		return Progress{Approved: approved}, nil
	}
	_, certified := l.store.Last()
	return Progress{Approved: true, Milestone: at.Milestone, Certified: at.Milestone <= certified, Inclusion: at.Inclusion}, nil
}

// Certified reports whether a milestone with the signatures of a quorum orders
// the block, whether or not its body is still kept. Of the genesis it is true: in
// a mark it stands for a block that was certified so long ago that its id is
// forgotten, or that stands in another ledger than this one, where nothing more
// becomes of it.
func (l *Ledger) Certified(id stardust.BlockID) (bool, error) {
	if id == stardust.GenesisID {
		return true, nil
	}
	p, err := l.Progress(id)
	return p.Certified, err
}

// Block returns the bytes of a block, ErrPruned or ErrNotFound. The genesis has none.
func (l *Ledger) Block(id stardust.BlockID) (raw []byte, err error) {
	rec, err := l.load(id)
	return rec.Raw, err
}

// Metadata returns what is known about a block, ErrPruned or ErrNotFound.
func (l *Ledger) Metadata(id stardust.BlockID) (Metadata, error) {
	if id == stardust.GenesisID {
		return Metadata{Solid: true}, nil
	}
	rec, err := l.load(id)
	if err != nil {
		return Metadata{}, err
	}
	p, err := l.Progress(id)
	return Metadata{Parents: rec.Parents, Solid: true, Attached: rec.Attached, Progress: p}, err
}

// Children returns the blocks with bodies that approve this one directly, in order of
// arrival and at most [MaxList] of them, or ErrNotFound.
func (l *Ledger) Children(id stardust.BlockID) ([]stardust.BlockID, error) {
	ids := []stardust.BlockID{}
	err := l.store.Children(id, func(child stardust.BlockID) bool {
		ids = append(ids, child)
		return len(ids) < MaxList
	})
	if err != nil {
		return nil, fmt.Errorf("children of block %v: %w", id, err)
	}
	if len(ids) > 0 || id == stardust.GenesisID {
		return ids, nil
	}
	switch ok, err := l.store.Has(id); {
	case err != nil:
		return nil, fmt.Errorf("children of block %v: %w", id, err)
	case !ok:
		return nil, fmt.Errorf("%w: %v", ErrNotFound, id)
	}
	return ids, nil
}

// Tagged returns up to limit (1 to [MaxList]) tagged-data blocks with exactly
// this tag in order of arrival. The first call has an empty cursor; each
// further one has the next of the call before, until that is empty. The error
// wraps ErrCursor if the cursor is none of ours.
func (l *Ledger) Tagged(tag []byte, limit int, cursor string) (ids []stardust.BlockID, next string, err error) {
	limit = max(1, min(limit, MaxList))
	var after uint64
	if cursor != "" {
		if after, err = strconv.ParseUint(cursor, 36, 64); err != nil {
			return nil, "", fmt.Errorf("%w: %.40q", ErrCursor, cursor)
		}
	}
	ids = []stardust.BlockID{}
	var last uint64
	err = l.store.Tagged(tag, after, func(position uint64, id stardust.BlockID) bool {
		if len(ids) == limit {
			next = strconv.FormatUint(last, 36)
			return false
		}
		ids, last = append(ids, id), position
		return true
	})
	if err != nil {
		return nil, "", fmt.Errorf("blocks with tag %x: %w", tag, err)
	}
	return ids, next, nil
}

// MarksFrom calls yield with the marks in ascending order of numbers until it
// returns false, beginning with the one that holds the number from, or the first
// above it. It sees the marks of one moment. The block is the genesis if nothing
// is kept of it; see [Ledger.Certified].
func (l *Ledger) MarksFrom(from uint64, yield func(run [2]uint64, block stardust.BlockID) bool) error {
	if err := l.store.Marks(from, yield); err != nil {
		return fmt.Errorf("read marks: %w", err)
	}
	return nil
}

// Marked returns the block that the reading with this number stands in.
func (l *Ledger) Marked(seq uint64) (block stardust.BlockID, ok bool, err error) {
	err = l.store.Marks(seq, func(run [2]uint64, b stardust.BlockID) bool {
		if run[0] <= seq && seq <= run[1] {
			block, ok = b, true
		}
		return false
	})
	if err != nil {
		return stardust.GenesisID, false, fmt.Errorf("mark of reading %d: %w", seq, err)
	}
	return block, ok, nil
}

// Ready returns nil if a block can be attached now, or why not; the error
// wraps ErrBusy or ErrClosed.
func (l *Ledger) Ready() error {
	select {
	case <-l.closed:
		return l.whyClosed()
	default:
	}
	if l.syncing.Load() {
		return errSyncing
	}
	if len(l.queue) == cap(l.queue) {
		return fmt.Errorf("%w: %d blocks wait to be stored", ErrBusy, cap(l.queue))
	}
	return l.store.Ready()
}

// Stats returns the replica's figures.
func (l *Ledger) Stats() Stats {
	s := Stats{
		Pruned:     l.counts.pruned.Load(),
		Tips:       len(l.pool.Load().tips),
		Queued:     len(l.queue),
		Held:       int(l.counts.held.Load()),
		HeldBytes:  int(l.counts.heldBytes.Load()),
		Dropped:    l.counts.dropped.Load(),
		Refused:    l.counts.refused.Load(),
		Duplicates: l.counts.duplicates.Load(),
		Damaged:    l.counts.damaged.Load(),
		Refetched:  l.counts.refetched.Load(),
		Votes:      l.counts.votes.Load(), Parked: int(l.counts.parked.Load()),
		BadSignatures: l.counts.badSignatures.Load(), Contradicted: l.counts.contradictions.Load(),
	}
	s.Blocks = max(l.counts.position.Load(), s.Pruned) - s.Pruned // they change one after the other
	if ms := l.counts.lastAttached.Load(); ms != 0 {
		s.LastAttached = time.UnixMilli(ms)
	}
	return s
}

// Digest returns the BLAKE2b-256 hash over the sorted ids of all solid blocks
// with bodies, the genesis excluded: two replicas with equal digests hold the
// same blocks. Replicas prune the same blocks when they keep them equally long,
// but not at the same moment. It reads all ids, about a second per million,
// unless nothing came or went since the last call.
func (l *Ledger) Digest() ([32]byte, error) {
	before := l.digestState()
	l.mu.Lock()
	sum, at, ok := l.digest, l.digestAt, l.digested
	l.mu.Unlock()
	if ok && at == before {
		return sum, nil
	}
	h, err := blake2b.New256(nil)
	if err != nil {
		return sum, fmt.Errorf("digest of the replica: %w", err)
	}
	if err := l.store.IDs(func(id stardust.BlockID) bool {
		h.Write(id[:])
		return true
	}); err != nil {
		return sum, fmt.Errorf("digest of the replica: %w", err)
	}
	h.Sum(sum[:0])
	if l.digestState() == before {
		l.mu.Lock()
		l.digest, l.digestAt, l.digested = sum, before, true
		l.mu.Unlock()
	}
	return sum, nil
}

// digestState returns what is the same only as long as the blocks with bodies
// are the same: both figures only grow. It changes a moment after the blocks.
func (l *Ledger) digestState() [2]uint64 {
	return [2]uint64{l.counts.position.Load(), l.counts.pruned.Load()}
}

// load returns what the store has of a block, its bytes verified. What cannot be
// read is fetched from elsewhere for this once; the store is repaired by whoever
// looks after it.
func (l *Ledger) load(id stardust.BlockID) (Record, error) {
	rec, err := l.store.Load(id)
	if errors.Is(err, ErrPruned) {
		return Record{}, fmt.Errorf("%w: %v", ErrPruned, id)
	} else if errors.Is(err, ErrNotFound) {
		return Record{}, fmt.Errorf("%w: %v", ErrNotFound, id)
	}
	if err == nil {
		if stardust.IDOf(rec.Raw) == id {
			return rec, nil
		}
		err = errors.New("its bytes do not give its id")
	}
	l.counts.damaged.Add(1)
	l.log.Error("block cannot be read", "block", id, "err", err)
	raw, other := l.refetch(id)
	if other != nil {
		return Record{}, fmt.Errorf("load block %v: %w", id, err)
	}
	b, other := stardust.ParseBlock(raw)
	if other != nil || stardust.IDOf(raw) != id {
		return Record{}, fmt.Errorf("load block %v: %w", id, err)
	}
	l.counts.refetched.Add(1)
	return Record{Raw: raw, Parents: b.Parents, Attached: rec.Attached}, nil
}
