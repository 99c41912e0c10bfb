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

func TestPickGoesByPriorityThenAgeAndGivesAgeItsTurn(t *testing.T) {
	began := time.Now()
	made := func(p Priority, zeros int, came time.Duration) *job {
		return &job{priority: p, zeros: zeros, came: began.Add(came)}
	}
	guest, old, young := made(Guest, 12, 1), made(Telemetry, 12, 2), made(Telemetry, 12, 3)
	urgent, tiny, taken := made(Urgent, 12, 4), made(Urgent, tinyZeros, 5), made(Urgent, tinyZeros, 0)
	taken.workers = 1
	const turn, round = ageRound - ageTurn, ageRound
	for _, tt := range []struct {
		name  string
		jobs  []*job
		at    time.Duration // of the round
		want  *job
		holds time.Duration
	}{
		{"nothing", nil, 0, nil, 0},
		{"the oldest of equals", []*job{old, young}, 0, old, 0},
		{"the oldest of equals, in a turn", []*job{old, young}, turn, old, 0},
		{"the most important", []*job{guest, old, urgent}, 0, urgent, turn},
		{"the most important, later", []*job{guest, old, urgent}, turn - 1, urgent, time.Millisecond},
		{"the oldest in its turn", []*job{guest, old, urgent}, turn + 1, guest, ageTurn - 1},
		{"the most important of the next round", []*job{guest, old, urgent}, round, urgent, turn},
		{"a tiny one that nobody searches for", []*job{tiny, old}, 0, tiny, turn},
		{"the next when the tiny one has its worker", []*job{taken, old}, 0, old, turn},
		{"the next when the oldest has its worker", []*job{taken, old}, turn + 1, old, round - 1},
		{"nothing when all have theirs", []*job{taken}, 0, nil, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q := queue{began: began}
			for _, j := range tt.jobs {
				q.add(j)
			}
			got, holds := q.pick(began.Add(3*ageRound + tt.at))
			if got != tt.want || holds != tt.holds {
				t.Errorf("pick = %+v for %v, want %+v for %v", got, holds, tt.want, tt.holds)
			}
		})
	}
}

// hold lets a job of priority p search for ever and returns once it does.
func hold(t *testing.T, f *Farm, p Priority) (release func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var held sync.WaitGroup
	held.Go(func() {
		if _, err := f.For(p).Prove(ctx, [32]byte{0xff, byte(p)}, impossible); !errors.Is(err, context.Canceled) {
			t.Errorf("held job of priority %v: %v", p, err)
		}
	})
	tries := f.Stats().Kernels[0].Tries
	for f.Stats().Queued[p] == 0 || f.Stats().Kernels[0].Tries == tries {
		runtime.Gosched()
	}
	return func() { cancel(); held.Wait() }
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

func TestAnOldJobIsProvenThoughMoreImportantOnesNeverEnd(t *testing.T) {
	f := farm(t, Config{Workers: 2})
	defer run(t, f)()
	// It must be the oldest, and the other must be searched before it ends.
	var guest sync.WaitGroup
	f.mu.Lock()
	guest.Go(func() {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := f.For(Guest).Prove(ctx, [32]byte{1}, tinyZeros+1); err != nil {
			t.Errorf("Prove of a guest: %v", err)
		}
	})
	f.queue.add(&job{priority: Urgent, zeros: impossible, came: time.Now().Add(time.Hour), done: make(chan struct{})})
	f.mu.Unlock()
	guest.Wait()
	if st := f.Stats(); st.Proven[Guest] != 1 || st.Queued[Urgent] != 1 {
		t.Errorf("Stats = %+v, want the guest's job proven and the urgent one there", st)
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

func TestARestEndsWhenSomethingUrgentComes(t *testing.T) {
	f := farm(t, Config{Workers: 1})
	f.queue.add(&job{priority: Telemetry, zeros: impossible, done: make(chan struct{})})
	w := &worker{farm: f}
	task, _ := f.next(w)
	rested := make(chan struct{})
	go func() {
		w.rest(time.Hour, task.urgent)
		close(rested)
	}()
	if err := f.enqueue(&job{priority: Urgent, zeros: impossible, done: make(chan struct{})}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-rested:
	case <-time.After(time.Minute):
		t.Fatal("the worker still rests")
	}
	if f.turn.Load() == task.turn {
		t.Error("the worker would go on with what it did")
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
