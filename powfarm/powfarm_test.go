package powfarm

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/hedgerow-iot/hedgerow/powfarm/curl"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// impossible zeros keep a farm searching.
const impossible = curl.MaxZeros

// run starts the farm and returns a function that stops it and waits.
func run(t testing.TB, f *Farm) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

func farm(t testing.TB, cfg Config, kernels ...curl.Kernel) *Farm {
	t.Helper()
	if kernels == nil {
		kernels = curl.Kernels()
	}
	f, err := newFarm(cfg, kernels, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestAnswersHaveTheZeros(t *testing.T) {
	f := farm(t, Config{Workers: 2})
	defer run(t, f)()
	var callers sync.WaitGroup
	for i := range 20 {
		callers.Go(func() {
			digest, zeros := [32]byte{byte(i)}, i%9
			nonce, err := f.For(Telemetry).Prove(t.Context(), digest, zeros)
			if got := curl.Zeros(digest, nonce); err != nil || got < zeros {
				t.Errorf("Prove(%x, %d) = %d, %v with %d zeros", digest, zeros, nonce, err, got)
			}
		})
	}
	callers.Wait()
	st := f.Stats()
	k := st.Kernels[0]
	if st.Proven[Telemetry] != 17 || st.Queued[Telemetry] != 0 || st.Wrong != 0 || k.Tries == 0 || k.Expected == 0 || st.Workers != 2 {
		t.Errorf("Stats = %+v, want 17 proven", st)
	}
}

func TestNoZerosNeedNoWorker(t *testing.T) {
	for _, zeros := range []int{0, -1} {
		if _, err := farm(t, Config{}).For(Telemetry).Prove(t.Context(), [32]byte{}, zeros); err != nil {
			t.Errorf("Prove with %d zeros: %v", zeros, err)
		}
	}
}

func TestFarmWithoutWorkersSaysSo(t *testing.T) {
	f := farm(t, Config{Workers: 0})
	defer run(t, f)()
	if _, err := f.For(Telemetry).Prove(t.Context(), [32]byte{}, 1); !errors.Is(err, ErrNoWorkers) {
		t.Errorf("Prove: %v, want %v", err, ErrNoWorkers)
	}
}

func TestMoreZerosThanTritsAreRefused(t *testing.T) {
	if _, err := farm(t, Config{Workers: 1}).For(Telemetry).Prove(t.Context(), [32]byte{}, impossible+1); err == nil {
		t.Error("Prove accepts 244 zeros")
	}
}

func TestAutoLeavesACore(t *testing.T) {
	if got, want := farm(t, Config{Workers: AutoWorkers}).Stats().Workers, max(1, runtime.NumCPU()-1); got != want {
		t.Errorf("%d workers, want %d", got, want)
	}
}

func TestCancelledCallerLeavesTheQueue(t *testing.T) {
	f := farm(t, Config{Workers: 1})
	defer run(t, f)()
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() {
		_, err := f.For(Telemetry).Prove(ctx, [32]byte{}, impossible)
		failed <- err
	}()
	for f.Stats().Kernels[0].Tries == 0 {
		runtime.Gosched()
	}
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("Prove: %v, want %v", err, context.Canceled)
	}
	if st := f.Stats(); st.Queued[Telemetry] != 0 || st.Withdrawn != 1 {
		t.Errorf("Stats = %+v, want nothing queued and one withdrawn", st)
	}
	// The worker is free again.
	if _, err := f.For(Telemetry).Prove(t.Context(), [32]byte{}, 2); err != nil {
		t.Errorf("Prove after a cancelled one: %v", err)
	}
	if _, err := f.For(Telemetry).Prove(ctx, [32]byte{}, 2); !errors.Is(err, context.Canceled) {
		t.Errorf("Prove with a cancelled context: %v", err)
	}
}

func TestFullQueueIsBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := farm(t, Config{Workers: 1, Queue: 2}) // not run: nothing leaves the queue
		ctx, cancel := context.WithCancel(t.Context())
		var callers sync.WaitGroup
		for range 3 {
			callers.Go(func() { _, _ = f.For(Telemetry).Prove(ctx, [32]byte{}, impossible) })
		}
		synctest.Wait()
		if _, err := f.For(Telemetry).Prove(ctx, [32]byte{}, 1); !errors.Is(err, ErrBusy) {
			t.Errorf("Prove behind 3 jobs: %v, want %v", err, ErrBusy)
		}
		if st := f.Stats(); st.Queued[Telemetry] != 3 || st.Refused != 1 {
			t.Errorf("Stats = %+v, want 3 queued and 1 refused", st)
		}
		cancel()
		callers.Wait()
	})
}

