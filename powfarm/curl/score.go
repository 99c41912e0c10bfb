package curl

import "math/bits"

// A Work is a digest with the nonce that somebody found for it.
type Work struct {
	Digest [32]byte
	Nonce  uint64
}

// A Scorer counts zeros for many works at once, one in each lane. It belongs
// to one goroutine.
type Scorer interface {
	// Zeros sets out[i] to Zeros(works[i].Digest, works[i].Nonce), for any
	// number of works; out is as long. From some tens of works on it takes a
	// tenth of the time of as many calls of Zeros, or less.
	Zeros(out []int, works []Work)
}

// fewWorks is up to how many works are as fast one by one.
const fewWorks = 8

// scoreFew scores works one by one.
func scoreFew(out []int, works []Work) {
	for i := range works {
		out[i] = Zeros(works[i].Digest, works[i].Nonce)
	}
}

// goScorer is the portable kernel's scorer.
type goScorer struct{ a, b bitState }

func (s *goScorer) Zeros(out []int, works []Work) {
	for len(works) > fewWorks {
		n := min(len(works), lanes)
		load(&s.a, works[:n])
		for range rounds / 4 {
			passTwo(&s.b, &s.a)
			passTwo(&s.a, &s.b)
		}
		passOne(&s.b, &s.a) // 81 is 4*20 + 1
		count(out[:n], func(t int) uint64 { return s.b[t].l & s.b[t].h })
		out, works = out[n:], works[n:]
	}
	scoreFew(out, works)
}

// count sets out to the number of zeros at the end of the hash of each lane;
// zero returns the lanes whose trit t is 0.
func count(out []int, zero func(t int) uint64) {
	alive := ^uint64(0) >> (64 - len(out))
	for t := hashTrits - 1; t >= 0; t-- {
		z := zero(t)
		for died := alive &^ z; died != 0; died &= died - 1 {
			out[bits.TrailingZeros64(died)] = hashTrits - 1 - t
		}
		if alive &= z; alive == 0 {
			return
		}
	}
	for ; alive != 0; alive &= alive - 1 {
		out[bits.TrailingZeros64(alive)] = MaxZeros
	}
}

// coded holds the six trits of each byte, as bits of l and h in the order of
// the trits.
var coded = func() (c [256]struct{ l, h uint64 }) {
	for v := range c {
		var trits [byteTrits]int8
		b1t6(trits[:], []byte{byte(v)})
		for i, trit := range trits {
			x := constant(trit)
			c[v].l |= x.l & 1 << i
			c[v].h |= x.h & 1 << i
		}
	}
	return c
}()

// load sets s to the hash's first state of up to 64 works.
func load(s *bitState, works []Work) {
	const words = (hashTrits + 63) / 64
	var l, h [words][lanes]uint64 // of each lane, 64 trits to a word
	for lane := range works {
		at := 0
		put := func(b byte) {
			c := &coded[b]
			word, shift := at/64, at%64
			l[word][lane] |= c.l << shift
			h[word][lane] |= c.h << shift
			if shift > 64-byteTrits {
				l[word+1][lane] |= c.l >> (64 - shift)
				h[word+1][lane] |= c.h >> (64 - shift)
			}
			at += byteTrits
		}
		for _, b := range works[lane].Digest {
			put(b)
		}
		for i := range 8 {
			put(byte(works[lane].Nonce >> (8 * i)))
		}
	}
	for i := nonceStart + 8*byteTrits; i < stateTrits; i++ {
		s[i] = constant(0)
	}
	for w := range words {
		transpose(&l[w])
		transpose(&h[w])
		for i := 64 * w; i < min(64*w+64, nonceStart+8*byteTrits); i++ {
			s[i] = bitTrit{l[w][i%64], h[w][i%64]}
		}
	}
}

// transpose makes bit i of word j bit j of word i.
func transpose(m *[64]uint64) {
	mask := uint64(1)<<32 - 1
	for step := 32; step > 0; step /= 2 {
		for i := 0; i < 64; i = (i + step + 1) &^ step {
			x := (m[i]>>step ^ m[i+step]) & mask
			m[i] ^= x << step
			m[i+step] ^= x
		}
		mask ^= mask << (step / 2)
	}
}
