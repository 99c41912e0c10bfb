package api

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"slices"
	"sync"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// A Chain is what gateways of equal weight agree, in memory and with real
// signatures.
type Chain struct {
	File *network.File
	keys []ed25519.PrivateKey

	mu         sync.Mutex // guards what follows
	agreed     ledger.Agreed
	pruned     uint32              // up to this index
	milestones []ledger.Milestone  // by index - 1
	orders     [][]consensus.Entry // of those
	grown      chan struct{}       // closed when more is agreed
}

// NewChain returns an empty chain of a network of n gateways.
func NewChain(n int, minScore uint32) *Chain {
	c := &Chain{grown: make(chan struct{})}
	var gateways []network.Gateway
	for i := range n {
		key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(i)}, 32))
		c.keys = append(c.keys, key)
		gateways = append(gateways, network.Gateway{
			Name: fmt.Sprintf("barn-%d", i), PublicKey: network.PublicKey(key.Public().(ed25519.PublicKey)), Weight: 1,
		})
	}
	c.File = network.Create("hedgerow-test", gateways)
	c.File.MinPoWScore = minScore
	return c
}

// Confirm derives a milestone that orders these blocks, the last of which is its
// root. It is not certified.
func (c *Chain) Confirm(blocks ...consensus.Entry) ledger.Milestone {
	c.mu.Lock()
	defer c.mu.Unlock()
	index := uint32(len(c.milestones) + 1)
	m := ledger.Milestone{Essence: consensus.Essence{
		Index: index, Timestamp: 1_700_000_000 + index, Previous: c.File.GenesisHash(),
		Parents: []stardust.BlockID{blocks[len(blocks)-1].ID}, Slot: index, NetworkHash: c.File.Hash(),
	}}
	if index > 1 {
		m.Previous = c.milestones[index-2].ID
	}
	var all, applied [][]byte
	for _, e := range blocks {
		all = append(all, e.ID[:])
		if e.Inclusion == consensus.Included {
			applied = append(applied, e.ID[:])
		}
	}
	m.InclusionRoot, m.AppliedRoot = stardust.MerkleRoot(all), stardust.MerkleRoot(applied)
	m.ID = m.Essence.ID()
	c.milestones, c.orders = append(c.milestones, m), append(c.orders, blocks)
	c.agreed.Milestone, c.agreed.ID, c.agreed.Timestamp = index, m.ID, m.Timestamp
	c.grow()
	return m
}

// Certify has all gateways sign every milestone.
func (c *Chain) Certify() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.milestones {
		m := &c.milestones[i]
		m.Signatures = nil
		for _, key := range c.keys {
			m.Signatures = append(m.Signatures, consensus.SignMilestone(key, m.Index, m.ID))
		}
		slices.SortFunc(m.Signatures, func(a, b consensus.Signature) int { return bytes.Compare(a.PublicKey[:], b.PublicKey[:]) })
	}
	c.agreed.Certified = uint32(len(c.milestones))
	c.grow()
}

func (c *Chain) grow() {
	close(c.grown)
	c.grown = make(chan struct{})
}

// Describe adds to a block's metadata what is agreed of it.
func (c *Chain) Describe(id stardust.BlockID, m *ledger.Metadata) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, order := range c.orders {
		if j := indexOf(order, id); j >= 0 {
			m.Approved, m.Milestone, m.Inclusion = true, uint32(i+1), order[j].Inclusion
			m.Certified = m.Milestone <= c.agreed.Certified
		}
	}
}

func (c *Chain) Agreed() ledger.Agreed {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.agreed
}

func (c *Chain) Word() ledger.Word {
	c.mu.Lock()
	defer c.mu.Unlock()
	return ledger.Word{Whole: c.pruned}
}

func (c *Chain) WaitAgreed(ctx context.Context, before ledger.Agreed) (ledger.Agreed, error) {
	for {
		c.mu.Lock()
		now, grown := c.agreed, c.grown
		c.mu.Unlock()
		if now != before {
			return now, nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return before, context.Cause(ctx)
		}
	}
}

func (c *Chain) Milestone(index uint32) (ledger.Milestone, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if index < 1 || int(index) > len(c.milestones) {
		return ledger.Milestone{}, fmt.Errorf("%w: milestone %d", ledger.ErrNotFound, index)
	}
	return c.milestones[index-1], nil
}

func (c *Chain) MilestoneIndex(id [32]byte) (uint32, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.milestones {
		if m.ID == id {
			return m.Index, nil
		}
	}
	return 0, fmt.Errorf("%w: milestone %x", ledger.ErrNotFound, id)
}

func (c *Chain) Ordered(index uint32) ([]consensus.Entry, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if index < 1 || int(index) > len(c.orders) {
		return nil, fmt.Errorf("%w: milestone %d", ledger.ErrNotFound, index)
	}
	return c.orders[index-1], nil
}