func TestEndOfRunReleasesEveryCaller(t *testing.T) {
	f := farm(t, Config{Workers: 2})
	stop := run(t, f)
	failed := make(chan error, 5)
	for range 5 {
		go func() {
			_, err := f.For(Telemetry).Prove(t.Context(), [32]byte{}, impossible)
			failed <- err
		}()
	}
	for f.Stats().Queued[Telemetry] < 5 {
		runtime.Gosched()
	}
	stop()
	for range 5 {
		if err := <-failed; !errors.Is(err, ErrClosed) {
			t.Errorf("Prove while the farm stops: %v, want %v", err, ErrClosed)
		}
	}
	if _, err := f.For(Telemetry).Prove(t.Context(), [32]byte{}, 1); !errors.Is(err, ErrClosed) {
		t.Errorf("Prove after Run: %v, want %v", err, ErrClosed)
	}
	if err := f.Run(t.Context()); err == nil {
		t.Error("Run runs twice")
	}
}

// count is a kernel whose searchers note who searches which digest, and find
// a nonce of digest {1} only when all of them search it.
type count struct {
	want int32
	here atomic.Int32
}

func (*count) Name() string             { return "count" }
func (c *count) NewScorer() curl.Scorer { return nil }

func (c *count) NewSearcher() curl.Searcher {
	return &counter{c: c, real: curl.Kernels()[0].NewSearcher()}
}

type counter struct {
	c       *count
	real    curl.Searcher
	arrived bool
}

func (s *counter) Reset(digest [32]byte, zeros int, start uint64) { s.real.Reset(digest, zeros, start) }

func (s *counter) Batch() (uint64, bool, int) {
	if !s.arrived {
		s.arrived = true
		s.c.here.Add(1)
	}
	if s.c.here.Load() < s.c.want {
		return 0, false, 1
	}
	return s.real.Batch()
}

func TestOneJobIsSearchedByAllWorkers(t *testing.T) {
	const workers = 4
	k := &count{want: 1} // for the self-test
	f := farm(t, Config{Workers: workers}, k)
	k.here.Store(0)
	k.want = workers
	defer run(t, f)()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := f.For(Telemetry).Prove(ctx, [32]byte{1}, tinyZeros+1); err != nil {
		t.Errorf("Prove: %v after %d of %d workers joined", err, k.here.Load(), workers)
	}
}

// broken passes its self-test and claims wrong nonces from then on.
type broken struct {
	curl.Kernel
	lies atomic.Bool
}

func (*broken) Name() string                 { return "broken" }
func (b *broken) NewSearcher() curl.Searcher { return &brokenSearcher{b.Kernel.NewSearcher(), b} }

type brokenSearcher struct {
	curl.Searcher
	b *broken
}

func (s *brokenSearcher) Batch() (uint64, bool, int) {
	if s.b.lies.Load() {
		return 1, true, 64
	}
	return s.Searcher.Batch()
}

func TestWrongNonceIsNeverAnswered(t *testing.T) {
	plain := curl.Kernels()[len(curl.Kernels())-1]
	b := &broken{Kernel: plain}
	f := farm(t, Config{Workers: 2}, b, plain)
	if got := f.Stats().Kernel; got != "broken" {
		t.Fatalf("kernel %q chosen, want the first", got)
	}
	b.lies.Store(true)
	defer run(t, f)()
	digest := [32]byte{7}
	nonce, err := f.For(Telemetry).Prove(t.Context(), digest, 7)
	if got := curl.Zeros(digest, nonce); err != nil || got < 7 {
		t.Errorf("Prove = %d, %v with %d zeros; want 7", nonce, err, got)
	}
	if st := f.Stats(); st.Wrong == 0 || st.Kernel != plain.Name() {
		t.Errorf("Stats = %+v, want wrong nonces counted and kernel %q", st, plain.Name())
	}
}

