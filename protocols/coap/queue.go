package coap

import (
	"slices"
	"sync"
	"time"
)

// A queue holds what waits for its receipt, in the order of submission. It is
// bounded by what a flight admits. Nobody is woken for what joins: the leader
// is told when receipts are resolved, and only what waits for long needs
// looking after.
type queue struct {
	wake  chan struct{} // capacity 1: the answerer looks
	timer *time.Timer   // wakes it when something has waited for a tick

	mu      sync.Mutex // guards what follows
	waiting []*pending
	readers int // who may join
}

// newQueue returns a queue of one reader.
func newQueue() *queue {
	q := &queue{wake: make(chan struct{}, 1), readers: 1}
	q.timer = time.AfterFunc(tick, q.signal)
	return q
}

// join appends p.
func (q *queue) join(p *pending) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = append(q.waiting, p)
	if len(q.waiting) == 1 {
		q.timer.Reset(tick)
	}
}

// enter adds a reader, unless none is left.
func (q *queue) enter() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.readers == 0 {
		return false
	}
	q.readers++
	return true
}

// leave takes a reader off.
func (q *queue) leave() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.readers--
	q.signal()
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// state returns how many wait and whether more may come.
func (q *queue) state() (waiting int, open bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting), q.readers > 0
}

// take removes those in front whose receipts are resolved and returns them in
// space.
func (q *queue) take(space []*pending) []*pending {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := 0
	for n < len(q.waiting) && q.waiting[n].resolved() {
		n++
	}
	done := append(space[:0], q.waiting[:n]...)
	q.waiting = slices.Delete(q.waiting, 0, n)
	return done
}

// until returns those that arrived by t.
func (q *queue) until(t time.Time) []*pending {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := 0
	for n < len(q.waiting) && !q.waiting[n].arrived.After(t) {
		n++
	}
	return slices.Clone(q.waiting[:n])
}

// all returns what waits.
func (q *queue) all() []*pending {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.waiting)
}
