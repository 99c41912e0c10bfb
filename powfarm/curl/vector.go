package curl

import (
	"encoding/binary"
	"math/bits"
	"sync"
	"unsafe"
)

// A vector kernel hashes as many nonces at once as a register has bits. It
// does what the portable one does, in passes of more rounds, in place.
//
// The trits before the last round j counted from the end stand in the order
// 364^j*t, as in packedHash: a round makes trit t from t and t+d, modulo 729,
// with d = (-2)^(j-1), so that it can be computed in place. A pass of k rounds
// walks over the trits s*n for n = 0, 1, 2 and so on, where s is the d of its
// last round. Seen in n, its rounds have the strides (-2)^(k-1) to 4, -2 and
// 1: a window that slides along (gen.go).
type vectorKernel struct {
	name  string
	words int // of a register
	fused int // rounds of a pass, odd
	loop  int // steps of the assembly's loop
	// pass first copies aside trits within the state, then takes loops times
	// loop steps, each of which loads a trit from src and stores one to dst.
	// table holds a load and a store index for each, in units of 8 bytes, and
	// goes on with what is looked at ahead.
	pass func(dst, src *uint64, table *uint16, aside, loops int)

	once   sync.Once // makes what follows
	tables []table
	whole  table                            // the last one, when all trits are wanted
	lanes  [][laneBytes * byteTrits]bitTrit // bytes 1 and 2 of the nonces, 64 lanes each
	place  [stateTrits]int                  // of each trit after the shared rounds, in words
}

// A table is the way of one pass.
type table struct {
	index        []uint16
	aside, loops int
}

const (
	sharedRounds = 6 // computed once for a base
	vectorRounds = rounds - sharedRounds
	sharedReach  = 1 << sharedRounds

	asideMost = 32                     // trits set aside behind the state
	nowhere   = stateTrits + asideMost // where what is not needed is stored
)

// slot returns where trit t of a state is kept. Trits that a pass takes one
// after the other must not lie on the same places of their pages, where the
// first cache keeps but a few: one pass goes in steps of 32, which would be
// 4096 bytes, and took three times as long as the others.
func slot(t int) int { return t + t/8 }

func (k *vectorKernel) Name() string { return k.name }

func (k *vectorKernel) NewSearcher() Searcher {
	k.once.Do(k.plan)
	s := &vectorSearcher{k: k, work: k.newState(), start: k.newState()}
	for i := range s.early {
		s.early[i] = k.newState()
	}
	return s
}

// newState returns room for a state, and what is set aside, on a page.
func (k *vectorKernel) newState() []uint64 {
	const page = 4096
	n := (slot(nowhere) + 1) * 2 * k.words
	b := make([]uint64, n+page/8)
	skip := int((page - uintptr(unsafe.Pointer(&b[0]))%page) % page / 8)
	return b[skip : skip+n : skip+n]
}

// plan makes what all searchers need.
func (k *vectorKernel) plan() {
	step, at := power(vectorRounds), 0
	for i := range k.place {
		k.place[i] = slot(at) * 2 * k.words
		at = (at + step) % stateTrits
	}
	k.lanes = make([][laneBytes * byteTrits]bitTrit, k.words)
	for w := range k.lanes {
		for bit := range 64 {
			var trits [laneBytes * byteTrits]int8
			lo, hi := vectorLane(64*w + bit)
			b1t6(trits[:], []byte{byte(lo), byte(hi)})
			for i, trit := range trits {
				c := constant(trit)
				k.lanes[w][i].l |= c.l & (1 << bit)
				k.lanes[w][i].h |= c.h & (1 << bit)
			}
		}
	}
	for j := vectorRounds; j > 0; j -= k.fused {
		first, last := 0, stateTrits-1 // of the trits that are made
		if j == k.fused {
			first, last = hashTrits-checked, hashTrits-1
		}
		k.tables = append(k.tables, k.way(power(j-k.fused), first, last, j < vectorRounds))
	}
	k.whole = k.way(1, 0, stateTrits-1, true)
}

