package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

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

// A Word is what a gateway tells another one of its part in the agreement
// (consensus.md §6, §7).
type Word struct {
	Epoch     uint32
	Milestone uint32 // index of its last one
	Certified uint32 // up to which it has certificates
	Whole     uint32 // above which it has the bodies of all blocks
	Payloads  uint32 // above which it has the bodies of all blocks that are no votes; not above Whole
	// Opened is the highest round that it opened in the epoch; Answers is false
	// if it does not know that, because it is recovering.
	Answers bool
	// Off: it votes no more, because the milestones of the others contradict its
	// own, or not yet, because it takes them over.
	Off     bool
	Opened  uint32
	Target  uint32   // the round that it has to reach, so that others assist; 0: none
	Highest []uint32 // by gateway of the epoch: the highest round that it knows to be opened; 64 at most
}

// Votes reports whether who says the word takes part in the agreement. A gateway
// that is recovering counts as off (consensus.md §7).
func (w *Word) Votes() bool { return w.Answers && !w.Off }

// What may wait for the writer.
const (
	maxWords      = 256
	maxSignatures = 4096
	maxSpan       = 4096 // milestones that Signatures looks at
)

// A board is where the writer shows what is agreed, and finds what others say.
type board struct {
	wake chan struct{} // capacity 1: something was said

	mu         sync.Mutex // guards what follows
	agreed     Agreed
	changed    chan struct{} // closed, and made anew, when agreed changes
	word       Word
	oldest     uint32                    // milestones up to it are forgotten, or about to be
	approved   map[stardust.BlockID]bool // and not ordered
	approvals  []stardust.BlockID        // the newest, MaxList at most
	approvedAt uint64                    // how many there were
	newly      chan struct{}             // closed, and made anew, when there are more
	words      []heard
	signatures []signed
	accused    []network.PublicKey                       // they equivocated
	trouble    Trouble                                   // without them
	doubts     map[network.PublicKey]consensus.Signature // by their keys; nobody has asked them yet

	certMu sync.Mutex // guards what follows; taken before mu
	certs  *consensus.Certificates
}

// Trouble is what is wrong with the agreement: evidence that gateways break the
// rules, and why this one does not vote.
type Trouble struct {
	Equivocators []string // names of the members that signed two votes of which an honest one signs one
	// Conflict is the index of a milestone of which more than the tolerated
	// weight signed another one than this replica derived: it votes no more,
	// over restarts, until [Trust]. 0: none.
	Conflict uint32
	// Recovering: what this gateway voted is lost, and it votes no more until a
	// quorum of the others has answered (consensus.md §7).
	Recovering bool
}

// Trouble returns what is wrong now.
func (l *Ledger) Trouble() Trouble {
	l.board.mu.Lock()
	defer l.board.mu.Unlock()
	t := l.board.trouble
	for _, g := range l.epochs.Load().File().Gateways {
		if slices.Contains(l.board.accused, g.PublicKey) {
			t.Equivocators = append(t.Equivocators, g.Name)
		}
	}
	return t
}

// accuse adds a key to those that equivocated.
func (b *board) accuse(key network.PublicKey) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Contains(b.accused, key) {
		b.accused = append(b.accused, key)
	}
}

type heard struct {
	from network.PublicKey
	word Word
}

func (b *board) init() {
	b.wake = make(chan struct{}, 1)
	b.changed, b.newly = make(chan struct{}), make(chan struct{})
	b.approved = map[stardust.BlockID]bool{}
	b.doubts = map[network.PublicKey]consensus.Signature{}
}

// A signed is a signature of a milestone, and the milestone if it is shown.
type signed struct {
	consensus.Signature
	shown *consensus.Essence
}

// show replaces what is agreed.
func (b *board) show(a Agreed) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if a != b.agreed {
		b.agreed = a
		close(b.changed)
		b.changed = make(chan struct{})
	}
}

// approve takes note of blocks that a quorum approved.
func (b *board) approve(ids []stardust.BlockID) {
	if len(ids) == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range ids {
		b.approved[id] = true
	}
	b.approvals = append(b.approvals, ids...)
	b.approvals = slices.Delete(b.approvals, 0, max(0, len(b.approvals)-MaxList))
	b.approvedAt += uint64(len(ids))
	close(b.newly)
	b.newly = make(chan struct{})
}

// order forgets approvals of blocks that were ordered.
func (b *board) order(entries []consensus.Entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range entries {
		delete(b.approved, e.ID)
	}
}

// forgetApprovals forgets all approvals.
func (b *board) forgetApprovals() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.approved = map[stardust.BlockID]bool{}
}

func (b *board) epoch() uint32 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.agreed.Epoch
}

func (b *board) isApproved(id stardust.BlockID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.approved[id]
}

// take returns what was said since the last call.
func (b *board) take() ([]heard, []signed) {
	b.mu.Lock()
	defer b.mu.Unlock()
	words, signatures := b.words, b.signatures
	b.words, b.signatures = nil, nil
	return words, signatures
}

func (b *board) signal() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// Agreed returns how far the gateways agree. What it names is durable.
func (l *Ledger) Agreed() Agreed {
	l.board.mu.Lock()
	defer l.board.mu.Unlock()
	return l.board.agreed
}

// WaitAgreed returns once more is agreed than before, or with the error of ctx.
func (l *Ledger) WaitAgreed(ctx context.Context, before Agreed) (Agreed, error) {
	for {
		l.board.mu.Lock()
		now, changed := l.board.agreed, l.board.changed
		l.board.mu.Unlock()
		if now != before {
			return now, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return before, context.Cause(ctx)
		}
	}
}

