package stardust

import (
	"math/bits"
	"slices"

	"golang.org/x/crypto/blake2b"
)

// Prefixes that keep leaves and nodes of a Merkle tree apart (TIP-4).
const (
	leafPrefix = 0x00
	nodePrefix = 0x01
)

// MerkleRoot returns the root of the TIP-4 tree (RFC 6962 shape, BLAKE2b-256)
// over the leaves, whose bytes it hashes itself. No leaves have the root
// BLAKE2b-256 of nothing.
func MerkleRoot(leaves [][]byte) [32]byte {
	if len(leaves) == 0 {
		return blake2b.Sum256(nil)
	}
	if len(leaves) == 1 {
		return hashLeaf(leaves[0])
	}
	k := split(len(leaves))
	return hashNode(MerkleRoot(leaves[:k]), MerkleRoot(leaves[k:]))
}

// MerklePath returns the siblings of leaf i from the bottom up, which
// together with the leaf give the root. It panics if there is no leaf i.
func MerklePath(leaves [][]byte, i int) [][32]byte {
	if i < 0 || i >= len(leaves) {
		panic("stardust: no such leaf in the Merkle tree")
	}
	var path [][32]byte
	for len(leaves) > 1 {
		if k := split(len(leaves)); i < k {
			path = append(path, MerkleRoot(leaves[k:]))
			leaves = leaves[:k]
		} else {
			path = append(path, MerkleRoot(leaves[:k]))
			leaves, i = leaves[k:], i-k
		}
	}
	slices.Reverse(path)
	return path
}

// VerifyMerklePath reports whether the leaf stands at index i of the n leaves
// with this root, given its path from [MerklePath].
func VerifyMerklePath(leaf []byte, i, n int, path [][32]byte, root [32]byte) bool {
	if i < 0 || i >= n {
		return false
	}
	h := hashLeaf(leaf)
	// Walking up, last is the index of the row's last node. A node without a
	// sibling (index last, even) rises as it is (RFC 9162, section 2.1.3.2).
	last := n - 1
	for _, sibling := range path {
		if last == 0 {
			return false
		}
		if i&1 == 1 || i == last {
			h = hashNode(sibling, h)
			up := bits.TrailingZeros(uint(i)) // i is not 0: it is odd or equals last
			i, last = i>>up, last>>up
		} else {
			h = hashNode(h, sibling)
		}
		i, last = i>>1, last>>1
	}
	return last == 0 && h == root
}

// split returns the largest power of two below n: the leaves on the left.
func split(n int) int { return 1 << (bits.Len(uint(n-1)) - 1) }

func hashLeaf(leaf []byte) [32]byte {
	buf := make([]byte, 0, 256)
	buf = append(buf, leafPrefix)
	return blake2b.Sum256(append(buf, leaf...))
}

func hashNode(l, r [32]byte) [32]byte {
	var buf [1 + 2*32]byte
	buf[0] = nodePrefix
	copy(buf[1:], l[:])
	copy(buf[33:], r[:])
	return blake2b.Sum256(buf[:])
}
