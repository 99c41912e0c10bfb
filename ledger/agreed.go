package ledger

import (
	"context"
	"fmt"

	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// Agreed is how far the gateways agree. It only grows.
type Agreed struct {
	Epoch     uint32
	Milestone uint32   // index of the last milestone; 0: there is none yet
	ID        [32]byte // of that milestone
	Timestamp uint32   // of that milestone, Unix seconds
	Certified uint32   // every milestone up to this one has the signatures of a quorum
}

// A Milestone is one that this replica derived, and what proves it.
type Milestone struct {
	consensus.Essence
	ID         [32]byte
	Signatures []consensus.Signature // of a quorum, by ascending keys; none: not certified yet
}

// Agreed returns how far the gateways agree. What it names is durable.
func (l *Ledger) Agreed() Agreed { return Agreed{} }

// WaitAgreed returns once more is agreed than before, or with the error of ctx.
func (l *Ledger) WaitAgreed(ctx context.Context, before Agreed) (Agreed, error) {
	<-ctx.Done()
	return before, context.Cause(ctx)
}

// Milestone returns the milestone with this index, or ErrNotFound.
func (l *Ledger) Milestone(index uint32) (Milestone, error) {
	return Milestone{}, fmt.Errorf("%w: milestone %d", ErrNotFound, index)
}

// MilestoneIndex returns the index of the milestone with this id, or
// ErrNotFound.
func (l *Ledger) MilestoneIndex(id [32]byte) (uint32, error) {
	return 0, fmt.Errorf("%w: milestone %x", ErrNotFound, id)
}

// Ordered returns what the milestone with this index orders, in that order
// (TIP-2), or ErrNotFound.
func (l *Ledger) Ordered(index uint32) ([]consensus.Entry, error) {
	return nil, fmt.Errorf("%w: milestone %d", ErrNotFound, index)
}

// WaitApproved returns once blocks were approved after the position given, and
// the position to go on from: it counts approvals since this start. Approvals
// that were missed, because more than [MaxList] came, are not repeated.
func (l *Ledger) WaitApproved(ctx context.Context, after uint64) (ids []stardust.BlockID, position uint64, err error) {
	<-ctx.Done()
	return nil, after, context.Cause(ctx)
}

// A Word is what a gateway tells another one of its part in the agreement
// (consensus.md §6, §7).
type Word struct {
	Epoch     uint32
	Milestone uint32 // index of its last one
	Certified uint32 // up to which it has certificates
	// Opened is the highest round that it opened in the epoch; Answers is false
	// if it does not know that, because it is recovering.
	Answers bool
	Opened  uint32
	Target  uint32   // the round that it has to reach, so that others assist; 0: none
	Highest []uint32 // by gateway of the epoch: the highest round that it knows to be opened; 64 at most
}

// Word returns what is to be told to the others.
func (l *Ledger) Word() Word { return Word{} }

// Hear takes in another gateway's word. It does not block.
func (l *Ledger) Hear(from network.PublicKey, w Word) {}

// Certify takes in signatures of milestones, of which the gateway that sent
// them need not be the signer. Those that are wrong are dropped; the error
// wraps [consensus.ErrBadSignature] if the first of them is, or ErrBusy when too
// many wait.
func (l *Ledger) Certify(signatures []consensus.Signature) error { return nil }

// Signatures returns the signatures known of the milestones from one index to
// another, both included, by ascending index, and at most most of them.
func (l *Ledger) Signatures(from, to uint32, most int) ([]consensus.Signature, error) {
	return nil, nil
}
