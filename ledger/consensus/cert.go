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

// CertWindow is how many milestones ahead of its own a replica takes signatures
// for; what comes earlier is asked for again. Of as many that have certificates
// it goes on heeding who contradicts them.
const CertWindow = 64

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
//
// A certificate is not the last word on its milestone: more than B of the weight
// may sign for both of two, to different gateways. So the last [CertWindow] that
// are certified stay open for signatures of other milestones, of which one of a
// member counts, and nothing but who it was is kept.
type Certificates struct {
	last  uint32 // the last index derived
	epoch *epoch // of the last milestone derived
	open  map[uint32]*certificate
}

// A certificate gathers what was said of one index.
type certificate struct {
	epoch *epoch // nil until the milestone is derived
	id    [32]byte
	// said are, until the milestone is derived, at most two signatures of one
	// key; then one of each member for the id; then, when they are stored, none.
	said        []Signature
	same, other uint64 // members that signed the id, and a rival
	done        bool   // a quorum has signed
	stored      bool   // only who contradicts it is of interest

	rivals map[[32]byte]bool // other milestones of the index, shown; nil: none
	shown  uint64            // members by whose signature one was
}

// NewCertificates returns an empty collection of a replica whose last milestone
// has this index. See [Certificates.Sealed] for those that it has certified.
func NewCertificates(last uint32) *Certificates {
	return &Certificates{last: last, open: map[uint32]*certificate{}}
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
	// Against are the members of which it is new that they signed another one.
	// An honest one has derived it; up to B may lie.
	Against []network.PublicKey
	// Doubts are signatures of members that hold, of what may be another
	// milestone of this index, or one of another index.
	Doubts []Signature
}

// Derived takes a milestone that this replica derived, in their order, with the
// network file of its epoch.
func (c *Certificates) Derived(m *Milestone, file *network.File) Status {
	k, early := c.derived(m, file)
	st := Status{Index: m.Index}
	for _, s := range early {
		if g, ok := file.Index(s.PublicKey[:]); ok { // Add has verified it
			k.take(&st, s, g)
		}
	}
	k.judge(&st)
	return st
}

// Sealed is Derived for a milestone whose certificate is stored.
func (c *Certificates) Sealed(m *Milestone, file *network.File) {
	k, _ := c.derived(m, file)
	k.done, k.stored = true, true
}

// derived returns what is gathered of a milestone, and what was said of it
// before.
func (c *Certificates) derived(m *Milestone, file *network.File) (k *certificate, early []Signature) {
	if c.epoch == nil || c.epoch.file != file {
		c.epoch = newEpoch(file)
	}
	c.last = max(c.last, m.Index)
	k = c.at(m.Index)
	early = k.said
	*k = certificate{epoch: c.epoch, id: m.ID()}
	return k, early
}

// Add takes a signature. One for an index that is too far ahead or forgotten is
// ignored, as is one that says nothing new; neither is verified. The error wraps
// [ErrBadSignature].
func (c *Certificates) Add(s Signature) (Status, error) {
	st := Status{Index: s.Index}
	k := c.open[s.Index]
	switch {
	case k == nil && (s.Index <= c.last || s.Index > c.last+CertWindow):
		return st, nil
	case k == nil || k.epoch == nil:
		return st, c.at(s.Index).early(&s)
	}
	g, ok := k.epoch.file.Index(s.PublicKey[:])
	if !ok {
		return st, fmt.Errorf("%w: %v is no member at milestone %d", ErrBadSignature, s.PublicKey, s.Index)
	}
	known := k.other
	if s.Milestone == k.id {
		known = k.same
	}
	if known&bit(uint8(g)) != 0 || k.stored && s.Milestone == k.id {
		return st, nil
	}
	if !s.holds() {
		return st, s.misfit()
	}
	k.take(&st, s, g)
	k.judge(&st)
	return st, nil
}

