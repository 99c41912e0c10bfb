package peer

import (
	"sync"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// How many votes that told nothing are remembered, and how long at least.
const (
	maxShed = 4096
	shedFor = 30 * time.Second
)

// A shed remembers votes that the replica was handed and did not need to keep,
// so that they are not asked for each time that somebody names them. What is
// forgotten is asked for once more.
type shed struct {
	mu         sync.Mutex // guards what follows
	young, old map[stardust.BlockID]bool
	since      time.Time // of young
}

func (s *shed) add(id stardust.BlockID, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn(now)
	if len(s.young) >= maxShed {
		s.old, s.young, s.since = s.young, nil, now
	}
	if s.young == nil {
		s.young = map[stardust.BlockID]bool{}
	}
	s.young[id] = true
}

func (s *shed) has(id stardust.BlockID, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn(now)
	return s.young[id] || s.old[id]
}

// turn forgets what is old, for a caller that holds mu.
func (s *shed) turn(now time.Time) {
	if now.Sub(s.since) >= shedFor {
		s.old, s.young, s.since = s.young, nil, now
	}
}
