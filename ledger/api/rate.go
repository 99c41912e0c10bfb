package api

import (
	"sync"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
)

const (
	rateWindow = 10 * time.Second
	// maxCounted is how many milestones are read for one sample; if there were
	// more, they count as large as these.
	maxCounted = 128
)

// A rate tells what happened per second over the last ten seconds or more.
type rate struct {
	mu     sync.Mutex // guards what follows
	at     time.Time  // of the sample
	blocks uint64     // at that time
	index  uint32     // of the last milestone at that time
	last   metrics
}

// observe returns the rates, given the number of blocks and the last milestone
// at now, and what milestones order. The first call of all knows none yet.
func (r *rate) observe(now time.Time, blocks uint64, index uint32, ordered func(uint32) ([]consensus.Entry, error)) metrics {
	r.mu.Lock()
	defer r.mu.Unlock()
	age := now.Sub(r.at)
	if !r.at.IsZero() && age < rateWindow {
		return r.last
	}
	if !r.at.IsZero() {
		m := metrics{
			BlocksPerSecond:     max(0, float64(blocks)-float64(r.blocks)) / age.Seconds(),
			ReferencedPerSecond: referenced(r.index, index, ordered) / age.Seconds(),
		}
		if m.BlocksPerSecond > 0 {
			m.ReferencedRate = 100 * m.ReferencedPerSecond / m.BlocksPerSecond
		}
		r.last = m
	}
	r.at, r.blocks, r.index = now, blocks, index
	return r.last
}

// referenced returns how many blocks the milestones after one index order, up to
// another. What cannot be read does not count.
func referenced(after, to uint32, ordered func(uint32) ([]consensus.Entry, error)) float64 {
	if to <= after {
		return 0
	}
	all := to - after
	read := min(all, maxCounted)
	sum := 0
	for n := range read {
		blocks, _ := ordered(to - n)
		sum += len(blocks)
	}
	return float64(sum) * float64(all) / float64(read)
}
