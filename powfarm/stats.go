package powfarm

import "time"

// Stats says what a farm has done since it was made and holds now. Arrays are
// indexed by [Priority].
type Stats struct {
	Workers int
	Kernel  string                    // in use
	Queued  [Priorities]int           // jobs, those being searched included
	Age     [Priorities]time.Duration // since the oldest of them came

	Proven    [Priorities]uint64 // jobs answered with a nonce
	Withdrawn uint64             // jobs whose caller went away, or came again with newer parents
	Refused   uint64             // jobs refused with ErrBusy
	Preempted uint64             // times that a worker left a search for another one
	Wrong     uint64             // nonces of kernels that the check refused

	Kernels []KernelStats // of all that were used; the last one is in use
}

// KernelStats says what all workers have done with one kernel.
type KernelStats struct {
	Name  string
	Tries uint64 // nonces tried, for withdrawn jobs too
	// Expected is how many tries as many finds take on average. Tries divided
	// by it tends to 1 whatever was withdrawn; if it does not, the kernel
	// misses nonces. (Below 8 zeros it is more, as a batch is always finished.)
	Expected  float64
	Searching time.Duration // time that workers spent, summed, without their rests
}

// Stats returns the current figures.
func (f *Farm) Stats() Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := Stats{
		Workers:   f.workers,
		Kernel:    f.engines[len(f.engines)-1].Name(),
		Queued:    f.queue.count,
		Age:       f.queue.ages(time.Now()),
		Proven:    f.proven,
		Withdrawn: f.withdrawn,
		Refused:   f.refused,
		Preempted: f.preempted,
		Wrong:     f.wrong,
	}
	for _, e := range f.engines {
		s.Kernels = append(s.Kernels, KernelStats{
			Name: e.Name(), Tries: e.tries.Load(), Expected: e.expected, Searching: time.Duration(e.searching.Load()),
		})
	}
	return s
}

// Rate returns how many nonces all workers together try per second while they
// search with the kernel in use; 0 before the first search.
func (s Stats) Rate() float64 {
	for _, k := range s.Kernels {
		if k.Name == s.Kernel && k.Searching > 0 {
			return float64(k.Tries) / k.Searching.Seconds() * float64(s.Workers)
		}
	}
	return 0
}
