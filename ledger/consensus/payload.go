package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// ErrForeign is wrapped by the errors about payloads that no gateway of any
// hedgerow network signs.
var ErrForeign = errors.New("not a milestone of this kind of network")

// Payload returns the milestone as TIP-29 has it, with these signatures.
func (e *Essence) Payload(signatures []Signature) *stardust.Milestone {
	m := &stardust.Milestone{
		Index: e.Index, Timestamp: e.Timestamp, Version: stardust.ProtocolVersion,
		Previous: e.Previous, Parents: e.Parents,
		InclusionRoot: e.InclusionRoot, AppliedRoot: e.AppliedRoot,
		Metadata:   e.Metadata(),
		Signatures: make([]stardust.MilestoneSignature, len(signatures)),
	}
	for i, s := range signatures {
		m.Signatures[i] = stardust.MilestoneSignature{PublicKey: s.PublicKey, Signature: s.Signature}
	}
	return m
}

// ParsePayload returns what [Essence.Payload] was made from. Nothing is
// verified; see [VerifyCertificate]. The error wraps [ErrForeign].
func ParsePayload(m *stardust.Milestone) (Essence, []Signature, error) {
	e := Essence{
		Index: m.Index, Timestamp: m.Timestamp, Previous: m.Previous, Parents: m.Parents,
		InclusionRoot: m.InclusionRoot, AppliedRoot: m.AppliedRoot,
	}
	if m.Version != stardust.ProtocolVersion || m.Parameters != nil {
		return e, nil, fmt.Errorf("%w: it has another version or options", ErrForeign)
	}
	meta := m.Metadata
	switch len(meta) {
	case metadataLen:
	case metadataLen + 32:
		e.LedgerRoot = (*[32]byte)(append([]byte(nil), meta[metadataLen:]...))
	default:
		return e, nil, fmt.Errorf("%w: it has %d bytes of metadata, want %d or %d", ErrForeign, len(meta), metadataLen, metadataLen+32)
	}
	e.Epoch, e.Slot = binary.LittleEndian.Uint32(meta), binary.LittleEndian.Uint32(meta[4:])
	copy(e.NetworkHash[:], meta[8:])
	id := e.ID()
	signatures := make([]Signature, len(m.Signatures))
	for i, s := range m.Signatures {
		signatures[i] = Signature{Index: m.Index, Milestone: id, PublicKey: network.PublicKey(s.PublicKey), Signature: s.Signature}
	}
	return e, signatures, nil
}
