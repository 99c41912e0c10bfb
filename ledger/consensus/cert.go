package consensus

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// certWindow is how many milestones ahead of its own a replica takes
// signatures for; what comes earlier is asked for again.
const certWindow = 64

const (
	certVersion = 1
	signLen     = 1 + 4 + 32 + ed25519.PublicKeySize + ed25519.SignatureSize
)

// ErrBadSignature is wrapped by every error about a milestone signature that is
// malformed, of no member, or wrong.
var ErrBadSignature = errors.New("bad milestone signature")

// A Signature is one gateway's word that it derived a milestone (§5). Sign each
// index once: the id is durable before the signature is published.
type Signature struct {
	Index     uint32
	Milestone [32]byte
	PublicKey network.PublicKey
	Signature [ed25519.SignatureSize]byte
}

// SignMilestone signs the id of a milestone, as TIP-29 does.
func SignMilestone(key ed25519.PrivateKey, index uint32, milestone [32]byte) Signature {
	s := Signature{Index: index, Milestone: milestone}
	copy(s.PublicKey[:], key.Public().(ed25519.PublicKey))
	copy(s.Signature[:], ed25519.Sign(key, milestone[:]))
	return s
}

// AppendBinary appends the published form: 1, index, milestone id, public key,
// signature.
func (s *Signature) AppendBinary(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(append(dst, certVersion), s.Index)
	dst = append(append(dst, s.Milestone[:]...), s.PublicKey[:]...)
	return append(dst, s.Signature[:]...)
}

// ParseSignature reads the published form. It does not verify it. The error
// wraps [ErrBadSignature].
func ParseSignature(b []byte) (s Signature, err error) {
	if len(b) != signLen || b[0] != certVersion {
		return s, fmt.Errorf("%w: %d bytes, want %d of version %d", ErrBadSignature, len(b), signLen, certVersion)
	}
	s.Index = binary.LittleEndian.Uint32(b[1:])
	copy(s.Milestone[:], b[5:])
	copy(s.PublicKey[:], b[37:])
	copy(s.Signature[:], b[69:])
	return s, nil
}

// Certificates collects the signatures of milestones. It is used by one
// goroutine at a time.
type Certificates struct {
	last  uint32 // the last index derived
	first uint32 // the lowest index kept
	open  map[uint32]*certificate
}

// A certificate gathers what was said of one index.
type certificate struct {
	epoch *epoch // nil until the milestone is derived
	id    [32]byte
	said  []Signature // at most two of one key: the id and one that differs
	done  bool
}

// NewCertificates returns an empty collection of a replica whose last milestone
// has this index.
func NewCertificates(last uint32) *Certificates {
	return &Certificates{last: last, first: last + 1, open: map[uint32]*certificate{}}
}

// A Status is what the signatures say of an index.
type Status struct {
	Index uint32
	// Certified: a quorum signed the milestone that this replica derived.
	// It is set once.
	Certified bool
	// Alarm: more than B of the weight signed another one. The replica must
	// stop issuing ([Issuer.Halt]); somebody has to act.
	Alarm bool
}

// Derived takes a milestone that this replica derived, in their order, with the
// network file of its epoch.
func (c *Certificates) Derived(m *Milestone, file *network.File) Status {
	c.last = m.Index
	k := c.at(m.Index)
	k.epoch, k.id = newEpoch(file), m.ID()
	k.said = slices.DeleteFunc(k.said, func(s Signature) bool {
		return !k.member(&s) || !s.holds()
	})
	return k.status(m.Index)
}

