package stardust

import (
	"bytes"
	"crypto/sha512"

	"filippo.io/edwards25519"
)

// VerifyEd25519 reports whether signature is one of message under publicKey by
// the rules of ZIP-215, which TIP-14 asks for: points may be encoded in any way
// that decodes, the scalar only in its shortest, and the equation is the
// cofactored one, [8][S]B = [8]R + [8][k]A. It therefore accepts all that
// crypto/ed25519 accepts and some that it rejects, and it answers like every
// other implementation of ZIP-215, one at a time or in batches. A key or
// signature of another length is not accepted. It may be called concurrently.
//
// Under a public key of small order anything can be signed by anybody.
func VerifyEd25519(publicKey, message, signature []byte) bool {
	if len(publicKey) != 32 || len(signature) != 64 {
		return false
	}
	r := signature[:32]
	a, err := new(edwards25519.Point).SetBytes(publicKey)
	if err != nil {
		return false
	}
	s, err := new(edwards25519.Scalar).SetCanonicalBytes(signature[32:])
	if err != nil {
		return false
	}
	h := sha512.New()
	h.Write(r)
	h.Write(publicKey)
	h.Write(message)
	k, err := new(edwards25519.Scalar).SetUniformBytes(h.Sum(nil))
	if err != nil {
		return false // not with 64 bytes
	}
	// What honest signers make satisfies the equation without the cofactor and
	// encodes R canonically: then R need not be decoded, which costs as much as
	// decoding the key.
	want := new(edwards25519.Point).VarTimeDoubleScalarBaseMult(k, a.Negate(a), s)
	if bytes.Equal(want.Bytes(), r) {
		return true
	}
	got, err := new(edwards25519.Point).SetBytes(r)
	if err != nil {
		return false
	}
	rest := want.Subtract(want, got)
	return rest.MultByCofactor(rest).Equal(edwards25519.NewIdentityPoint()) == 1
}
