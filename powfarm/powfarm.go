// Package powfarm searches nonces for proof of work (TIP-12) on a fixed number
// of workers.
//
// The search has no memory, so all workers search for the oldest job, from
// random starting points: the throughput is that of one job per worker, and
// each answer comes as many times sooner. A job that is withdrawn loses no
// expected work. The farm knows digests and zeros only: blocks and scores
// belong to its callers, hashing to powfarm/curl.
package powfarm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
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
	Queue   int    // jobs that may wait behind the one being searched; 0 is 64
	Kernel  string // a name of curl.Kernels, AutoKernel or ""
}

// A Farm searches nonces. Its methods may be called concurrently.
type Farm struct {
	workers int
	queue   int
	log     *slog.Logger

	tries     atomic.Uint64
	searching atomic.Int64 // nanoseconds, of all workers

	mu     sync.Mutex
	wake   sync.Cond // of mu: jobs or closed changed
	jobs   []*job    // oldest first; workers search for jobs[0]
	closed bool
	ran    bool
	kernel curl.Kernel // what workers use for their next search
	plain  curl.Kernel // what they fall back on

	proven, withdrawn, refused, wrong uint64

	expected float64
}

// A job is one call of Prove. Its result is written before done is closed.
type job struct {
	digest [32]byte
	zeros  int
	stop   atomic.Bool // looked at by workers between batches
	done   chan struct{}
	nonce  uint64
	err    error
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
		queue:   cfg.Queue,
		log:     log,
		kernel:  k,
		plain:   kernels[len(kernels)-1],
	}
	if f.workers == AutoWorkers {
		f.workers = max(1, runtime.NumCPU()-1)
	}
	if f.queue == 0 {
		f.queue = defaultQueue
	}
	f.wake.L = &f.mu
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
		workers.Go(f.work)
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
	for len(f.jobs) > 0 {
		f.finish(f.jobs[0], 0, ErrClosed)
	}
	f.wake.Broadcast()
}

// Prove returns a nonce for which the Curl-P-81 hash of digest and nonce ends
// in at least zeros zero trits; it is verified. For zeros of 0 or less that
// is any nonce, answered at once. Before Run it waits.
//
// The error wraps ErrBusy, ErrClosed, ErrNoWorkers or that of ctx.
func (f *Farm) Prove(ctx context.Context, digest [32]byte, zeros int) (uint64, error) {
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
	j, err := f.enqueue(digest, zeros)
	if err != nil {
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

func (f *Farm) enqueue(digest [32]byte, zeros int) (*job, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, ErrClosed
	}
	if len(f.jobs) > f.queue {
		f.refused++
		return nil, ErrBusy
	}
	j := &job{digest: digest, zeros: zeros, done: make(chan struct{})}
	f.jobs = append(f.jobs, j)
	f.wake.Broadcast()
	return j, nil
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
	i := slices.Index(f.jobs, j)
	if i < 0 {
		return false
	}
	f.jobs = slices.Delete(f.jobs, i, i+1)
	j.stop.Store(true)
	j.nonce, j.err = nonce, err
	close(j.done)
	return true
}

// work is one worker.
func (f *Farm) work() {
	var kernel curl.Kernel
	var s curl.Searcher
	var p pacer
	for {
		j, k := f.next(&p)
		if j == nil {
			return
		}
		if k != kernel {
			kernel, s = k, k.NewSearcher()
		}
		if nonce, found := f.search(s, j, &p); found {
			f.answer(j, kernel, nonce)
		}
	}
}

// next waits for a job, of which it tells p, and returns it with the kernel to
// use; nil when the farm is closed.
func (f *Farm) next(p *pacer) (*job, curl.Kernel) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if began := time.Now(); len(f.jobs) == 0 {
		for len(f.jobs) == 0 && !f.closed {
			f.wake.Wait()
		}
		p.idle(began, time.Now())
	}
	if f.closed {
		return nil, nil
	}
	return f.jobs[0], f.kernel
}

// search tries nonces until one is found or the job has ended.
func (f *Farm) search(s curl.Searcher, j *job, p *pacer) (nonce uint64, found bool) {
	s.Reset(j.digest, j.zeros, rand.Uint64())
	p.start()
	began := p.began
	for !found && !j.stop.Load() {
		var tries int
		p.enter()
		nonce, found, tries = s.Batch()
		p.leave()
		// Intake may be waiting for this processor; without this it would
		// wait for the scheduler's time slice of 10 ms.
		runtime.Gosched()
		now := time.Now()
		f.tries.Add(uint64(tries))
		f.searching.Add(int64(now.Sub(began)))
		began = now
		if rest := p.rest(now); rest > 0 {
			time.Sleep(rest)
			p.start()
			began = p.began
		}
	}
	return nonce, found
}

// answer checks what a kernel found and ends the job with it. A kernel that
// is wrong is not used again; the search goes on without it.
func (f *Farm) answer(j *job, kernel curl.Kernel, nonce uint64) {
	zeros := curl.Zeros(j.digest, nonce)
	f.mu.Lock()
	defer f.mu.Unlock()
	if zeros >= j.zeros {
		f.expected += math.Pow(3, float64(j.zeros))
		if f.finish(j, nonce, nil) {
			f.proven++
		}
		return
	}
	f.wrong++
	f.log.Error("proof-of-work kernel gave a wrong nonce", "kernel", kernel.Name(), "zeros", zeros, "want", j.zeros)
	if kernel == f.plain {
		f.finish(j, 0, fmt.Errorf("search a nonce with %d zeros: kernel %s is broken on this machine", j.zeros, kernel.Name()))
		return
	}
	f.kernel = f.plain
}

// Stats says what a farm has done since it was made and holds now.
type Stats struct {
	Workers int
	Kernel  string // in use
	Queued  int    // jobs, the one being searched included

	Proven    uint64 // jobs answered with a nonce
	Withdrawn uint64 // jobs whose caller went away
	Refused   uint64 // jobs refused with ErrBusy
	Wrong     uint64 // nonces of kernels that the check refused

	Tries uint64 // nonces tried, for withdrawn jobs too
	// ExpectedTries is what as many finds take on average. Tries divided by
	// it tends to 1 whatever was withdrawn; if it does not, a kernel misses
	// nonces. (Below 8 zeros it is more, as a batch is always finished.)
	ExpectedTries float64
	Searching     time.Duration // time that workers spent, summed
}

// Stats returns the current figures.
func (f *Farm) Stats() Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	return Stats{
		Workers:       f.workers,
		Kernel:        f.kernel.Name(),
		Queued:        len(f.jobs),
		Proven:        f.proven,
		Withdrawn:     f.withdrawn,
		Refused:       f.refused,
		Wrong:         f.wrong,
		Tries:         f.tries.Load(),
		ExpectedTries: f.expected,
		Searching:     time.Duration(f.searching.Load()),
	}
}
