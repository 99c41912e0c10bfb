package batching

import (
	"math"
	"sync"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// The proof of work of a block costs in steps: three times as much from a
// certain size on. Blocks are filled to just under a step.
const (
	firstZeros = 11   // the first step that Target 0 takes: 1771 bytes at score 100,
	firstBytes = 1500 // or the first one that holds this many bytes at higher scores
)

// A plan is the size that the coming block should have.
type plan struct {
	limit int  // bytes
	want  int  // readings that fill it, as far as known
	now   bool // so many wait that nothing is gained by waiting for more
}

// plan chooses the step for the coming block. While no more waits than fills
// the first one that is it: no reading waits longer than it must. When more
// waits because blocks are not made as fast as readings come, it is the step at
// which a reading costs the fewest tries, among those that take no longer than
// patience to search: the larger a block, the less of it is its frame, which
// costs half as much again as the readings at the first step and a twentieth
// two steps on.
func (z *sizer) plan(cfg Config, score uint32, waiting uint64, speed float64, patience time.Duration) plan {
	if cfg.Target != 0 {
		return plan{limit: cfg.Target, want: z.room(cfg.Target)}
	}
	zeros := max(firstZeros, stardust.TargetZeros(firstBytes, score))
	best, least := plan{}, math.Inf(1)
	for first := true; ; first = false {
		p := plan{limit: stardust.MaxSize(zeros, score), now: !first}
		p.want = min(z.room(p.limit), cfg.MaxReadings)
		tries := math.Pow(3, float64(zeros))
		if !first && tries > speed*patience.Seconds() {
			return best
		}
		if each := tries / float64(min(uint64(p.want), max(waiting, 1))); each < least {
			best, least = p, each
		}
		if p.want == cfg.MaxReadings || p.limit == stardust.MaxBlockSize {
			return best
		}
		zeros++
	}
}

// A speedometer knows how fast nonces are found for this stage, whatever else
// the prover has to do. The zero value knows nothing. Its methods may be called
// concurrently.
type speedometer struct {
	mu      sync.Mutex // guards what follows
	tries   float64    // that the finds took on average
	seconds float64    // that all searches took, also those without find
}

// speedMemory is how many seconds of searching count; what is older counts
// half, and so on.
const speedMemory = 30

// searched takes in a search for so many zeros. One that was ended without a
// find counts, too: searches have no memory.
func (s *speedometer) searched(zeros int, took time.Duration, found bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seconds += took.Seconds()
	if found {
		s.tries += math.Pow(3, float64(zeros))
	}
	if s.seconds > speedMemory {
		s.seconds, s.tries = s.seconds/2, s.tries/2
	}
}

// speed returns tries per second, 0 while unknown.
func (s *speedometer) speed() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tries == 0 {
		return 0
	}
	return s.tries / max(s.seconds, 1e-6)
}
