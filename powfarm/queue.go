package powfarm

import (
	"slices"
	"sync/atomic"
	"time"
)

// A Priority says whose search goes first. It is strict but for the turns that
// the lower ones have (ageTurn).
type Priority int

// The priorities, lowest first.
const (
	Guest     Priority = iota // blocks that others hand in
	Telemetry                 // batches of readings
	Urgent                    // what somebody waits for: blocks that the site hands in; value and alarms

	Priorities = int(iota)
)

var priorityNames = [Priorities]string{"guest", "telemetry", "urgent"}

// String returns the name that metrics show.
func (p Priority) String() string { return priorityNames[p] }

// A job is one call of Prove. Its result is written before done is closed.
type job struct {
	digest   [32]byte
	zeros    int
	priority Priority
	came     time.Time
	workers  int         // that search for it; guarded by the farm's mu
	ended    atomic.Bool // looked at by workers between batches
	done     chan struct{}
	nonce    uint64
	err      error
}

// tinyZeros is up to how many zeros a job gets one worker only: a search of so
// few tries takes less than the other workers need to join it.
const tinyZeros = 8

// free tells whether another worker is of use to the job.
func (j *job) free() bool { return j.workers == 0 || j.zeros > tinyZeros }

// The lower priorities have a turn at the end of each round, one after the
// other: a job cannot keep those above it from the processor, but neither can
// they keep it for ever. Turns go by priority, not by the age of a job alone:
// batches come anew whenever their parents are stale.
const (
	ageRound = 100 * time.Millisecond
	ageTurn  = 5 * time.Millisecond
)

// A queue holds the jobs that have not ended, highest priority first and oldest
// first within one.
type queue struct {
	jobs  []*job
	count [Priorities]int
	began time.Time // of the rounds
}

func (q *queue) add(j *job) {
	at := len(q.jobs)
	for at > 0 && q.jobs[at-1].priority < j.priority {
		at--
	}
	q.jobs = slices.Insert(q.jobs, at, j)
	q.count[j.priority]++
}

// remove returns false when the job is not in the queue any more.
func (q *queue) remove(j *job) bool {
	at := slices.Index(q.jobs, j)
	if at < 0 {
		return false
	}
	q.jobs = slices.Delete(q.jobs, at, at+1)
	q.count[j.priority]--
	return true
}

// pick returns the job that a free worker should search for, or nil, and how
// long that holds at most; 0 is until a job comes or ends. It is lent when it
// has its turn in the time of a higher one.
func (q *queue) pick(now time.Time) (j *job, holds time.Duration, lent bool) {
	if lower := q.lower(); len(lower) > 0 {
		round, at := now.Sub(q.began)/ageRound, now.Sub(q.began)%ageRound
		if at >= ageRound-ageTurn {
			if j := q.first(lower[int(round)%len(lower)]); j != nil {
				return j, ageRound - at, true
			}
		}
		holds = (2*ageRound - ageTurn - at) % ageRound
		holds = max(holds, time.Millisecond) // of a turn that its priority has no use for
	}
	for _, j := range q.jobs {
		if j.free() {
			return j, holds, false
		}
	}
	return nil, holds, false
}

// lower returns the priorities that have jobs, but for the highest.
func (q *queue) lower() (lower []Priority) {
	for p, n := range q.count {
		if n > 0 && Priority(p) < q.jobs[0].priority {
			lower = append(lower, Priority(p))
		}
	}
	return lower
}

// first returns the oldest job of a priority for which a worker is of use, or
// nil.
func (q *queue) first(p Priority) *job {
	for _, j := range q.jobs {
		if j.priority == p && j.free() {
			return j
		}
	}
	return nil
}

// ages returns how long the oldest job of each priority has been there.
func (q *queue) ages(now time.Time) (ages [Priorities]time.Duration) {
	for _, j := range q.jobs {
		ages[j.priority] = max(ages[j.priority], now.Sub(j.came))
	}
	return ages
}
