package curl

import (
	"encoding/hex"
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
)

type powVectors struct {
	B1T6    []struct{ Bytes, Trytes string }
	CurlP81 []struct{ Hash, Input string }
	Scores  []struct {
		CurlInput, PowDigest, PowHash string
		Nonce                         uint64 `json:",string"`
		TrailingZeros                 int
	}
}

func vectors(t testing.TB) (v powVectors) {
	t.Helper()
	b, err := os.ReadFile("testdata/pow.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	if len(v.B1T6) == 0 || len(v.CurlP81) == 0 || len(v.Scores) != 31 {
		t.Fatalf("%d, %d, %d vectors", len(v.B1T6), len(v.CurlP81), len(v.Scores))
	}
	return v
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.TrimPrefix(s, "0x"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// trytes writes trits three to a character: 9 is 0, A to M are 1 to 13, N to
// Z are -13 to -1.
func trytes(trits []int8) string {
	var s strings.Builder
	for i := 0; i < len(trits); i += 3 {
		v := int(trits[i]) + 3*int(trits[i+1]) + 9*int(trits[i+2])
		s.WriteByte("9ABCDEFGHIJKLMNOPQRSTUVWXYZ"[(v+27)%27])
	}
	return s.String()
}

func trits(s string) []int8 {
	var out []int8
	for _, c := range []byte(s) {
		v := strings.IndexByte("NOPQRSTUVWXYZ9ABCDEFGHIJKLM", c)
		for range 3 {
			out = append(out, int8(v%3)-1)
			v /= 3
		}
	}
	return out
}

func TestB1T6IsThatOfTheVectors(t *testing.T) {
	for _, tt := range vectors(t).B1T6 {
		in := unhex(t, tt.Bytes)
		out := make([]int8, byteTrits*len(in))
		b1t6(out, in)
		if got := trytes(out); got != tt.Trytes {
			t.Errorf("b1t6(%x) = %s, want %s", in, got, tt.Trytes)
		}
	}
}

func TestHashIsThatOfTheVectors(t *testing.T) {
	for _, tt := range vectors(t).CurlP81 {
		in := [hashTrits]int8(trits(tt.Input))
		out := hash(&in)
		if got := trytes(out[:]); got != tt.Hash {
			t.Errorf("hash(%s) = %s, want %s", tt.Input, got, tt.Hash)
		}
	}
}

func TestZerosAreThoseOfTheVectors(t *testing.T) {
	for _, tt := range vectors(t).Scores {
		digest := [32]byte(unhex(t, tt.PowDigest))
		in := input(digest, tt.Nonce)
		if got := trytes(in[:]); got != tt.CurlInput {
			t.Errorf("input(%x, %d) = %s, want %s", digest, tt.Nonce, got, tt.CurlInput)
		}
		if out := hash(&in); trytes(out[:]) != tt.PowHash {
			t.Errorf("hash of %s = %s, want %s", tt.CurlInput, trytes(out[:]), tt.PowHash)
		}
		if got := plainZeros(digest, tt.Nonce); got != tt.TrailingZeros {
			t.Errorf("plain zeros of %x, %d = %d, want %d", digest, tt.Nonce, got, tt.TrailingZeros)
		}
		if got := Zeros(digest, tt.Nonce); got != tt.TrailingZeros {
			t.Errorf("Zeros(%x, %d) = %d, want %d", digest, tt.Nonce, got, tt.TrailingZeros)
		}
	}
}

func TestPackedHashIsThePlainHash(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	for range 50 {
		in := input(randomDigest(r), r.Uint64())
		plain, fast := hash(&in), packedHash(&in)
		for i, want := range plain {
			word, bit := i/64, i%64
			got := bitTrit{fast.l[word] >> bit & 1, fast.h[word] >> bit & 1}
			c := constant(want)
			if (got != bitTrit{c.l & 1, c.h & 1}) {
				t.Fatalf("trit %d of the hash of %v = %v, want %d", i, in, got, want)
			}
		}
	}
}

func TestFourGatesAreTheRoundFunction(t *testing.T) {
	table := map[[2]int8]int8{ // a, b: result
		{-1, -1}: 1, {0, -1}: 0, {1, -1}: -1,
		{-1, 0}: 1, {0, 0}: -1, {1, 0}: 0,
		{-1, 1}: -1, {0, 1}: 1, {1, 1}: 0,
	}
	for in, want := range table {
		a, b := constant(in[0]), constant(in[1])
		if got := sbox(a, b); got != constant(want) {
			t.Errorf("sbox(%v) = %v, want %d", in, got, want)
		}
		l := ^((a.h ^ b.l) & a.l)
		if five := (bitTrit{l, (a.l ^ b.h) | ^l}); five != constant(want) {
			t.Errorf("five gates of %v = %v, want %d", in, five, want)
		}
	}
}

func randomDigest(r *rand.Rand) (d [32]byte) {
	for i := range d {
		d[i] = byte(r.Uint32())
	}
	return d
}

func TestPassOfTwoRoundsIsTwoPassesOfOne(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var s, once, twice, fused bitState
	for i := range s {
		l := r.Uint64()
		s[i] = bitTrit{l, r.Uint64() | ^l}
	}
	for n := range 20 {
		passOne(&once, &s)
		passOne(&twice, &once)
		passTwo(&fused, &s)
		if fused != twice {
			t.Fatalf("passTwo differs at pass %d", n)
		}
		s = fused
	}
}

// Every lane of many batches, bases included, must be found exactly when the
// plain hash has the zeros.
func TestEveryLaneHasTheZerosOfThePlainHash(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for zeros := -1; zeros < 4; zeros++ {
		s := new(goSearcher)
		digest := randomDigest(r)
		s.Reset(digest, zeros, r.Uint64())
		for n := range 2*batches + 2 {
			hits := s.next()
			if n > 3 && n%batches > 1 && n%50 > 0 {
				continue // the plain hash is slow
			}
			for lane := range lanes {
				nonce := s.nonce(lane)
				got := hits>>lane&1 == 1
				if want := plainZeros(digest, nonce) >= zeros; got != want {
					t.Fatalf("batch %d lane %d nonce %x: %d zeros found %v, want %v", n, lane, nonce, zeros, got, want)
				}
			}
		}
	}
}

func TestNoNonceIsTriedTwice(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	s := new(goSearcher)
	s.Reset(randomDigest(r), MaxZeros, math.MaxUint64)
	seen := make(map[uint64]bool)
	for range 2*batches + 5 {
		s.next()
		for lane := range lanes {
			seen[s.nonce(lane)] = true
		}
	}
	if want := (2*batches + 5) * lanes; len(seen) != want {
		t.Errorf("%d different nonces, want %d", len(seen), want)
	}
}

func TestBasesCarryFromByteToByte(t *testing.T) {
	s := new(goSearcher)
	s.base = [8]int8{0, 0, maxByte, maxByte, 5}
	nextBase(s.base[2:])
	if want := ([8]int8{0, 0, -maxByte, -maxByte, 6}); s.base != want {
		t.Errorf("next base = %v, want %v", s.base, want)
	}
	for i := range s.base {
		s.base[i] = maxByte
	}
	nextBase(s.base[2:])
	if want := ([8]int8{maxByte, maxByte, -maxByte, -maxByte, -maxByte, -maxByte, -maxByte, -maxByte}); s.base != want {
		t.Errorf("base after the last = %v, want %v", s.base, want)
	}
}

// search runs s until it finds a nonce.
func search(s Searcher, digest [32]byte, zeros int, start uint64) (nonce uint64, tries int) {
	s.Reset(digest, zeros, start)
	for {
		nonce, found, n := s.Batch()
		tries += n
		if found {
			return nonce, tries
		}
	}
}

func TestEveryKernelFindsWhatThePlainHashConfirms(t *testing.T) {
	for _, k := range Kernels() {
		t.Run(k.Name(), func(t *testing.T) {
			if err := SelfTest(k); err != nil {
				t.Error(err)
			}
			r := rand.New(rand.NewPCG(7, 8))
			s := k.NewSearcher()
			for zeros := range 10 {
				digest := randomDigest(r)
				nonce, tries := search(s, digest, zeros, r.Uint64())
				if got := plainZeros(digest, nonce); got < zeros {
					t.Errorf("search(%x, %d) = %d after %d tries: %d zeros", digest, zeros, nonce, tries, got)
				}
			}
		})
	}
}

// A broken kernel shows as a mean far from 3^zeros.
func TestMeanTriesAreAsManyAsChanceSays(t *testing.T) {
	const zeros, searches = 7, 1000
	miss := 1 - math.Pow(3, -zeros) // for one try
	for _, k := range Kernels() {
		r := rand.New(rand.NewPCG(9, 10))
		s := k.NewSearcher()
		s.Reset(randomDigest(r), MaxZeros, 0)
		_, _, batch := s.Batch()
		want := float64(batch) / (1 - math.Pow(miss, float64(batch))) // a search finishes its batch
		sum := 0.0
		for range searches {
			_, tries := search(s, randomDigest(r), zeros, r.Uint64())
			sum += float64(tries)
		}
		// The spread of the mean is want/sqrt(searches): four of them.
		if mean := sum / searches; math.Abs(mean-want) > 4*want/math.Sqrt(searches) {
			t.Errorf("%s: %.0f tries on average, want about %.0f", k.Name(), mean, want)
		}
	}
}

// liar claims every nonce.
type liar struct{ Searcher }

func (liar) Name() string                { return "liar" }
func (l liar) NewSearcher() Searcher     { return l }
func (liar) Reset([32]byte, int, uint64) {}
func (liar) NewScorer() Scorer           { return nil }
func (liar) Batch() (uint64, bool, int)  { return 1, true, 64 }

// blind finds nothing.
type blind struct{ liar }

func (b blind) NewSearcher() Searcher    { return b }
func (blind) Batch() (uint64, bool, int) { return 0, false, 64 }

func TestSelfTestFindsBrokenKernels(t *testing.T) {
	for _, k := range []Kernel{liar{}, blind{}} {
		if err := SelfTest(k); err == nil {
			t.Errorf("SelfTest of %T says nothing", k)
		}
	}
}

func BenchmarkZeros(b *testing.B) {
	var digest [32]byte
	for b.Loop() {
		digest[0] = byte(Zeros(digest, 1))
	}
}

func BenchmarkPassOne(b *testing.B) {
	x, y := new(bitState), new(bitState)
	for b.Loop() {
		passOne(x, y)
	}
}

func BenchmarkPassTwo(b *testing.B) {
	x, y := new(bitState), new(bitState)
	for b.Loop() {
		passTwo(x, y)
	}
}

// One naive transform of 64 lanes: what a kernel does without any of the
// savings.
func BenchmarkNaive(b *testing.B) {
	x, y := new(bitState), new(bitState)
	for b.Loop() {
		for range rounds {
			passOne(x, y)
			x, y = y, x
		}
	}
	b.ReportMetric(float64(b.N)*lanes/b.Elapsed().Seconds()/1e6, "MH/s")
}

func BenchmarkKernel(b *testing.B) {
	for _, k := range Kernels() {
		b.Run(k.Name(), func(b *testing.B) {
			s := k.NewSearcher()
			s.Reset([32]byte{1}, MaxZeros, 0)
			tries := 0
			for b.Loop() {
				_, _, n := s.Batch()
				tries += n
			}
			b.ReportMetric(float64(tries)/b.Elapsed().Seconds()/1e6, "MH/s")
		})
	}
}
