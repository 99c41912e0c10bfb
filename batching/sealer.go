package batching

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching/envelope"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// sealer decides which readings make the next batch.
type sealer struct {
	wake  chan struct{} // capacity 1: something was stored, or intake is over
	slots chan struct{} // one token for each batch that an attacher is busy with
	tag   []byte

	mu    sync.Mutex // guards the fields below
	fresh time.Time  // of the first commit since the sealer looked, or zero
	over  bool       // nothing more will be stored
	back  runset     // numbers to be batched once more

	// The rest belongs to the goroutine in sealAll.
	envelopes *envelope.Sealer
	todo      runset    // numbers to be batched; the last run is open
	oldest    time.Time // since when the first of them waits
	size      sizer
}

func (sl *sealer) init(cfg Config) error {
	sl.wake = make(chan struct{}, 1)
	sl.slots = make(chan struct{}, attachers)
	sl.tag = envelope.Tag(cfg.Gateway)
	sl.size.init(sl.tag)
	_, err := envelope.NewSealer(cfg.Gateway, cfg.Key, cfg.Genesis, [8]byte{}) // checks them
	return err
}

// stored tells the sealer that readings were committed.
func (sl *sealer) stored(at time.Time) {
	sl.mu.Lock()
	defer sl.mu.Unlock()
	if sl.fresh.IsZero() {
		sl.fresh = at
	}
	sl.signal()
}

// intakeOver tells the sealer that nothing more will be stored.
func (sl *sealer) intakeOver() {
	sl.mu.Lock()
	defer sl.mu.Unlock()
	sl.over = true
	sl.signal()
}

// again gives back what a batch held that cannot be attached as it is.
func (sl *sealer) again(runs runset) {
	sl.mu.Lock()
	defer sl.mu.Unlock()
	for _, run := range runs {
		sl.back = sl.back.add(run)
	}
	if sl.fresh.IsZero() {
		sl.fresh = time.Now()
	}
	sl.signal()
}

func (sl *sealer) signal() {
	select {
	case sl.wake <- struct{}{}:
	default:
	}
}

// look takes in what the other goroutines told since the last call.
func (sl *sealer) look() (fresh time.Time, over bool) {
	sl.mu.Lock()
	defer sl.mu.Unlock()
	fresh, sl.fresh = sl.fresh, time.Time{}
	for _, run := range sl.back {
		sl.todo = sl.todo.add(run)
	}
	sl.back = nil
	return fresh, sl.over
}

// recover learns from journal and ledger which readings are still to be
// batched: every journalled number that no mark names.
func (s *Stage) recover(ctx context.Context) error {
	above := uint64(0)
	if s.cfg.Restore != nil {
		var err error
		if above, err = s.cfg.Restore(ctx); err != nil {
			return fmt.Errorf("learn which readings stand in a block: %w", err)
		}
	}
	var done runset
	err := s.ledger.MarksFrom(0, func(run [2]uint64, _ stardust.BlockID) bool {
		done = done.add(run)
		return true
	})
	if err != nil {
		return fmt.Errorf("read the ledger's marks: %w", err)
	}
	used := max(above, done.last())
	if next := s.journal.Next(); above > 0 || used >= next {
		s.log.Error("journal is behind the ledger's marks: restored from an older copy, or lost; "+
			"it goes on above them under a new incarnation", "next", next, "used", used)
		s.count.skipped.Store(max(used+1, next+1) - next)
		err := s.retry(ctx, "skip the journal", func() error { return s.journal.SkipTo(used + 1) })
		if err != nil {
			return fmt.Errorf("skip the journal to %d: %w", used+1, err)
		}
	}
	s.seal.envelopes, err = envelope.NewSealer(s.cfg.Gateway, s.cfg.Key, s.cfg.Genesis, s.journal.Incarnation())
	if err != nil {
		return err
	}
	next := s.journal.Next()
	s.seal.todo = done.rest()
	if s.seal.todo.below(next) > 0 {
		s.seal.oldest = time.Unix(0, 0) // what an earlier process left has waited long enough
	}
	s.flight.reset(done, next)
	return nil
}

// sealAll makes batches, each when an attacher is free for it, until intake
// is over and nothing is left, or ctx ends.
func (s *Stage) sealAll(ctx context.Context, batches chan<- *batch) error {
	for {
		select {
		case s.seal.slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		b, err := s.nextBatch(ctx)
		if b == nil || err != nil {
			return err
		}
		s.flight.start(b)
		s.count.batches.Add(1)
		batches <- b // never blocks: an attacher has left its slot
	}
}

// nextBatch waits until a batch is due and returns it, or nil when there will
// be none. A batch is due when its readings fill a block, when the oldest has
// waited long enough, or when no more can come.
func (s *Stage) nextBatch(ctx context.Context) (*batch, error) {
	sl := &s.seal
	least := uint64(0) // so many must wait before another draft is worth it
	for ctx.Err() == nil {
		fresh, over := sl.look()
		end := s.flight.end()
		waiting := sl.todo.below(end)
		if waiting == 0 {
			if over {
				return nil, nil
			}
			sl.oldest = time.Time{}
			s.pause(ctx, time.Hour)
			continue
		}
		if sl.oldest.IsZero() {
			if sl.oldest = fresh; fresh.IsZero() { // stored, but not told yet
				sl.oldest = time.Now()
			}
		}
		age := time.Since(sl.oldest)
		p := sl.size.plan(s.cfg, s.ledger.MinPoWScore(), waiting, s.speed.speed(), max(age, s.cfg.MaxAge))
		left := s.cfg.MaxAge - age
		due := over || left <= 0 || p.now
		if !due && waiting < min(uint64(s.cfg.MaxReadings), max(uint64(p.want), least)) {
			s.pause(ctx, left)
			continue
		}
		b, more, err := s.cut(p, end, due)
		if b != nil || err != nil {
			return b, err
		}
		least = waiting + uint64(more)
	}
	return nil, nil
}

// pause waits for something to be stored, but no longer than d.
func (s *Stage) pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-s.seal.wake:
	case <-timer.C:
	case <-ctx.Done():
	}
}
