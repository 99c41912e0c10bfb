package stardust

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/crypto/blake2b"
)

const (
	// MaxMilestoneMetadata is how many bytes of metadata a milestone may have.
	MaxMilestoneMetadata = 8192
	// MaxMilestoneSignatures is how many signatures a milestone may have.
	MaxMilestoneSignatures = 255

	maxParameters = 8192 // bytes of a protocol parameters option

	optionReceipt    = 0
	optionParameters = 1
	signatureEd25519 = 0
	signatureSize    = 1 + ed25519.PublicKeySize + ed25519.SignatureSize
)

// A Milestone is the payload by which signers say what a part of the DAG holds
// (TIP-29). It stands by itself: this program takes no block that carries one.
type Milestone struct {
	Index         uint32
	Timestamp     uint32 // Unix seconds
	Version       byte   // ProtocolVersion
	Previous      MilestoneID
	Parents       []BlockID // 1 to MaxParents, ascending, each once
	InclusionRoot [32]byte  // of the TIP-4 tree over all blocks that it references, in TIP-2's order
	AppliedRoot   [32]byte  // over those of them that changed the ledger
	Metadata      []byte    // at most MaxMilestoneMetadata bytes; its meaning is the network's
	Parameters    *Parameters
	Signatures    []MilestoneSignature // 1 to MaxMilestoneSignatures, by ascending keys, each key once
}

// Parameters is the milestone option that announces protocol parameters
// (TIP-29, "Protocol Parameters Milestone Option"). Receipts, the other option,
// are not handled.
type Parameters struct {
	Target  uint32 // index of the milestone that they are in force from
	Version byte   // of the protocol from then on
	Params  []byte // serialized (TIP-22), at most 8192 bytes
}

// A MilestoneSignature is one signer's Ed25519 signature of a milestone's id.
type MilestoneSignature struct {
	PublicKey [ed25519.PublicKeySize]byte
	Signature [ed25519.SignatureSize]byte
}

// A MilestoneID is the BLAKE2b-256 hash of a milestone's essence.
type MilestoneID [idSize]byte

// ParseMilestoneID reads "0x" and 64 hex digits of either case. The error wraps
// [ErrSyntax].
func ParseMilestoneID(s string) (MilestoneID, error) {
	var id MilestoneID
	err := id.UnmarshalText([]byte(s))
	return id, err
}

// String returns "0x" and 64 lower-case hex digits.
func (id MilestoneID) String() string { return BlockID(id).String() }

