// Package ledger is the gateway's replica of the Tangle: it validates blocks,
// waits for their parents, chooses tips and attaches, and it owns the order of
// every write.
//
// It is not a store, a network or an API: it writes through [Store], blocks of
// others come in by [Ledger.Receive], and what it knows is read by whoever
// serves it. It does not group readings; it only remembers, in the step that
// stores a block, which readings stand in it (a mark).
//
// One goroutine, started by [Ledger.Run], owns the DAG's state. It takes all
// blocks that wait, stores them in one durable transaction and then answers
// their senders. Every exported method may be called concurrently.
package ledger

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

var (
	// ErrInvalid means that the block can never be attached. The text that
	// follows it says why.
	ErrInvalid = errors.New("invalid block")
	// ErrScore means that the block's proof of work is too small.
	ErrScore = errors.New("pow score too low")
	// ErrUnknownParent means that a parent is not in the replica. The text
	// names the first such parent.
	ErrUnknownParent = errors.New("parent unknown or not solid")
	// ErrMarked means that a reading already stands in another block, so that
	// attaching this one would double it. The text names both.
	ErrMarked = errors.New("reading already attached")
	// ErrBusy means "not now, nothing was stored": too many blocks wait, or
	// the disk is full.
	ErrBusy = errors.New("ledger busy")
	// ErrNotFound means that the replica does not hold the block.
	ErrNotFound = errors.New("block not found")
	// ErrPruned means that the block was ordered and its body is kept no more.
	// It is an ErrNotFound.
	ErrPruned = fmt.Errorf("%w: pruned", ErrNotFound)
	// ErrCursor means that a cursor was not returned by the same query.
	ErrCursor = errors.New("invalid cursor")
	// ErrClosed means that Run has ended. Whether a block that waited then was
	// stored is known after the next start.
	ErrClosed = errors.New("ledger stopped")
)

const (
	// MaxRuns is how many runs of readings one block may be marked with.
	MaxRuns = 10_000
	// MaxList is how many ids Children and Tagged return at most.
	MaxList = 1000
)

// Config describes a [Ledger]. Zero fields mean the default named.
type Config struct {
	Network *network.File // the first of the network, of epoch 0; required. Later ones come in blocks
	Log     *slog.Logger  // discards

	// Announce is told of every block that Attach stored, or found stored, once
	// it is durable and in the order of storing. It is called by the goroutine
	// that stores, so it must not block; raw must not be changed. Nobody is told.
	Announce func(id stardust.BlockID, raw []byte)

	// Key is the identity key of a member of Network, which votes and signs
	// milestones. Without one the replica only follows the others.
	Key ed25519.PrivateKey

	// Clock returns the time for votes in Unix milliseconds, or 0 while it is
	// not known to be good. The system's.
	Clock func() uint64

	// OnEpoch is told of the network file of a new epoch once that is durable.
	// It must not block. Nobody is told.
	OnEpoch func(*network.File)

	// Publish is told of every signature that this gateway gives to a milestone,
	// once that is durable. It must not block. Nobody is told.
	Publish func(consensus.Signature)

	// Retention says what is kept; by default everything.
	Retention Retention

	// Refetch returns the bytes of a block that the store has and cannot read,
	// or an error; it may take seconds. Such a block is an error.
	Refetch func(id stardust.BlockID) ([]byte, error)

	Queue     int // own blocks that may wait to be stored; 1024
	HoldCount int // received blocks that may wait for their parents; 4096
	HoldBytes int // bytes of those blocks; 8 MiB
	MaxTips   int // tips kept for selection, the newest; 256
}

