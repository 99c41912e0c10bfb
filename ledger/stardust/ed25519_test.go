package stardust

import (
	"bytes"
	"crypto/ed25519"
	"testing"

	"filippo.io/edwards25519"
	"golang.org/x/crypto/blake2b"
)

type signatureVector struct {
	Address, Message, Signature string
	PubKey                      string `json:"pub_key"`
	Valid                       bool
}

func signatureVectors(t testing.TB) []signatureVector {
	var all []signatureVector
	vectors(t, "ed25519_zip215.json", &all)
	if len(all) != 12 {
		t.Fatalf("%d signatures, want 12", len(all))
	}
	return all
}

// An unlock of TIP-14 is valid if the address is the hash of the key as given
// and the signature is one of ZIP-215.
func TestVerifyEd25519Vectors(t *testing.T) {
	split := 0
	for i, v := range signatureVectors(t) {
		key, message, signature := unhex(t, v.PubKey), unhex(t, v.Message), unhex(t, v.Signature)
		address := blake2b.Sum256(key)
		owns := bytes.Equal(append([]byte{0}, address[:]...), unhex(t, v.Address))
		valid := VerifyEd25519(key, message, signature)
		if got := owns && valid; got != v.Valid {
			t.Errorf("vector %d: got %v (owned %v, signed %v), want %v", i, got, owns, valid, v.Valid)
		}
		if v.Valid && !ed25519.Verify(key, message, signature) {
			split++
		}
	}
	if split != 3 {
		t.Errorf("crypto/ed25519 rejects %d of the valid vectors, want 3: is this still needed?", split)
	}
}

// smallOrder returns the encodings of the eight points of small order, also
// those that are not canonical: 14, with both signs of x where x is 0.
func smallOrder(t testing.TB) (encodings [][]byte) {
	t.Helper()
	for _, v := range signatureVectors(t)[:2] {
		if p, err := new(edwards25519.Point).SetBytes(unhex(t, v.PubKey)); err != nil || p.MultByCofactor(p).Equal(edwards25519.NewIdentityPoint()) != 1 {
			t.Fatalf("%s has no small order: %v", v.PubKey, err)
		}
	}
	generator, err := new(edwards25519.Point).SetBytes(unhex(t, signatureVectors(t)[0].PubKey))
	if err != nil {
		t.Fatal(err)
	}
	p := edwards25519.NewIdentityPoint()
	for range 8 {
		p = new(edwards25519.Point).Add(p, generator)
		encodings = append(encodings, p.Bytes())
	}
	field := bytes.Repeat([]byte{0xff}, 32) // p + y for y = 0 and y = 1
	for _, last := range []byte{0x7f, 0xff} {
		for _, first := range []byte{0xed, 0xee} {
			e := bytes.Clone(field)
			e[0], e[31] = first, last
			encodings = append(encodings, e)
		}
	}
	for _, y := range [][2]byte{{1, 0}, {0xec, 0xff}} { // y = 1 and y = -1 with the other sign of x = 0
		e := bytes.Repeat([]byte{y[1]}, 32)
		e[0], e[31] = y[0], y[1]|0x80
		encodings = append(encodings, e)
	}
	return encodings
}

// Every combination of key and R of small order is valid with S = 0: the 196
// cases that ZIP-215 lists.
func TestVerifyEd25519AcceptsSmallOrder(t *testing.T) {
	all := smallOrder(t)
	if len(all) != 14 {
		t.Fatalf("%d encodings, want 14", len(all))
	}
	for _, key := range all {
		for _, r := range all {
			if !VerifyEd25519(key, []byte("Zcash"), append(bytes.Clone(r), make([]byte, 32)...)) {
				t.Errorf("key %x, R %x: rejected", key, r)
			}
		}
	}
}

// S must be below the order of the group, or everybody could make a second
// signature out of one.
func TestVerifyEd25519RejectsLongScalar(t *testing.T) {
	order := unhex(t, "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010")
	key := ed25519.NewKeyFromSeed(make([]byte, 32))
	sig := ed25519.Sign(key, []byte("m"))
	carry := 0
	for i := range 32 {
		sum := int(sig[32+i]) + int(order[i]) + carry
		sig[32+i], carry = byte(sum), sum>>8
	}
	if VerifyEd25519(key.Public().(ed25519.PublicKey), []byte("m"), sig) {
		t.Error("accepted S + L")
	}
}

func TestVerifyEd25519RejectsLengths(t *testing.T) {
	key := ed25519.NewKeyFromSeed(make([]byte, 32))
	pub, sig := key.Public().(ed25519.PublicKey), ed25519.Sign(key, nil)
	for _, tt := range []struct{ pub, sig []byte }{
		{nil, sig}, {pub[:31], sig}, {append(bytes.Clone(pub), 0), sig},
		{pub, nil}, {pub, sig[:63]}, {pub, append(bytes.Clone(sig), 0)},
	} {
		if VerifyEd25519(tt.pub, nil, tt.sig) {
			t.Errorf("accepted a key of %d and a signature of %d bytes", len(tt.pub), len(tt.sig))
		}
	}
}

// What crypto/ed25519 accepts is accepted; what is accepted beyond that fails
// its equation by a point of small order or has an encoding that it does not
// take, which flipping a bit of an honest signature never yields.
func FuzzVerifyEd25519(f *testing.F) {
	for _, v := range signatureVectors(f) {
		f.Add(unhex(f, v.PubKey), unhex(f, v.Message), unhex(f, v.Signature), uint16(0))
	}
	f.Add(make([]byte, 32), []byte("m"), make([]byte, 64), uint16(700))
	f.Fuzz(func(t *testing.T, key, message, signature []byte, flip uint16) {
		if len(key) == ed25519.PublicKeySize && ed25519.Verify(key, message, signature) && !VerifyEd25519(key, message, signature) {
			t.Errorf("key %x, message %x, signature %x: rejected", key, message, signature)
		}
		if len(key) != ed25519.SeedSize {
			return
		}
		private := ed25519.NewKeyFromSeed(key)
		public, signed := private.Public().(ed25519.PublicKey), ed25519.Sign(private, message)
		if !VerifyEd25519(public, message, signed) {
			t.Errorf("seed %x, message %x: honest signature rejected", key, message)
		}
		at := int(flip) % (8 * len(signed))
		signed[at/8] ^= 1 << (at % 8)
		if VerifyEd25519(public, message, signed) {
			t.Errorf("seed %x, message %x: accepted with bit %d of the signature flipped", key, message, at)
		}
	})
}

func BenchmarkVerifyEd25519(b *testing.B) {
	key := ed25519.NewKeyFromSeed(make([]byte, 32))
	public, message := key.Public().(ed25519.PublicKey), make([]byte, 32)
	signature := ed25519.Sign(key, message)
	for _, bb := range []struct {
		name   string
		verify func(publicKey, message, signature []byte) bool
	}{
		{"zip215", VerifyEd25519},
		{"crypto", func(k, m, s []byte) bool { return ed25519.Verify(k, m, s) }},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !bb.verify(public, message, signature) {
					b.Fatal("rejected")
				}
			}
		})
	}
}
