package stardust

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

type jsonBlock struct {
	Version *uint64           `json:"protocolVersion"`
	Parents []json.RawMessage `json:"parents"`
	Payload json.RawMessage   `json:"payload"`
	Nonce   json.RawMessage   `json:"nonce"`
}

type jsonTaggedData struct {
	Type uint32 `json:"type"`
	Tag  string `json:"tag,omitempty"`
	Data string `json:"data,omitempty"`
}

// MarshalJSON returns the form of TIP-25. Empty tags and data are left out,
// as the reference does.
func (b Block) MarshalJSON() ([]byte, error) {
	out := struct {
		Version byte      `json:"protocolVersion"`
		Parents []BlockID `json:"parents"`
		Payload any       `json:"payload,omitempty"`
		Nonce   string    `json:"nonce"`
	}{b.Version, b.Parents, nil, strconv.FormatUint(b.Nonce, 10)}
	if out.Parents == nil {
		out.Parents = []BlockID{}
	}
	switch p := b.Payload.(type) {
	case nil:
	case *TaggedData:
		out.Payload = jsonTaggedData{p.Type(), hexText(p.Tag), hexText(p.Data)}
	default:
		return nil, fmt.Errorf("payload type %d has no JSON form: %w", p.Type(), ErrUnsupported)
	}
	return json.Marshal(out)
}

// UnmarshalJSON reads the form of TIP-25. As clients send blocks for which
// the node is to choose parents or find the nonce, parents and nonce may be
// missing or empty (no parents, nonce 0), as may the payload; the version may
// not. Unknown fields are ignored. Whether the block can be encoded is for
// [Block.Validate] to say.
//
// The error names the field and wraps [ErrSyntax], [ErrTooLarge] or
// [ErrUnsupported]. b is left alone then.
func (b *Block) UnmarshalJSON(text []byte) error {
	var in jsonBlock
	if err := json.Unmarshal(text, &in); err != nil {
		return jsonError("block", err)
	}
	if in.Version == nil {
		return fmt.Errorf("protocolVersion: missing: %w", ErrSyntax)
	}
	if *in.Version != ProtocolVersion {
		return fmt.Errorf("protocolVersion: %d, want %d: %w", *in.Version, ProtocolVersion, ErrUnsupported)
	}
	out := Block{Version: ProtocolVersion}
	var err error
	if out.Parents, err = jsonParents(in.Parents); err != nil {
		return err
	}
	if out.Payload, err = jsonPayload(in.Payload); err != nil {
		return err
	}
	if out.Nonce, err = jsonUint64("nonce", in.Nonce); err != nil {
		return err
	}
	if err := out.validateBody(); err != nil {
		return err
	}
	*b = out
	return nil
}

func jsonParents(in []json.RawMessage) ([]BlockID, error) {
	if len(in) > MaxParents {
		return nil, checkParentsCount(len(in))
	}
	var parents []BlockID
	for i, raw := range in {
		name := "parents[" + strconv.Itoa(i) + "]"
		s, err := jsonString(name, raw)
		if err != nil {
			return nil, err
		}
		id, err := ParseBlockID(s)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		parents = append(parents, id)
	}
	return parents, nil
}

func jsonPayload(raw json.RawMessage) (Payload, error) {
	if absent(raw) {
		return nil, nil
	}
	// The type first: other payloads have other fields of these names.
	var head struct {
		Type *uint32 `json:"type"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return nil, jsonError("payload", err)
	}
	if head.Type == nil {
		return nil, fmt.Errorf("payload.type: missing: %w", ErrSyntax)
	}
	if err := checkPayloadType(uint64(*head.Type)); err != nil {
		return nil, err
	}
	var in struct{ Tag, Data json.RawMessage }
	if err := json.Unmarshal(raw, &in); err != nil {
		return nil, jsonError("payload", err)
	}
	tag, err := jsonHex("payload.tag", in.Tag, MaxTag)
	if err != nil {
		return nil, err
	}
	data, err := jsonHex("payload.data", in.Data, MaxBlockSize)
	if err != nil {
		return nil, err
	}
	return &TaggedData{Tag: tag, Data: data}, nil
}

// jsonHex reads "0x" and an even number of hex digits of at most limit bytes;
// "" and nothing are no bytes.
func jsonHex(name string, raw json.RawMessage, limit int) ([]byte, error) {
	s, err := jsonString(name, raw)
	if err != nil || s == "" || s == "0x" {
		return nil, err
	}
	if len(s) < 2 || s[:2] != "0x" {
		return nil, fmt.Errorf("%s: want 0x and hex digits: %w", name, ErrSyntax)
	}
	if n := (len(s) - 2) / 2; n > limit {
		return nil, fmt.Errorf("%s: %d bytes, at most %d allowed: %w", name, n, limit, ErrSyntax)
	}
	b, err := hex.DecodeString(s[2:])
	if err != nil {
		return nil, fmt.Errorf("%s: %v: %w", name, err, ErrSyntax)
	}
	return b, nil
}

// jsonUint64 reads a decimal string; "" and nothing are 0.
func jsonUint64(name string, raw json.RawMessage) (uint64, error) {
	s, err := jsonString(name, raw)
	if err != nil || s == "" {
		return 0, err
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: want a decimal number below 2^64 in quotes: %w", name, ErrSyntax)
	}
	return n, nil
}

func jsonString(name string, raw json.RawMessage) (string, error) {
	if absent(raw) {
		return "", nil
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return "", fmt.Errorf("%s: want a string: %w", name, ErrSyntax)
	}
	return s, nil
}

func absent(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

// jsonError says what encoding/json found, in the words of the document
// instead of those of our types.
func jsonError(name string, err error) error {
	var typeErr *json.UnmarshalTypeError
	if errors.As(err, &typeErr) {
		if typeErr.Field != "" {
			if name == "block" {
				name = typeErr.Field
			} else {
				name += "." + typeErr.Field
			}
		}
		return fmt.Errorf("%s: unexpected %s: %w", name, typeErr.Value, ErrSyntax)
	}
	return fmt.Errorf("%s: %v: %w", name, err, ErrSyntax)
}

func hexText(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	return "0x" + hex.EncodeToString(b)
}