// Add takes a signature. One for an index that is too far ahead or forgotten is
// ignored, as is one that says nothing new. The error wraps [ErrBadSignature].
func (c *Certificates) Add(s Signature) (Status, error) {
	st := Status{Index: s.Index}
	if s.Index < c.first || s.Index > c.last+certWindow {
		return st, nil
	}
	k := c.at(s.Index)
	if k.epoch != nil && !k.member(&s) {
		return st, fmt.Errorf("%w: %v is no member at milestone %d", ErrBadSignature, s.PublicKey, s.Index)
	}
	words := 0
	for _, o := range k.said {
		if o.PublicKey != s.PublicKey {
			continue
		}
		if words++; o.Milestone == s.Milestone || words == 2 {
			return st, nil
		}
	}
	// Who is a member of a milestone to come is not known: the keys that may
	// be waiting are bounded by twice the gateways of a network.
	if k.epoch == nil && len(k.said) >= 4*network.MaxGateways {
		return st, nil
	}
	if !s.holds() {
		return st, fmt.Errorf("%w: that of %v for milestone %d does not fit", ErrBadSignature, s.PublicKey, s.Index)
	}
	k.said = append(k.said, s)
	if k.epoch == nil {
		return st, nil
	}
	return k.status(s.Index), nil
}

// Said returns the signatures known for the milestone of an index that this
// replica derived; nil if it has not, or has forgotten them.
func (c *Certificates) Said(index uint32) (out []Signature) {
	k := c.open[index]
	if k == nil || k.epoch == nil {
		return nil
	}
	for _, s := range k.said {
		if s.Milestone == k.id {
			out = append(out, s)
		}
	}
	return out
}

// Complete returns the signatures of a certified milestone, sorted by key as
// TIP-29 asks; nil if a quorum is not known.
func (c *Certificates) Complete(index uint32) []Signature {
	if k := c.open[index]; k == nil || !k.done {
		return nil
	}
	out := c.Said(index)
	slices.SortFunc(out, func(a, b Signature) int { return bytes.Compare(a.PublicKey[:], b.PublicKey[:]) })
	return out
}

// Forget drops what was collected for milestones before index.
func (c *Certificates) Forget(index uint32) {
	for i := range c.open {
		if i < index {
			delete(c.open, i)
		}
	}
	c.first = max(c.first, index)
}

func (c *Certificates) at(index uint32) *certificate {
	if c.open[index] == nil {
		c.open[index] = &certificate{}
	}
	return c.open[index]
}

func (k *certificate) member(s *Signature) bool {
	_, ok := k.epoch.file.Index(s.PublicKey[:])
	return ok
}

func (s *Signature) holds() bool {
	return stardust.VerifyEd25519(s.PublicKey[:], s.Milestone[:], s.Signature[:])
}

// status weighs what was said of a milestone that is derived.
func (k *certificate) status(index uint32) Status {
	var same, other uint64
	for _, s := range k.said {
		g, _ := k.epoch.file.Index(s.PublicKey[:])
		if s.Milestone == k.id {
			same |= bit(uint8(g))
		} else {
			other |= bit(uint8(g))
		}
	}
	st := Status{Index: index, Alarm: k.epoch.weight(other) > k.epoch.byzantine}
	if !k.done && k.epoch.isQuorum(same) {
		k.done, st.Certified = true, true
	}
	return st
}

// VerifyCertificate returns nil if the signatures, sorted by key and each of
// another, weigh a quorum of the file for the milestone id. The error wraps
// [ErrBadSignature].
func VerifyCertificate(file *network.File, milestone [32]byte, signatures []Signature) error {
	e := newEpoch(file)
	var set uint64
	for i, s := range signatures {
		g, ok := file.Index(s.PublicKey[:])
		switch {
		case i > 0 && bytes.Compare(signatures[i-1].PublicKey[:], s.PublicKey[:]) >= 0:
			return fmt.Errorf("%w: keys do not ascend", ErrBadSignature)
		case !ok:
			return fmt.Errorf("%w: %v is no member", ErrBadSignature, s.PublicKey)
		case s.Milestone != milestone || !s.holds():
			return fmt.Errorf("%w: that of %v does not fit", ErrBadSignature, s.PublicKey)
		}
		set |= bit(uint8(g))
	}
	if !e.isQuorum(set) {
		return fmt.Errorf("%w: weight %d of %d needed", ErrBadSignature, e.weight(set), e.quorum)
	}
	return nil
}
