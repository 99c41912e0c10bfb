package curl

// hash returns the Curl-P-81 hash of one block of trits in the plainest form:
// what everything fast is held against.
func hash(in *[hashTrits]int8) [hashTrits]int8 {
	// sbox is indexed by a + 4*b + 5 for trits a and b; the holes are unused.
	sbox := [11]int8{1, 0, -1, 2, 1, -1, 0, 2, -1, 1, 0}
	var s, next [stateTrits]int8
	copy(s[:], in[:])
	for range rounds {
		a := 0
		for i := range next {
			b := a + stride
			if b >= stateTrits {
				b -= stateTrits
			}
			next[i] = sbox[s[a]+s[b]<<2+5]
			a = b
		}
		s = next
	}
	return [hashTrits]int8(s[:hashTrits])
}

// plainZeros is Zeros by the plain hash.
func plainZeros(digest [32]byte, nonce uint64) int {
	in := input(digest, nonce)
	out := hash(&in)
	n := 0
	for n < hashTrits && out[hashTrits-1-n] == 0 {
		n++
	}
	return n
}
