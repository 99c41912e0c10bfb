package curl

import (
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
	// pass first copies aside trits within the state, then takes loops times
	// loopSteps steps, each of which loads a trit from src and stores one to dst.
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

	loopSteps = 16                     // of the assembly's loop, for every machine of gen.go
	asideMost = 32                     // trits set aside behind the state
	nowhere   = stateTrits + asideMost // where what is not needed is stored
)

// slot returns where trit t of a state is kept. Trits that a pass takes one
// after the other must not lie on the same places of their pages, where the
// first cache keeps but a few: one pass goes in steps of 32, which would be
// 4096 bytes, and took three times as long as the others.
func slot(t int) int { return t + t/8 }

func (k *vectorKernel) Name() string { return k.name }

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
	loops := (steps + loopSteps - 1) / loopSteps
	steps = loops * loopSteps
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

const (
	laneBytes  = 2             // of the nonce, that differ by lane
	vectorBase = 1 + laneBytes // first byte that is common to all lanes
)

// vectorLane returns bytes 1 and 2 of the nonces that a lane tries.
func vectorLane(lane int) (lo, hi int8) {
	return int8(lane%(2*maxByte+1) - maxByte), int8(lane / (2*maxByte + 1))
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

// scatter puts a state of 64 lanes into its words of dst.
func (k *vectorKernel) scatter(dst []uint64, src *bitState, w int) {
	for i, t := range src {
		at := k.place[i] + w
		dst[at], dst[at+k.words] = t.l, t.h
	}
}
