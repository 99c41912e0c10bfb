package ledger

import (
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// An Entry is one block to store, or a further mark of a stored one.
type Entry struct {
	ID       stardust.BlockID
	Block    *stardust.Block // nil: the block is stored already, or earlier in the same Commit
	Raw      []byte          // the bytes of Block
	Attached time.Time       // of Block; kept in milliseconds
	Runs     [][2]uint64     // readings that stand in it; none of them is marked yet
}

// A Record is what a store knows about one block.
type Record struct {
	Raw      []byte
	Parents  []stardust.BlockID
	Attached time.Time
}

// A Store keeps the replica. Only solid blocks are stored, and no block is
// ever changed.
//
// Commit is called by one goroutine at a time; everything else may be called
// concurrently with it and with itself, and sees either all of a Commit or
// nothing of it. The genesis has no record, but children and a place among the
// tips. Functions passed to a Store are called until they return false; they
// may read the store.
type Store interface {
	// Commit stores the entries in their order, and tips as what Tips returns
	// from then on. It returns nil when all of it is on stable storage. An
	// error that wraps ErrBusy means that nothing was stored and that a later
	// Commit may succeed; after any other error the store is in doubt and
	// accepts no further Commit. Parents of an entry are the genesis, stored,
	// or earlier entries; no entry's block is stored already.
	Commit(entries []Entry, tips []stardust.BlockID) error
	// Ready returns nil if a Commit would be accepted now, or why not.
	Ready() error
	// Has reports whether the block is stored.
	Has(id stardust.BlockID) (bool, error)
	// Load returns what is known about a block, or ErrNotFound.
	Load(id stardust.BlockID) (Record, error)
	// Children yields the blocks that have this one as a parent, in order of
	// arrival; none for an unknown block.
	Children(id stardust.BlockID, yield func(child stardust.BlockID) bool) error
	// Tagged yields the tagged-data blocks with exactly this tag in order of
	// arrival, each with a position above 0 that never changes, starting
	// after the position given.
	Tagged(tag []byte, after uint64, yield func(position uint64, id stardust.BlockID) bool) error
	// Marks yields all marks in ascending order, starting with the one that
	// contains the sequence number from, or the first one above it.
	Marks(from uint64, yield func(run [2]uint64, block stardust.BlockID) bool) error
	// IDs yields the ids of all stored blocks in ascending order.
	IDs(yield func(id stardust.BlockID) bool) error
	// Order yields the ids of the blocks in order of arrival, each with the
	// position that Tagged gives it, starting after the position given.
	Order(after uint64, yield func(position uint64, id stardust.BlockID) bool) error
	// ID returns the random number that the store was given when it was made.
	ID() [8]byte
	// Tips returns what the last Commit was given: nil if there was none.
	Tips() ([]stardust.BlockID, error)
	// Count returns the number of stored blocks, which is the position of the
	// last one, and when the last one was
	// attached; the zero time if there is none.
	Count() (blocks uint64, last time.Time, err error)
}
