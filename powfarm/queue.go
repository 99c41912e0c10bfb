package powfarm

import (
	"slices"
	"sync/atomic"
	"time"
)

// A Priority says whose search goes first. It is strict but for the turns that
// [Farm] gives to age.
type Priority int

// The priorities, lowest first.
const (
	Guest     Priority = iota // blocks that others hand in
	Telemetry                 // batches of readings
	Urgent                    // value, alarms, and what somebody of the site waits for

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

// Age has its turn at the end of each round: the oldest job is searched then,
// whatever its priority, so that none waits for ever.
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
// long that holds at most; 0 is until a job comes or ends.
func (q *queue) pick(now time.Time) (j *job, holds time.Duration) {
	if len(q.jobs) > 0 && q.jobs[0].priority != q.jobs[len(q.jobs)-1].priority {
		at := now.Sub(q.began) % ageRound
		if at >= ageRound-ageTurn {
			if j := q.oldest(); j.free() {
				return j, ageRound - at
			}
		}
		holds = (2*ageRound - ageTurn - at) % ageRound
		holds = max(holds, time.Millisecond) // of a turn that the oldest has no use for
	}
	for _, j := range q.jobs {
		if j.free() {
			return j, holds
		}
	}
	return nil, holds
}

// oldest returns the job that came first. There must be one.
func (q *queue) oldest() *job {
	return slices.MinFunc(q.jobs, func(a, b *job) int { return a.came.Compare(b.came) })
}

// ages returns how long the oldest job of each priority has been there.
func (q *queue) ages(now time.Time) (ages [Priorities]time.Duration) {
	for _, j := range q.jobs {
		ages[j.priority] = max(ages[j.priority], now.Sub(j.came))
	}
	return ages
}
