package curl

import (
	"encoding/binary"
	"math/bits"
)

func (k *vectorKernel) NewSearcher() Searcher {
	k.once.Do(k.plan)
	s := &vectorSearcher{k: k, work: k.newState(), start: k.newState()}
	for i := range s.early {
		s.early[i] = k.newState()
	}
	return s
}

// vectorSearcher is a vector kernel's state.
type vectorSearcher struct {
	k      *vectorKernel
	digest [32]byte
	zeros  int
	base   [8]int8         // bytes from vectorBase on, -maxByte to maxByte
	count  [counters]uint8 // trits of byte 0, plus one
	batch  int             // batches done with this base

	early [3][]uint64 // after the shared rounds, all counters -1, 0 or 1
	start []uint64    // after them, put together for count
	work  []uint64
}

func (s *vectorSearcher) Reset(digest [32]byte, zeros int, start uint64) {
	s.digest, s.zeros, s.batch = digest, max(0, zeros), 0
	for i := vectorBase; i < len(s.base); i++ {
		s.base[i] = int8(start%(2*maxByte+1)) - maxByte
		start /= 2*maxByte + 1
	}
}

func (s *vectorSearcher) Batch() (nonce uint64, found bool, tries int) {
	s.step()
	s.rounds()
	for w := range s.k.words {
		for hits := s.hits(w); hits != 0; hits &= hits - 1 {
			nonce := s.nonce(64*w + bits.TrailingZeros64(hits))
			if s.zeros <= checked || Zeros(s.digest, nonce) >= s.zeros {
				return nonce, true, 64 * s.k.words
			}
		}
	}
	return 0, false, 64 * s.k.words
}

// rounds computes all but the shared rounds.
func (s *vectorSearcher) rounds() {
	src := s.start
	for i := range s.k.tables {
		t := &s.k.tables[i]
		s.k.pass(&s.work[0], &src[0], &t.index[0], t.aside, t.loops)
		src = s.work
	}
}

// hits returns which of 64 lanes end in the zeros looked for, or in as many
// as are checked.
func (s *vectorSearcher) hits(w int) uint64 {
	hits, words := ^uint64(0), s.k.words
	for t := hashTrits - min(checked, s.zeros); t < hashTrits; t++ {
		at := slot(t)*2*words + w
		hits &= s.work[at] & s.work[at+words]
	}
	return hits
}

// step sets start to the state after the shared rounds of the next batch.
func (s *vectorSearcher) step() {
	if s.batch == batches {
		s.batch = 0
		nextBase(s.base[vectorBase:])
	}
	if s.batch == 0 {
		s.expand()
	} else {
		s.advance()
	}
	s.batch++
}

// expand computes the shared rounds of a new base, 64 lanes at a time.
func (s *vectorSearcher) expand() {
	s.count = [counters]uint8{}
	var a, b bitState
	for v := range s.early {
		for w := range s.k.words {
			s.absorb(&a, int8(v)-1, w)
			s.k.begin(s.early[v], &a, &b, w)
		}
	}
	copy(s.start, s.early[0])
}

// absorb sets a to the first state of 64 lanes, with the counters at counter.
func (s *vectorSearcher) absorb(a *bitState, counter int8, w int) {
	in := input(s.digest, s.nonce(0))
	for i := range counters {
		in[nonceStart+i] = counter
	}
	for i := range a {
		trit := int8(0)
		if i < hashTrits {
			trit = in[i]
		}
		a[i] = constant(trit)
	}
	copy(a[nonceStart+byteTrits:], s.k.lanes[w][:])
}

// advance counts on by one and puts start together anew.
func (s *vectorSearcher) advance() {
	for i := range s.count {
		s.count[i] = (s.count[i] + 1) % 3
		from := s.early[s.count[i]]
		first := firstReached(nonceStart+i, sharedRounds)
		for n := range sharedReach {
			at := s.k.place[(first+n)%stateTrits]
			copy(s.start[at:][:2*s.k.words], from[at:])
		}
		if s.count[i] != 0 {
			return
		}
	}
}

// nonce returns the nonce that a lane of the current batch tries.
func (s *vectorSearcher) nonce(lane int) uint64 {
	lo, hi := vectorLane(lane)
	n := [8]byte{byte(counted(s.count)), byte(lo), byte(hi)}
	for i := vectorBase; i < len(n); i++ {
		n[i] = byte(s.base[i])
	}
	return binary.LittleEndian.Uint64(n[:])
}
