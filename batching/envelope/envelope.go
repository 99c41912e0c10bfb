// Package envelope makes and checks the bytes of a batch: the SenML records
// of its readings, their salted Merkle tree, compression and the gateway's
// COSE signature.
//
// It holds the format only: it neither decides which readings make a batch
// nor knows the block around it. Its functions depend on their arguments
// alone.
package envelope

import (
	"crypto/ed25519"
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"

	"github.com/hedgerow-iot/hedgerow/batching/reading"
)

// Limits of a batch.
const (
	MaxBody     = 1 << 20  // bytes of the body before compression
	MaxData     = 32 << 10 // bytes of the envelope: no block is larger
	MaxReadings = 10000    // readings in a batch

	maxGateway = 32 // bytes of a gateway's name
)

const (
	modeClear = 0 // key 5

	compressNone = 0 // key 7
	compressZstd = 1

	tagPrefix = "hedgerow/"
	aadPrefix = "hedgerow-batch-1"
)

// What can be wrong with an envelope. Anything but a valid batch under a
// gateway's tag is an ordinary block.
var (
	ErrSyntax    = errors.New("not a batch envelope")                  // no COSE_Sign1 of the known headers, or no such map inside
	ErrCanonical = errors.New("not the one encoding of its content")   // duplicate keys, longer forms, trailing bytes
	ErrKey       = errors.New("signed with another key")               // than the one expected
	ErrGateway   = errors.New("batch of another gateway")              // than the one expected
	ErrSignature = errors.New("signature does not verify")             //
	ErrMode      = errors.New("batch mode not supported")              // other than clear
	ErrRuns      = errors.New("sequence numbers are inconsistent")     // empty or overflowing runs, or a wrong count
	ErrBody      = errors.New("batch body damaged")                    // no frame, too large, not worth compressing
	ErrRecord    = errors.New("not a record of this batch")            // malformed, or of another gateway
	ErrUnlisted  = errors.New("record number not listed in its batch") // hs differs from the runs
	ErrRoot      = errors.New("body does not give the Merkle root")    //
	ErrTooLarge  = errors.New("batch too large")                       // more readings or bytes than a batch may hold
)

// Tag returns the tag that a gateway's batches carry in their tagged data
// payload.
func Tag(gateway string) []byte { return []byte(tagPrefix + gateway) }

// A Batch is what an envelope holds.
type Batch struct {
	Gateway     string
	Key         ed25519.PublicKey // that signed it
	Incarnation [8]byte           // of the journal that numbered the readings
	Runs        [][2]uint64       // first and last sequence number of each run, ascending
	Count       int               // readings in the batch
	Root        [32]byte
	Secret      [16]byte          // that the salts of the leaves are made from
	Records     [][]byte          // the leaf records, verbatim
	Readings    []reading.Reading // of the records; Source is not in a record
}

// payload is the signed CBOR map of an envelope (contract, "Bytes on the
// Tangle").
type payload struct {
	Gateway     string   `cbor:"1,keyasint"`
	Runs        []uint64 `cbor:"2,keyasint"`
	Count       uint64   `cbor:"3,keyasint"`
	Root        []byte   `cbor:"4,keyasint"`
	Mode        uint64   `cbor:"5,keyasint"`
	Body        []byte   `cbor:"6,keyasint"`
	Compression uint64   `cbor:"7,keyasint"`
	Incarnation []byte   `cbor:"8,keyasint"`
}

// Both modes are fixed after the program started.
var (
	encoding = must(cbor.CoreDetEncOptions().EncMode())
	decoding = must(cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		UTF8:              cbor.UTF8RejectInvalid,
		NaN:               cbor.NaNDecodeForbidden,
		Inf:               cbor.InfDecodeForbidden,
		MaxNestedLevels:   4,
		MaxArrayElements:  MaxData,
		MaxMapPairs:       16,
	}.DecMode())
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// aad is the external_aad of the signature: it binds a batch to its network.
func aad(genesis [32]byte) []byte { return append([]byte(aadPrefix), genesis[:]...) }

// CheckGateway returns an error unless name can be a gateway's: 1 to 32
// letters, digits, dots, underscores and hyphens.
func CheckGateway(name string) error {
	if len(name) < 1 || len(name) > maxGateway {
		return fmt.Errorf("gateway name has %d bytes, want 1 to %d", len(name), maxGateway)
	}
	for i := range len(name) {
		if c := name[i]; c == '/' || c == ':' || !inAlphabet(c) {
			return fmt.Errorf("gateway name %q: %q is not a letter, digit, dot, underscore or hyphen", name, c)
		}
	}
	return nil
}