// A Ledger is a replica. See [New].
type Ledger struct {
	key     ed25519.PrivateKey // nil: no votes
	network *network.File      // any of the network: what blocks are checked by never changes
	store   Store
	log     *slog.Logger
	clock   func() uint64
	maxTips int

	queue    chan *job   // of Attach
	received chan []*job // of Receive
	imports  chan *importJob
	closed   chan struct{} // closed when Run ends
	started  atomic.Bool
	announce func(stardust.BlockID, []byte)
	publish  func(consensus.Signature)
	onEpoch  func(*network.File)
	refetch  func(stardust.BlockID) ([]byte, error)
	scorer   scorer
	growth   growth
	recent   recent

	board   board
	syncing atomic.Bool // a state sync goes on
	epochs  atomic.Pointer[consensus.Epochs]

	// Owned by the goroutine of Run.
	hold      *hold
	agreement agreement
	pruner    pruner

	// The pool is replaced by the goroutine of Run and never changed once
	// others can see it.
	pool atomic.Pointer[pool]

	counts struct {
		position, pruned, held, heldBytes, dropped, refused, duplicates, damaged, refetched atomic.Uint64
		votes, badSignatures, contradictions, parked                                        atomic.Uint64

		lastAttached atomic.Int64 // Unix milliseconds, 0 never
	}

	mu       sync.Mutex // guards what follows
	failure  error      // why Run ended, if not by its context
	digest   [32]byte   // of the blocks at digestAt
	digestAt [2]uint64  // see digestState
	digested bool
}

// Stats are the replica's figures at a moment.
type Stats struct {
	Blocks        uint64    // with bodies, the genesis not counted
	Pruned        uint64    // blocks that have lost their bodies
	Tips          int       // known for selection
	Queued        int       // waiting to be stored
	Held          int       // waiting for their parents
	HeldBytes     int       // bytes of those
	Dropped       uint64    // held blocks given up to make room, since start
	Refused       uint64    // invalid blocks, since start
	Duplicates    uint64    // blocks that were there already, since start
	Damaged       uint64    // reads of blocks that the store could not give back, since start
	Refetched     uint64    // of those, how many a peer gave
	Votes         uint64    // issued, since start
	Parked        int       // votes of the next epoch that wait for it
	BadSignatures uint64    // of milestones, since start
	Contradicted  uint64    // times that a gateway signed another milestone than this one derived, since start
	LastAttached  time.Time // zero: never
}

// New returns a ledger over what the store holds. It does nothing until
// [Ledger.Run]; reading works before.
func New(cfg Config, store Store) (*Ledger, error) {
	if cfg.Network == nil {
		return nil, errors.New("open ledger: no network file given")
	}
	if cfg.Network.Epoch != 0 {
		return nil, fmt.Errorf("open ledger: the network file is of epoch %d, the first one is needed", cfg.Network.Epoch)
	}
	if cfg.Queue < 0 || cfg.HoldCount < 0 || cfg.HoldBytes < 0 || cfg.MaxTips < 0 {
		return nil, errors.New("open ledger: a limit is negative")
	}
	l := &Ledger{
		network:  cfg.Network,
		store:    store,
		log:      cmp.Or(cfg.Log, slog.New(slog.DiscardHandler)),
		queue:    make(chan *job, cmp.Or(cfg.Queue, 1024)),
		received: make(chan []*job, 1),
		imports:  make(chan *importJob),
		key:      cfg.Key,
		closed:   make(chan struct{}),
		announce: cfg.Announce,
		refetch:  cfg.Refetch,
		hold:     newHold(cmp.Or(cfg.HoldCount, 4096), cmp.Or(cfg.HoldBytes, 8<<20)),
	}
	l.defaults(&cfg)
	position, pruned, last, err := store.Count()
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	l.counts.position.Store(position)
	l.counts.pruned.Store(pruned)
	l.growth.init(position)
	l.recent.init(position)
	if !last.IsZero() {
		l.counts.lastAttached.Store(last.UnixMilli())
	}
	syncing, err := store.Syncing()
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	l.syncing.Store(syncing)
	if err := l.openPruner(cfg.Retention); err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	if err := l.openAgreement(); err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	return l, nil
}

// defaults fills what the configuration leaves out.
func (l *Ledger) defaults(cfg *Config) {
	l.board.init()
	l.maxTips = cmp.Or(cfg.MaxTips, 256)
	l.clock, l.publish, l.onEpoch = cfg.Clock, cfg.Publish, cfg.OnEpoch
	if l.clock == nil {
		l.clock = func() uint64 { return uint64(time.Now().UnixMilli()) }
	}
	if l.publish == nil {
		l.publish = func(consensus.Signature) {}
	}
	if l.onEpoch == nil {
		l.onEpoch = func(*network.File) {}
	}
	if l.refetch == nil {
		l.refetch = func(id stardust.BlockID) ([]byte, error) { return nil, fmt.Errorf("%w: %v", ErrNotFound, id) }
	}
	if l.announce == nil {
		l.announce = func(stardust.BlockID, []byte) {}
	}
}