// Rival shows the milestone that a member signed, because of a doubt. From then
// on signatures of it count against the own one, those of its other signers too.
// It is ignored, as is a signature that is not of it, if there is no own one of
// its index, or the member has shown one. The error wraps [ErrBadSignature].
func (c *Certificates) Rival(e *Essence, s Signature) (Status, error) {
	st := Status{Index: s.Index}
	k := c.open[s.Index]
	if k == nil || k.epoch == nil || e.Index != s.Index || e.ID() != s.Milestone || s.Milestone == k.id {
		return st, nil
	}
	g, ok := k.epoch.file.Index(s.PublicKey[:])
	switch {
	case !ok || !s.holds():
		return st, s.misfit()
	case k.shown&bit(uint8(g)) != 0:
		return st, nil
	case k.rivals == nil:
		k.rivals = map[[32]byte]bool{}
	}
	k.shown |= bit(uint8(g))
	k.rivals[s.Milestone] = true
	k.take(&st, s, g)
	k.judge(&st)
	return st, nil
}

// early takes a signature of a milestone that is not derived.
func (k *certificate) early(s *Signature) error {
	words := 0
	for _, o := range k.said {
		if o.PublicKey != s.PublicKey {
			continue
		}
		if words++; o.Milestone == s.Milestone || words == 2 {
			return nil
		}
	}
	// Who is a member of a milestone to come is not known: the keys that may
	// be waiting are bounded by twice the gateways of a network.
	if len(k.said) >= 4*network.MaxGateways {
		return nil
	}
	if !s.holds() {
		return s.misfit()
	}
	k.said = append(k.said, *s)
	return nil
}

// take counts a signature of member g that holds.
func (k *certificate) take(st *Status, s Signature, g int) {
	b := bit(uint8(g))
	switch {
	case s.Milestone == k.id:
		k.same |= b
		k.said = append(k.said, s)
	case !k.rivals[s.Milestone]:
		st.Doubts = append(st.Doubts, s)
	case k.other&b == 0:
		k.other |= b
		st.Against = append(st.Against, s.PublicKey)
	}
}

// judge weighs what was said of a milestone that is derived.
func (k *certificate) judge(st *Status) {
	st.Alarm = k.epoch.weight(k.other) > k.epoch.byzantine
	if !k.done && k.epoch.isQuorum(k.same) {
		k.done, st.Certified = true, true
	}
}

// Said returns the signatures known for the milestone of an index that this
// replica derived; nil if it has not, or has forgotten them.
func (c *Certificates) Said(index uint32) []Signature {
	k := c.open[index]
	if k == nil || k.epoch == nil {
		return nil
	}
	return slices.Clone(k.said)
}

// Complete returns the signatures of a certified milestone, sorted by key as
// TIP-29 asks; nil if a quorum is not known, or forgotten.
func (c *Certificates) Complete(index uint32) []Signature {
	if k := c.open[index]; k == nil || !k.done {
		return nil
	}
	out := c.Said(index)
	slices.SortFunc(out, func(a, b Signature) int { return bytes.Compare(a.PublicKey[:], b.PublicKey[:]) })
	return out
}

// Forget drops the signatures of milestones before index, whose certificates are
// stored, and all of those that are [CertWindow] before it or more.
func (c *Certificates) Forget(index uint32) {
	for i, k := range c.open {
		switch {
		case i >= index:
		case index-i > CertWindow || k.epoch == nil:
			delete(c.open, i)
		default:
			k.stored, k.said = true, nil
		}
	}
}

func (c *Certificates) at(index uint32) *certificate {
	if c.open[index] == nil {
		c.open[index] = &certificate{}
	}
	return c.open[index]
}

func (s *Signature) holds() bool {
	return stardust.VerifyEd25519(s.PublicKey[:], s.Milestone[:], s.Signature[:])
}

func (s *Signature) misfit() error {
	return fmt.Errorf("%w: that of %v for milestone %d does not fit", ErrBadSignature, s.PublicKey, s.Index)
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
