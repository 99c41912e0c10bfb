package ledger

import (
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// A Change is what one Commit stores.
type Change struct {
	Entries      []Entry
	Own          *consensus.Durable       // nil: as it was
	Milestones   []consensus.Milestone    // ascending, following what is stored; their blocks are stored. They may be seen before the rest
	Certificates []Certificate            // of stored milestones or of those above
	Certified    uint32                   // if above what is stored: every milestone up to it has a certificate
	Equivocation []consensus.Equivocation // one of a key
	Networks     []*network.File          // of the epochs after the last one stored
	Sync         *SyncChange              // of a state sync; nil: none
	Conflict     *uint32                  // index of a milestone of which others signed another one, so that the gateway votes no more; of 0: it votes again; nil: as it was
}

// A SyncChange is what a state sync, which takes over milestones instead of
// deriving them, changes beside them.
type SyncChange struct {
	Going   bool    // it goes on after this
	Reached Reached // of pruning, after this
}

// A Certificate is what proves a milestone: the signatures of a quorum by
// ascending keys.
type Certificate struct {
	Index      uint32
	Signatures []consensus.Signature
}

// An Entry is one block to store, or a further mark of a stored one.
type Entry struct {
	ID       stardust.BlockID
	Block    *stardust.Block // nil: the block is stored already, or earlier in the same Commit
	Raw      []byte          // the bytes of Block
	Attached time.Time       // of Block; kept in milliseconds
	Runs     [][2]uint64     // readings that stand in it; none of them is marked yet
	// Stub, with its own Stub, makes this a block without a body, which is not
	// stored yet and has no Block. Only in a state sync, in which a block with a
	// body may also take the place of its stub.
	Stub *Placement
}

// A Record is what a store knows about one block.
type Record struct {
	Raw      []byte
	Parents  []stardust.BlockID
	Attached time.Time
}

// A Store keeps the replica. Only solid blocks are stored, and no block is
// ever changed; its body may go ([Pruner]).
//
// Commit and Prune are called by one goroutine at a time; everything else may be
// called concurrently with them and with itself, and sees either all of a Commit
// or nothing of it. The genesis has no record, but children. Functions passed to a
// Store are called until they return false; they may read the store.
type Store interface {
	Book
	Pruner

	// Commit stores the change, entries in their order. It returns nil when all
	// of it is on stable storage. An error that wraps ErrBusy means that
	// nothing of it can be seen and that a later Commit may succeed; after any
	// other error the store is in doubt and accepts no further Commit. Parents
	// of an entry are the genesis, stored, or earlier entries; no entry's block
	// is stored already.
	Commit(c Change) error
	// Ready returns nil if a Commit would be accepted now, or why not.
	Ready() error
	// Has reports whether the block is stored, if only as a stub.
	Has(id stardust.BlockID) (bool, error)
	// Load returns what is known about a block, ErrPruned or ErrNotFound.
	Load(id stardust.BlockID) (Record, error)
	// Children yields the blocks with bodies that have this one as a parent, in
	// order of arrival; none for an unknown block.
	Children(id stardust.BlockID, yield func(child stardust.BlockID) bool) error
	// Tagged yields the tagged-data blocks with bodies and exactly this tag in
	// order of arrival, each with a position above 0 that never changes, starting
	// after the position given.
	Tagged(tag []byte, after uint64, yield func(position uint64, id stardust.BlockID) bool) error
	// Marks yields all marks in ascending order, starting with the one that
	// contains the sequence number from, or the first one above it. The block
	// is the genesis if nothing is kept of it.
	Marks(from uint64, yield func(run [2]uint64, block stardust.BlockID) bool) error
	// IDs yields the ids of all blocks with bodies in ascending order.
	IDs(yield func(id stardust.BlockID) bool) error
	// Order yields the ids of the blocks with bodies in order of arrival, each
	// with the position that Tagged gives it, starting after the position given.
	Order(after uint64, yield func(position uint64, id stardust.BlockID) bool) error
	// At returns the block at a position, stub or not, or ErrNotFound.
	At(position uint64) (stardust.BlockID, error)
	// ID returns the random number that the store was given when it was made.
	ID() [8]byte
	// Count returns the position of the last block, how many of those up to it
	// have lost their bodies, and when the last one with a body was attached;
	// the zero time if there is none.
	Count() (position, pruned uint64, last time.Time, err error)
}

// A Placement is what a milestone did with a block.
type Placement struct {
	Milestone uint32              // that orders it
	Inclusion consensus.Inclusion // of its transaction
	// Stub is what consensus needs of the block if its body is gone, else nil.
	Stub *consensus.Ordered
}

// A Book is the part of a [Store] that keeps what the gateways agreed.
type Book interface {
	// Last returns the index of the last milestone, and up to which one every
	// milestone has a certificate.
	Last() (milestone, certified uint32)
	// Milestone returns a milestone without its blocks, and its signatures, nil
	// if it has no certificate or that is not kept; or ErrNotFound.
	Milestone(index uint32) (consensus.Essence, []consensus.Signature, error)
	// MilestoneIndex returns the index of the milestone with this id, or
	// ErrNotFound.
	MilestoneIndex(id [32]byte) (uint32, error)
	// MilestoneBlocks returns what a milestone orders, in that order, or
	// ErrNotFound.
	MilestoneBlocks(index uint32) ([]consensus.Entry, error)
	// Ordered returns what is known of the milestone that orders a block; the
	// zero value: none does.
	Ordered(id stardust.BlockID) (Placement, error)
	// Unordered yields in order of arrival the blocks that no milestone before
	// from orders.
	Unordered(from uint32, yield func(id stardust.BlockID, raw []byte) bool) error
	// Syncing reports whether a state sync goes on: the last milestones lack
	// what [consensus.New] needs.
	Syncing() (bool, error)
	// Own returns the record of the gateway's own votes; nil if there is none.
	Own() (*consensus.Durable, error)
	// Conflict returns the index of the milestone for whose sake the gateway
	// votes no more; 0: there is none.
	Conflict() (uint32, error)
	// Equivocations returns the proofs stored.
	Equivocations() ([]consensus.Equivocation, error)
	// Networks returns the network files stored, from epoch 0 on.
	Networks() ([]*network.File, error)
}
