// Package powfarm searches nonces for proof of work (TIP-12) on a fixed number
// of workers.
//
// The search has no memory: a job that is split over all workers costs no more
// tries and is answered as many times sooner, and one that is left half done,
// for a more important job or because its caller wants newer parents, loses
// nothing that it would have had. So all workers search for the most important
// job, the oldest among equals, and drop it when a better one comes. A twentieth
// of the time goes to the lower priorities by turns, so that none waits for
// ever. Jobs of so few zeros that joining takes longer than searching get one
// worker.
//
// The farm knows digests, zeros and priorities only: blocks and scores belong
// to its callers, hashing to powfarm/curl.
package powfarm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hedgerow-iot/hedgerow/powfarm/curl"
)

var (
	// ErrBusy means that as many jobs are waiting as may; try again later.
	ErrBusy = errors.New("proof of work busy")
	// ErrClosed means that the farm is stopping and takes nothing more.
	ErrClosed = errors.New("proof of work stopped")
	// ErrNoWorkers means that this farm was configured not to search.
	ErrNoWorkers = errors.New("proof of work switched off")
)

const (
	// AutoWorkers as a number of workers leaves intake a core: one worker
	// less than there are processors, and at least one.
	AutoWorkers = -1
	// AutoKernel as a kernel's name takes the fastest that passes its test.
	AutoKernel = "auto"

	defaultQueue = 64
)

// A Config says how large a farm is.
type Config struct {
	Workers int    // AutoWorkers for what the machine has, 0 for none
	Queue   int    // jobs of each priority that may wait behind the one being searched; 0 is 64
	Kernel  string // a name of curl.Kernels, AutoKernel or ""
}

// A Farm searches nonces. Its methods may be called concurrently.
type Farm struct {
	workers int
	bound   int // of each priority's jobs
	log     *slog.Logger

	turn atomic.Uint64 // counts the changes after which workers choose anew

	mu      sync.Mutex
	wake    sync.Cond // of mu: there may be something to do
	queue   queue
	better  [Priorities]chan struct{} // each closed, and made anew, when a job of higher priority comes
	closed  bool
	ran     bool
	engines []*engine // that have been used; workers take the last
	plain   curl.Kernel

	withdrawn, refused, wrong, preempted uint64
	proven                               [Priorities]uint64
}

// An engine is a kernel with what it has done.
type engine struct {
	curl.Kernel
	tries     atomic.Uint64
	searching atomic.Int64 // nanoseconds, of all workers
	expected  float64      // tries for as many finds; guarded by the farm's mu
}

// New returns a farm that searches nothing until Run. It tests the kernel
// against the plain hash, which takes some milliseconds. The error names an
// unknown kernel or what a kernel did wrong.
func New(cfg Config, log *slog.Logger) (*Farm, error) {
	return newFarm(cfg, curl.Kernels(), log)
}

func newFarm(cfg Config, kernels []curl.Kernel, log *slog.Logger) (*Farm, error) {
	if cfg.Workers < AutoWorkers {
		return nil, fmt.Errorf("workers is %d, want %d (auto) or more", cfg.Workers, AutoWorkers)
	}
	if cfg.Queue < 0 {
		return nil, fmt.Errorf("queue is %d, want 0 (default) or more", cfg.Queue)
	}
	k, err := choose(cfg.Kernel, kernels, log)
	if err != nil {
		return nil, err
	}
	f := &Farm{
		workers: cfg.Workers,
		bound:   cfg.Queue,
		log:     log,
		queue:   queue{began: time.Now()},
		engines: []*engine{{Kernel: k}},
		plain:   kernels[len(kernels)-1],
	}
	if f.workers == AutoWorkers {
		f.workers = max(1, runtime.NumCPU()-1)
	}
	if f.bound == 0 {
		f.bound = defaultQueue
	}
	f.wake.L = &f.mu
	for p := range f.better {
		f.better[p] = make(chan struct{})
	}
	return f, nil
}

// Kernels returns the names of the kernels that this machine can run, fastest
// first.
func Kernels() (names []string) {
	for _, k := range curl.Kernels() {
		names = append(names, k.Name())
	}
	return names
}

// choose returns the kernel with this name, or the first that works.
func choose(name string, kernels []curl.Kernel, log *slog.Logger) (curl.Kernel, error) {
	var names []string
	for _, k := range kernels {
		names = append(names, k.Name())
		auto := name == "" || name == AutoKernel
		if !auto && name != k.Name() {
			continue
		}
		err := curl.SelfTest(k)
		if err == nil {
			return k, nil
		}
		if !auto {
			return nil, fmt.Errorf("test proof-of-work kernel: %w", err)
		}
		log.Error("proof-of-work kernel passed over", "kernel", k.Name(), "err", err)
	}
	return nil, fmt.Errorf("no proof-of-work kernel %q works here, there are %q and %q", name, AutoKernel, names)
}

