package remote

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/hedgerow-iot/hedgerow/powfarm"
)

const (
	perGateway = 16                    // searches of one gateway that a server holds
	turn       = 50 * time.Millisecond // of one gateway, while others wait
)

// A job is a search that a server has taken on.
type job struct {
	gateway  Key
	id       requestID
	digest   [32]byte
	zeros    int
	priority uint8
	ends     time.Time
	ctx      context.Context // ends with the cancellation
	cancel   context.CancelFunc
}

// A queue holds the jobs of a server. Gateways have turns one after the other,
// and so have the jobs of one gateway that are of its highest priority.
type queue struct {
	wake chan struct{} // has room for one: something has come

	mu       sync.Mutex // guards what follows
	gateways []Key      // with jobs; the first is next
	jobs     map[Key][]*job
	total    int
}

func newQueue() *queue {
	return &queue{wake: make(chan struct{}, 1), jobs: make(map[Key][]*job)}
}

func (q *queue) size() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.total
}

// add returns false when the gateway has as many jobs as it may. The job's
// context ends with ctx at the latest.
func (q *queue) add(ctx context.Context, j *job) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.jobs[j.gateway]) >= perGateway {
		return false
	}
	if len(q.jobs[j.gateway]) == 0 {
		q.gateways = append(q.gateways, j.gateway)
	}
	j.ctx, j.cancel = context.WithDeadline(ctx, j.ends)
	q.jobs[j.gateway] = append(q.jobs[j.gateway], j)
	q.total++
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return true
}

func (q *queue) find(gateway Key, id requestID) int {
	return slices.IndexFunc(q.jobs[gateway], func(j *job) bool { return j.id == id })
}

func (q *queue) has(gateway Key, id requestID) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.find(gateway, id) >= 0
}

// cancel removes a job and ends its search; false when it is not there.
func (q *queue) cancel(gateway Key, id requestID) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.drop(gateway, q.find(gateway, id))
}

// remove is cancel for a job that has ended.
func (q *queue) remove(j *job) bool { return q.cancel(j.gateway, j.id) }

// drop removes the job at an index unless it is -1. The caller holds mu.
func (q *queue) drop(gateway Key, at int) bool {
	if at < 0 {
		return false
	}
	jobs := q.jobs[gateway]
	jobs[at].cancel()
	q.total--
	if jobs = slices.Delete(jobs, at, at+1); len(jobs) > 0 {
		q.jobs[gateway] = jobs
		return true
	}
	delete(q.jobs, gateway)
	q.gateways = slices.DeleteFunc(q.gateways, func(k Key) bool { return k == gateway })
	return true
}

// next returns the job whose turn it is, or nil, and puts it behind the others
// of its gateway, and its gateway behind the other gateways.
func (q *queue) next() *job {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.gateways) == 0 {
		return nil
	}
	gateway := q.gateways[0]
	q.gateways = append(q.gateways[1:], gateway)
	jobs := q.jobs[gateway]
	at := 0
	for i, j := range jobs {
		if j.priority > jobs[at].priority {
			at = i
		}
	}
	j := jobs[at]
	q.jobs[gateway] = append(slices.Delete(jobs, at, at+1), j)
	return j
}

// alone tells whether no other job waits for its turn.
func (q *queue) alone() bool { return q.size() <= 1 }

// work searches until ctx ends or the searcher has stopped.
func (s *Server) work(ctx context.Context) {
	for ctx.Err() == nil {
		j := s.queue.next()
		if j == nil {
			select {
			case <-s.queue.wake:
			case <-ctx.Done():
			}
			continue
		}
		nonce, err := s.search(j)
		switch {
		case err == nil:
			s.end(j, resultFound, nonce)
		case errors.Is(err, powfarm.ErrClosed):
			return
		case ctx.Err() != nil:
			return
		case errors.Is(j.ctx.Err(), context.DeadlineExceeded):
			s.end(j, resultExpired, 0)
		case errors.Is(err, powfarm.ErrBusy): // of the box itself: it comes first
			wait(j.ctx, turn)
		case !errors.Is(err, context.Canceled):
			s.log.Warn("search for another gateway not possible", "err", err)
			s.end(j, resultRefused, 0)
		}
	}
}

// end answers a job unless it has been cancelled.
func (s *Server) end(j *job, r result, nonce uint64) {
	if !s.queue.remove(j) {
		return
	}
	s.count(func(st *ServerStats) {
		switch r {
		case resultFound:
			st.Found++
		case resultExpired:
			st.Expired++
		default:
			st.Refused++
		}
	})
	s.answer(j, r, nonce)
}

// search gives a job its turn. An error that wraps context.Canceled says that
// the job was cancelled, or has to wait for its next turn: what was searched
// so far is not lost, as it is not needed.
func (s *Server) search(j *job) (nonce uint64, err error) {
	ctx, cancel := context.WithCancel(j.ctx)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		nonce, err = s.searcher.Prove(ctx, j.digest, j.zeros)
	}()
	tick := time.NewTicker(turn)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return nonce, err
		case <-tick.C:
			if !s.queue.alone() {
				cancel()
			}
		}
	}
}

// wait returns after d or when ctx ends.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
