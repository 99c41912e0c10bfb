package consensus

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/crypto/blake2b"

	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// An Essence is what the gateways sign of a milestone (TIP-29, §5).
type Essence struct {
	Index         uint32
	Timestamp     uint32   // Unix seconds; does not decrease
	Previous      [32]byte // id of the milestone before; of the first the genesis hash
	Parents       []stardust.BlockID
	InclusionRoot [32]byte // over all blocks of the milestone, in their order (TIP-4)
	AppliedRoot   [32]byte // over those whose transaction is included

	// The metadata.
	Epoch, Slot uint32
	NetworkHash [32]byte  // of the network file of the epoch
	LedgerRoot  *[32]byte // every snapshotEvery milestones, else nil
}

// metadataLen is the length of the metadata field without the ledger's root.
const metadataLen = 4 + 4 + 32

// Metadata returns the metadata field.
func (e *Essence) Metadata() []byte {
	b := binary.LittleEndian.AppendUint32(nil, e.Epoch)
	b = binary.LittleEndian.AppendUint32(b, e.Slot)
	b = append(b, e.NetworkHash[:]...)
	if e.LedgerRoot != nil {
		b = append(b, e.LedgerRoot[:]...)
	}
	return b
}

// AppendBinary appends the essence as TIP-29 lays it out, without options.
func (e *Essence) AppendBinary(dst []byte) []byte { return e.appendWith(dst, e.Metadata()) }

func (e *Essence) appendWith(dst, metadata []byte) []byte {
	le := binary.LittleEndian
	dst = le.AppendUint32(dst, e.Index)
	dst = le.AppendUint32(dst, e.Timestamp)
	dst = append(dst, stardust.ProtocolVersion)
	dst = append(dst, e.Previous[:]...)
	dst = append(dst, byte(len(e.Parents)))
	for _, p := range e.Parents {
		dst = append(dst, p[:]...)
	}
	dst = append(dst, e.InclusionRoot[:]...)
	dst = append(dst, e.AppliedRoot[:]...)
	dst = le.AppendUint16(dst, uint16(len(metadata)))
	dst = append(dst, metadata...)
	return append(dst, 0) // options
}

// ParseEssence reads what AppendBinary wrote and returns what follows it.
func ParseEssence(b []byte) (e Essence, rest []byte, err error) {
	const head, roots = 4 + 4 + 1 + 32 + 1, 32 + 32 + 2
	short := fmt.Errorf("milestone essence: %d bytes are too few", len(b))
	if len(b) < head {
		return e, nil, short
	}
	le := binary.LittleEndian
	e.Index, e.Timestamp = le.Uint32(b), le.Uint32(b[4:])
	copy(e.Previous[:], b[9:])
	n := int(b[head-1])
	if b = b[head:]; len(b) < 32*n+roots {
		return e, nil, short
	}
	for ; n > 0; n-- {
		e.Parents = append(e.Parents, stardust.BlockID(b[:32]))
		b = b[32:]
	}
	copy(e.InclusionRoot[:], b)
	copy(e.AppliedRoot[:], b[32:])
	size := int(le.Uint16(b[64:]))
	if b = b[roots:]; len(b) < size+1 || size != metadataLen && size != metadataLen+32 {
		return e, nil, short
	}
	e.Epoch, e.Slot = le.Uint32(b), le.Uint32(b[4:])
	copy(e.NetworkHash[:], b[8:])
	if size > metadataLen {
		root := [32]byte(b[metadataLen:size])
		e.LedgerRoot = &root
	}
	return e, b[size+1:], nil
}

// ID returns the milestone's id, which the gateways sign.
func (e *Essence) ID() [32]byte { return blake2b.Sum256(e.AppendBinary(nil)) }

// An Inclusion is what a milestone did with a block's transaction.
type Inclusion uint8

// The values of ledgerInclusionState.
const (
	NoTransaction Inclusion = iota
	Included
	Conflicting
)

// An Entry is one block of a milestone.
type Entry struct {
	ID        stardust.BlockID
	Inclusion Inclusion
}

// A Milestone is a decided part of the DAG (§5).
type Milestone struct {
	Essence
	Blocks []Entry       // all that it orders, in their order (TIP-2)
	Next   *network.File // set if it is the last of its epoch
}

// Position returns where the sequence of milestones stands after m.
func (m *Milestone) Position() Position {
	p := Position{
		Epoch: m.Epoch, NextSlot: m.Slot + 1, Index: m.Index, Timestamp: m.Timestamp,
		Milestone: m.ID(), Root: m.Parents[0],
	}
	if m.Next != nil {
		p.Epoch, p.NextSlot = m.Next.Epoch, 1
	}
	return p
}
