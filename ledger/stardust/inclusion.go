package stardust

import (
	"encoding/json"
	"fmt"
	"slices"
)

// maxInclusionDepth is the depth of a tree over as many blocks as a white flag
// index can tell apart.
const maxInclusionDepth = 32

// An Inclusion proves that a block is one of those that a milestone references:
// the way from its id up to the inclusion root (TIP-4). Its JSON is that of
// INX-POI: a node is {"l":…,"r":…}, a sibling {"h":"0x…"}, the block
// {"value":"0x…"}. It does not tell the block's index.
type Inclusion struct {
	Block    BlockID
	Siblings []InclusionSibling // from the bottom up; none: it is the only block
}

// An InclusionSibling is the root of a tree beside the way up.
type InclusionSibling struct {
	Hash [32]byte
	Left bool // it stands to the left of the way
}

// NewInclusion returns the proof of the block with index i among those of a
// milestone, in their order. It panics if there is no such block.
func NewInclusion(blocks []BlockID, i int) Inclusion {
	leaves := make([][]byte, len(blocks))
	for j := range blocks {
		leaves[j] = blocks[j][:]
	}
	p := Inclusion{Block: blocks[i]}
	for len(leaves) > 1 {
		if k := split(len(leaves)); i < k {
			p.Siblings = append(p.Siblings, InclusionSibling{MerkleRoot(leaves[k:]), false})
			leaves = leaves[:k]
		} else {
			p.Siblings = append(p.Siblings, InclusionSibling{MerkleRoot(leaves[:k]), true})
			leaves, i = leaves[k:], i-k
		}
	}
	slices.Reverse(p.Siblings)
	return p
}

// Root returns the root that the proof leads to. What it proves is true if that
// is the inclusion root of a milestone and the block has the id Block.
func (p *Inclusion) Root() [32]byte {
	h := hashLeaf(p.Block[:])
	for _, s := range p.Siblings {
		if s.Left {
			h = hashNode(s.Hash, h)
		} else {
			h = hashNode(h, s.Hash)
		}
	}
	return h
}

// An inclusionNode is a node of the JSON form.
type inclusionNode struct {
	Hash  *BlockID       `json:"h,omitempty"`
	Left  *inclusionNode `json:"l,omitempty"`
	Right *inclusionNode `json:"r,omitempty"`
	Value *BlockID       `json:"value,omitempty"`
}

// MarshalJSON returns the form of INX-POI.
func (p Inclusion) MarshalJSON() ([]byte, error) {
	n := &inclusionNode{Value: &p.Block}
	for i := range p.Siblings {
		sibling := &inclusionNode{Hash: (*BlockID)(&p.Siblings[i].Hash)}
		if p.Siblings[i].Left {
			n = &inclusionNode{Left: sibling, Right: n}
		} else {
			n = &inclusionNode{Left: n, Right: sibling}
		}
	}
	return json.Marshal(n)
}

// UnmarshalJSON reads the form of INX-POI. The tree must have one way down to
// one value, at most 32 nodes long, and nothing but hashes beside it.
//
// The error wraps [ErrSyntax]. p is left alone then.
func (p *Inclusion) UnmarshalJSON(text []byte) error {
	var n inclusionNode
	if err := json.Unmarshal(text, &n); err != nil {
		return jsonError("proof", err)
	}
	var out Inclusion
	at := &n
	for at.Value == nil {
		if len(out.Siblings) == maxInclusionDepth {
			return fmt.Errorf("proof: deeper than %d nodes: %w", maxInclusionDepth, ErrSyntax)
		}
		next, sibling := at.Left, at.Right
		left := sibling == nil || sibling.Hash == nil
		if left {
			next, sibling = sibling, next
		}
		if next == nil || sibling == nil || at.Hash != nil || !sibling.isHash() {
			return fmt.Errorf("proof: a node is neither a value nor a way on beside a hash: %w", ErrSyntax)
		}
		out.Siblings = append(out.Siblings, InclusionSibling{*sibling.Hash, left})
		at = next
	}
	if at.Hash != nil || at.Left != nil || at.Right != nil {
		return fmt.Errorf("proof: the value is not alone: %w", ErrSyntax)
	}
	out.Block = *at.Value
	slices.Reverse(out.Siblings)
	*p = out
	return nil
}

func (n *inclusionNode) isHash() bool {
	return n.Hash != nil && n.Left == nil && n.Right == nil && n.Value == nil
}
