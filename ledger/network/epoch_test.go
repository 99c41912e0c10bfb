package network

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// key returns the private key of a test's person.
func key(person string) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte(person[:1]), ed25519.SeedSize))
}

func publicOf(person string) PublicKey { return PublicKey(key(person).Public().(ed25519.PublicKey)) }

// site returns a genesis of gateways a, b, c and so on, of weight 1; operator z
// signs for a and b.
func site(t *testing.T, n int) *File {
	t.Helper()
	var gateways []Gateway
	for i := range n {
		name := string(rune('a' + i))
		gateways = append(gateways, Gateway{Name: name, PublicKey: publicOf(name), Weight: 1})
	}
	f := Create("site", gateways)
	f.Operators = []Operator{{PublicKey: publicOf("z"), Gateways: []string{"a", "b"}}}
	if err := f.Validate(); err != nil {
		t.Fatal(err)
	}
	return f
}

func signed(f *File, people string) *File {
	for _, p := range strings.Split(people, "") {
		f.Sign(key(p))
	}
	return f
}

func TestTheNextEpochNeedsAQuorumOfTheOneBefore(t *testing.T) {
	for _, tt := range []struct {
		people   string
		gateways []string
		want     error
	}{
		{"", nil, ErrUnsigned},
		{"ab", []string{"a", "b"}, ErrUnsigned},
		{"abd", []string{"a", "b", "d"}, nil},
		{"abcd", []string{"a", "b", "c", "d"}, nil},
		{"z", []string{"a", "b"}, ErrUnsigned},
		{"zd", []string{"a", "b", "d"}, nil},
		{"zab", []string{"a", "b"}, ErrUnsigned}, // nobody counts twice
		{"abe", []string{"a", "b"}, ErrUnsigned}, // e is a member of the new epoch only
		{"abde", []string{"a", "b", "d"}, nil},   // whose signature spoils nothing
	} {
		t.Run(tt.people, func(t *testing.T) {
			f := site(t, 4)
			next := f.Next()
			next.Add(Gateway{Name: "e", PublicKey: publicOf("e"), Weight: 1})
			if tt.people != "" {
				signed(next, tt.people)
			}
			if err := next.Follows(f); !errors.Is(err, tt.want) || tt.want == nil && err != nil {
				t.Errorf("Follows = %v, want %v", err, tt.want)
			}
			a, err := next.Approved(f)
			if others := strings.Contains(tt.people, "e"); others != slices.Equal(a.Others, []PublicKey{publicOf("e")}) {
				t.Errorf("Approved names %v as others", a.Others)
			}
			if err != nil || !slices.Equal(a.Gateways, tt.gateways) || a.Weight != uint64(len(tt.gateways)) || a.Needed != 3 {
				t.Errorf("Approved = %+v, %v, want %v", a, err, tt.gateways)
			}
			if err := next.Validate(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestFilesThatDoNotFollowAreRefusedWithTheReason(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(f, next *File) // before it is signed
		after  func(next *File)    // and afterwards
		want   error
		text   string
	}{
		{"another network", func(_, n *File) { n.NetworkName = "other" }, nil, ErrOtherNetwork, "other"},
		{"the same epoch", func(_, n *File) { n.Epoch = 0 }, nil, ErrStale, "epoch 0, the next one is 1"},
		{"an epoch left out", func(_, n *File) { n.Epoch = 2 }, nil, ErrStale, "epoch 2"},
		{"another history", func(f, n *File) { f.Gateways[0].Weight = 2 }, nil, ErrOtherNetwork, "another file of epoch 0"},
		{"another genesis", func(_, n *File) { n.Genesis = n.Genesis[:10] + strings.Repeat("0", 56) }, nil, ErrOtherNetwork, "another genesis"},
		{"another score", func(_, n *File) { n.MinPoWScore = 1 }, nil, ErrOtherNetwork, "minPowScore"},
		{"another horizon", func(_, n *File) { n.IDHorizon = 1000 }, nil, ErrOtherNetwork, "idHorizon"},
		{"more tokens", func(_, n *File) { n.TokenSupply++ }, nil, ErrOtherNetwork, "tokenSupply"},
		{"changed after it was signed", nil, func(n *File) { n.Gateways[1].Weight = 9 }, ErrForged, "does not fit"},
		{"a signature changed", nil, func(n *File) { n.Signatures[0].Signature[5] ^= 1 }, ErrForged, "signatures[0]"},
		{"other round intervals", func(_, n *File) { n.DataRoundInterval *= 5 }, nil, nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := site(t, 4)
			next := f.Next()
			if tt.change != nil {
				tt.change(f, next)
			}
			signed(next, "abcd")
			if tt.after != nil {
				tt.after(next)
			}
			err := next.Follows(f)
			if !errors.Is(err, tt.want) || tt.want == nil && err != nil || err != nil && !strings.Contains(err.Error(), tt.text) {
				t.Errorf("Follows = %v, want %v with %q", err, tt.want, tt.text)
			}
		})
	}
}

func TestMembersComeGoAndChangeTheirWeight(t *testing.T) {
	f := site(t, 4)
	before := f.Hash()
	next := f.Next()
	next.Sign(key("a"))
	next.Add(Gateway{Name: "e", PublicKey: publicOf("e"), Weight: 3})
	if len(next.Signatures) != 0 {
		t.Error("a signature of what the file said before is kept")
	}
	if err := errors.Join(next.SetWeight("c", 5), next.Remove("b")); err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(next.Gateways[0].Name, next.Gateways[1].Name, next.Gateways[2].Name, next.Gateways[3].Name, next.Weight(), next.ByzantineWeight), "acde10 3"; got != want {
		t.Errorf("members %s, want %s", got, want)
	}
	if got := next.Operators[0].Gateways; !slices.Equal(got, []string{"a"}) {
		t.Errorf("the operator signs for %v, want a", got)
	}
	if err := next.Remove("a"); err != nil || len(next.Operators) != 0 {
		t.Errorf("an operator without gateway stays: %v, %v", next.Operators, err)
	}
	if err := next.Remove("x"); !errors.Is(err, ErrNoGateway) {
		t.Errorf("Remove of nobody: %v", err)
	}
	if err := next.SetWeight("x", 1); !errors.Is(err, ErrNoGateway) {
		t.Errorf("SetWeight of nobody: %v", err)
	}
	if f.Hash() != before || len(f.Operators[0].Gateways) != 2 {
		t.Error("the file before has changed")
	}
	if err := next.Validate(); err != nil {
		t.Error(err)
	}
}

func TestEveryEpochKnowsItsGenesis(t *testing.T) {
	f := site(t, 2)
	genesis := f.Hash()
	for range 3 {
		if f.GenesisHash() != genesis {
			t.Errorf("epoch %d has genesis %x, want %x", f.Epoch, f.GenesisHash(), genesis)
		}
		f = f.Next()
		if err := f.Validate(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAKeySignsOnce(t *testing.T) {
	f := signed(site(t, 2).Next(), "aa")
	if len(f.Signatures) != 1 {
		t.Errorf("%d signatures, want 1", len(f.Signatures))
	}
}

func TestAMemberGetsAnotherKeyOrName(t *testing.T) {
	f := site(t, 3)
	next := f.Next()
	next.Sign(key("a"))
	if err := errors.Join(next.SetKey("b", publicOf("z")), next.Rename("a", "attic")); err != nil {
		t.Fatal(err)
	}
	if next.Gateways[1].PublicKey != publicOf("z") || next.Gateways[0].Name != "attic" || len(next.Signatures) != 0 {
		t.Errorf("members %+v, %d signatures", next.Gateways, len(next.Signatures))
	}
	if !slices.Contains(next.Operators[0].Gateways, "attic") || slices.Contains(f.Operators[0].Gateways, "attic") {
		t.Errorf("operators %v after %v", next.Operators, f.Operators)
	}
	if err := signed(next, "abc").Follows(f); err != nil {
		t.Error(err)
	}
	if err := next.SetKey("x", publicOf("y")); !errors.Is(err, ErrNoGateway) {
		t.Errorf("SetKey of nobody: %v", err)
	}
	if err := next.Rename("x", "y"); !errors.Is(err, ErrNoGateway) {
		t.Errorf("Rename of nobody: %v", err)
	}
	if err := next.Rename("c", "b"); err != nil || next.Validate() == nil {
		t.Errorf("a name that is taken is valid: %v", err)
	}
}
