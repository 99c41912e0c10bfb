package network

import (
	"crypto/ed25519"
	"crypto/sha512"
	"encoding/hex"
	"slices"
	"testing"

	"filippo.io/edwards25519"
)

// The file of an epoch is a block's payload, so its signatures decide what all
// replicas must decide alike.
func TestSignaturesFollowZIP215(t *testing.T) {
	f := site(t, 2)
	next := signed(f.Next(), "a")
	hash := next.Hash()
	next.Signatures = append(next.Signatures, Signature{PublicKey: publicOf("b"), Signature: cofactored(t, key("b"), hash[:])})
	if err := next.Follows(f); err != nil {
		t.Error(err)
	}
}

// cofactored signs like ed25519.Sign but adds a point of order 8 to R: valid by
// ZIP-215, though not by crypto/ed25519.
func cofactored(t *testing.T, key ed25519.PrivateKey, message []byte) (signature [64]byte) {
	t.Helper()
	small, err := hex.DecodeString("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a")
	if err != nil {
		t.Fatal(err)
	}
	torsion, err := new(edwards25519.Point).SetBytes(small)
	if err != nil {
		t.Fatal(err)
	}
	expanded := sha512.Sum512(key.Seed())
	a, err := new(edwards25519.Scalar).SetBytesWithClamping(expanded[:32])
	if err != nil {
		t.Fatal(err)
	}
	r, err := new(edwards25519.Scalar).SetBytesWithClamping(expanded[32:])
	if err != nil {
		t.Fatal(err)
	}
	point := new(edwards25519.Point).ScalarBaseMult(r)
	copy(signature[:], point.Add(point, torsion).Bytes())
	digest := sha512.Sum512(slices.Concat(signature[:32], key.Public().(ed25519.PublicKey), message))
	k, err := new(edwards25519.Scalar).SetUniformBytes(digest[:])
	if err != nil {
		t.Fatal(err)
	}
	copy(signature[32:], k.MultiplyAdd(k, a, r).Bytes())
	if ed25519.Verify(key.Public().(ed25519.PublicKey), message, signature[:]) {
		t.Fatal("crypto/ed25519 accepts it: the test shows nothing")
	}
	return signature
}
