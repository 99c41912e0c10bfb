package stardust

import (
	"encoding/binary"
	"math"
	"math/bits"

	"golang.org/x/crypto/blake2b"
)

// maxPow3 is the largest exponent whose power of three fits in 64 bits.
const maxPow3 = 40

// PoWDigest returns what the nonce is searched for (TIP-12): the BLAKE2b-256
// hash of a block's bytes without its last 8, which hold the nonce.
func PoWDigest(raw []byte) [32]byte {
	return blake2b.Sum256(raw[:max(0, len(raw)-nonceSize)])
}

// SetNonce writes the nonce into the last 8 bytes of a block's bytes. It
// panics if there are fewer.
func SetNonce(raw []byte, nonce uint64) {
	binary.LittleEndian.PutUint64(raw[len(raw)-nonceSize:], nonce)
}

// TargetZeros returns the fewest trailing zero trits with which a block of
// size bytes reaches minScore: the smallest z with 3^z >= size * minScore. It
// is 0 for a minScore of 0.
func TargetZeros(size int, minScore uint32) int {
	want := tries(size, minScore)
	z := 0
	for p := uint64(1); p < want; p *= 3 {
		if z++; z > maxPow3 {
			break
		}
	}
	return z
}

// MaxSize returns the size in bytes of the largest block that reaches
// minScore with this number of zeros; never more than [MaxBlockSize].
func MaxSize(zeros int, minScore uint32) int {
	switch {
	case zeros < 0:
		return 0
	case minScore == 0 || zeros > maxPow3:
		return MaxBlockSize
	}
	return int(min(pow3(zeros)/uint64(minScore), MaxBlockSize))
}

// MeetsScore reports whether a block of size bytes whose hash ends in zeros
// zero trits reaches minScore: 3^zeros / size >= minScore, in integers.
func MeetsScore(zeros, size int, minScore uint32) bool {
	return zeros >= TargetZeros(size, minScore)
}

// tries returns size * minScore, or the largest number if that does not fit.
func tries(size int, minScore uint32) uint64 {
	hi, lo := bits.Mul64(uint64(max(size, 0)), uint64(minScore))
	if hi != 0 {
		return math.MaxUint64
	}
	return lo
}

func pow3(z int) uint64 {
	p := uint64(1)
	for range z {
		p *= 3
	}
	return p
}
