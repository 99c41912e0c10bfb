package stardust

import (
	"bytes"
	"math"
	"math/big"
	"testing"
)

func TestTargetZerosAreThoseOfTheVectors(t *testing.T) {
	var f struct {
		TargetZeros []struct {
			Size, TargetZeros int
			MinScore          uint32
		}
	}
	vectors(t, "target_zeros.json", &f)
	if len(f.TargetZeros) != 180 {
		t.Fatalf("%d cases, want 180", len(f.TargetZeros))
	}
	for _, tt := range f.TargetZeros {
		if got := TargetZeros(tt.Size, tt.MinScore); got != tt.TargetZeros {
			t.Errorf("TargetZeros(%d, %d) = %d, want %d", tt.Size, tt.MinScore, got, tt.TargetZeros)
		}
	}
}

// bigMeets is the rule in unbounded integers: 3^zeros >= size * minScore.
func bigMeets(zeros, size int, minScore uint32) bool {
	p := new(big.Int).Exp(big.NewInt(3), big.NewInt(int64(zeros)), nil)
	return p.Cmp(new(big.Int).Mul(big.NewInt(int64(size)), big.NewInt(int64(minScore)))) >= 0
}

func TestZerosAndSizesAgreeWithUnboundedIntegers(t *testing.T) {
	for _, size := range []int{0, 1, 46, 81, 82, 590, 591, 32768, math.MaxInt32} {
		for _, score := range []uint32{0, 1, 3, 100, 1500, 4000, 1 << 31, math.MaxUint32} {
			want := 0
			for !bigMeets(want, size, score) {
				want++
			}
			if got := TargetZeros(size, score); got != want {
				t.Errorf("TargetZeros(%d, %d) = %d, want %d", size, score, got, want)
			}
			for z := range 50 {
				if got := MeetsScore(z, size, score); got != bigMeets(z, size, score) {
					t.Errorf("MeetsScore(%d, %d, %d) = %v", z, size, score, got)
				}
			}
		}
	}
}

func TestMaxSizeIsTheLastBeforeTheStep(t *testing.T) {
	for _, tt := range []struct {
		zeros, want int
		score       uint32
	}{
		{10, 590, 100}, {11, 1771, 100}, {12, 5314, 100}, {13, 15943, 100}, {14, 32768, 100},
		{11, 354, 500}, {15, 28697, 500}, {11, 118, 1500}, {16, 28697, 1500}, {13, 398, 4000}, {17, 32285, 4000},
		{0, 32768, 0}, {0, 0, 100}, {-1, 0, 100}, {0, 1, 1}, {1000, 32768, math.MaxUint32},
	} {
		got := MaxSize(tt.zeros, tt.score)
		if got != tt.want {
			t.Errorf("MaxSize(%d, %d) = %d, want %d", tt.zeros, tt.score, got, tt.want)
		}
		if tt.zeros >= 0 && (!MeetsScore(tt.zeros, got, tt.score) || got < MaxBlockSize && MeetsScore(tt.zeros, got+1, tt.score)) {
			t.Errorf("MaxSize(%d, %d) = %d is not the step", tt.zeros, tt.score, got)
		}
	}
}

func TestAbsurdSizesNeverLookCheap(t *testing.T) {
	if got := TargetZeros(math.MaxInt, math.MaxUint32); got <= maxPow3 {
		t.Errorf("TargetZeros of everything = %d, want more than %d", got, maxPow3)
	}
	if got := TargetZeros(-1, 100); got != 0 {
		t.Errorf("TargetZeros(-1, 100) = %d, want 0", got)
	}
}

func TestNonceIsNoPartOfTheDigest(t *testing.T) {
	raw := bytes.Repeat([]byte{7}, 60)
	before := PoWDigest(raw)
	SetNonce(raw, 0x0102030405060708)
	if !bytes.Equal(raw[51:], []byte{7, 8, 7, 6, 5, 4, 3, 2, 1}) {
		t.Errorf("SetNonce wrote %x", raw[51:])
	}
	if PoWDigest(raw) != before {
		t.Error("PoWDigest changed with the nonce")
	}
	if PoWDigest([]byte{1, 2}) != PoWDigest(nil) {
		t.Error("PoWDigest of fewer than 8 bytes is not that of none")
	}
}
