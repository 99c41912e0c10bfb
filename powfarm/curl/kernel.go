package curl

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A Kernel is one way to hash many nonces at once, made for one kind of processor. Its
// methods may be called concurrently; two are the same if == says so.
type Kernel interface {
	// Name returns the word by which configuration and metrics call it.
	Name() string
	// NewSearcher returns a searcher with its own state.
	NewSearcher() Searcher
	// NewScorer returns a scorer with its own state.
	NewScorer() Scorer
}

// A Searcher tries nonces. It belongs to one goroutine and may be used for
// one search after the other. Whoever runs it looks between batches whether
// to go on: a kernel in assembly cannot be preempted.
type Searcher interface {
	// Reset begins a search for a nonce with which the hash of digest ends in
	// at least zeros zero trits. Searches from different starts try
	// different nonces, up to chance.
	Reset(digest [32]byte, zeros int, start uint64)
	// Batch tries the next nonces, for at most about 100 microseconds, and
	// returns how many it tried and the first that has the zeros, if one
	// has. A search never ends by itself.
	Batch() (nonce uint64, found bool, tries int)
}

// Kernels returns the kernels that this machine can run, fastest first. The
// last one is the portable one, named "go".
func Kernels() []Kernel { return append(vectorKernels(), goKernel{}) }

// errSelfTest is what a kernel's failed self-test wraps.
var errSelfTest = errors.New("kernel computes wrong hashes")

// SelfTest checks in some milliseconds that the kernel finds nonces that the
// plain hash confirms, as often as chance says, and returns what is wrong if
// not.
func SelfTest(k Kernel) error {
	const zeros, want = 5, 24 // 243 tries on average for each
	s := k.NewSearcher()
	var tries, budget uint64 = 0, 1 << 16
	for i := range want {
		var digest [32]byte
		binary.LittleEndian.PutUint64(digest[:], 0x9e3779b97f4a7c15*uint64(i+1))
		s.Reset(digest, zeros, uint64(i))
		for found := false; !found; {
			nonce, ok, n := s.Batch()
			if tries += uint64(n); tries > budget || n <= 0 {
				return fmt.Errorf("%s: %d nonces with %d zeros in %d tries: %w", k.Name(), i, zeros, tries, errSelfTest)
			}
			if found = ok; ok && Zeros(digest, nonce) < zeros {
				return fmt.Errorf("%s: nonce %d for digest %x has not %d zeros: %w", k.Name(), nonce, digest, zeros, errSelfTest)
			}
		}
	}
	return nil
}
