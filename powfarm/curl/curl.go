// Package curl computes the proof of work of TIP-12: the Curl-P-81 hash of a
// digest and a nonce (TIP-5 coding), and the search for nonces whose hash
// ends in zero trits.
//
// [Zeros] is what every nonce is checked with. A [Kernel] hashes many nonces at
// once, to search one or to score many that others found; [Kernels] lists those
// that this machine can run. Assembly exists for amd64, written by gen.go; the
// portable kernel serves everything else, and the build tag purego leaves no
// other. The package starts no goroutine, knows nothing of blocks and scores,
// and imports nothing of ours.
package curl

import "encoding/binary"

// Sizes in trits. The hash input is the digest, the nonce and padding.
const (
	hashTrits  = 243
	stateTrits = 3 * hashTrits
	rounds     = 81

	byteTrits  = 6 // b1t6 writes a byte as six trits
	nonceStart = 32 * byteTrits
)

// A round makes trit i of the new state from trits 364*i and 364*(i+1) of
// the old one, modulo the state's length.
const stride = 364

// MaxZeros is the number of trits in a hash: no nonce has more zeros.
const MaxZeros = hashTrits

// Zeros returns the number of zero trits at the end of the Curl-P-81 hash of
// digest and nonce (TIP-12). It takes some microseconds.
func Zeros(digest [32]byte, nonce uint64) int {
	in := input(digest, nonce)
	out := packedHash(&in)
	n := 0
	for n < hashTrits && out.zero(hashTrits-1-n) {
		n++
	}
	return n
}

// input returns the trits that are hashed: digest and nonce in b1t6, then
// three zeros.
func input(digest [32]byte, nonce uint64) (in [hashTrits]int8) {
	var n [8]byte
	binary.LittleEndian.PutUint64(n[:], nonce)
	b1t6(in[:], digest[:])
	b1t6(in[nonceStart:], n[:])
	return in
}

// b1t6 writes each byte, taken as signed, as six trits in balanced ternary,
// lowest first (TIP-5).
func b1t6(dst []int8, src []byte) {
	for i, b := range src {
		v := int(int8(b))
		for j := range byteTrits {
			r := (v + 3*128) % 3 // 0, 1 or 2 for v of either sign
			if r == 2 {
				r = -1
			}
			dst[byteTrits*i+j] = int8(r)
			v = (v - r) / 3
		}
	}
}
