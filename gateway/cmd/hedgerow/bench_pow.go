package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hedgerow-iot/hedgerow/powfarm/curl"
)

type benchPowCmd struct {
	benchFlags
	Threads int `default:"1" help:"Searches at once."`
}

// powResult holds one row per kernel that this machine can run.
type powResult struct {
	Selected string   `json:"selected"`
	Kernels  []powRow `json:"kernels"`
}

type powRow struct {
	Name    string  `json:"name"`
	Threads int     `json:"threads"`
	Rate    float64 `json:"triesPerSecond"`
}

// powSlice is how long a kernel searches before it is another one's turn, so
// that what else the machine does meets all of them.
const powSlice = 50 * time.Millisecond

// Run searches for a hash that there is not, with every kernel in turn.
func (c *benchPowCmd) Run(e *env) error {
	if err := c.check(); err != nil {
		return err
	}
	if c.Threads < 1 || c.Threads > 1024 {
		return usagef("--threads takes 1 to 1024")
	}
	var runs []*powRun
	for _, k := range curl.Kernels() {
		if err := curl.SelfTest(k); err != nil {
			return fmt.Errorf("test proof-of-work kernel: %w", err)
		}
		runs = append(runs, newPowRun(k, c.Threads))
	}
	for began := time.Now(); time.Since(began) < c.Duration && e.ctx.Err() == nil; {
		for _, r := range runs {
			r.slice()
		}
	}
	result := &powResult{Selected: runs[0].name}
	for _, r := range runs {
		result.Kernels = append(result.Kernels, powRow{r.name, c.Threads, per(float64(r.tries), r.took.Seconds())})
	}
	return c.print(e.stdout, result)
}

// A powRun is one kernel's part of the measurement.
type powRun struct {
	name      string
	searchers []curl.Searcher
	tries     int
	took      time.Duration
}

func newPowRun(k curl.Kernel, threads int) *powRun {
	r := &powRun{name: k.Name()}
	for range threads {
		s := k.NewSearcher()
		s.Reset([32]byte{}, curl.MaxZeros, rand.Uint64())
		r.searchers = append(r.searchers, s)
	}
	return r
}

// slice searches for a while on all threads.
func (r *powRun) slice() {
	var g errgroup.Group
	tries := make([]int, len(r.searchers))
	began := time.Now()
	for i, s := range r.searchers {
		g.Go(func() error {
			for time.Since(began) < powSlice {
				_, _, n := s.Batch()
				tries[i] += n
			}
			return nil
		})
	}
	_ = g.Wait() // none returns an error
	r.took += time.Since(began)
	for _, n := range tries {
		r.tries += n
	}
}

func (r *powResult) text(w io.Writer) {
	fmt.Fprintln(w, "kernel   threads   million tries/s")
	for _, row := range r.Kernels {
		mark := ""
		if row.Name == r.Selected {
			mark = "   taken by auto"
		}
		fmt.Fprintf(w, "%-8s %7d %17.2f%s\n", row.Name, row.Threads, row.Rate/1e6, mark)
	}
}
