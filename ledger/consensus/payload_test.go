package consensus

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"testing"

	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// What is signed, what is handed out and what is read back is one milestone.
func TestPayloadIsTheMilestoneThatWasSigned(t *testing.T) {
	file := simFile("p", []uint32{1, 1, 1, 1})
	for _, root := range []*[32]byte{nil, {7, 8, 9}} {
		e := Essence{
			Index: 12, Timestamp: 1_700_000_000, Previous: [32]byte{1}, Parents: []stardust.BlockID{{2}},
			InclusionRoot: [32]byte{3}, AppliedRoot: [32]byte{4},
			Epoch: 5, Slot: 6, NetworkHash: file.Hash(), LedgerRoot: root,
		}
		var signatures []Signature
		for i := range 3 {
			signatures = append(signatures, SignMilestone(simKey(i), e.Index, e.ID()))
		}
		slices.SortFunc(signatures, func(a, b Signature) int { return bytes.Compare(a.PublicKey[:], b.PublicKey[:]) })

		p := e.Payload(signatures)
		if p.ID() != e.ID() {
			t.Errorf("id of the payload = %v, want %x", p.ID(), e.ID())
		}
		raw, err := p.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(e.AppendBinary(nil)); !bytes.Equal(raw[4:4+n], e.AppendBinary(nil)) {
			t.Errorf("payload %x has another essence than %x", raw, e.AppendBinary(nil))
		}
		back, err := stardust.ParseMilestone(raw)
		if err != nil {
			t.Fatal(err)
		}
		got, by, err := ParsePayload(back)
		if err != nil || !reflect.DeepEqual(got, e) || !reflect.DeepEqual(by, signatures) {
			t.Errorf("read back %+v by %v, %v; want %+v by %v", got, by, err, e, signatures)
		}
		if err := VerifyCertificate(file, back.ID(), by); err != nil {
			t.Error(err)
		}
	}
}

func TestPayloadsOfOtherNetworksAreForeign(t *testing.T) {
	for name, change := range map[string]func(m *stardust.Milestone){
		"no metadata":        func(m *stardust.Milestone) { m.Metadata = nil },
		"other metadata":     func(m *stardust.Milestone) { m.Metadata = m.Metadata[1:] },
		"with parameters":    func(m *stardust.Milestone) { m.Parameters = &stardust.Parameters{} },
		"of another version": func(m *stardust.Milestone) { m.Version++ },
	} {
		m := (&Essence{Parents: []stardust.BlockID{{}}}).Payload(nil)
		change(m)
		if _, _, err := ParsePayload(m); !errors.Is(err, ErrForeign) {
			t.Errorf("%s: %v, want ErrForeign", name, err)
		}
	}
}
