package powfarm

import (
	"context"
	"errors"
	"math"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestPickGoesByPriorityThenAgeAndGivesTheLowerOnesTheirTurns(t *testing.T) {
	began := time.Now()
	made := func(p Priority, zeros int, came time.Duration) *job {
		return &job{priority: p, zeros: zeros, came: began.Add(came)}
	}
	guest, old, young := made(Guest, 12, 1), made(Telemetry, 12, 2), made(Telemetry, 12, 3)
	urgent, tiny, taken := made(Urgent, 12, 4), made(Urgent, tinyZeros, 5), made(Urgent, tinyZeros, 0)
	busy := made(Guest, tinyZeros, 0)
	taken.workers, busy.workers = 1, 1
	// Turns of the even rounds are a guest's here, those of the odd ones telemetry's.
	const turn, round = ageRound - ageTurn, ageRound
	for _, tt := range []struct {
		name  string
		jobs  []*job
		at    time.Duration
		want  *job
		holds time.Duration
	}{
		{"nothing", nil, 0, nil, 0},
		{"the oldest of equals", []*job{old, young}, 0, old, 0},
		{"the oldest of equals, in a turn", []*job{old, young}, turn, old, 0},
		{"the most important", []*job{guest, old, urgent}, 0, urgent, turn},
		{"the most important, later", []*job{guest, old, urgent}, turn - 1, urgent, time.Millisecond},
		{"the guest in its turn", []*job{guest, old, young, urgent}, turn + 1, guest, ageTurn - 1},
		{"the oldest of telemetry in its turn", []*job{guest, old, young, urgent}, round + turn + 1, old, ageTurn - 1},
		{"the most important of the next round", []*job{guest, old, urgent}, round, urgent, turn},
		{"a tiny one that nobody searches for", []*job{tiny, old}, 0, tiny, turn},
		{"the next when the tiny one has its worker", []*job{taken, old}, 0, old, turn},
		{"the most important when a turn is of no use", []*job{busy, urgent}, turn + 1, urgent, round - 1},
		{"nothing when all have theirs", []*job{taken}, 0, nil, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q := queue{began: began}
			for _, j := range tt.jobs {
				q.add(j)
			}
			got, holds, lent := q.pick(began.Add(tt.at))
			if got != tt.want || holds != tt.holds || lent != (got == guest || got == old && tt.at > round) {
				t.Errorf("pick = %+v for %v, lent %t; want %+v for %v", got, holds, lent, tt.want, tt.holds)
			}
		})
	}
}

// add puts a job of priority p in line that nothing ends but release.
func add(t testing.TB, f *Farm, p Priority) (release func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var held sync.WaitGroup
	held.Go(func() {
		if _, err := f.For(p).Prove(ctx, [32]byte{0xff, byte(p)}, impossible); !errors.Is(err, context.Canceled) {
			t.Errorf("held job of priority %v: %v", p, err)
		}
	})
	for f.Stats().Queued[p] == 0 {
		runtime.Gosched()
	}
	return func() { cancel(); held.Wait() }
}

// hold is add, and returns once the job is searched for.
func hold(t testing.TB, f *Farm, p Priority) (release func()) {
	t.Helper()
	release = add(t, f, p)
	searching(f)
	return release
}

// searching returns once a worker has tried something more. It allocates
// nothing that a benchmark would see collected.
func searching(f *Farm) {
	e := f.engines[0]
	for tries := e.tries.Load(); e.tries.Load() == tries; {
		runtime.Gosched()
	}
}

func TestUrgentJobsArePutBeforeWhatIsSearched(t *testing.T) {
	for _, workers := range []int{1, 3} {
		f := farm(t, Config{Workers: workers})
		stop := run(t, f)
		release := hold(t, f, Telemetry)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		if _, err := f.For(Urgent).Prove(ctx, [32]byte{1}, tinyZeros+1); err != nil {
			t.Errorf("%d workers: urgent Prove behind a search without end: %v", workers, err)
		}
		cancel()
		if st := f.Stats(); st.Preempted == 0 || st.Proven[Urgent] != 1 || st.Queued[Telemetry] != 1 || st.Age[Telemetry] == 0 {
			t.Errorf("%d workers: Stats = %+v, want a pre-emption, one urgent job proven and the other still there", workers, st)
		}
		release()
		stop()
	}
}

