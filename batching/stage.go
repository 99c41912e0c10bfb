package batching

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hedgerow-iot/hedgerow/batching/envelope"
	"github.com/hedgerow-iot/hedgerow/batching/reading"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// Defaults of a [Config].
const (
	DefaultLinger      = 5 * time.Millisecond
	DefaultMaxAge      = 2 * time.Second
	DefaultTipRefresh  = time.Second
	DefaultMaxReadings = 1000
)

const (
	attachers = 2 // one block is searched while the one before it is written

	// MinTarget is the smallest Config.Target: envelope and parents alone
	// need about 600 bytes.
	MinTarget = 1024
)

// A Config says who signs the batches and when they are closed. A zero field
// means its default.
type Config struct {
	Gateway string             // this gateway's name in its network, required
	Key     ed25519.PrivateKey // the gateway's identity, required
	Genesis [32]byte           // hash of the network file that the batches belong to

	Linger      time.Duration // longest wait for company before a commit, only under load; negative: never
	MaxAge      time.Duration // longest that a stored reading waits for its batch to fill
	TipRefresh  time.Duration // how long a nonce is searched before the parents are looked at again
	MaxReadings int           // most readings in a batch, at most envelope.MaxReadings
	// Target is the size of a block in bytes at which its batch is closed. 0
	// takes the proof-of-work step of about 1.7 kB, and while readings pile up
	// the one that costs the fewest tries per reading, if its search takes no
	// longer than MaxAge or than they have waited already.
	Target int

	// Clock tells the time that readings are stamped with and how far to
	// trust it. The default trusts the system's clock as far as ClockUnsure.
	Clock func() (time.Time, reading.Clock)

	// Restore learns from elsewhere what the ledger and the journal may not know,
	// and returns once the ledger's marks name every reading that stands in a
	// block: above is the highest number in use that the journal has not given
	// yet, or 0; the journal then goes on above it under a new incarnation. Until
	// it returns, readings are taken in and nothing is sealed; with an empty
	// journal nothing is taken in either. The error is that of ctx, or ends the
	// process. Nil: there is nothing to learn.
	Restore func(ctx context.Context) (above uint64, err error)

	// Attached is told of every batch once its block is durable: the runs of its
	// numbers, which must not be changed, and the block. It may be
	// called by two goroutines at a time, each of which takes no other batch before
	// it returns. It is not told of readings that another start, or another
	// gateway, had attached. Nil: nobody is told.
	Attached func(runs [][2]uint64, block stardust.BlockID)

	// Transient tells whether an error of the prover or the ledger passes by
	// itself, so that the same is tried again; Stopped whether it only says
	// that the other stage is stopping. Errors that wrap ErrBusy or ErrClosed
	// always count.
	Transient func(error) bool
	Stopped   func(error) bool
	// Outdated tells whether the ledger refused a block because it has dropped a
	// parent that was a tip. Nil: it drops none.
	Outdated func(error) bool

	Log *slog.Logger
}

// A Stage takes packets in, makes them durable and brings their readings to
// the ledger. All methods may be called concurrently.
type Stage struct {
	cfg     Config
	log     *slog.Logger
	journal Journal
	prover  Prover
	ledger  Ledger

	inbox   inbox
	commits committer
	flight  flight
	seal    sealer
	speed   speedometer
	count   counters
}

