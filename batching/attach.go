package batching

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// How long a transient error of the prover or the ledger is waited out: twice
// as long after each, up to the longest.
const (
	retryFirst   = 10 * time.Millisecond
	retryLongest = 2 * time.Second
)

// errStale is the cause for which a search is ended to take newer parents.
var errStale = errors.New("parents are stale")

// attachAll brings batches to the ledger one after the other until there are
// no more, or ctx ends. It calls end when nothing can be attached any more.
func (s *Stage) attachAll(ctx context.Context, end func(), batches <-chan *batch) error {
	for b := range batches {
		if ctx.Err() != nil {
			return nil
		}
		id, err := s.attach(ctx, b)
		if err != nil && ctx.Err() == nil && !s.stopped(err) && s.resolve(b, err) {
			<-s.seal.slots
			continue
		}
		switch {
		case err == nil:
		case ctx.Err() != nil, s.stopped(err):
			end()
			return nil
		default:
			end()
			return fmt.Errorf("attach batch %d-%d: %w", b.first(), b.last(), err)
		}
		s.flight.landed(b)
		s.cfg.Attached(b.runs, id)
		s.count.attached.Add(uint64(b.count))
		s.count.attach.observe(time.Since(b.sealed).Seconds())
		<-s.seal.slots
	}
	return nil
}

// attach makes the block of a batch, hands it to the ledger and returns its id. It
// makes another one as long as the ledger has dropped a parent meanwhile.
func (s *Stage) attach(ctx context.Context, b *batch) (id stardust.BlockID, err error) {
	for {
		if id, err = s.attachOnce(ctx, b); err == nil || !s.outdated(err) {
			return id, err
		}
		s.count.refreshes.Add(1)
		s.log.Debug("a parent is gone, the batch gets others", "first", b.first(), "last", b.last(), "err", err)
		select {
		case <-time.After(retryFirst):
		case <-ctx.Done():
			return id, ctx.Err()
		}
	}
}

func (s *Stage) attachOnce(ctx context.Context, b *batch) (id stardust.BlockID, err error) {
	var block *stardust.Block
	err = s.retry(ctx, "proof of work", func() (err error) {
		block, err = s.prove(ctx, b)
		return err
	})
	if err != nil {
		return id, err
	}
	tried := false
	err = s.retry(ctx, "attachment", func() error {
		if tried { // the ledger may have come further than its answer said
			if marked, err := s.marked(b); err != nil || marked.count() == uint64(b.count) {
				if err == nil {
					id, _, err = s.ledger.Marked(b.first())
				}
				return err
			}
		}
		tried = true
		id, err = s.ledger.Attach(ctx, block, b.runs)
		if err != nil {
			return err
		}
		s.log.Debug("batch attached", "first", b.first(), "last", b.last(), "readings", b.count, "block", id)
		return nil
	})
	return id, err
}

// marked returns those of the batch's numbers that stand in a block.
func (s *Stage) marked(b *batch) (set runset, err error) {
	for _, run := range b.runs {
		for seq := run[0]; seq <= run[1]; seq++ {
			_, ok, err := s.ledger.Marked(seq)
			if err != nil {
				return nil, fmt.Errorf("look for the block of reading %d: %w", seq, err)
			}
			if ok {
				set = set.add([2]uint64{seq, seq})
			}
		}
	}
	return set, nil
}

// resolve deals with a batch that the ledger refused for good. When some of
// its readings stand in another block, that is why: they are done, and the
// others are batched again. It returns false when none does.
func (s *Stage) resolve(b *batch, cause error) bool {
	marked, err := s.marked(b)
	if err != nil || len(marked) == 0 {
		return false
	}
	rest := runset(slices.Clone(b.runs))
	for _, run := range marked {
		rest = rest.without(run)
	}
	s.log.Warn("batch refused, its readings stand in another block in part: the others are batched again",
		"first", b.first(), "last", b.last(), "marked", marked.count(), "again", rest.count(), "err", cause)
	s.flight.gone(marked)
	s.flight.drop(b)
	s.seal.again(rest)
	return true
}

// retry calls f until it returns anything but a transient error, or ctx ends.
func (s *Stage) retry(ctx context.Context, what string, f func() error) error {
	for wait := retryFirst; ; wait = min(2*wait, retryLongest) {
		err := f()
		if err == nil || !s.transient(err) {
			return err
		}
		s.count.retries.Add(1)
		s.log.Debug("busy, trying again", "what", what, "wait", wait, "err", err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// prove returns the block of b with parents as late and a nonce as good as
// the ledger asks for.
func (s *Stage) prove(ctx context.Context, b *batch) (*stardust.Block, error) {
	for {
		tips := s.ledger.Tips()
		block := &stardust.Block{
			Version: stardust.ProtocolVersion,
			Parents: someParents(tips, b.parents),
			Payload: &stardust.TaggedData{Tag: s.seal.tag, Data: b.data},
		}
		raw, err := block.AppendBinary(nil)
		if err != nil {
			return nil, fmt.Errorf("build block: %w", err)
		}
		s.count.lastSize.Store(int64(len(raw)))
		zeros := stardust.TargetZeros(len(raw), s.ledger.MinPoWScore())
		if zeros == 0 {
			return block, nil
		}
		block.Nonce, err = s.search(ctx, stardust.PoWDigest(raw), zeros, tips)
		if errors.Is(err, errStale) {
			s.count.refreshes.Add(1)
			continue
		}
		return block, err
	}
}

// search finds a nonce. It returns errStale when that takes longer than
// TipRefresh and the ledger's tips are other than tips by then.
func (s *Stage) search(ctx context.Context, digest [32]byte, zeros int, tips []stardust.BlockID) (uint64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	var watch sync.WaitGroup
	watch.Go(func() {
		tick := time.NewTicker(s.cfg.TipRefresh)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if !slices.Equal(s.ledger.Tips(), tips) {
					cancel(errStale)
					return
				}
			case <-ctx.Done():
				return
			}
		}
	})
	began := time.Now()
	nonce, err := s.prover.Prove(ctx, digest, zeros)
	cause := context.Cause(ctx)
	if err == nil || cause != nil {
		s.speed.searched(zeros, time.Since(began), err == nil)
	}
	cancel(nil)
	watch.Wait()
	if err != nil && errors.Is(cause, errStale) {
		return 0, errStale
	}
	return nonce, err
}

// someParents returns at most n of the tips, ascending. Leaving some out when
// there are more than the block has room for keeps it below its step.
func someParents(tips []stardust.BlockID, n int) []stardust.BlockID {
	tips = slices.Clone(tips)
	for len(tips) > n {
		i := rand.IntN(len(tips))
		tips = slices.Delete(tips, i, i+1)
	}
	return tips
}
