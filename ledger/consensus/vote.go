package consensus

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/crypto/blake2b"

	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// Tags of tagged data that mean something to consensus (consensus.md §2).
const (
	TagVote   = "hedgerow.vote.1"
	TagUpdate = "hedgerow.net.1"
)

// MaxMerges is how many votes of one round may widen nothing (§2).
const MaxMerges = 8

const (
	voteDomain  = "hedgerow-vote-1"
	flagHasSelf = 1
	unsignedLen = 4 + 1 + 1 + 1 + 4 + 8 + 1 + 8
	voteLen     = unsignedLen + ed25519.SignatureSize
)

// Why a block is not taken. Errors of [State.Decode] and [State.Add] wrap one
// of them.
var (
	// ErrInvalid: the block breaks a rule of §2. It and everything above it
	// never become solid.
	ErrInvalid = errors.New("invalid vote")
	// ErrFutureEpoch: the vote is of an epoch that this replica has not
	// reached. Keep it and try again when the epoch changes.
	ErrFutureEpoch = errors.New("vote of a future epoch")
	// ErrNotSolid: a parent is neither added nor ordered.
	ErrNotSolid = errors.New("parent missing")
)

// A Claim is what a vote says of its place in the DAG. It is all that the
// votes above it need of it, so it is kept when the block's body is pruned
// (§8).
type Claim struct {
	Epoch   uint32
	Gateway uint8  // index in the network file of the epoch
	Round   uint32 // from 1
	Seen    uint64 // gateways with a vote of this round in the cone, itself included
	Merges  uint8  // votes of this round that widened nothing
}

// A Vote is the content of a vote block.
type Vote struct {
	Claim
	HasSelf   bool
	SelfIndex uint8  // which parent is the gateway's own vote before; 0 without
	TimeMs    uint64 // the gateway's clock in Unix milliseconds; 0: not known to be good
	Signature [ed25519.SignatureSize]byte
}

// IsVote reports whether a payload is a vote, well-formed or not.
func IsVote(p stardust.Payload) bool {
	t, ok := p.(*stardust.TaggedData)
	return ok && string(t.Tag) == TagVote
}

// ParseVote reads the data of a vote block. It checks the layout alone. The
// error wraps [ErrInvalid].
func ParseVote(data []byte) (v Vote, err error) {
	if len(data) != voteLen {
		return v, fmt.Errorf("%w: %d bytes of data, want %d", ErrInvalid, len(data), voteLen)
	}
	le := binary.LittleEndian
	v.Epoch, v.Gateway = le.Uint32(data), data[4]
	flags := data[5]
	v.HasSelf, v.SelfIndex = flags&flagHasSelf != 0, data[6]
	v.Round, v.Seen, v.Merges = le.Uint32(data[7:]), le.Uint64(data[11:]), data[19]
	v.TimeMs = le.Uint64(data[20:])
	copy(v.Signature[:], data[unsignedLen:])
	switch {
	case flags&^flagHasSelf != 0:
		return v, fmt.Errorf("%w: unknown flags %#x", ErrInvalid, flags)
	case !v.HasSelf && v.SelfIndex != 0:
		return v, fmt.Errorf("%w: self index %d without a self parent", ErrInvalid, v.SelfIndex)
	case v.SelfIndex >= stardust.MaxParents:
		return v, fmt.Errorf("%w: self index %d", ErrInvalid, v.SelfIndex)
	case v.Merges > MaxMerges:
		return v, fmt.Errorf("%w: %d merges, at most %d allowed", ErrInvalid, v.Merges, MaxMerges)
	}
	return v, nil
}

// OrderedBlock returns what is kept of a block that the milestone with this index
// orders. The error wraps [ErrInvalid].
func OrderedBlock(b *stardust.Block, milestone uint32) (Ordered, error) {
	o := Ordered{Milestone: milestone}
	if !IsVote(b.Payload) {
		return o, nil
	}
	v, err := ParseVote(b.Payload.(*stardust.TaggedData).Data)
	o.Vote, o.Claim = err == nil, v.Claim
	return o, err
}

// AppendBinary appends the data of the vote block to dst.
func (v *Vote) AppendBinary(dst []byte) []byte {
	return append(v.appendUnsigned(dst), v.Signature[:]...)
}

func (v *Vote) appendUnsigned(dst []byte) []byte {
	le := binary.LittleEndian
	var flags byte
	if v.HasSelf {
		flags = flagHasSelf
	}
	dst = le.AppendUint32(dst, v.Epoch)
	dst = append(dst, v.Gateway, flags, v.SelfIndex)
	dst = le.AppendUint32(dst, v.Round)
	dst = le.AppendUint64(dst, v.Seen)
	dst = append(dst, v.Merges)
	return le.AppendUint64(dst, v.TimeMs)
}

// digest is what the gateway signs. It covers the parents: a signature over
// the content alone could be put under other parents by anybody and would
// forge approvals (§2).
func (v *Vote) digest(genesisHash [32]byte, parents []stardust.BlockID) [32]byte {
	buf := make([]byte, 0, len(voteDomain)+32+32*len(parents)+unsignedLen)
	buf = append(buf, voteDomain...)
	buf = append(buf, genesisHash[:]...)
	for _, p := range parents {
		buf = append(buf, p[:]...)
	}
	return blake2b.Sum256(v.appendUnsigned(buf))
}

// verify reports whether key signed the vote under these parents.
func (v *Vote) verify(key []byte, genesisHash [32]byte, parents []stardust.BlockID) bool {
	d := v.digest(genesisHash, parents)
	return stardust.VerifyEd25519(key, d[:], v.Signature[:])
}

// Block signs the vote and returns its block: no proof of work, nonce 0. The
// parents must be ascending.
func (v *Vote) Block(key ed25519.PrivateKey, genesisHash [32]byte, parents []stardust.BlockID) *stardust.Block {
	d := v.digest(genesisHash, parents)
	copy(v.Signature[:], ed25519.Sign(key, d[:]))
	return &stardust.Block{
		Version: stardust.ProtocolVersion,
		Parents: parents,
		Payload: &stardust.TaggedData{Tag: []byte(TagVote), Data: v.AppendBinary(nil)},
	}
}
