package envelope

import (
	"encoding/binary"
	"hash"

	"golang.org/x/crypto/blake2b"

	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

const saltSize = 16

// salter makes the salts of a batch's leaves.
type salter struct {
	h   hash.Hash
	sum [blake2b.Size256]byte
}

func newSalter(secret [16]byte) *salter {
	return &salter{h: must(blake2b.New256(secret[:]))} // fails only for keys over 64 bytes
}

// append appends the salt of leaf i: the first 16 bytes of BLAKE2b-256 keyed
// with the batch's secret over i (uint32, little endian).
func (s *salter) append(dst []byte, i int) []byte {
	var number [4]byte
	binary.LittleEndian.PutUint32(number[:], uint32(i))
	s.h.Reset()
	s.h.Write(number[:])
	return append(dst, s.h.Sum(s.sum[:0])[:saltSize]...)
}

// leaves returns the leaf inputs of the records' Merkle tree: salt, then
// record.
func leaves(secret [16]byte, records [][]byte) [][]byte {
	size := 0
	for _, r := range records {
		size += saltSize + len(r)
	}
	all, out := make([]byte, 0, size), make([][]byte, len(records))
	s := newSalter(secret)
	for i, r := range records {
		from := len(all)
		all = append(s.append(all, i), r...)
		out[i] = all[from:len(all):len(all)]
	}
	return out
}

// Root returns the Merkle root (TIP-4) of a batch's salted records.
func Root(secret [16]byte, records [][]byte) [32]byte {
	return stardust.MerkleRoot(leaves(secret, records))
}
