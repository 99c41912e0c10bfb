package ledger

import (
	"context"
	"fmt"
	"sync"

	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
	"github.com/hedgerow-iot/hedgerow/powfarm/curl"
)

// MaxReceive is how many blocks one call of Receive takes.
const MaxReceive = 8192

// An Incoming is a block that another gateway sent.
type Incoming struct {
	From string // the gateway's name, not empty
	Raw  []byte
}

// An Outcome is what became of a received block.
type Outcome struct {
	ID    stardust.BlockID
	Known bool // it was there already
	// Missing are the parents without which the block is held, not stored. It
	// is lost when the process ends or when newer ones need its place.
	Missing []stardust.BlockID
	// Useless: a vote that tells nothing, which is stored only if something that
	// is held refers to it ([consensus.State.Useless]).
	Useless bool
	// Later: a vote of an epoch to come. It is not stored; one of the next epoch
	// waits for that in memory, if there is room.
	Later bool
	// Err says why the block was refused; it wraps ErrInvalid or ErrScore, or
	// ErrBusy when the store takes nothing now.
	Err error
}

// Receive takes up to [MaxReceive] blocks of other gateways and waits until
// those that are to be stored now are durable. They are checked and stored many at a
// time, so that many cost less than as many calls; parents should come before
// children. Own blocks are stored in between.
//
// The outcomes are in the order of the blocks, whose bytes must not be changed
// afterwards. The error wraps ErrClosed, or is that of the store or of ctx;
// any of the blocks may be stored then, and receiving them again is safe.
func (l *Ledger) Receive(ctx context.Context, blocks []Incoming) ([]Outcome, error) {
	if len(blocks) > MaxReceive {
		return nil, fmt.Errorf("receive %d blocks: at most %d at once", len(blocks), MaxReceive)
	}
	outcomes := make([]Outcome, len(blocks))
	batches := make([]*batch, 0, len(blocks)/groupBlocks+1)
	var failure error
	for at := 0; at < len(blocks) && failure == nil; at += groupBlocks {
		end := min(at+groupBlocks, len(blocks))
		b := &batch{outcomes: outcomes[at:end]}
		if failure = l.checkBatch(b, blocks[at:end]); failure != nil || len(b.jobs) == 0 {
			continue
		}
		select { // the next ones are checked while these are stored
		case l.received <- b.jobs:
			batches = append(batches, b)
		case <-l.closed:
			failure = l.whyClosed()
		case <-ctx.Done():
			failure = context.Cause(ctx)
		}
	}
	for _, b := range batches {
		if err := l.wait(ctx, b.answers); err != nil {
			return nil, fmt.Errorf("receive blocks: %w", err)
		}
		b.report()
	}
	if failure != nil {
		return nil, fmt.Errorf("receive blocks: %w", failure)
	}
	return outcomes, nil
}

// A batch is what the writer gets of one Receive at a time.
type batch struct {
	outcomes []Outcome
	jobs     []*job // of those that are neither known nor refused
	index    []int  // of each job's outcome
	answers  *answers
}

// report copies the writer's answers to the outcomes.
func (b *batch) report() {
	for i, j := range b.jobs {
		o := &b.outcomes[b.index[i]]
		o.Err, o.Missing, o.Useless, o.Later = j.err, j.missing, j.useless, j.later
	}
}

// checkBatch fills the batch with what is new and valid of the blocks. The
// error is the store's.
func (l *Ledger) checkBatch(b *batch, blocks []Incoming) error {
	scores := make([]curl.Work, 0, len(blocks))
	looked := l.recent.position()
	for i, in := range blocks {
		o, raw := &b.outcomes[i], in.Raw
		if len(raw) > stardust.MaxBlockSize {
			o.Err = fmt.Errorf("%w: %d bytes, at most %d allowed", ErrInvalid, len(raw), stardust.MaxBlockSize)
			continue
		}
		o.ID = stardust.IDOf(raw)
		var err error
		if o.Known, err = l.solid(nil, o.ID); err != nil {
			return err
		}
		if o.Known {
			l.counts.duplicates.Add(1)
			continue
		}
		block, err := stardust.ParseBlock(raw)
		if err != nil {
			o.Err = fmt.Errorf("%w: %w", ErrInvalid, err)
			continue
		}
		j := &job{id: o.ID, raw: raw, block: block, from: in.From, looked: looked}
		if o.Err = l.decode(j); o.Err != nil {
			continue
		}
		b.jobs = append(b.jobs, j)
		b.index = append(b.index, i)
		scores = append(scores, curl.Work{Digest: stardust.PoWDigest(raw), Nonce: block.Nonce})
	}
	zeros := l.scorer.zeros(scores)
	kept := 0
	for i, j := range b.jobs {
		err := scoreError(zeros[i], len(j.raw), l.network.MinPoWScore)
		if err != nil && !consensus.IsVote(j.block.Payload) { // votes need none (consensus.md §2)
			b.outcomes[b.index[i]].Err = err
			continue
		}
		b.jobs[kept], b.index[kept] = j, b.index[i]
		kept++
	}
	b.jobs, b.index = b.jobs[:kept], b.index[:kept]
	for _, o := range b.outcomes {
		if o.Err != nil {
			l.counts.refused.Add(1)
		}
	}
	b.answers = newAnswers(len(b.jobs))
	for _, j := range b.jobs {
		j.answers = b.answers
	}
	return nil
}

// A scorer counts the zeros of many nonces at once.
type scorer struct {
	mu     sync.Mutex  // guards what follows
	scorer curl.Scorer // nil: not used yet
}

func (s *scorer) zeros(works []curl.Work) []int {
	out := make([]int, len(works))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.scorer == nil {
		s.scorer = fastest().NewScorer()
	}
	s.scorer.Zeros(out, works)
	return out
}

// fastest returns the first kernel that works here; the last one is plain Go.
func fastest() curl.Kernel {
	kernels := curl.Kernels()
	for _, k := range kernels {
		if curl.SelfTest(k) == nil {
			return k
		}
	}
	return kernels[len(kernels)-1]
}
