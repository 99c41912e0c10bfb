package ledger

import (
	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// A Pruner is the part of a [Store] that forgets (consensus.md §8). A block whose
// body is gone is a stub: the store keeps its id, its position, the milestone
// that orders it and, of a vote, its claim.
type Pruner interface {
	// Prune forgets, all or nothing, what the step names. It returns nil when
	// that is on stable storage; the error is as that of Commit, but Prune does
	// not refuse because the store takes too much.
	Prune(p Pruning) error
	// Pruned returns how far the steps before have come.
	Pruned() (Reached, error)
	// Excess returns how many bytes have to go before the store comes near its
	// limit; 0: none. What Prune took counts as gone although it takes the store
	// a while to give it back.
	Excess() (int64, error)
	// Bodies yields the blocks of a milestone from one place in its list on; raw
	// is nil for a stub. There are none if the list is not kept.
	Bodies(index uint32, from int, yield func(e consensus.Entry, raw []byte) bool) error
}

// MaxPruned is how many Bodies, Stubs and Loose together one step may name.
const MaxPruned = 512

// A Pruning is one step of forgetting. Its milestones are certified, its blocks
// ordered by such, but for those that are loose.
type Pruning struct {
	// Loose are deleted as if they had never come, children before their parents:
	// no milestone orders them. Left are those that are ordered nevertheless, that
	// blocks with bodies refer to, or that came last, as no later block may get the
	// same position. They have no marks.
	Loose  []stardust.BlockID
	Bodies []PrunedBody // become stubs
	// Stubs are forgotten, but for those that are parents of blocks with bodies:
	// they go together with the last such body.
	Stubs        []stardust.BlockID
	Certificates []uint32 // milestones that lose their signatures
	Lists        []uint32 // milestones that lose their lists of blocks
	Milestones   []uint32 // milestones that are forgotten
	Reached      Reached  // after this step
}

// A PrunedBody is a block whose body goes.
type PrunedBody struct {
	ID    stardust.BlockID
	Block *stardust.Block
}

// Reached says how far pruning has come, by kind of what goes.
type Reached struct {
	Votes  Reach // bodies of votes
	Guests Reach // bodies of blocks of others than the members
	Blocks Reach // bodies of all other blocks
	Stubs  Reach
	// Synced is the last milestone of which blocks may be stubs because they
	// came like that.
	Synced uint32
}

// Whole returns the milestone above which no body has gone.
func (r *Reached) Whole() uint32 { return max(r.Payloads(), r.Votes.touched()) }

// Payloads returns the milestone above which no body has gone but those of votes.
func (r *Reached) Payloads() uint32 { return max(r.Guests.touched(), r.Blocks.touched(), r.Synced) }

// A Reach is a place in the sequence of milestones: behind the first Next blocks
// of the milestone after Milestone.
type Reach struct {
	Milestone uint32
	Next      int
}

// touched returns the last milestone of which something is behind the place.
func (r *Reach) touched() uint32 {
	if r.Next > 0 {
		return r.Milestone + 1
	}
	return r.Milestone
}