// New returns a stage that commits and seals nothing until Run; Submit
// already queues.
func New(cfg Config, journal Journal, prover Prover, ledger Ledger) (*Stage, error) {
	cfg.Linger = orDefault(cfg.Linger, DefaultLinger)
	cfg.MaxAge = orDefault(cfg.MaxAge, DefaultMaxAge)
	cfg.TipRefresh = orDefault(cfg.TipRefresh, DefaultTipRefresh)
	cfg.MaxReadings = orDefault(cfg.MaxReadings, DefaultMaxReadings)
	switch {
	case cfg.MaxAge < 0 || cfg.TipRefresh < 0:
		return nil, fmt.Errorf("max age %v and tip refresh %v must not be negative", cfg.MaxAge, cfg.TipRefresh)
	case cfg.MaxReadings < 1 || cfg.MaxReadings > envelope.MaxReadings:
		return nil, fmt.Errorf("max readings is %d, want 1 to %d", cfg.MaxReadings, envelope.MaxReadings)
	case cfg.Target != 0 && (cfg.Target < MinTarget || cfg.Target > stardust.MaxBlockSize):
		return nil, fmt.Errorf("target is %d bytes, want %d to %d", cfg.Target, MinTarget, stardust.MaxBlockSize)
	}
	if cfg.Clock == nil {
		cfg.Clock = systemClock
	}
	if cfg.Attached == nil {
		cfg.Attached = func([][2]uint64, stardust.BlockID) {}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Stage{cfg: cfg, log: cfg.Log, journal: journal, prover: prover, ledger: ledger}
	s.inbox.init()
	s.commits.turn = make(chan struct{}, 1)
	s.count.init()
	if err := s.seal.init(cfg); err != nil {
		return nil, err
	}
	return s, nil
}

// Run commits, seals and attaches until ctx ends, or until everything taken
// in has been attached after [Stage.CloseIntake]. It returns nil in both
// cases, and an error when a stage it depends on failed in a way that does
// not pass: the process must then end. Once it returned, every receipt is
// resolved and Submit returns ErrClosed. It must be called once.
func (s *Stage) Run(ctx context.Context) error {
	defer s.inbox.refuse(ErrClosed)
	next := s.journal.Next()
	early := s.cfg.Restore != nil && next > 1 // intake does not wait for the marks
	if !early {
		if err := s.recover(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	s.flight.stored(next)
	g.Go(func() error { return s.collect(ctx) })

	// Everything behind the journal ends when it is drained or cannot go on.
	work, end := context.WithCancel(ctx)
	batches := make(chan *batch, attachers)
	g.Go(func() error {
		defer close(batches)
		if early {
			if err := s.recover(work); err != nil {
				if work.Err() != nil {
					return nil
				}
				return err
			}
		}
		return s.sealAll(work, batches)
	})
	g.Go(func() error { return s.trimJournal(work) })
	g.Go(func() error {
		defer end()
		var all errgroup.Group
		for range attachers {
			all.Go(func() error { return s.attachAll(work, end, batches) })
		}
		return all.Wait()
	})
	return g.Wait()
}

// CloseIntake makes Submit return ErrClosed from now on. What was taken in
// before is still committed and its receipts resolved; Run returns when all
// of it is attached. It does not block.
func (s *Stage) CloseIntake() {
	s.inbox.close()
}

// Ready returns nil if a packet submitted now would be stored, or why not.
func (s *Stage) Ready() error {
	if err := s.inbox.ready(); err != nil {
		return err
	}
	if err := s.journal.Ready(); err != nil {
		return err
	}
	if !s.count.running.Load() {
		return errors.New("batching has not started")
	}
	return nil
}

// systemClock is the default of Config.Clock.
func systemClock() (time.Time, reading.Clock) {
	now := time.Now()
	if now.Year() < 2025 {
		return now, reading.ClockBad
	}
	return now, reading.ClockUnsure
}

func orDefault[T time.Duration | int](v, def T) T {
	if v == 0 {
		return def
	}
	return v
}

func (s *Stage) transient(err error) bool {
	return errors.Is(err, ErrBusy) || s.cfg.Transient != nil && s.cfg.Transient(err)
}

func (s *Stage) outdated(err error) bool { return s.cfg.Outdated != nil && s.cfg.Outdated(err) }

func (s *Stage) stopped(err error) bool {
	return errors.Is(err, ErrClosed) || errors.Is(err, context.Canceled) || s.cfg.Stopped != nil && s.cfg.Stopped(err)
}