// Run stores what is attached and received until ctx ends, and then returns
// nil. An error means that the store is in doubt: the process must end, and
// the next start finds out what was stored. Run may be called once.
func (l *Ledger) Run(ctx context.Context) error {
	if l.started.Swap(true) {
		panic("ledger: Run called twice")
	}
	defer close(l.closed) // from here on everything returns ErrClosed
	if err := l.run(ctx); err != nil {
		l.mu.Lock()
		l.failure = err
		l.mu.Unlock()
		return fmt.Errorf("ledger: %w", err)
	}
	return nil
}

func (l *Ledger) run(ctx context.Context) error {
	if err := l.resume(); err != nil {
		return err
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var work []*job
		select {
		case <-ctx.Done():
			return nil
		case j := <-l.queue:
			work = []*job{j}
		case work = <-l.received:
		case j := <-l.imports:
			if err := l.takeOver(j); err != nil {
				return err
			}
		case <-l.board.wake:
		case <-timer.C:
		}
		if err := l.write(work); err != nil {
			return err
		}
		wake, err := l.agree()
		if err != nil {
			return err
		}
		due, err := l.prune(len(work) > 0)
		if err != nil {
			return err
		}
		wake = earlier(wake, due)
		timer.Stop()
		if !wake.IsZero() {
			timer.Reset(max(0, time.Until(wake)))
		}
	}
}

// MinPoWScore is the score that every block must reach (TIP-12).
func (l *Ledger) MinPoWScore() uint32 { return l.network.MinPoWScore }

// Attach validates the block and stores it together with the mark "the
// readings of these runs stand in it", in one durable step. A run is a pair of
// first and last sequence number; runs ascend and do not touch; there are none
// for blocks of others, and at most [MaxRuns].
//
// It waits until the block is durable. A block that is there already is
// marked and its id returned. The error wraps ErrInvalid, ErrScore,
// ErrUnknownParent, ErrMarked, ErrBusy or ErrClosed, or is that of ctx, after
// which the block may or may not be stored: attaching it again is safe.
func (l *Ledger) Attach(ctx context.Context, b *stardust.Block, runs [][2]uint64) (stardust.BlockID, error) {
	raw, err := b.AppendBinary(nil)
	if err != nil {
		l.counts.refused.Add(1)
		return stardust.GenesisID, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := checkRuns(runs); err != nil {
		return stardust.GenesisID, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	j := &job{id: stardust.IDOf(raw), raw: raw, runs: runs}
	if err := l.submit(ctx, j); err != nil {
		return stardust.GenesisID, err
	}
	return j.id, nil
}

// submit checks the job's block, has it written and waits for the answer.
func (l *Ledger) submit(ctx context.Context, j *job) error {
	j.looked = l.recent.position()
	switch known, err := l.store.Has(j.id); {
	case err != nil:
		return fmt.Errorf("look for block %v: %w", j.id, err)
	case known && len(j.runs) == 0:
		l.counts.duplicates.Add(1)
		return nil
	}
	if err := l.check(j); err != nil {
		l.counts.refused.Add(1)
		return err
	}
	answers := newAnswers(1)
	j.answers = answers // the writer owns j from here on
	select {
	case <-l.closed:
		return l.whyClosed()
	default:
	}
	select {
	case l.queue <- j:
	default:
		return fmt.Errorf("%w: %d blocks wait to be stored", ErrBusy, cap(l.queue))
	}
	if err := l.wait(ctx, answers); err != nil {
		return fmt.Errorf("wait for block %v: %w", j.id, err)
	}
	return j.err
}

// wait returns nil when all answers are given.
func (l *Ledger) wait(ctx context.Context, a *answers) error {
	select {
	case <-a.given:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-l.closed:
	}
	select {
	case <-a.given: // just before Run ended
		return nil
	default:
		return l.whyClosed()
	}
}

func (l *Ledger) whyClosed() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failure != nil {
		return fmt.Errorf("%w: %w", ErrClosed, l.failure)
	}
	return ErrClosed
}
