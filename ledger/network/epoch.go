package network

import (
	"cmp"
	"crypto/ed25519"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// Why a file is not accepted as the next epoch of a network. The errors of
// [File.Follows] wrap one of them.
var (
	ErrOtherNetwork = errors.New("file of another network")
	ErrStale        = errors.New("network file is not of the next epoch")
	ErrForged       = errors.New("network file is signed wrongly")
	ErrUnsigned     = errors.New("network file is not signed by a quorum")
)

// ErrNoGateway is wrapped by the errors of naming a gateway that a file does
// not have.
var ErrNoGateway = errors.New("no such gateway")

// Next returns a draft of the following epoch: all as it is, with nobody's
// signature.
func (f *File) Next() *File {
	n := *f
	hash, genesis := f.Hash(), f.GenesisHash()
	n.Epoch, n.Previous, n.Genesis = f.Epoch+1, hexText(hash[:]), hexText(genesis[:])
	n.Gateways = slices.Clone(f.Gateways)
	n.Operators = make([]Operator, len(f.Operators))
	for i, o := range f.Operators {
		n.Operators[i] = Operator{o.PublicKey, slices.Clone(o.Gateways)}
	}
	n.Signatures = []Signature{}
	return &n
}

// Add makes g a member. What is not allowed, such as a name that is taken,
// [File.Validate] reports.
func (f *File) Add(g Gateway) {
	f.Gateways = append(f.Gateways, g)
	f.weigh()
}

// Remove takes a member out, and from the operators that sign for it. The error
// wraps [ErrNoGateway] when there is none of that name.
func (f *File) Remove(name string) error {
	i, err := f.find(name)
	if err != nil {
		return err
	}
	f.Gateways = slices.Delete(f.Gateways, i, i+1)
	for i := range f.Operators {
		o := &f.Operators[i]
		o.Gateways = slices.DeleteFunc(o.Gateways, func(g string) bool { return g == name })
	}
	f.Operators = slices.DeleteFunc(f.Operators, func(o Operator) bool { return len(o.Gateways) == 0 })
	f.weigh()
	return nil
}

// SetWeight gives a member another weight. The error wraps [ErrNoGateway] when
// there is none of that name.
func (f *File) SetWeight(name string, weight uint32) error {
	i, err := f.find(name)
	if err != nil {
		return err
	}
	f.Gateways[i].Weight = weight
	f.weigh()
	return nil
}

// SetKey gives a member another identity key. The error wraps [ErrNoGateway]
// when there is none of that name.
func (f *File) SetKey(name string, key PublicKey) error {
	i, err := f.find(name)
	if err != nil {
		return err
	}
	f.Gateways[i].PublicKey = key
	f.Signatures = []Signature{}
	return nil
}

// Rename gives a member another name, also where operators sign for it. The
// error wraps [ErrNoGateway] when there is none of that name.
func (f *File) Rename(name, to string) error {
	i, err := f.find(name)
	if err != nil {
		return err
	}
	f.Gateways[i].Name = to
	for _, o := range f.Operators {
		for j := range o.Gateways {
			if o.Gateways[j] == name {
				o.Gateways[j] = to
			}
		}
	}
	f.Signatures = []Signature{}
	return nil
}

// weigh adapts ByzantineWeight to the gateways.
func (f *File) weigh() {
	f.ByzantineWeight = uint32(f.mostByzantine())
	f.Signatures = []Signature{}
}

func (f *File) find(name string) (int, error) {
	for i, g := range f.Gateways {
		if g.Name == name {
			return i, nil
		}
	}
	return 0, fmt.Errorf("%w: %.40q; the network has %s", ErrNoGateway, name, strings.Join(f.names(), ", "))
}

func (f *File) names() []string {
	all := make([]string, len(f.Gateways))
	for i, g := range f.Gateways {
		all[i] = g.Name
	}
	return all
}

// Sign puts the key's signature under the file, in the place of an earlier one
// of the same key.
func (f *File) Sign(key ed25519.PrivateKey) {
	hash := f.Hash()
	s := Signature{PublicKey: PublicKey(key.Public().(ed25519.PublicKey)), Signature: Bytes64(ed25519.Sign(key, hash[:]))}
	f.Signatures = slices.DeleteFunc(f.Signatures, func(old Signature) bool { return old.PublicKey == s.PublicKey })
	f.Signatures = append(f.Signatures, s)
}

// An Approval is what the signatures under a file say of the members of the
// epoch before.
type Approval struct {
	Gateways []string // that signed, or whose operator did
	Weight   uint64   // theirs
	Needed   uint64   // the quorum
	// Others are the keys that signed and sign for no gateway of that epoch,
	// such as a newcomer's. They count for nothing and were not verified.
	Others []PublicKey
}

// Approved verifies the signatures under f against the members and operators
// of the epoch before. The error wraps [ErrForged] when one of a key that may
// sign is wrong; too few are no error. Whoever passes the file on can put more
// signatures under it, so that those of other keys spoil nothing.
func (f *File) Approved(previous *File) (Approval, error) {
	a := Approval{Needed: previous.Quorum()}
	hash := f.Hash()
	signed := map[string]bool{}
	for i, s := range f.Signatures {
		names := previous.SignsFor(s.PublicKey)
		if len(names) == 0 {
			a.Others = append(a.Others, s.PublicKey)
			continue
		}
		if !stardust.VerifyEd25519(s.PublicKey[:], hash[:], s.Signature[:]) {
			return a, fmt.Errorf("%w: signatures[%d], of %v, does not fit the file", ErrForged, i, s.PublicKey)
		}
		for _, name := range names {
			signed[name] = true
		}
	}
	for _, g := range previous.Gateways {
		if signed[g.Name] {
			a.Gateways = append(a.Gateways, g.Name)
			a.Weight += uint64(g.Weight)
		}
	}
	return a, nil
}

// SignsFor returns the gateways that a key may sign the next epoch for: its own
// and those that it is an operator of; none for a stranger's.
func (f *File) SignsFor(key PublicKey) (names []string) {
	if i, ok := f.Index(key[:]); ok {
		names = append(names, f.Gateways[i].Name)
	}
	for _, o := range f.Operators {
		if o.PublicKey == key {
			names = append(names, o.Gateways...)
		}
	}
	return names
}

// Follows returns nil if f is the epoch after previous and a quorum of the
// members of previous signed it, or says what it lacks. Both files must be
// valid. The error wraps [ErrOtherNetwork], [ErrStale], [ErrForged] or
// [ErrUnsigned]; what the genesis fixes for good and f changes is
// [ErrOtherNetwork].
func (f *File) Follows(previous *File) error {
	if f.NetworkName != previous.NetworkName {
		return fmt.Errorf("%w: %q, not %q", ErrOtherNetwork, f.NetworkName, previous.NetworkName)
	}
	if f.Epoch != previous.Epoch+1 {
		return fmt.Errorf("%w: it has epoch %d, the next one is %d", ErrStale, f.Epoch, previous.Epoch+1)
	}
	if hash := previous.Hash(); f.Previous != hexText(hash[:]) {
		return fmt.Errorf("%w: it follows another file of epoch %d", ErrOtherNetwork, previous.Epoch)
	}
	if f.GenesisHash() != previous.GenesisHash() {
		return fmt.Errorf("%w: it names another genesis", ErrOtherNetwork)
	}
	if field := f.differs(previous); field != "" {
		return fmt.Errorf("%w: %s is fixed by the genesis", ErrOtherNetwork, field)
	}
	a, err := f.Approved(previous)
	if err != nil {
		return err
	}
	if a.Weight < a.Needed {
		by := cmp.Or(strings.Join(a.Gateways, ", "), "nobody")
		return fmt.Errorf("%w: weight %d is needed and %d has signed (%s)", ErrUnsigned, a.Needed, a.Weight, by)
	}
	return nil
}

// differs names a field that no epoch may change and f does.
func (f *File) differs(g *File) string {
	for _, c := range []struct {
		name  string
		equal bool
	}{
		{"minPowScore", f.MinPoWScore == g.MinPoWScore},
		{"bech32Hrp", f.Bech32HRP == g.Bech32HRP},
		{"tokenSupply", f.TokenSupply == g.TokenSupply},
		{"vByteCost", f.VByteCost == g.VByteCost},
		{"idHorizon", f.IDHorizon == g.IDHorizon},
		{"snapshotEvery", f.SnapshotEvery == g.SnapshotEvery},
		{"genesisOutputs", reflect.DeepEqual(f.GenesisOutputs, g.GenesisOutputs)},
	} {
		if !c.equal {
			return c.name
		}
	}
	return ""
}