// WaitApproved returns once blocks were approved after the position given, and
// the position to go on from: it counts approvals since this start. Approvals
// that were missed, because more than [MaxList] came, are not repeated.
func (l *Ledger) WaitApproved(ctx context.Context, after uint64) (ids []stardust.BlockID, position uint64, err error) {
	b := &l.board
	for {
		b.mu.Lock()
		position = b.approvedAt
		if position > after {
			n := min(position-after, uint64(len(b.approvals)))
			ids = slices.Clone(b.approvals[uint64(len(b.approvals))-n:])
		}
		newly := b.newly
		b.mu.Unlock()
		if len(ids) > 0 {
			return ids, position, nil
		}
		select {
		case <-newly:
		case <-ctx.Done():
			return nil, after, context.Cause(ctx)
		}
	}
}

// Milestone returns the milestone with this index, or ErrNotFound.
func (l *Ledger) Milestone(index uint32) (Milestone, error) {
	e, signatures, err := l.store.Milestone(index)
	if errors.Is(err, ErrNotFound) {
		return Milestone{}, fmt.Errorf("%w: milestone %d", ErrNotFound, index)
	} else if err != nil {
		return Milestone{}, fmt.Errorf("milestone %d: %w", index, err)
	}
	return Milestone{e, e.ID(), signatures}, nil
}

// MilestoneIndex returns the index of the milestone with this id, or
// ErrNotFound.
func (l *Ledger) MilestoneIndex(id [32]byte) (uint32, error) {
	index, err := l.store.MilestoneIndex(id)
	if err != nil {
		return 0, fmt.Errorf("milestone %x: %w", id, err)
	}
	return index, nil
}

// Ordered returns what the milestone with this index orders, in that order
// (TIP-2), or ErrNotFound.
func (l *Ledger) Ordered(index uint32) ([]consensus.Entry, error) {
	entries, err := l.store.MilestoneBlocks(index)
	if err != nil {
		return nil, fmt.Errorf("blocks of milestone %d: %w", index, err)
	}
	return entries, nil
}

// Network returns the network file with this hash of any epoch up to the one in
// force, or nil.
func (l *Ledger) Network(hash [32]byte) *network.File {
	return l.epochs.Load().Network(hash)
}

// Networks returns the network files from that of epoch 0 to the one in force.
func (l *Ledger) Networks() []*network.File { return l.epochs.Load().Files() }

// Word returns what is to be told to the others.
func (l *Ledger) Word() Word {
	l.board.mu.Lock()
	defer l.board.mu.Unlock()
	return l.board.word
}

// Hear takes in another gateway's word. It does not block; when too many wait,
// it is dropped.
func (l *Ledger) Hear(from network.PublicKey, w Word) {
	b := &l.board
	b.mu.Lock()
	if len(b.words) < maxWords {
		b.words = append(b.words, heard{from, w})
	}
	b.mu.Unlock()
	b.signal()
}

// Certify takes in signatures of milestones, of which the gateway that sent
// them need not be the signer. Those that are wrong are dropped. The error wraps
// ErrBusy when too many wait.
func (l *Ledger) Certify(signatures []consensus.Signature) error {
	all := make([]signed, len(signatures))
	for i := range signatures {
		all[i].Signature = signatures[i]
	}
	return l.sign(all...)
}

// Contradict shows the milestone that one of Doubts is a signature of. If it is
// of the index that the signature was said to be of, that counts against the
// milestone that this replica derived. The error is as that of Certify.
func (l *Ledger) Contradict(e *consensus.Essence, sig consensus.Signature) error {
	return l.sign(signed{sig, e})
}

func (l *Ledger) sign(all ...signed) error {
	b := &l.board
	b.mu.Lock()
	full := len(b.signatures)+len(all) > maxSignatures
	if !full {
		b.signatures = append(b.signatures, all...)
	}
	b.mu.Unlock()
	b.signal()
	if full {
		return fmt.Errorf("%w: %d signatures of milestones wait", ErrBusy, maxSignatures)
	}
	return nil
}

// Doubts returns, of each gateway that has signed what is said to be another
// milestone than this replica derived, a signature, since the last call. Whoever
// has that milestone can show it ([Ledger.Contradict]), and who else has signed
// it ([Ledger.Signatures]).
func (l *Ledger) Doubts() map[network.PublicKey]consensus.Signature {
	b := &l.board
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.doubts) == 0 {
		return nil
	}
	doubts := b.doubts
	b.doubts = map[network.PublicKey]consensus.Signature{}
	return doubts
}

// Signatures returns the signatures known of the milestones from one index to
// another, both included, by ascending index, and at most most of them. It looks
// at some thousand milestones at most.
func (l *Ledger) Signatures(from, to uint32, most int) (out []consensus.Signature, err error) {
	last, _ := l.store.Last()
	from = max(from, 1)
	if to-from > maxSpan {
		to = from + maxSpan
	}
	for index := from; index <= min(to, last) && len(out) < most; index++ {
		_, signatures, err := l.store.Milestone(index)
		if err != nil {
			return nil, fmt.Errorf("signatures of milestone %d: %w", index, err)
		}
		if signatures == nil {
			l.board.certMu.Lock()
			signatures = l.board.certs.Said(index)
			l.board.certMu.Unlock()
		}
		out = append(out, signatures[:min(len(signatures), most-len(out))]...)
	}
	return out, nil
}
