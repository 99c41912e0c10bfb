package powfarm

import (
	"slices"
	"testing"
	"time"
)

func BenchmarkProve(b *testing.B) {
	f := farm(b, Config{Workers: AutoWorkers})
	defer run(b, f)()
	var digest [32]byte
	for b.Loop() {
		digest[0]++
		digest[1] += digest[0] & 1
		if _, err := f.For(Telemetry).Prove(b.Context(), digest, 9); err != nil {
			b.Fatal(err)
		}
	}
	st := f.Stats().Kernels[0]
	b.ReportMetric(float64(st.Tries)/st.Searching.Seconds()/1e6, "MH/s/worker")
}

// Searches of 11 zeros, in turn on an idle farm and on one that always has
// readings and guests to search for: how much longer the 95th percentile of
// the urgent ones takes. About 2,000 searches give it within a tenth.
func BenchmarkUrgentAmongOthers(b *testing.B) {
	const zeros = 11
	f := farm(b, Config{Workers: AutoWorkers})
	defer run(b, f)()
	var idle, among []time.Duration
	var n byte
	for b.Loop() {
		var release []func()
		for _, p := range []Priority{Guest, Telemetry} {
			release = append(release, add(b, f, p))
		}
		for range 4 {
			searching(f) // each finds the farm at other things
			among = append(among, timed(b, f, zeros, &n))
		}
		for _, end := range release {
			end()
		}
		for range 4 {
			idle = append(idle, timed(b, f, zeros, &n))
		}
	}
	b.ReportMetric(float64(p95(among))/float64(p95(idle)), "p95/idle")
	b.ReportMetric(p95(idle).Seconds()*1000, "ms-idle")
	b.ReportMetric(float64(f.Stats().Preempted)/float64(len(among)), "preemptions")
}

// timed returns how long an urgent search takes.
func timed(b *testing.B, f *Farm, zeros int, n *byte) time.Duration {
	*n++
	began := time.Now()
	if _, err := f.For(Urgent).Prove(b.Context(), [32]byte{*n, byte(began.Nanosecond())}, zeros); err != nil {
		b.Fatal(err)
	}
	return time.Since(began)
}

func p95(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)*95/100]
}