// power returns (-2)^n modulo the length of the state.
func power(n int) int {
	p := 1
	for range n {
		p = p * (stateTrits - 2) % stateTrits
	}
	return p
}

// way returns the table of a pass of stride s that makes trits s*first to
// s*last. In place, what is loaded after it was stored is set aside before.
func (k *vectorKernel) way(s, first, last int, inPlace bool) table {
	var early, late int // how many steps a trit is begun before, and made after, its own
	for round := 2; round <= k.fused; round++ {
		if d := 1 << (k.fused - round); round%2 == 0 {
			early += d
		} else {
			late += d
		}
	}
	ahead := 1<<(k.fused-1) + 8
	steps := last - first + 1 + early + late
	loops := (steps + k.loop - 1) / k.loop
	steps = loops * k.loop
	begin := last + late + 1 - steps
	t := table{loops: loops}
	at := func(trit int) uint16 { return uint16(slot(trit) * 2 * k.words) }
	place := func(n int) int { return (s*n%stateTrits + stateTrits) % stateTrits }
	if inPlace && last == stateTrits-1 {
		t.aside = late + 1<<(k.fused-1)
		for n := range t.aside {
			t.index = append(t.index, at(place(n)), at(stateTrits+n))
		}
	}
	for n := begin; n < begin+steps+ahead; n++ {
		load, store := place(n), nowhere
		if t.aside > 0 && n >= stateTrits && n < stateTrits+t.aside {
			load = n
		}
		if made := n - late; made >= first && made <= last {
			store = place(made)
		}
		t.index = append(t.index, at(load), at(store))
	}
	return t
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

const (
	laneBytes  = 2             // of the nonce, that differ by lane
	vectorBase = 1 + laneBytes // first byte that is common to all lanes
)

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

// begin computes the shared rounds of 64 lanes and puts them into their words
// of dst.
func (k *vectorKernel) begin(dst []uint64, a, b *bitState, w int) {
	for range sharedRounds / 4 {
		passTwo(b, a)
		passTwo(a, b)
	}
	passTwo(b, a) // 6 is 4 + 2
	k.scatter(dst, b, w)
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

// vectorLane returns bytes 1 and 2 of the nonces that a lane tries.
func vectorLane(lane int) (lo, hi int8) {
	return int8(lane%(2*maxByte+1) - maxByte), int8(lane / (2*maxByte + 1))
}

// scatter puts a state of 64 lanes into its words of dst.
func (k *vectorKernel) scatter(dst []uint64, src *bitState, w int) {
	for i, t := range src {
		at := k.place[i] + w
		dst[at], dst[at+k.words] = t.l, t.h
	}
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

func (k *vectorKernel) NewScorer() Scorer {
	k.once.Do(k.plan)
	return &vectorScorer{k: k, start: k.newState(), work: k.newState()}
}

// vectorScorer is a vector kernel's scorer.
type vectorScorer struct {
	k           *vectorKernel
	a, b        bitState
	start, work []uint64
}

func (s *vectorScorer) Zeros(out []int, works []Work) {
	for len(works) > fewWorks {
		n := min(len(works), 64*s.k.words)
		s.score(out[:n], works[:n])
		out, works = out[n:], works[n:]
	}
	scoreFew(out, works)
}

func (s *vectorScorer) score(out []int, works []Work) {
	words := s.k.words
	for w := 0; 64*w < len(works); w++ {
		load(&s.a, works[64*w:min(64*w+64, len(works))])
		s.k.begin(s.start, &s.a, &s.b, w)
	}
	src, last := s.start, len(s.k.tables)-1
	for i := range s.k.tables {
		t := &s.k.tables[i]
		if i == last {
			t = &s.k.whole
		}
		s.k.pass(&s.work[0], &src[0], &t.index[0], t.aside, t.loops)
		src = s.work
	}
	for w := 0; 64*w < len(out); w++ {
		count(out[64*w:min(64*w+64, len(out))], func(t int) uint64 {
			at := slot(t)*2*words + w
			return s.work[at] & s.work[at+words]
		})
	}
}
