package curl

// A packed state holds one hash: bit t of l and h is trit t, coded as in
// bitTrit, 64 to a word. The bits above the last trit are arbitrary.
type packed struct{ l, h [packedWords]uint64 }

const packedWords = (stateTrits + 63) / 64

// zero reports whether trit t is 0.
func (p *packed) zero(t int) bool { return p.l[t/64]&p.h[t/64]>>(t%64)&1 == 1 }

// packedHash returns the Curl-P-81 hash of one block of trits, as trits 0 to
// 242 of the state.
//
// With the trits before the last round j counted from the end in the order
// 364^j*t, a round makes trit t from t and t+(-2)^(j-1), modulo 729 (364 is
// -1/2). So a round is one rotation of the whole state and four gates, and
// only the input must be put in order, the hash is.
func packedHash(in *[hashTrits]int8) *packed {
	const order = 487 // (-2)^81: trit p of the input stands at order*p
	const first = 121 // (-2)^80: the stride of the first round
	var s packed
	for i := range s.l {
		s.l[i], s.h[i] = ^uint64(0), ^uint64(0)
	}
	at := 0
	for _, trit := range in {
		switch trit {
		case -1:
			s.h[at/64] &^= 1 << (at % 64)
		case 1:
			s.l[at/64] &^= 1 << (at % 64)
		}
		if at += order; at >= stateTrits {
			at -= stateTrits
		}
	}
	d := first
	for range rounds {
		s.round(d)
		d = d * stride % stateTrits
	}
	return &s
}

// round replaces every trit t by the round function of t and t+d.
func (p *packed) round(d int) {
	var l, h [2 * packedWords]uint64 // the state twice, without a gap
	twice(&l, &p.l)
	twice(&h, &p.h)
	word, shift := d/64, d%64
	ll, hh := l[word:][:packedWords+1], h[word:][:packedWords+1]
	for i := range packedWords {
		// Shifting by 64-0 gives 0: no case for a shift of whole words.
		bl := ll[i]>>shift | ll[i+1]<<(64-shift)
		bh := hh[i]>>shift | hh[i+1]<<(64-shift)
		al := p.l[i]
		p.l[i] = p.h[i] ^ al&^bl
		p.h[i] = al ^ bh&p.l[i]
	}
}

// twice writes the trits of src two times, one after the other.
func twice(dst *[2 * packedWords]uint64, src *[packedWords]uint64) {
	const full, rest = stateTrits / 64, stateTrits % 64
	copy(dst[:], src[:])
	dst[full] = src[full]&(1<<rest-1) | src[0]<<rest
	for i := 1; i < packedWords; i++ {
		dst[full+i] = src[i-1]>>(64-rest) | src[i]<<rest
	}
	dst[full+packedWords] = src[packedWords-1] >> (64 - rest)
}
