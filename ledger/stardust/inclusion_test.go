package stardust

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
)

type merkleVector struct {
	BlockIDs     []BlockID
	Root         BlockID
	InxPoiProofs []json.RawMessage
}

func merkleVectors(t testing.TB) []merkleVector {
	var f struct{ Trees []merkleVector }
	vectors(t, "merkle.json", &f)
	if len(f.Trees) != 8 {
		t.Fatalf("%d trees, want 8", len(f.Trees))
	}
	return f.Trees
}

func TestInclusionsAreThoseOfINXPOI(t *testing.T) {
	for _, tree := range merkleVectors(t) {
		for i, id := range tree.BlockIDs {
			p := NewInclusion(tree.BlockIDs, i)
			if p.Block != id || p.Root() != tree.Root {
				t.Errorf("block %d of %d: proof of %v leads to %x, want %v", i, len(tree.BlockIDs), p.Block, p.Root(), tree.Root)
			}
			if len(tree.BlockIDs) == 1 {
				continue // INX-POI makes none
			}
			var back Inclusion
			if err := json.Unmarshal(tree.InxPoiProofs[i], &back); err != nil || !reflect.DeepEqual(back, p) {
				t.Errorf("block %d of %d from JSON: %+v, %v; want %+v", i, len(tree.BlockIDs), back, err, p)
			}
			text, err := json.Marshal(p)
			if err != nil {
				t.Fatal(err)
			}
			var got, want any
			if json.Unmarshal(text, &got) != nil || json.Unmarshal(tree.InxPoiProofs[i], &want) != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("block %d of %d: JSON = %s, want %s", i, len(tree.BlockIDs), text, tree.InxPoiProofs[i])
			}
		}
	}
}

func TestOnlyBlockIsItsOwnProof(t *testing.T) {
	p := NewInclusion([]BlockID{id(7)}, 0)
	text, err := json.Marshal(p)
	if want := `{"value":"` + id(7).String() + `"}`; err != nil || string(text) != want {
		t.Errorf("JSON = %s, %v; want %s", text, err, want)
	}
	if p.Root() != MerkleRoot([][]byte{p.Block[:]}) {
		t.Errorf("root = %x", p.Root())
	}
}

func TestTreesWithoutOneWayToOneValueAreRefused(t *testing.T) {
	h, v := `{"h":"`+id(1).String()+`"}`, `{"value":"`+id(2).String()+`"}`
	for name, in := range map[string]string{
		"nothing":            `{}`,
		"null":               `null`,
		"a list":             `[]`,
		"a hash alone":       h,
		"two hashes":         `{"l":` + h + `,"r":` + h + `}`,
		"two values":         `{"l":` + v + `,"r":` + v + `}`,
		"one child":          `{"l":` + v + `}`,
		"no value below":     `{"l":` + h + `,"r":{}}`,
		"a hash beside both": `{"h":"` + id(1).String() + `","l":` + h + `,"r":` + v + `}`,
		"a value with a way": `{"value":"` + id(2).String() + `","l":` + h + `,"r":` + v + `}`,
		"a hash with a way":  `{"l":{"h":"` + id(1).String() + `","l":` + v + `,"r":` + h + `},"r":` + v + `}`,
		"a short hash":       `{"l":{"h":"0x12"},"r":` + v + `}`,
		"33 nodes":           strings.Repeat(`{"l":`+h+`,"r":`, 33) + v + strings.Repeat("}", 33),
		"20000 nodes":        strings.Repeat(`{"r":`, 20000) + v + strings.Repeat("}", 20000),
	} {
		p := Inclusion{Block: id(9)}
		if err := p.UnmarshalJSON([]byte(in)); !errors.Is(err, ErrSyntax) || p.Block != id(9) {
			t.Errorf("%s: %+v, %v; want ErrSyntax and the proof unchanged", name, p, err)
		}
	}
	deep := strings.Repeat(`{"l":`+h+`,"r":`, 32) + v + strings.Repeat("}", 32)
	if err := new(Inclusion).UnmarshalJSON([]byte(deep)); err != nil {
		t.Errorf("32 nodes: %v", err)
	}
}

// What UnmarshalJSON accepts must come back from MarshalJSON.
func FuzzInclusionJSON(f *testing.F) {
	for _, tree := range merkleVectors(f) {
		for _, p := range tree.InxPoiProofs {
			f.Add([]byte(p))
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var p Inclusion
		if err := p.UnmarshalJSON(text); err != nil {
			checkSentinel(t, err)
			return
		}
		out, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		var back Inclusion
		if err := json.Unmarshal(out, &back); err != nil || !reflect.DeepEqual(back, p) {
			t.Errorf("%s gives %+v, %v; want %+v", out, back, err, p)
		}
	})
}
