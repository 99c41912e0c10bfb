package curl

import (
	"encoding/binary"
	"math/bits"
)

// The portable kernel hashes 64 nonces at once: bit i of every word belongs
// to nonce i. What makes it fast, in order of weight:
//
//   - Two rounds in one pass over the state, with everything between them in
//     registers, and a round function of four gates.
//   - No coding of nonces per try. A nonce byte from -121 to 121 is five free
//     trits and a zero. Byte 1 differs by lane and byte 0 by batch; the rest
//     is the base, common to 243 batches.
//   - The trits of byte 0 are so placed that after seven rounds each of them
//     has reached 128 trits of its own. So a base's first seven rounds are
//     computed three times, with all five trits -1, 0 and 1, and each batch
//     is put together from the three.
//   - The last eight rounds compute only what the checked trits depend on.
const (
	lanes   = 64
	maxByte = 121 // largest value of five trits

	firstRounds  = 7
	lastRounds   = 8
	middlePasses = (rounds - firstRounds - lastRounds) / 2

	// reach is how many trits of the state depend on one trit after the
	// first rounds; counters is how many nonce trits may count.
	reach    = 1 << firstRounds
	counters = 5
	batches  = 3 * 3 * 3 * 3 * 3 // per base

	// checked trits at the end of the hash are computed for all lanes; a
	// lane with so many zeros is hashed again by Zeros if more are wanted,
	// which is rare enough not to matter.
	checked = 12
	tail    = checked + 1<<lastRounds - 1
	below   = 2 + 8 + 32 + 128 // of the tail, before the checked trits
)

// bitTrit holds one trit of 64 lanes: (l, h) is (1, 0) for -1, (1, 1) for 0
// and (0, 1) for 1.
type bitTrit struct{ l, h uint64 }

type bitState [stateTrits]bitTrit

// sbox is the round function on (1, 0), (1, 1) and (0, 1) in four gates, the
// fewest possible.
func sbox(a, b bitTrit) bitTrit {
	l := a.h ^ a.l&^b.l
	return bitTrit{l, a.l ^ b.h&l}
}

func constant(trit int8) bitTrit {
	switch trit {
	case -1:
		return bitTrit{^uint64(0), 0}
	case 1:
		return bitTrit{0, ^uint64(0)}
	}
	return bitTrit{^uint64(0), ^uint64(0)}
}

type goKernel struct{}

func (goKernel) Name() string          { return "go" }
func (goKernel) NewSearcher() Searcher { return new(goSearcher) }
func (goKernel) NewScorer() Scorer     { return new(goScorer) }

// goSearcher is the portable kernel's state.
type goSearcher struct {
	digest [32]byte
	zeros  int
	base   [8]int8         // bytes 2 to 7 of the nonce (0 and 1 unused), -maxByte to maxByte
	count  [counters]uint8 // trits of byte 0, plus one
	batch  int             // batches done with this base

	early [3]bitState // after the first rounds, all counters -1, 0 or 1
	start bitState    // after the first rounds, put together for count
	a     bitState
	// a and b must not lie alike in their pages: a load that follows a store
	// to the same page offset waits (a tenth of the speed).
	_    [128]bitTrit
	b    bitState
	tail [tail]bitTrit
}

func (s *goSearcher) Reset(digest [32]byte, zeros int, start uint64) {
	s.digest, s.zeros, s.batch = digest, max(0, zeros), 0
	for i := 2; i < len(s.base); i++ {
		s.base[i] = int8(start%(2*maxByte+1)) - maxByte
		start /= 2*maxByte + 1
	}
}

func (s *goSearcher) Batch() (nonce uint64, found bool, tries int) {
	for hits := s.next(); hits != 0; hits &= hits - 1 {
		nonce := s.nonce(bits.TrailingZeros64(hits))
		if s.zeros <= checked || Zeros(s.digest, nonce) >= s.zeros {
			return nonce, true, lanes
		}
	}
	return 0, false, lanes
}

// next hashes the next batch and returns the lanes that have the zeros
// looked for, or as many as are checked.
func (s *goSearcher) next() (hits uint64) {
	s.step()
	passTwo(&s.a, &s.start)
	for range (middlePasses - 1) / 2 {
		passTwo(&s.b, &s.a)
		passTwo(&s.a, &s.b)
	}
	return s.finish()
}

// step sets start to the state after the first rounds of the next batch.
func (s *goSearcher) step() {
	if s.batch == batches {
		s.batch = 0
		nextBase(s.base[2:])
	}
	if s.batch == 0 {
		s.expand()
	} else {
		s.advance()
	}
	s.batch++
}

