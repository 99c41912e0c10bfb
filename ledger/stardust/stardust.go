// Package stardust encodes and decodes the bytes and the JSON that the
// Stardust TIPs define: block ids, blocks (TIP-24) with tagged data (TIP-23)
// and milestones (TIP-29) in both forms, the sizes and zeros of proof of work
// (TIP-12), network ids (TIP-20), and the Merkle tree of TIP-4 with its proofs
// in the JSON of INX-POI.
//
// It holds formats only: no socket, no disk, no state, no clock. It does not
// compute the Curl hash (powfarm/curl does) and does not know whether a
// parent exists. Every package may import it; it imports none of ours.
// Everything in it may be called concurrently.
package stardust

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/blake2b"
)

// Limits and numbers of the protocol.
const (
	ProtocolVersion = 2
	MaxBlockSize    = 32768 // bytes of a whole block
	MaxParents      = 8
	MaxTag          = 64 // bytes of a tagged data's tag

	idSize    = 32
	nonceSize = 8
)

// Payload types (TIP-24). Blocks carry tagged data only in this version.
const (
	PayloadTaggedData  uint32 = 5
	PayloadTransaction uint32 = 6
	PayloadMilestone   uint32 = 7
)

// What is wrong with a block or an id. Every error of a decoder wraps one of
// them; its text names the field.
var (
	// ErrTruncated: the bytes end before the structure does.
	ErrTruncated = errors.New("truncated")
	// ErrSyntax: the bytes or the JSON break a rule of the format.
	ErrSyntax = errors.New("malformed")
	// ErrTooLarge: the block would exceed MaxBlockSize.
	ErrTooLarge = errors.New("too large")
	// ErrUnsupported: a version or payload that this program does not handle.
	ErrUnsupported = errors.New("unsupported")
)

// A BlockID is the BLAKE2b-256 hash of a block's bytes (TIP-24).
type BlockID [idSize]byte

// GenesisID names the block that every DAG starts from. It has no body.
var GenesisID BlockID

// IDOf returns the id of the block with these bytes.
func IDOf(raw []byte) BlockID { return blake2b.Sum256(raw) }

// ParseBlockID reads "0x" and 64 hex digits of either case. The error wraps
// [ErrSyntax].
func ParseBlockID(s string) (BlockID, error) {
	var id BlockID
	err := id.UnmarshalText([]byte(s))
	return id, err
}

// String returns "0x" and 64 lower-case hex digits.
func (id BlockID) String() string { return "0x" + hex.EncodeToString(id[:]) }

// Compare orders ids bytewise, as parents are ordered.
func (id BlockID) Compare(other BlockID) int { return bytes.Compare(id[:], other[:]) }

// MarshalText returns what String returns.
func (id BlockID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what [ParseBlockID] reads and leaves id alone on error.
func (id *BlockID) UnmarshalText(text []byte) error {
	return readHash("block id", (*[idSize]byte)(id), text)
}

// readHash reads "0x" and 64 hex digits into dst, or leaves it alone and says
// what is wrong with the hash of this name.
func readHash(name string, dst *[idSize]byte, text []byte) error {
	if len(text) != 2+2*idSize || text[0] != '0' || text[1] != 'x' {
		return fmt.Errorf("%s of %d characters, want 0x and %d hex digits: %w", name, len(text), 2*idSize, ErrSyntax)
	}
	var b [idSize]byte
	if _, err := hex.Decode(b[:], text[2:]); err != nil {
		return fmt.Errorf("%s: %v: %w", name, err, ErrSyntax)
	}
	*dst = b
	return nil
}

// SortParents returns the ids in the order that a block's parents must have:
// ascending and each once. It leaves ids alone.
func SortParents(ids []BlockID) []BlockID {
	out := slices.Clone(ids)
	slices.SortFunc(out, BlockID.Compare)
	return slices.Compact(out)
}

// NetworkID returns the number of a network in transactions (TIP-20).
func NetworkID(name string) uint64 {
	h := blake2b.Sum256([]byte(name))
	return binary.LittleEndian.Uint64(h[:8])
}
