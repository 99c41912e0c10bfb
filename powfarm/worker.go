package powfarm

import (
	"math/rand/v2"
	"runtime"
	"time"

	"github.com/hedgerow-iot/hedgerow/powfarm/curl"
)

// A worker searches for one job at a time. It looks up from it after every
// batch, which takes well below a millisecond.
type worker struct {
	farm     *Farm
	engine   *engine
	searcher curl.Searcher // of engine
	pace     pacer
	job      *job // that searcher searches for
}

// A task is what a worker does until something changes.
type task struct {
	job    *job
	engine *engine
	waited bool            // for it to come
	turn   uint64          // of the farm, when it was given out
	ends   time.Time       // when it is another job's turn; zero: not by itself
	lent   bool            // the time until then is another job's
	better <-chan struct{} // closed when a job of higher priority comes: no time to rest
}

// run works until the farm is closed.
func (w *worker) run() {
	for {
		t, ok := w.farm.next(w)
		if !ok {
			return
		}
		w.take(t)
		if nonce, found := w.search(t); found {
			w.farm.answer(t, nonce)
		}
	}
}

// take sets the searcher to the task, unless it is at it already.
func (w *worker) take(t task) {
	if t.engine != w.engine {
		w.engine, w.searcher, w.job = t.engine, t.engine.NewSearcher(), nil
	}
	if t.waited {
		w.pace.start()
	}
	if t.job != w.job {
		w.pace.enter()
		w.searcher.Reset(t.job.digest, t.job.zeros, rand.Uint64())
		w.pace.leave()
		w.job = t.job
	}
}

// search tries nonces until one is found or the task is over.
func (w *worker) search(t task) (nonce uint64, found bool) {
	began := time.Now()
	for !t.job.ended.Load() && w.farm.turn.Load() == t.turn {
		var tries int
		w.pace.enter()
		nonce, found, tries = w.searcher.Batch()
		w.pace.leave()
		// Intake may be waiting for this processor; without this it would
		// wait for the scheduler's time slice of 10 ms.
		runtime.Gosched()
		now := time.Now()
		w.engine.tries.Add(uint64(tries))
		w.engine.searching.Add(int64(now.Sub(began)))
		began = now
		if found || !t.ends.IsZero() && now.After(t.ends) {
			break
		}
		if t.lent || t.job.zeros <= tinyZeros {
			continue // soon over, and somebody waits behind it, or for it alone
		}
		if rest := w.pace.rest(now, t.job.priority); rest > 0 {
			w.rest(rest, t.better)
			w.pace.start()
			began = w.pace.began
		}
	}
	return nonce, found
}

// rest waits, but not when something better is to be done.
func (w *worker) rest(d time.Duration, better <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-better:
	}
}
