package curl

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// Ten thousand random digests get equal zeros from every kernel, and nonces
// that were searched for get theirs, whatever the number of works.
func TestEveryKernelScoresAsThePlainHash(t *testing.T) {
	r := rand.New(rand.NewPCG(21, 22))
	digests := 10_000
	if testing.Short() {
		digests = 1000
	}
	works, want := make([]Work, digests), make([]int, digests)
	s := Kernels()[0].NewSearcher()
	for i := range works {
		works[i] = Work{randomDigest(r), r.Uint64()}
		if i%8 == 0 {
			works[i].Nonce, _ = search(s, works[i].Digest, 1+i/8%9, r.Uint64())
		}
		want[i] = plainZeros(works[i].Digest, works[i].Nonce)
	}
	for _, v := range vectors(t).Scores {
		works = append(works, Work{[32]byte(unhex(t, v.PowDigest)), v.Nonce})
		want = append(want, v.TrailingZeros)
	}
	for _, k := range Kernels() {
		s := k.NewScorer()
		got := make([]int, len(works))
		for at := 0; at < len(works); {
			n := min(len(works)-at, r.IntN(1200))
			s.Zeros(got[at:at+n], works[at:at+n])
			at += n
		}
		for i := range works {
			if got[i] != want[i] {
				t.Fatalf("%s: work %d has %d zeros, want %d", k.Name(), i, got[i], want[i])
			}
		}
	}
}

func TestCountOfALaneOfZeros(t *testing.T) {
	out := make([]int, 3)
	count(out, func(t int) uint64 {
		if t == hashTrits-3 {
			return 0b101
		}
		return 0b111
	})
	if fmt.Sprint(out) != fmt.Sprint([]int{MaxZeros, 2, MaxZeros}) {
		t.Errorf("counted %v", out)
	}
}

func BenchmarkScore(b *testing.B) {
	r := rand.New(rand.NewPCG(23, 24))
	for _, k := range Kernels() {
		for _, n := range []int{1, 16, 64, 512} {
			b.Run(fmt.Sprintf("%s/%d", k.Name(), n), func(b *testing.B) {
				s, works, out := k.NewScorer(), make([]Work, n), make([]int, n)
				for i := range works {
					works[i] = Work{randomDigest(r), r.Uint64()}
				}
				for b.Loop() {
					s.Zeros(out, works)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/work")
			})
		}
	}
}
