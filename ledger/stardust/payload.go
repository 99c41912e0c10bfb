package stardust

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// TaggedData is a payload of plain bytes under a tag (TIP-23). Both may be
// empty. The pointer is the [Payload].
type TaggedData struct {
	Tag  []byte // at most MaxTag bytes
	Data []byte
}

// Type returns [PayloadTaggedData].
func (p *TaggedData) Type() uint32 { return PayloadTaggedData }

// Size returns the number of bytes in a block: 9 and those of tag and data.
func (p *TaggedData) Size() int { return 4 + 1 + len(p.Tag) + 4 + len(p.Data) }

// Validate returns an error that wraps [ErrSyntax] if tag or data is longer
// than a block may carry.
func (p *TaggedData) Validate() error {
	if len(p.Tag) > MaxTag {
		return fmt.Errorf("payload.tag: %d bytes, at most %d allowed: %w", len(p.Tag), MaxTag, ErrSyntax)
	}
	if len(p.Data) > MaxBlockSize {
		return fmt.Errorf("payload.data: %d bytes, at most %d allowed: %w", len(p.Data), MaxBlockSize, ErrSyntax)
	}
	return nil
}

func (p *TaggedData) appendBinary(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, PayloadTaggedData)
	dst = append(dst, byte(len(p.Tag)))
	dst = append(dst, p.Tag...)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(p.Data)))
	return append(dst, p.Data...)
}

// parsePayload reads a payload that takes up all of b.
func parsePayload(b []byte) (Payload, error) {
	r := reader{b: b}
	typ, err := r.uint32("payload.type")
	if err != nil {
		return nil, err
	}
	if err := checkPayloadType(uint64(typ)); err != nil {
		return nil, err
	}
	n, err := r.byte("payload.tag length")
	if err != nil {
		return nil, err
	}
	if n > MaxTag {
		return nil, fmt.Errorf("payload.tag: %d bytes, at most %d allowed: %w", n, MaxTag, ErrSyntax)
	}
	tag, err := r.bytes("payload.tag", uint32(n))
	if err != nil {
		return nil, err
	}
	size, err := r.uint32("payload.data length")
	if err != nil {
		return nil, err
	}
	data, err := r.bytes("payload.data", size)
	if err != nil {
		return nil, err
	}
	if len(r.b) != 0 {
		return nil, fmt.Errorf("payload: %d bytes after the data: %w", len(r.b), ErrSyntax)
	}
	return &TaggedData{Tag: copied(tag), Data: copied(data)}, nil
}

func checkPayloadType(typ uint64) error {
	switch typ {
	case uint64(PayloadTaggedData):
		return nil
	case uint64(PayloadTransaction):
		return fmt.Errorf("payload type 6 (transaction) not supported: %w", ErrUnsupported)
	case uint64(PayloadMilestone):
		return fmt.Errorf("payload type 7 (milestone) not supported: %w", ErrUnsupported)
	}
	return fmt.Errorf("payload.type: %d is unknown: %w", typ, ErrUnsupported)
}

// copied returns a copy of b, nil for no bytes.
func copied(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return bytes.Clone(b)
}