// MarshalText returns what String returns.
func (id MilestoneID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what [ParseMilestoneID] reads and leaves id alone on error.
func (id *MilestoneID) UnmarshalText(text []byte) error {
	return readHash("milestone id", (*[idSize]byte)(id), text)
}

// ID returns the milestone's id, which is what its signers sign: neither type
// nor signatures change it.
func (m *Milestone) ID() MilestoneID { return blake2b.Sum256(m.appendEssence(nil)) }

// Validate returns nil or the first rule of TIP-29 that can be told without
// knowing the signers and that the milestone breaks. Signatures are not
// verified. The error wraps [ErrSyntax] or [ErrUnsupported].
func (m *Milestone) Validate() error {
	if err := checkVersion(m.Version); err != nil {
		return err
	}
	if err := checkParentsCount(len(m.Parents)); err != nil {
		return err
	}
	if err := checkParentsOrder(m.Parents); err != nil {
		return err
	}
	if n := len(m.Metadata); n > MaxMilestoneMetadata {
		return fmt.Errorf("metadata: %d bytes, at most %d allowed: %w", n, MaxMilestoneMetadata, ErrSyntax)
	}
	if p := m.Parameters; p != nil && len(p.Params) > maxParameters {
		return fmt.Errorf("options.params: %d bytes, at most %d allowed: %w", len(p.Params), maxParameters, ErrSyntax)
	}
	return checkSigners(m.Signatures)
}

func checkSigners(all []MilestoneSignature) error {
	if n := len(all); n < 1 || n > MaxMilestoneSignatures {
		return fmt.Errorf("signatures: %d of them, want 1 to %d: %w", n, MaxMilestoneSignatures, ErrSyntax)
	}
	for i := 1; i < len(all); i++ {
		if bytes.Compare(all[i-1].PublicKey[:], all[i].PublicKey[:]) >= 0 {
			return fmt.Errorf("signatures[%d]: key not above that of signatures[%d]: %w", i, i-1, ErrSyntax)
		}
	}
	return nil
}

// AppendBinary appends the payload's bytes, type included, to dst. It refuses a
// milestone that [Milestone.Validate] refuses and returns dst unchanged then.
func (m *Milestone) AppendBinary(dst []byte) ([]byte, error) {
	if err := m.Validate(); err != nil {
		return dst, err
	}
	dst = slices.Grow(dst, 256+len(m.Metadata)+len(m.Signatures)*signatureSize)
	dst = binary.LittleEndian.AppendUint32(dst, PayloadMilestone)
	dst = append(m.appendEssence(dst), byte(len(m.Signatures)))
	for i := range m.Signatures {
		dst = append(dst, signatureEd25519)
		dst = append(dst, m.Signatures[i].PublicKey[:]...)
		dst = append(dst, m.Signatures[i].Signature[:]...)
	}
	return dst, nil
}

func (m *Milestone) appendEssence(dst []byte) []byte {
	le := binary.LittleEndian
	dst = le.AppendUint32(dst, m.Index)
	dst = le.AppendUint32(dst, m.Timestamp)
	dst = append(dst, m.Version)
	dst = append(dst, m.Previous[:]...)
	dst = append(dst, byte(len(m.Parents)))
	for i := range m.Parents {
		dst = append(dst, m.Parents[i][:]...)
	}
	dst = append(dst, m.InclusionRoot[:]...)
	dst = append(dst, m.AppliedRoot[:]...)
	dst = le.AppendUint16(dst, uint16(len(m.Metadata)))
	dst = append(dst, m.Metadata...)
	p := m.Parameters
	if p == nil {
		return append(dst, 0)
	}
	dst = append(dst, 1, optionParameters)
	dst = le.AppendUint32(dst, p.Target)
	dst = append(dst, p.Version)
	dst = le.AppendUint16(dst, uint16(len(p.Params)))
	return append(dst, p.Params...)
}

// ParseMilestone reads exactly one payload, type included. It checks what
// [Milestone.Validate] checks. The milestone shares no memory with raw.
//
// The error wraps [ErrTruncated], [ErrSyntax] or, for another protocol version
// and for receipts, [ErrUnsupported].
func ParseMilestone(raw []byte) (*Milestone, error) {
	r := reader{b: raw}
	typ, err := r.uint32("type")
	if err != nil {
		return nil, err
	}
	if typ != PayloadMilestone {
		return nil, fmt.Errorf("type: %d, want %d (milestone): %w", typ, PayloadMilestone, ErrSyntax)
	}
	m := &Milestone{}
	if err := m.parseHead(&r); err != nil {
		return nil, err
	}
	if err := m.parseOptions(&r); err != nil {
		return nil, err
	}
	if err := m.parseSignatures(&r); err != nil {
		return nil, err
	}
	if len(r.b) != 0 {
		return nil, fmt.Errorf("milestone: %d bytes after the signatures: %w", len(r.b), ErrSyntax)
	}
	return m, nil
}

// parseHead reads the essence up to the metadata.
func (m *Milestone) parseHead(r *reader) (err error) {
	if m.Index, err = r.uint32("index"); err != nil {
		return err
	}
	if m.Timestamp, err = r.uint32("timestamp"); err != nil {
		return err
	}
	if m.Version, err = r.byte("protocolVersion"); err != nil {
		return err
	}
	if err := checkVersion(m.Version); err != nil {
		return err
	}
	if err := r.fill("previousMilestoneId", m.Previous[:]); err != nil {
		return err
	}
	if m.Parents, err = r.parents(); err != nil {
		return err
	}
	if err := r.fill("inclusionMerkleRoot", m.InclusionRoot[:]); err != nil {
		return err
	}
	if err := r.fill("appliedMerkleRoot", m.AppliedRoot[:]); err != nil {
		return err
	}
	m.Metadata, err = r.field("metadata", MaxMilestoneMetadata)
	return err
}

func (m *Milestone) parseOptions(r *reader) error {
	n, err := r.byte("options count")
	if err != nil || n == 0 {
		return err
	}
	typ, err := r.byte("options.type")
	if err != nil {
		return err
	}
	if err := checkOptions(int(n), uint32(typ)); err != nil {
		return err
	}
	p := &Parameters{}
	if p.Target, err = r.uint32("options.targetMilestoneIndex"); err != nil {
		return err
	}
	if p.Version, err = r.byte("options.protocolVersion"); err != nil {
		return err
	}
	m.Parameters = p
	p.Params, err = r.field("options.params", maxParameters)
	return err
}

// checkOptions returns nil if the first of n options is the only one that this
// program handles. There may be no two of a type, and receipts come first.
func checkOptions(n int, first uint32) error {
	switch {
	case first == optionReceipt:
		return fmt.Errorf("options: type 0 (receipt) not supported: %w", ErrUnsupported)
	case first != optionParameters:
		return fmt.Errorf("options.type: %d is unknown: %w", first, ErrUnsupported)
	case n != 1:
		return fmt.Errorf("options: %d of them, want at most 1: %w", n, ErrSyntax)
	}
	return nil
}

func (m *Milestone) parseSignatures(r *reader) error {
	n, err := r.byte("signatures count")
	if err != nil {
		return err
	}
	all, err := r.bytes("signatures", uint32(n)*signatureSize)
	if err != nil {
		return err
	}
	m.Signatures = make([]MilestoneSignature, n)
	for i := range m.Signatures {
		one := all[i*signatureSize:]
		if one[0] != signatureEd25519 {
			return fmt.Errorf("signatures[%d].type: %d is unknown: %w", i, one[0], ErrUnsupported)
		}
		copy(m.Signatures[i].PublicKey[:], one[1:])
		copy(m.Signatures[i].Signature[:], one[1+ed25519.PublicKeySize:])
	}
	return checkSigners(m.Signatures)
}

// fill reads the next len(dst) bytes.
func (r *reader) fill(name string, dst []byte) error {
	f, err := r.bytes(name, uint32(len(dst)))
	copy(dst, f)
	return err
}

// field reads a uint16 and as many bytes, of which it returns a copy.
func (r *reader) field(name string, limit int) ([]byte, error) {
	size, err := r.bytes(name+" length", 2)
	if err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint16(size)
	if int(n) > limit {
		return nil, fmt.Errorf("%s: %d bytes, at most %d allowed: %w", name, n, limit, ErrSyntax)
	}
	f, err := r.bytes(name, uint32(n))
	return copied(f), err
}
