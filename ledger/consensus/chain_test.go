package consensus

import (
	"crypto/ed25519"
	"errors"
	"slices"
	"testing"

	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// chained returns a network of one and n milestones of it.
func chained(n int) (files []*network.File, es []Essence, certify func(*Essence) []Signature) {
	key := ed25519.NewKeyFromSeed(make([]byte, 32))
	f := network.NewOfOne("test", "g", key.Public().(ed25519.PublicKey))
	previous := f.GenesisHash()
	for i := range n {
		e := Essence{
			Index: uint32(i + 1), Timestamp: uint32(i), Previous: previous, Parents: []stardust.BlockID{{byte(i)}},
			Slot: uint32(i + 1), NetworkHash: f.Hash(),
		}
		es, previous = append(es, e), e.ID()
	}
	return []*network.File{f}, es, func(e *Essence) []Signature { return []Signature{SignMilestone(key, e.Index, e.ID())} }
}

func TestAChainProvesWhatLiesBelowACertifiedMilestone(t *testing.T) {
	files, es, certify := chained(2500)
	top := &es[len(es)-1]
	for _, lowest := range []int{1, 2, 1024, 1025, 2499, 2500} {
		c, err := NewChain(files, top, certify(top))
		if err != nil {
			t.Fatal(err)
		}
		for i := len(es) - 2; i >= lowest-1; i-- {
			if err := c.Down(&es[i]); err != nil {
				t.Fatal(err)
			}
		}
		for at := uint32(lowest); ; {
			from, to := c.Span()
			if from == 0 {
				if at != 2501 {
					t.Errorf("from %d the chain ends at %d", lowest, at-1)
				}
				break
			}
			if from != at {
				t.Fatalf("span from %d, want %d", from, at)
			}
			forged := slices.Clone(es[from-1 : to])
			forged[len(forged)/2].Timestamp += 7
			if err := c.Up(forged); !errors.Is(err, ErrChain) {
				t.Errorf("forged milestones from %d: %v", from, err)
			}
			if err := c.Up(es[from-1 : to]); err != nil {
				t.Fatal(err)
			}
			at = to + 1
		}
	}
}

func TestAChainTakesNoOtherMilestones(t *testing.T) {
	files, es, certify := chained(10)
	top := &es[9]
	other := *top
	other.Timestamp++
	if _, err := NewChain(files, &other, certify(top)); !errors.Is(err, ErrBadSignature) {
		t.Errorf("a certificate of another milestone: %v", err)
	}
	other.NetworkHash = [32]byte{1}
	if _, err := NewChain(files, &other, certify(&other)); !errors.Is(err, ErrChain) {
		t.Errorf("of another network: %v", err)
	}
	c, err := NewChain(files, top, certify(top))
	if err != nil {
		t.Fatal(err)
	}
	other = es[8]
	other.Slot++
	for _, e := range []*Essence{top, &es[7], &other} {
		if err := c.Down(e); !errors.Is(err, ErrChain) {
			t.Errorf("Down(%d): %v", e.Index, err)
		}
	}
	if err := c.Up(es[8:]); !errors.Is(err, ErrChain) {
		t.Errorf("Up below the lowest: %v", err)
	}
}
