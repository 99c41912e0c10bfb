package stardust

import (
	"encoding/binary"
	"slices"
	"testing"
)

// proofNode is a node of an inx-poi proof: a sibling's hash, the proven
// value, or two children.
type proofNode struct {
	H, Value *BlockID
	L, R     *proofNode
}

// path returns the siblings on the way to the value from the bottom up, and
// false if the value is not below n.
func (n *proofNode) path() ([][32]byte, bool) {
	switch {
	case n == nil || n.H != nil:
		return nil, false
	case n.Value != nil:
		return nil, true
	}
	if p, ok := n.L.path(); ok {
		return append(p, *n.R.H), true
	}
	p, ok := n.R.path()
	return append(p, *n.L.H), ok
}

func TestMerkleTreesAndProofsAreThoseOfTheVectors(t *testing.T) {
	var f struct {
		Trees []struct {
			BlockIDs     []BlockID
			Root         BlockID
			InxPoiProofs []*proofNode
		}
	}
	vectors(t, "merkle.json", &f)
	if len(f.Trees) != 8 {
		t.Fatalf("%d trees, want 8", len(f.Trees))
	}
	for _, tree := range f.Trees {
		var leaves [][]byte
		for i := range tree.BlockIDs {
			leaves = append(leaves, tree.BlockIDs[i][:])
		}
		if got := MerkleRoot(leaves); got != tree.Root {
			t.Errorf("root of %d leaves = %x, want %v", len(leaves), got, tree.Root)
		}
		for i, proof := range tree.InxPoiProofs {
			want, ok := proof.path()
			if got := MerklePath(leaves, i); !ok || !slices.Equal(got, want) {
				t.Errorf("path of leaf %d of %d = %x, want %x", i, len(leaves), got, want)
			}
		}
	}
}

func TestMerklePathProvesItsLeafAndNothingElse(t *testing.T) {
	for n := 1; n <= 40; n++ {
		leaves := make([][]byte, n)
		for i := range leaves {
			leaves[i] = binary.LittleEndian.AppendUint32(nil, uint32(i))
		}
		root := MerkleRoot(leaves)
		for i, leaf := range leaves {
			path := MerklePath(leaves, i)
			if !VerifyMerklePath(leaf, i, n, path, root) {
				t.Errorf("leaf %d of %d is not proven", i, n)
			}
			for j := -1; j <= n; j++ {
				if j != i && VerifyMerklePath(leaf, j, n, path, root) {
					t.Errorf("leaf %d of %d is proven at index %d", i, n, j)
				}
			}
			if VerifyMerklePath([]byte("other"), i, n, path, root) {
				t.Errorf("another leaf is proven at %d of %d", i, n)
			}
			if VerifyMerklePath(leaf, i, n, append(slices.Clone(path), root), root) {
				t.Errorf("leaf %d of %d is proven with a longer path", i, n)
			}
			if len(path) > 0 && VerifyMerklePath(leaf, i, n, path[:len(path)-1], root) {
				t.Errorf("leaf %d of %d is proven with a shorter path", i, n)
			}
		}
	}
}