func TestBrokenLastKernelFailsTheJob(t *testing.T) {
	b := &broken{Kernel: curl.Kernels()[0]}
	f := farm(t, Config{Workers: 1}, b)
	b.lies.Store(true)
	defer run(t, f)()
	if _, err := f.For(Telemetry).Prove(t.Context(), [32]byte{7}, 7); err == nil || !strings.Contains(err.Error(), "kernel broken is broken") {
		t.Errorf("Prove: %v, want the kernel named", err)
	}
}

func TestKernelIsChosenByNameAndTest(t *testing.T) {
	plain := curl.Kernels()[len(curl.Kernels())-1]
	bad := &broken{Kernel: plain}
	bad.lies.Store(true)
	both := []curl.Kernel{bad, plain}
	for _, tt := range []struct {
		name, want string // want "": refused
	}{
		{"", "go"}, {"auto", "go"}, {"go", "go"}, {"broken", ""}, {"avx1024", ""},
	} {
		f, err := newFarm(Config{Kernel: tt.name}, both, slog.New(slog.DiscardHandler))
		switch {
		case tt.want == "" && err == nil:
			t.Errorf("kernel %q is accepted", tt.name)
		case tt.want != "" && (err != nil || f.Stats().Kernel != tt.want):
			t.Errorf("kernel %q: %v, want %q chosen", tt.name, err, tt.want)
		}
	}
}

func TestConfigOutsideItsLimitsIsRefused(t *testing.T) {
	for _, cfg := range []Config{{Workers: -2}, {Queue: -1}} {
		if _, err := New(cfg, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("New(%+v) accepts it", cfg)
		}
	}
}

// The ratio of tries to expected tries must not depend on how many searches
// are withdrawn: a refresh of tips restarts most of them.
func TestTriesAgreeWithExpectationThoughJobsAreWithdrawn(t *testing.T) {
	const zeros, want = 8, 100
	f := farm(t, Config{Workers: 1})
	defer run(t, f)()
	var digest [32]byte
	for f.Stats().Proven[Telemetry] < want {
		digest[0]++
		patience := time.Minute
		if digest[0]%2 == 0 {
			patience = time.Millisecond
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		_, err := f.For(Telemetry).Prove(ctx, digest, zeros)
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
	}
	st := f.Stats().Kernels[0]
	if ratio := float64(st.Tries) / st.Expected; math.Abs(ratio-1) > 6/math.Sqrt(want) {
		t.Errorf("tries are %.2f of what was expected: %+v", ratio, st)
	}
}

// diary is a kernel that notes the first byte of every digest it searches for.
type diary struct {
	curl.Kernel
	mu      sync.Mutex
	digests []byte
}

func (d *diary) NewSearcher() curl.Searcher { return &diarySearcher{d.Kernel.NewSearcher(), d} }

type diarySearcher struct {
	curl.Searcher
	d *diary
}

func (s *diarySearcher) Reset(digest [32]byte, zeros int, start uint64) {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	s.d.digests = append(s.d.digests, digest[0])
	s.Searcher.Reset(digest, zeros, start)
}

func TestJobsAreSearchedOldestFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &diary{Kernel: curl.Kernels()[0]}
		f := farm(t, Config{Workers: 1}, d)
		d.digests = nil // of the self-test
		var callers sync.WaitGroup
		for i := range byte(5) {
			callers.Go(func() {
				if _, err := f.For(Telemetry).Prove(t.Context(), [32]byte{i}, 4); err != nil {
					t.Errorf("Prove: %v", err)
				}
			})
			synctest.Wait() // it stands in the queue
		}
		stop := run(t, f)
		callers.Wait()
		stop()
		if want := []byte{0, 1, 2, 3, 4}; !slices.Equal(d.digests, want) {
			t.Errorf("searched %v, want %v", d.digests, want)
		}
	})
}
