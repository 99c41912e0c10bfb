package stardust

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
)

// The JSON of a milestone (TIP-25, "MilestonePayload").
type (
	jsonMilestone struct {
		Type          uint32          `json:"type"`
		Index         uint32          `json:"index"`
		Timestamp     uint32          `json:"timestamp"`
		Version       uint32          `json:"protocolVersion"`
		Previous      json.RawMessage `json:"previousMilestoneId"`
		Parents       json.RawMessage `json:"parents"`
		InclusionRoot json.RawMessage `json:"inclusionMerkleRoot"`
		AppliedRoot   json.RawMessage `json:"appliedMerkleRoot"`
		Metadata      json.RawMessage `json:"metadata,omitempty"`
		Options       []jsonOption    `json:"options,omitempty"`
		Signatures    []jsonSignature `json:"signatures"`
	}
	jsonOption struct {
		Type    uint32          `json:"type"`
		Target  uint32          `json:"targetMilestoneIndex"`
		Version uint8           `json:"protocolVersion"`
		Params  json.RawMessage `json:"params,omitempty"`
	}
	jsonSignature struct {
		Type      uint32          `json:"type"`
		PublicKey json.RawMessage `json:"publicKey"`
		Signature json.RawMessage `json:"signature"`
	}
)

// MarshalJSON returns the form of TIP-25.
func (m Milestone) MarshalJSON() ([]byte, error) {
	parents, err := json.Marshal(append([]BlockID{}, m.Parents...))
	if err != nil {
		return nil, err
	}
	out := jsonMilestone{
		Type: PayloadMilestone, Index: m.Index, Timestamp: m.Timestamp, Version: uint32(m.Version),
		Previous: quotedHex(m.Previous[:]), Parents: parents,
		InclusionRoot: quotedHex(m.InclusionRoot[:]), AppliedRoot: quotedHex(m.AppliedRoot[:]),
		Signatures: make([]jsonSignature, len(m.Signatures)),
	}
	if len(m.Metadata) > 0 {
		out.Metadata = quotedHex(m.Metadata)
	}
	if p := m.Parameters; p != nil {
		out.Options = []jsonOption{{optionParameters, p.Target, p.Version, quotedHex(p.Params)}}
	}
	for i := range m.Signatures {
		s := &m.Signatures[i]
		out.Signatures[i] = jsonSignature{signatureEd25519, quotedHex(s.PublicKey[:]), quotedHex(s.Signature[:])}
	}
	return json.Marshal(out)
}

// UnmarshalJSON reads the form of TIP-25 and checks what [Milestone.Validate]
// checks. Unknown fields are ignored.
//
// The error names the field and wraps [ErrSyntax] or [ErrUnsupported]. m is left
// alone then.
func (m *Milestone) UnmarshalJSON(text []byte) error {
	var in jsonMilestone
	if err := json.Unmarshal(text, &in); err != nil {
		return jsonError("milestone", err)
	}
	if in.Type != PayloadMilestone {
		return fmt.Errorf("type: %d, want %d (milestone): %w", in.Type, PayloadMilestone, ErrSyntax)
	}
	if in.Version != ProtocolVersion {
		return fmt.Errorf("protocolVersion: %d, want %d: %w", in.Version, ProtocolVersion, ErrUnsupported)
	}
	out := Milestone{Index: in.Index, Timestamp: in.Timestamp, Version: ProtocolVersion}
	for _, f := range []struct {
		name string
		raw  json.RawMessage
		dst  []byte
	}{
		{"previousMilestoneId", in.Previous, out.Previous[:]},
		{"inclusionMerkleRoot", in.InclusionRoot, out.InclusionRoot[:]},
		{"appliedMerkleRoot", in.AppliedRoot, out.AppliedRoot[:]},
	} {
		if err := jsonFixed(f.name, f.raw, f.dst); err != nil {
			return err
		}
	}
	var parents []json.RawMessage
	if !absent(in.Parents) {
		if err := json.Unmarshal(in.Parents, &parents); err != nil {
			return jsonError("parents", err)
		}
	}
	var err error
	if out.Parents, err = jsonParents(parents); err != nil {
		return err
	}
	if out.Metadata, err = jsonHex("metadata", in.Metadata, MaxMilestoneMetadata); err != nil {
		return err
	}
	if out.Parameters, err = jsonParameters(in.Options); err != nil {
		return err
	}
	if out.Signatures, err = jsonSignatures(in.Signatures); err != nil {
		return err
	}
	if err := out.Validate(); err != nil {
		return err
	}
	*m = out
	return nil
}

func jsonParameters(in []jsonOption) (*Parameters, error) {
	if len(in) == 0 {
		return nil, nil
	}
	if err := checkOptions(len(in), in[0].Type); err != nil {
		return nil, err
	}
	params, err := jsonHex("options.params", in[0].Params, maxParameters)
	return &Parameters{Target: in[0].Target, Version: in[0].Version, Params: params}, err
}

func jsonSignatures(in []jsonSignature) ([]MilestoneSignature, error) {
	if len(in) > MaxMilestoneSignatures {
		return nil, fmt.Errorf("signatures: %d of them, at most %d allowed: %w", len(in), MaxMilestoneSignatures, ErrSyntax)
	}
	out := make([]MilestoneSignature, len(in))
	for i, s := range in {
		name := "signatures[" + strconv.Itoa(i) + "]"
		if s.Type != signatureEd25519 {
			return nil, fmt.Errorf("%s.type: %d is unknown: %w", name, s.Type, ErrUnsupported)
		}
		if err := jsonFixed(name+".publicKey", s.PublicKey, out[i].PublicKey[:]); err != nil {
			return nil, err
		}
		if err := jsonFixed(name+".signature", s.Signature, out[i].Signature[:]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// jsonFixed reads "0x" and exactly as many hex digits as fill dst.
func jsonFixed(name string, raw json.RawMessage, dst []byte) error {
	b, err := jsonHex(name, raw, len(dst))
	if err != nil {
		return err
	}
	if len(b) != len(dst) {
		return fmt.Errorf("%s: %d bytes, want %d: %w", name, len(b), len(dst), ErrSyntax)
	}
	copy(dst, b)
	return nil
}

// quotedHex is hexText as a JSON string, "0x" for no bytes.
func quotedHex(b []byte) json.RawMessage {
	return []byte(`"0x` + hex.EncodeToString(b) + `"`)
}
