package stardust

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// A Block is a vertex of the DAG (TIP-24). It carries no time, no issuer and
// no signature.
type Block struct {
	Version byte      // ProtocolVersion
	Parents []BlockID // 1 to MaxParents, ascending, each once
	Payload Payload   // nil: none
	Nonce   uint64
}

// A Payload is the content of a block: *[TaggedData].
type Payload interface {
	// Type returns the number that stands before the payload's bytes.
	Type() uint32
	// Size returns the number of bytes in a block, type included, length
	// prefix not.
	Size() int
	// Validate returns nil or the rule that the payload breaks. The error
	// wraps ErrSyntax.
	Validate() error

	appendBinary(dst []byte) []byte
}

// Size returns the number of bytes of the whole block, nonce included, also
// for a block whose parents are not filled in yet.
func (b *Block) Size() int {
	n := 1 + 1 + idSize*len(b.Parents) + 4 + nonceSize
	if b.Payload != nil {
		n += b.Payload.Size()
	}
	return n
}

// Validate returns nil or the first rule of TIP-24 that the block breaks:
// version, number and order of parents, payload, size. The proof of work is
// not looked at. The error wraps [ErrSyntax], [ErrTooLarge] or
// [ErrUnsupported].
func (b *Block) Validate() error {
	if err := checkVersion(b.Version); err != nil {
		return err
	}
	if err := checkParentsCount(len(b.Parents)); err != nil {
		return err
	}
	return b.validateBody()
}

// validateBody is Validate without version and number of parents.
func (b *Block) validateBody() error {
	if err := checkParentsOrder(b.Parents); err != nil {
		return err
	}
	if b.Payload != nil {
		if err := b.Payload.Validate(); err != nil {
			return err
		}
	}
	if n := b.Size(); n > MaxBlockSize {
		return fmt.Errorf("block of %d bytes, at most %d allowed: %w", n, MaxBlockSize, ErrTooLarge)
	}
	return nil
}

// AppendBinary appends the block's bytes to dst. It refuses a block that
// [Block.Validate] refuses and returns dst unchanged then.
func (b *Block) AppendBinary(dst []byte) ([]byte, error) {
	if err := b.Validate(); err != nil {
		return dst, err
	}
	dst = slices.Grow(dst, b.Size())
	dst = append(dst, b.Version, byte(len(b.Parents)))
	for i := range b.Parents {
		dst = append(dst, b.Parents[i][:]...)
	}
	if b.Payload == nil {
		dst = binary.LittleEndian.AppendUint32(dst, 0)
	} else {
		dst = binary.LittleEndian.AppendUint32(dst, uint32(b.Payload.Size()))
		dst = b.Payload.appendBinary(dst)
	}
	return binary.LittleEndian.AppendUint64(dst, b.Nonce), nil
}

// ID returns the block's id. The error is that of [Block.AppendBinary].
func (b *Block) ID() (BlockID, error) {
	raw, err := b.AppendBinary(nil)
	if err != nil {
		return BlockID{}, err
	}
	return IDOf(raw), nil
}

// ParseBlock reads exactly one block. It checks size, version, structure,
// order of parents and payload, but not the proof of work: for that take
// [PoWDigest] and [MeetsScore]. The block shares no memory with raw.
//
// The error wraps [ErrTruncated], [ErrSyntax], [ErrTooLarge] or, for another
// protocol version and for payloads that this program does not handle,
// [ErrUnsupported].
func ParseBlock(raw []byte) (*Block, error) {
	if len(raw) > MaxBlockSize {
		return nil, fmt.Errorf("block of %d bytes, at most %d allowed: %w", len(raw), MaxBlockSize, ErrTooLarge)
	}
	r := reader{b: raw}
	b := &Block{}
	var err error
	if b.Version, err = r.byte("protocolVersion"); err != nil {
		return nil, err
	}
	if err := checkVersion(b.Version); err != nil {
		return nil, err
	}
	if b.Parents, err = r.parents(); err != nil {
		return nil, err
	}
	size, err := r.uint32("payload length")
	if err != nil {
		return nil, err
	}
	payload, err := r.bytes("payload", size)
	if err != nil {
		return nil, err
	}
	if b.Nonce, err = r.uint64("nonce"); err != nil {
		return nil, err
	}
	if len(r.b) != 0 {
		return nil, fmt.Errorf("block: %d bytes after the nonce: %w", len(r.b), ErrSyntax)
	}
	if size != 0 {
		if b.Payload, err = parsePayload(payload); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func checkVersion(v byte) error {
	if v != ProtocolVersion {
		return fmt.Errorf("protocolVersion: %d, want %d: %w", v, ProtocolVersion, ErrUnsupported)
	}
	return nil
}

func checkParentsCount(n int) error {
	if n < 1 || n > MaxParents {
		return fmt.Errorf("parents: %d of them, want 1 to %d: %w", n, MaxParents, ErrSyntax)
	}
	return nil
}

func checkParentsOrder(parents []BlockID) error {
	for i := 1; i < len(parents); i++ {
		switch c := parents[i-1].Compare(parents[i]); {
		case c == 0:
			return fmt.Errorf("parents[%d]: same as parents[%d]: %w", i, i-1, ErrSyntax)
		case c > 0:
			return fmt.Errorf("parents[%d]: below parents[%d], want ascending order: %w", i, i-1, ErrSyntax)
		}
	}
	return nil
}

// A reader takes fields off the front of b. The names are for error texts.
type reader struct{ b []byte }

// bytes returns the next n bytes. n comes from outside: nothing is allocated.
func (r *reader) bytes(name string, n uint32) ([]byte, error) {
	if uint64(n) > uint64(len(r.b)) {
		return nil, fmt.Errorf("%s: %d bytes wanted, %d left: %w", name, n, len(r.b), ErrTruncated)
	}
	field := r.b[:n:n]
	r.b = r.b[n:]
	return field, nil
}

func (r *reader) byte(name string) (byte, error) {
	f, err := r.bytes(name, 1)
	if err != nil {
		return 0, err
	}
	return f[0], nil
}

func (r *reader) uint32(name string) (uint32, error) {
	f, err := r.bytes(name, 4)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint32(f), nil
}

func (r *reader) uint64(name string) (uint64, error) {
	f, err := r.bytes(name, 8)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(f), nil
}

func (r *reader) parents() ([]BlockID, error) {
	n, err := r.byte("parents count")
	if err != nil {
		return nil, err
	}
	if err := checkParentsCount(int(n)); err != nil {
		return nil, err
	}
	f, err := r.bytes("parents", uint32(n)*idSize)
	if err != nil {
		return nil, err
	}
	parents := make([]BlockID, n)
	for i := range parents {
		copy(parents[i][:], f[i*idSize:])
	}
	return parents, checkParentsOrder(parents)
}