// Neither what is more important nor a guest that is there for long keeps the
// readings' turn from them.
func TestEveryPriorityIsProvenThoughTheOthersNeverEnd(t *testing.T) {
	for p := range Priority(Priorities) {
		f := farm(t, Config{Workers: 2})
		stop := run(t, f)
		var release []func()
		for other := range Priority(Priorities) {
			if other != p {
				release = append(release, add(t, f, other))
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		if _, err := f.For(p).Prove(ctx, [32]byte{1}, tinyZeros+1); err != nil {
			t.Errorf("Prove of priority %v: %v", p, err)
		}
		cancel()
		for _, end := range release {
			end()
		}
		stop()
	}
}

func TestATinyJobTakesOneWorker(t *testing.T) {
	f := farm(t, Config{Workers: 3})
	f.mu.Lock()
	for i := range 5 {
		j := &job{zeros: tinyZeros, came: time.Now()}
		if i == 0 {
			j.zeros++
		}
		f.queue.add(j)
	}
	f.mu.Unlock()
	got := map[int]int{} // zeros to workers
	for range 3 {
		w := &worker{farm: f}
		task, ok := f.next(w)
		if !ok {
			t.Fatal("the farm is closed")
		}
		got[task.job.zeros]++
	}
	if got[tinyZeros+1] != 3 {
		t.Errorf("workers by zeros: %v, want all at the first, which is not tiny", got)
	}
	f.queue.remove(f.queue.jobs[0])
	for range 3 {
		task, _ := f.next(&worker{farm: f})
		if task.job.workers != 1 {
			t.Errorf("%d workers search for a tiny job", task.job.workers)
		}
	}
}

func TestEachPriorityHasItsOwnBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := farm(t, Config{Workers: 1, Queue: 1}) // not run: nothing leaves the queue
		ctx, cancel := context.WithCancel(t.Context())
		var callers sync.WaitGroup
		for range 2 {
			callers.Go(func() { _, _ = f.For(Guest).Prove(ctx, [32]byte{}, impossible) })
		}
		synctest.Wait()
		if _, err := f.For(Guest).Prove(ctx, [32]byte{}, 1); !errors.Is(err, ErrBusy) {
			t.Errorf("Prove of a third guest: %v, want %v", err, ErrBusy)
		}
		callers.Go(func() { _, _ = f.For(Telemetry).Prove(ctx, [32]byte{}, impossible) })
		synctest.Wait()
		if got := f.Stats().Queued; got != [Priorities]int{Guest: 2, Telemetry: 1} {
			t.Errorf("queued %v, want two guests and a batch of readings", got)
		}
		cancel()
		callers.Wait()
	})
}

func TestARestEndsWhenSomethingBetterComes(t *testing.T) {
	for _, tt := range []struct {
		of, comes Priority
		ends      bool
	}{
		{Guest, Guest, false}, {Guest, Telemetry, true}, {Guest, Urgent, true},
		{Telemetry, Guest, false}, {Telemetry, Telemetry, false}, {Telemetry, Urgent, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := farm(t, Config{Workers: 1})
			f.queue.add(&job{priority: tt.of, zeros: impossible, done: make(chan struct{})})
			w := &worker{farm: f}
			task, _ := f.next(w)
			rested := make(chan struct{})
			go func() {
				w.rest(time.Hour, task.better)
				close(rested)
			}()
			if err := f.enqueue(&job{priority: tt.comes, zeros: impossible, done: make(chan struct{})}); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			<-rested
			if ended := time.Since(began) == 0; ended != tt.ends {
				t.Errorf("a rest from %v when %v comes ends: %t, want %t", tt.of, tt.comes, ended, tt.ends)
			}
		})
	}
}

// crowded is a searcher whose every batch takes longer than a window while its
// thread hardly runs, and that finds something in the last of them.
type crowded struct{ batches int }

const crowdedBatch = 3 * time.Millisecond

func (*crowded) Reset([32]byte, int, uint64) {}

func (c *crowded) Batch() (uint64, bool, int) {
	time.Sleep(crowdedBatch) // a bubble's clock
	c.batches--
	return 0, c.batches == 0, 1
}

func TestACrowdedSearchRestsUnlessItIsUrgentTinyOrFound(t *testing.T) {
	for _, tt := range []struct {
		name    string
		p       Priority
		zeros   int
		batches int
		rests   bool
	}{
		{"telemetry", Telemetry, 12, 5, true},
		{"a guest", Guest, 12, 5, true},
		{"urgent", Urgent, 12, 5, false},
		{"tiny", Telemetry, tinyZeros, 5, false},
		{"found at once", Telemetry, 12, 1, false},
		{"in its turn", Guest, 12, 5, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := farm(t, Config{Workers: 1})
				f.queue.add(&job{priority: tt.p, zeros: tt.zeros, done: make(chan struct{})})
				w := &worker{farm: f}
				task, _ := f.next(w)
				task.lent = tt.name == "in its turn"
				w.take(task)
				w.searcher, w.pace.share = &crowded{tt.batches}, paceLeast
				began := time.Now()
				if _, found := w.search(task); !found {
					t.Error("found nothing")
				}
				if rested := time.Since(began) > time.Duration(tt.batches)*crowdedBatch; rested != tt.rests {
					t.Errorf("%d batches take %v; rests: %t, want %t", tt.batches, time.Since(began), rested, tt.rests)
				}
			})
		})
	}
}

// Left half done again and again, a search takes as many tries as any other.
func TestPreemptionLosesNoWork(t *testing.T) {
	const zeros, want = 8, 200
	f := farm(t, Config{Workers: 1})
	defer run(t, f)()
	stop := make(chan struct{})
	var urgent sync.WaitGroup
	urgent.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(200 * time.Microsecond):
			}
			if _, err := f.For(Urgent).Prove(t.Context(), [32]byte{2, byte(i), byte(i >> 8)}, zeros); err != nil {
				t.Errorf("urgent Prove: %v", err)
			}
		}
	})
	for i := range want {
		if _, err := f.For(Telemetry).Prove(t.Context(), [32]byte{1, byte(i)}, zeros); err != nil {
			t.Errorf("Prove: %v", err)
		}
	}
	close(stop)
	urgent.Wait()
	st := f.Stats()
	if st.Preempted == 0 {
		t.Error("nothing was pre-empted")
	}
	finds := float64(st.Proven[Urgent] + st.Proven[Telemetry])
	if ratio := float64(st.Kernels[0].Tries) / st.Kernels[0].Expected; math.Abs(ratio-1) > 6/math.Sqrt(finds)+0.1 {
		t.Errorf("tries are %.2f of what was expected: %+v", ratio, st)
	}
}

func TestPrioritiesHaveNames(t *testing.T) {
	for p := range Priority(Priorities) {
		if p.String() == "" {
			t.Errorf("priority %d has no name", int(p))
		}
	}
}
