package consensus

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
)

var (
	simSeeds = flag.Int("sim.seeds", 0, "schedules to simulate for every number of gateways, instead of the short run")
	simFirst = flag.Int("sim.first", 1, "the first seed")
	simOnly  = flag.Int("sim.n", 0, "simulate this number of gateways only")
)

var simSizes = []int{1, 2, 3, 4, 5, 7, 10, 15}

// planOf lays out the schedule of a seed.
func planOf(n int, seed uint64) plan {
	r := rand.New(rand.NewPCG(seed, uint64(n)))
	p := plan{
		seed: seed, weights: make([]uint32, n), loss: 0.02 + 0.2*r.Float64(), slow: 100 + r.Int64N(2500),
		chaosFor: 3000 + r.Int64N(4000), parts: r.IntN(2) == 0, crashes: r.IntN(2) == 0,
		updates: r.IntN(3) == 0, silent: r.IntN(2) == 0, twin: r.IntN(4) == 0, hasty: r.IntN(3) == 0,
	}
	if n > 7 {
		p.chaosFor = p.chaosFor * 2 / 3
	}
	unequal := r.IntN(3) == 0
	for i := range p.weights {
		p.weights[i] = 1
		if unequal {
			p.weights[i] = 1 + uint32(r.IntN(4))
		}
	}
	f := simFile("plan", p.weights)
	evil := uint32(0)
	if r.IntN(3) > 0 {
		for _, i := range r.Perm(n) {
			if evil+p.weights[i] <= f.ByzantineWeight {
				evil += p.weights[i]
				p.byzantine = append(p.byzantine, i)
			}
		}
	}
	p.twin = p.twin && len(p.byzantine) > 0
	p.split, p.cunning, p.flicker = r.IntN(2) == 0, r.IntN(2) == 0, r.IntN(4) == 0
	p.disks = n > 2 && r.IntN(3) == 0
	p.flood = len(p.byzantine) > 0 && n <= 7 && r.IntN(6) == 0
	p.signed = r.IntN(16) == 0
	p.certs = r.IntN(map[bool]int{true: 2, false: 8}[n <= 7]) == 0
	if n > 1 && n <= 7 && !p.flood && r.IntN(12) == 0 {
		p = goDeep(p)
	}
	return p
}

// goDeep makes a schedule long enough to come to the horizon, of gateways that
// are never far behind the others: who is has to take over a snapshot.
func goDeep(p plan) plan {
	p.deep, p.chaosFor, p.loss, p.slow = true, 15_000, 0.02, 200
	p.updates, p.disks, p.flicker = false, false, true
	return p
}

// rarePlans are schedules that come to what few do.
func rarePlans(n int) (plans []plan) {
	switch n {
	case 4:
		plans = append(plans, goDeep(planOf(n, 2)))
	case 5, 7:
		for _, seed := range []uint64{1, 4, 13, 20} {
			p := planOf(n, seed)
			p.disks, p.flood = true, false
			plans = append(plans, p)
		}
	}
	return plans
}

// simulate runs plans on all cores and adds up what they went through. stop
// ends it after the first violation.
func simulate(plans []plan, stop bool) (total counts, failed []error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	next := 0
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for {
				mu.Lock()
				if next == len(plans) || stop && len(failed) > 0 {
					mu.Unlock()
					return
				}
				p := plans[next]
				next++
				mu.Unlock()
				s := newSim(p)
				err := s.run()
				mu.Lock()
				total.add(s.check.count)
				if err != nil {
					failed = append(failed, fmt.Errorf("n %d seed %d: %w", len(p.weights), p.seed, err))
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return total, failed
}

// No schedule of the plans breaks an invariant, and together they pass through
// everything that a network may meet.
func TestSchedules(t *testing.T) {
	notShort(t)
	var all counts
	for _, n := range simSizes {
		if *simOnly != 0 && n != *simOnly {
			continue
		}
		seeds := map[bool]int{true: 12, false: 5}[n <= 7]
		if *simSeeds > 0 {
			seeds = *simSeeds
		}
		var plans []plan
		for i := range seeds {
			plans = append(plans, planOf(n, uint64(*simFirst+i)))
		}
		if *simSeeds == 0 {
			plans = append(plans, rarePlans(n)...)
		}
		c, failed := simulate(plans, false)
		for i, err := range failed {
			if i < 5 {
				t.Error(err)
			}
		}
		t.Logf("n %d: %d violations, %+v", n, len(failed), c)
		all.add(c)
	}
	t.Logf("all: %+v", all)
	if *simOnly != 0 {
		return
	}
	for name, v := range map[string]int{
		"skips": all.skips, "indirect decisions": all.indirect, "recoveries": all.recoveries, "epochs": all.epochs,
		"equivocations": all.equivocations, "restores": all.restores, "disks lost": all.disksLost,
		"snapshots": all.snapshots, "conflicts": all.conflicts, "invalid votes": all.invalid,
		"certificates": all.certified, "bad signatures": all.forged, "milestone times within bounds": all.times,
		"votes beyond the rate": all.limited, "blocks beyond the depth rule": all.deep, "disks lost together": all.several,
		"votes of a flood": all.flooded, "forgotten votes": all.evicted,
	} {
		if v == 0 {
			t.Errorf("no %s in the whole run", name)
		}
	}
}

// notShort skips what takes the processor for seconds. The short tests look for
// races, which there are none without goroutines.
func notShort(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("long, and without goroutines")
	}
}