// Run searches until ctx ends and returns nil after the last worker has
// stopped. Whoever still waits in Prove gets ErrClosed. Run may be called
// once.
func (f *Farm) Run(ctx context.Context) error {
	f.mu.Lock()
	if f.ran {
		f.mu.Unlock()
		return errors.New("run proof of work: was run before")
	}
	f.ran = true
	f.mu.Unlock()

	var workers sync.WaitGroup
	for range f.workers {
		workers.Go((&worker{farm: f}).run)
	}
	<-ctx.Done()
	f.close()
	workers.Wait()
	return nil
}

// close lets the workers stop and every waiting Prove return.
func (f *Farm) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for len(f.queue.jobs) > 0 {
		f.finish(f.queue.jobs[0], 0, ErrClosed)
	}
	for _, c := range f.better {
		close(c)
	}
	f.wake.Broadcast()
}

// A Client is a farm as callers of one priority see it.
type Client struct {
	farm     *Farm
	priority Priority
}

// For returns the farm for callers of priority p.
func (f *Farm) For(p Priority) Client { return Client{f, p} }

// Prove returns a nonce for which the Curl-P-81 hash of digest and nonce ends
// in at least zeros zero trits; it is verified. For zeros of 0 or less that
// is any nonce, answered at once. Before Run it waits.
//
// The error wraps ErrBusy, ErrClosed, ErrNoWorkers or that of ctx.
func (c Client) Prove(ctx context.Context, digest [32]byte, zeros int) (uint64, error) {
	f := c.farm
	switch {
	case zeros <= 0:
		return 0, nil
	case zeros > curl.MaxZeros:
		return 0, fmt.Errorf("search a nonce with %d zeros: a hash has %d trits", zeros, curl.MaxZeros)
	case f.workers == 0:
		return 0, ErrNoWorkers
	}
	if err := ctx.Err(); err != nil {
		return 0, searchError(zeros, err)
	}
	j := &job{digest: digest, zeros: zeros, priority: c.priority, came: time.Now(), done: make(chan struct{})}
	if err := f.enqueue(j); err != nil {
		return 0, err
	}
	select {
	case <-j.done:
	case <-ctx.Done():
		f.withdraw(j, searchError(zeros, ctx.Err()))
		<-j.done // closed by now, perhaps with a nonce after all
	}
	return j.nonce, j.err
}

func searchError(zeros int, err error) error {
	return fmt.Errorf("search a nonce with %d zeros: %w", zeros, err)
}

func (f *Farm) enqueue(j *job) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return ErrClosed
	}
	if f.queue.count[j.priority] > f.bound {
		f.refused++
		return fmt.Errorf("%w: %d blocks of priority %v are in line", ErrBusy, f.queue.count[j.priority], j.priority)
	}
	f.queue.add(j)
	for p := range j.priority {
		close(f.better[p])
		f.better[p] = make(chan struct{})
	}
	f.changed()
	return nil
}

// changed makes every worker choose anew. The caller holds mu.
func (f *Farm) changed() {
	f.turn.Add(1)
	f.wake.Broadcast()
}

func (f *Farm) withdraw(j *job, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.finish(j, 0, err) {
		f.withdrawn++
	}
}

// finish ends a job unless it has ended. The caller holds mu.
func (f *Farm) finish(j *job, nonce uint64, err error) bool {
	if !f.queue.remove(j) {
		return false
	}
	j.ended.Store(true)
	j.nonce, j.err = nonce, err
	close(j.done)
	return true
}

// next waits until there is something to do for a worker that is through with
// what it did, and returns it; false when the farm is closed.
func (f *Farm) next(w *worker) (t task, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if w.job == nil {
		t.waited = true // it begins
	} else {
		w.job.workers--
	}
	for !f.closed {
		now := time.Now()
		j, holds, lent := f.queue.pick(now)
		if j == nil {
			f.wake.Wait()
			t.waited = true
			continue
		}
		if w.job != nil && w.job != j && !w.job.ended.Load() {
			f.preempted++
		}
		j.workers++
		t.job, t.engine, t.turn, t.better = j, f.engines[len(f.engines)-1], f.turn.Load(), f.better[j.priority]
		t.lent = lent
		if holds > 0 {
			t.ends = now.Add(holds)
		}
		return t, true
	}
	return t, false
}

// answer checks what a kernel found and ends the job with it. A kernel that
// is wrong is not used again; the search goes on without it.
func (f *Farm) answer(t task, nonce uint64) {
	zeros := curl.Zeros(t.job.digest, nonce)
	f.mu.Lock()
	defer f.mu.Unlock()
	if zeros >= t.job.zeros {
		t.engine.expected += math.Pow(3, float64(t.job.zeros))
		if f.finish(t.job, nonce, nil) {
			f.proven[t.job.priority]++
		}
		return
	}
	f.wrong++
	f.log.Error("proof-of-work kernel gave a wrong nonce", "kernel", t.engine.Name(), "zeros", zeros, "want", t.job.zeros)
	switch {
	case t.engine.Kernel == f.plain:
		f.finish(t.job, 0, fmt.Errorf("search a nonce with %d zeros: kernel %s is broken on this machine", t.job.zeros, t.engine.Name()))
	case t.engine == f.engines[len(f.engines)-1]:
		f.engines = append(f.engines, &engine{Kernel: f.plain})
		f.changed()
	}
}