// expand computes the first rounds of a new base.
func (s *goSearcher) expand() {
	s.count = [counters]uint8{}
	for v := range s.early {
		s.absorb(int8(v) - 1)
		passTwo(&s.b, &s.a)
		passTwo(&s.a, &s.b)
		passTwo(&s.b, &s.a)
		passOne(&s.early[v], &s.b)
	}
	s.start = s.early[0]
}

// absorb sets a to the hash's first state, with the counters at counter.
func (s *goSearcher) absorb(counter int8) {
	in := input(s.digest, s.nonce(0))
	for i := range counters {
		in[nonceStart+i] = counter
	}
	for i := range s.a {
		trit := int8(0)
		if i < hashTrits {
			trit = in[i]
		}
		s.a[i] = constant(trit)
	}
	laneTrits := s.a[nonceStart+byteTrits:][:byteTrits]
	clear(laneTrits)
	for lane := range lanes {
		var trits [byteTrits]int8
		b1t6(trits[:], []byte{byte(laneByte(lane))})
		for i, trit := range trits {
			c := constant(trit)
			laneTrits[i].l |= c.l & (1 << lane)
			laneTrits[i].h |= c.h & (1 << lane)
		}
	}
}

// advance counts on by one and puts start together anew.
func (s *goSearcher) advance() {
	for i := range s.count {
		s.count[i] = (s.count[i] + 1) % 3
		from := &s.early[s.count[i]]
		at := firstReached(nonceStart+i, firstRounds)
		n := copy(s.start[at:min(at+reach, stateTrits)], from[at:])
		copy(s.start[:reach-n], from[:])
		if s.count[i] != 0 {
			return
		}
	}
}

// nextBase counts the bytes on by one.
func nextBase(base []int8) {
	for i := range base {
		if base[i] < maxByte {
			base[i]++
			return
		}
		base[i] = -maxByte
	}
}

// nonce returns the nonce that a lane of the current batch tries.
func (s *goSearcher) nonce(lane int) uint64 {
	n := [8]byte{byte(counted(s.count)), byte(laneByte(lane))}
	for i := 2; i < len(n); i++ {
		n[i] = byte(s.base[i])
	}
	return binary.LittleEndian.Uint64(n[:])
}

// counted returns the nonce byte that the counters make.
func counted(count [counters]uint8) (v int8) {
	weight := int8(1)
	for _, c := range count {
		v += (int8(c) - 1) * weight
		weight *= 3
	}
	return v
}

// laneByte is byte 1 of the nonces that a lane tries.
func laneByte(lane int) int8 { return int8(lane - lanes/2) }

// firstReached returns the first of the trits (modulo the state's length) that
// depend on trit p after so many rounds: what depends on trit q after one
// round is -2q-1 and -2q, because 364 is -1/2.
func firstReached(p, rounds int) int {
	lo, hi := p, p
	for range rounds {
		lo, hi = -2*hi-1, -2*lo
	}
	return (lo%stateTrits + stateTrits) % stateTrits
}

// finish computes the last rounds of a, as far as the checked trits of the
// hash depend on them, and returns the lanes that end in the zeros looked
// for or in as many as are checked.
//
// Before the last round j counted from the end, the trits are taken in the
// order 364^j*t. In that order a round makes trit t from t and t+(-2)^(j-1),
// so what is needed stays contiguous and can be computed in place.
func (s *goSearcher) finish() (hits uint64) {
	step := 1
	for range lastRounds {
		step = step * stride % stateTrits
	}
	// Rounds with a negative stride need trits below the checked ones.
	first := hashTrits - checked - below
	at := first * step % stateTrits
	for i := range s.tail {
		s.tail[i] = s.a[at]
		if at += step; at >= stateTrits {
			at -= stateTrits
		}
	}
	v := s.tail[:]
	for j := lastRounds; j > 0; j-- {
		d := 1 << (j - 1)
		if j%2 == 0 {
			for i := len(v) - 1; i >= d; i-- {
				v[i] = sbox(v[i], v[i-d])
			}
			v = v[d:]
		} else {
			for i := range len(v) - d {
				v[i] = sbox(v[i], v[i+d])
			}
			v = v[:len(v)-d]
		}
	}
	hits = ^uint64(0)
	for _, t := range v[checked-min(checked, s.zeros):] {
		hits &= t.l & t.h
	}
	return hits
}
