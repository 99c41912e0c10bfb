package curl

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
)

// vectorsHere returns the searchers of the vector kernels that work here.
func vectorsHere(t *testing.T) (ss []*vectorSearcher) {
	t.Helper()
	for _, k := range vectorKernels() {
		ss = append(ss, k.NewSearcher().(*vectorSearcher))
	}
	if len(ss) == 0 {
		t.Skip("no vector kernel works on this machine")
	}
	return ss
}

// Every pass, limited ones as well, is as many plain rounds.
func TestVectorPassesArePlainRounds(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, s := range vectorsHere(t) {
		k := s.k
		states := make([]bitState, k.words)
		for w := range states {
			for i := range states[w] {
				l := r.Uint64()
				states[w][i] = bitTrit{l, r.Uint64() | ^l}
			}
			k.scatter(s.start, &states[w], w)
		}
		src := s.start
		for n, p := range k.tables {
			k.pass(&s.work[0], &src[0], &p.index[0], p.aside, p.loops)
			src = s.work
			left := vectorRounds - (n+1)*k.fused // rounds
			for w := range states {
				var next bitState
				for range k.fused {
					passOne(&next, &states[w])
					states[w] = next
				}
				for i, want := range states[w] {
					if left == 0 && (i < hashTrits-checked || i >= hashTrits) {
						continue
					}
					at := slot(i*power(left)%stateTrits)*2*k.words + w
					if got := (bitTrit{s.work[at], s.work[at+k.words]}); got != want {
						t.Fatalf("%s: pass %d, word %d, trit %d is %x, want %x", k.name, n, w, i, got, want)
					}
				}
			}
		}
	}
}

// Every lane of batches of several bases is found exactly when the plain hash
// has the zeros.
func TestEveryVectorLaneHasTheZerosOfThePlainHash(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, s := range vectorsHere(t) {
		zeros := 2
		digest := randomDigest(r)
		s.Reset(digest, zeros, r.Uint64())
		for n := range 2*batches + 2 {
			s.step()
			if n > 3 && n%batches > 1 && n%80 > 0 {
				continue // the plain hash is slow
			}
			s.rounds()
			for lane := range 64 * s.k.words {
				nonce := s.nonce(lane)
				got := s.hits(lane/64)>>(lane%64)&1 == 1
				if want := plainZeros(digest, nonce) >= zeros; got != want {
					t.Fatalf("%s: batch %d lane %d nonce %x: %d zeros found %v, want %v", s.k.name, n, lane, nonce, zeros, got, want)
				}
			}
		}
	}
}

func TestNoNonceIsTriedTwiceByVectors(t *testing.T) {
	for _, s := range vectorsHere(t) {
		s.Reset([32]byte{1}, MaxZeros, math.MaxUint64)
		seen := make(map[uint64]bool)
		const n = 2*batches + 5
		for range n {
			s.step()
			for lane := range 64 * s.k.words {
				seen[s.nonce(lane)] = true
			}
		}
		if want := n * 64 * s.k.words; len(seen) != want {
			t.Errorf("%s: %d different nonces, want %d", s.k.name, len(seen), want)
		}
	}
}

// All kernels say of 10,000 random digests what the plain hash says: the
// first nonce that one finds has the zeros, and none that it passed over has.
func TestKernelsAgreeOnManyDigests(t *testing.T) {
	digests := 10_000
	if testing.Short() {
		digests = 500
	}
	for _, k := range Kernels() {
		t.Run(k.Name(), func(t *testing.T) {
			r := rand.New(rand.NewPCG(13, 14))
			s := k.NewSearcher()
			for range digests {
				digest, zeros := randomDigest(r), r.IntN(6)
				nonce, _ := search(s, digest, zeros, r.Uint64())
				if got := Zeros(digest, nonce); got < zeros {
					t.Fatalf("nonce %x of digest %x has %d zeros, want %d", nonce, digest, got, zeros)
				}
			}
		})
	}
}

// The committed assembly is what the generator writes.
func TestAssemblyIsGenerated(t *testing.T) {
	got, err := exec.Command("go", "run", "gen.go").Output()
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("pass_amd64.s")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("pass_amd64.s is not what gen.go writes: run go generate")
	}
}

func BenchmarkPass(b *testing.B) {
	for _, k := range vectorKernels() {
		s := k.NewSearcher().(*vectorSearcher)
		for _, i := range []int{0, 1, len(s.k.tables) - 1} {
			p := s.k.tables[i]
			b.Run(fmt.Sprintf("%s/%d", k.Name(), i), func(b *testing.B) {
				for b.Loop() {
					s.k.pass(&s.work[0], &s.work[0], &p.index[0], p.aside, p.loops)
				}
			})
		}
	}
}

func BenchmarkNewBase(b *testing.B) {
	for _, k := range vectorKernels() {
		b.Run(k.Name(), func(b *testing.B) {
			s := k.NewSearcher().(*vectorSearcher)
			for b.Loop() {
				s.expand()
			}
		})
	}
}
