// Package network reads, writes and hashes the network file: the members of a
// hedgerow network with their keys and weights, and the parameters that all of
// them share (contract.md §7, consensus.md §1).
//
// It holds the file, and says whether the members of one epoch signed the
// next. Which epoch is in force is decided elsewhere; keys are not read here.
package network

import (
	"crypto/ed25519"
	"encoding"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/blake2b"

	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

const (
	// MaxFileSize is the number of bytes a network file may have.
	MaxFileSize = 256 << 10
	// MaxGateways is the number of gateways a network may have: a set of them
	// is one uint64.
	MaxGateways = 64
	// MaxOperators is the number of operators a network may have.
	MaxOperators = 64

	maxNetworkName = 64
	maxGatewayName = 32
	maxSignatures  = MaxGateways + MaxOperators
	maxWeight      = 1 << 24 // a sum of MaxGateways of them fits easily
	hashDomain     = "hedgerow-net-1"
)

// ErrInvalid is wrapped by every error about what a network file says, as
// opposed to errors of reading it. The text names the field.
var ErrInvalid = errors.New("network file invalid")

// A File is one epoch of a network. The genesis is the file of epoch 0.
type File struct {
	NetworkName       string      `json:"networkName"`       // 1-64 letters, digits, . _ -
	Epoch             uint32      `json:"epoch"`             // 0 is the genesis
	Gateways          []Gateway   `json:"gateways"`          // 1-64; the index is the gateway's number
	Operators         []Operator  `json:"operators"`         // who may sign updates for gateways
	ByzantineWeight   uint32      `json:"byzantineWeight"`   // B: so much of the weight may do as it likes
	MinPoWScore       uint32      `json:"minPowScore"`       // TIP-12; 0 asks for no proof of work
	RoundInterval     Duration    `json:"roundInterval"`     // while transactions wait
	DataRoundInterval Duration    `json:"dataRoundInterval"` // while only data waits
	Bech32HRP         string      `json:"bech32Hrp"`         // prefix of addresses
	TokenSupply       Amount      `json:"tokenSupply"`       // base tokens
	VByteCost         uint32      `json:"vByteCost"`         // TIP-19
	IDHorizon         uint32      `json:"idHorizon"`         // milestones after which no block may refer to another
	SnapshotEvery     uint32      `json:"snapshotEvery"`     // milestones from one with the ledger's root to the next
	GenesisOutputs    []Output    `json:"genesisOutputs"`    // empty: this version moves no value
	Genesis           string      `json:"genesis"`           // hash of the file of epoch 0; "" for the genesis
	Previous          string      `json:"previous"`          // hash of the file of the epoch before; "" for the genesis
	Signatures        []Signature `json:"signatures"`        // over Hash; not part of it
}

// A Gateway is a member.
type Gateway struct {
	Name      string    `json:"name"`      // 1-32 letters, digits, . _ -
	PublicKey PublicKey `json:"publicKey"` // Ed25519
	Weight    uint32    `json:"weight"`    // of its votes; at least 1
}

// An Operator may sign network updates in the place of the gateways named.
type Operator struct {
	PublicKey PublicKey `json:"publicKey"`
	Gateways  []string  `json:"gateways"`
}

// An Output is what an address owns at the genesis.
type Output struct {
	Address string `json:"address"` // bech32
	Amount  Amount `json:"amount"`
}

// A Signature is one key's approval of the file.
type Signature struct {
	PublicKey PublicKey `json:"publicKey"`
	Signature Bytes64   `json:"signature"` // Ed25519 over Hash
}

// A PublicKey is an Ed25519 key; its text is 0x and 64 hex digits.
type PublicKey [ed25519.PublicKeySize]byte

// Bytes64 is a signature; its text is 0x and 128 hex digits.
type Bytes64 [ed25519.SignatureSize]byte

// An Amount is a number of base tokens; its text is decimal.
type Amount uint64

// A Duration is a time span; its text is that of [time.Duration], e.g. "1.5s".
type Duration time.Duration

// A network of more gateways than manyGateways takes it slower, as each of them
// votes once a round (consensus.md §1).
const (
	manyGateways                = 20
	roundInterval, slowInterval = 100 * time.Millisecond, time.Second
)

// Create returns the genesis of a network of these gateways with the default
// parameters. Names and weights that the file does not allow are reported by
// [File.Validate] and [File.Save].
func Create(networkName string, gateways []Gateway) *File {
	f := &File{
		NetworkName:       networkName,
		Gateways:          slices.Clone(gateways),
		Operators:         []Operator{},
		MinPoWScore:       100,
		RoundInterval:     Duration(roundInterval),
		DataRoundInterval: Duration(time.Second),
		Bech32HRP:         "hdg",
		TokenSupply:       1_000_000_000_000,
		VByteCost:         100,
		IDHorizon:         500_000,
		SnapshotEvery:     1000,
		GenesisOutputs:    []Output{},
		Signatures:        []Signature{},
	}
	if len(gateways) > manyGateways {
		f.RoundInterval = Duration(slowInterval)
	}
	f.ByzantineWeight = uint32(f.mostByzantine())
	return f
}

// NewOfOne is [Create] for a single gateway.
func NewOfOne(networkName, gatewayName string, publicKey ed25519.PublicKey) *File {
	g := Gateway{Name: gatewayName, Weight: 1}
	copy(g.PublicKey[:], publicKey)
	return Create(networkName, []Gateway{g})
}

// Hash identifies the file: the BLAKE2b-256 hash of "hedgerow-net-1" and the
// canonical JSON (RFC 8785) of the file without its signatures.
func (f *File) Hash() [32]byte {
	tree := f.tree()
	delete(tree, "signatures")
	return blake2b.Sum256(appendCanonical([]byte(hashDomain), tree))
}

// GenesisHash is the hash of the network's first file, whatever the epoch: it
// stands where a network must not be confused with one of equal name. The file
// must be valid.
func (f *File) GenesisHash() (hash [32]byte) {
	if f.Epoch == 0 {
		return f.Hash()
	}
	_ = parseHex(hash[:], []byte(f.Genesis)) // Validate has read it
	return hash
}

// SubjectPrefix returns what all NATS subjects of the network with this genesis
// hash begin with.
func SubjectPrefix(genesis [32]byte) string { return "hedgerow." + hex.EncodeToString(genesis[:8]) }

// NetworkID returns the number that transactions name the network by (TIP-20).
func (f *File) NetworkID() uint64 { return stardust.NetworkID(f.NetworkName) }

// Index returns the number of the gateway with this key.
func (f *File) Index(key ed25519.PublicKey) (i int, ok bool) {
	for i, g := range f.Gateways {
		if string(g.PublicKey[:]) == string(key) {
			return i, true
		}
	}
	return 0, false
}

// Weight returns the sum of the gateways' weights.
func (f *File) Weight() uint64 {
	var sum uint64
	for _, g := range f.Gateways {
		sum += uint64(g.Weight)
	}
	return sum
}

// Quorum returns the weight that agrees on everything (consensus.md §1): two
// sets of it share more than ByzantineWeight.
func (f *File) Quorum() uint64 { return (f.Weight()+uint64(f.ByzantineWeight))/2 + 1 }

// mostByzantine returns the largest ByzantineWeight that the gateways bear:
// less than a third of their weight.
func (f *File) mostByzantine() uint64 {
	if w := f.Weight(); w > 0 {
		return (w - 1) / 3
	}
	return 0
}

var (
	_ encoding.TextMarshaler   = PublicKey{}
	_ encoding.TextUnmarshaler = (*PublicKey)(nil)
)

// SubjectID returns how NATS subjects name the gateway with this key.
func (k PublicKey) SubjectID() string { return hex.EncodeToString(k[:8]) }

// String returns the text form.
func (k PublicKey) String() string { return hexText(k[:]) }

// MarshalText returns the text form.
func (k PublicKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads the text form.
func (k *PublicKey) UnmarshalText(text []byte) error {
	if err := parseHex(k[:], text); err != nil {
		return &json.UnmarshalTypeError{Value: fmt.Sprintf("%.16q…", text), Type: reflect.TypeFor[PublicKey]()}
	}
	return nil
}

// The UnmarshalText methods below return a json.UnmarshalTypeError, because
// encoding/json adds the field's name to that error and to no other.

// MarshalText returns the text form.
func (b Bytes64) MarshalText() ([]byte, error) { return []byte(hexText(b[:])), nil }

// UnmarshalText reads the text form.
func (b *Bytes64) UnmarshalText(text []byte) error {
	if err := parseHex(b[:], text); err != nil {
		return &json.UnmarshalTypeError{Value: fmt.Sprintf("%.16q…", text), Type: reflect.TypeFor[Bytes64]()}
	}
	return nil
}

// MarshalText returns the text form.
func (a Amount) MarshalText() ([]byte, error) { return strconv.AppendUint(nil, uint64(a), 10), nil }

// UnmarshalText reads the text form.
func (a *Amount) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 10, 64)
	if err != nil {
		return &json.UnmarshalTypeError{Value: fmt.Sprintf("%.40q", text), Type: reflect.TypeFor[Amount]()}
	}
	*a = Amount(n)
	return nil
}

// MarshalText returns the text form.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads the text form.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return &json.UnmarshalTypeError{Value: fmt.Sprintf("%.40q", text), Type: reflect.TypeFor[Duration]()}
	}
	*d = Duration(v)
	return nil
}

func hexText(b []byte) string { return "0x" + hex.EncodeToString(b) }

// parseHex fills dst from 0x and exactly as many lower-case digits as it
// needs: one value has one text, hence one hash.
func parseHex(dst, text []byte) error {
	digits, ok := strings.CutPrefix(string(text), "0x")
	if !ok || len(digits) != 2*len(dst) || strings.ToLower(digits) != digits {
		return fmt.Errorf("%.16q… is not 0x and %d lower-case hex digits", text, 2*len(dst))
	}
	if _, err := hex.Decode(dst, []byte(digits)); err != nil {
		return fmt.Errorf("%.16q… is not hex: %w", text, err)
	}
	return nil
}
