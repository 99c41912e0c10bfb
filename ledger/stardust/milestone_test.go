package stardust

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
)

type milestoneVector struct {
	Name, Payload string
	MilestoneID   MilestoneID
	JSON          json.RawMessage
}

func milestoneVectors(t testing.TB) []milestoneVector {
	var f struct{ Milestones []milestoneVector }
	vectors(t, "milestones.json", &f)
	if len(f.Milestones) != 3 {
		t.Fatalf("%d milestones, want 3", len(f.Milestones))
	}
	return f.Milestones
}

func TestMilestonesHaveTheGivenBytesIdAndJSON(t *testing.T) {
	for _, tt := range milestoneVectors(t) {
		t.Run(tt.Name, func(t *testing.T) {
			raw := unhex(t, tt.Payload)
			m, err := ParseMilestone(raw)
			if err != nil {
				t.Fatalf("ParseMilestone(%x): %v", raw, err)
			}
			if out, err := m.AppendBinary(nil); err != nil || !bytes.Equal(out, raw) {
				t.Errorf("AppendBinary = %x, %v; want %x", out, err, raw)
			}
			id := m.ID()
			if id != tt.MilestoneID {
				t.Errorf("ID = %v, want %v", id, tt.MilestoneID)
			}
			for i, s := range m.Signatures {
				if !ed25519.Verify(s.PublicKey[:], id[:], s.Signature[:]) {
					t.Errorf("signature %d does not fit the id", i)
				}
			}
			var fromJSON Milestone
			if err := json.Unmarshal(tt.JSON, &fromJSON); err != nil || !reflect.DeepEqual(&fromJSON, m) {
				t.Errorf("from JSON %+v, %v; want %+v", fromJSON, err, m)
			}
			text, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			var got, want any
			if json.Unmarshal(text, &got) != nil || json.Unmarshal(tt.JSON, &want) != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("JSON = %s, want %s", text, tt.JSON)
			}
		})
	}
}

// changed returns the second vector's milestone after a change.
func changed(t *testing.T, change func(m *Milestone)) *Milestone {
	t.Helper()
	m, err := ParseMilestone(unhex(t, milestoneVectors(t)[1].Payload))
	if err != nil {
		t.Fatal(err)
	}
	change(m)
	return m
}

func TestMilestoneThatBreaksARuleIsNotEncoded(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(m *Milestone)
		err    error
		text   string
	}{
		{"version", func(m *Milestone) { m.Version = 3 }, ErrUnsupported, "protocolVersion: 3"},
		{"no parents", func(m *Milestone) { m.Parents = nil }, ErrSyntax, "parents: 0"},
		{"unsorted parents", func(m *Milestone) { m.Parents[0], m.Parents[1] = m.Parents[1], m.Parents[0] }, ErrSyntax, "parents[1]: below"},
		{"metadata", func(m *Milestone) { m.Metadata = make([]byte, 8193) }, ErrSyntax, "metadata: 8193"},
		{"parameters", func(m *Milestone) { m.Parameters = &Parameters{Params: make([]byte, 8193)} }, ErrSyntax, "options.params: 8193"},
		{"no signature", func(m *Milestone) { m.Signatures = nil }, ErrSyntax, "signatures: 0"},
		{"one key twice", func(m *Milestone) { m.Signatures[1] = m.Signatures[0] }, ErrSyntax, "signatures[1]: key not above"},
		{"256 signatures", func(m *Milestone) { m.Signatures = make([]MilestoneSignature, 256) }, ErrSyntax, "signatures: 256"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, err := changed(t, tt.change).AppendBinary([]byte("kept"))
			if !errors.Is(err, tt.err) || !strings.Contains(err.Error(), tt.text) || string(out) != "kept" {
				t.Errorf("AppendBinary = %q, %v; want dst unchanged, %v with %q", out, err, tt.err, tt.text)
			}
		})
	}
}

func TestBytesThatAreNoMilestoneAreRefused(t *testing.T) {
	raw := unhex(t, milestoneVectors(t)[0].Payload)
	options := len(raw) - 1 - signatureSize - 1
	with := func(at int, b ...byte) []byte {
		return append(append(bytes.Clone(raw[:at]), b...), raw[at+1:]...)
	}
	for _, tt := range []struct {
		name string
		in   []byte
		err  error
	}{
		{"nothing", nil, ErrTruncated},
		{"a byte less", raw[:len(raw)-1], ErrTruncated},
		{"a byte more", append(bytes.Clone(raw), 0), ErrSyntax},
		{"another type", with(0, 5), ErrSyntax},
		{"another version", with(12, 1), ErrUnsupported},
		{"metadata of 8193 bytes", append(with(options-1, 0x20)[:options-2], 0x01, 0x20, 0), ErrSyntax},
		{"a receipt", with(options, 1, 0), ErrUnsupported},
		{"an unknown option", with(options, 1, 2), ErrUnsupported},
		{"two options", with(options, 2, 1), ErrSyntax},
		{"no signature", append(bytes.Clone(raw[:options+1]), 0), ErrSyntax},
		{"a signature of another type", with(options+2, 1), ErrUnsupported},
		{"255 signatures claimed", with(options+1, 255), ErrTruncated},
	} {
		if _, err := ParseMilestone(tt.in); !errors.Is(err, tt.err) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.err)
		}
	}
}

func TestJSONErrorOfMilestoneNamesTheField(t *testing.T) {
	text := string(milestoneVectors(t)[1].JSON)
	replace := func(old, new string) string {
		if !strings.Contains(text, old) {
			t.Fatalf("%s has no %s", text, old)
		}
		return strings.Replace(text, old, new, 1)
	}
	for _, tt := range []struct {
		in, text string
		err      error
	}{
		{`[]`, "milestone: unexpected array", ErrSyntax},
		{`{}`, "type: 0, want 7", ErrSyntax},
		{`{"type":7}`, "protocolVersion: 0", ErrUnsupported},
		{replace(`"index": 2`, `"index": "2"`), "milestone.index: unexpected string", ErrSyntax},
		{replace(`"previousMilestoneId": "0x`, `"previousMilestoneId": "0x00`), "previousMilestoneId: 33 bytes", ErrSyntax},
		{replace(`"appliedMerkleRoot"`, `"other"`), "appliedMerkleRoot: 0 bytes", ErrSyntax},
		{replace(`"parents"`, `"others"`), "parents: 0", ErrSyntax},
		{replace(`"metadata": "0x`, `"metadata": "`), "metadata: want 0x", ErrSyntax},
		{replace(`"metadata"`, `"options":[{"type":0}],"metadata"`), "receipt", ErrUnsupported},
		{replace(`"metadata"`, `"options":[{"type":1},{"type":1}],"metadata"`), "options: 2", ErrSyntax},
		{replace(`"type": 0`, `"type": 1`), "signatures[0].type: 1", ErrUnsupported},
		{replace(`"signatures"`, `"others"`), "signatures: 0", ErrSyntax},
		{replace(`"publicKey"`, `"key"`), "signatures[0].publicKey: 0 bytes", ErrSyntax},
	} {
		m := Milestone{Index: 99}
		if err := json.Unmarshal([]byte(tt.in), &m); err == nil || !errors.Is(err, tt.err) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%.100s: %v; want %v with %q", tt.in, err, tt.err, tt.text)
		}
		if m.Index != 99 {
			t.Errorf("%.100s: milestone changed by an error", tt.in)
		}
	}
}

func TestParsedMilestoneSharesNoMemory(t *testing.T) {
	for _, v := range milestoneVectors(t) {
		raw := unhex(t, v.Payload)
		m, err := ParseMilestone(raw)
		if err != nil {
			t.Fatal(err)
		}
		clear(raw)
		if m.ID() != v.MilestoneID {
			t.Errorf("%s: milestone changed with its bytes", v.Name)
		}
	}
}

// What ParseMilestone accepts must encode back to the bytes, and go through
// JSON unchanged.
func FuzzParseMilestone(f *testing.F) {
	for _, v := range milestoneVectors(f) {
		f.Add(unhex(f, v.Payload))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := ParseMilestone(raw)
		if err != nil {
			checkSentinel(t, err)
			return
		}
		if out, err := m.AppendBinary(nil); err != nil || !bytes.Equal(out, raw) {
			t.Errorf("encoded %x, %v; parsed from %x", out, err, raw)
		}
		text, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		var back Milestone
		if err := json.Unmarshal(text, &back); err != nil || !reflect.DeepEqual(&back, m) {
			t.Errorf("%s gives %+v, %v; want %+v", text, back, err, m)
		}
	})
}

// What UnmarshalJSON accepts can be encoded, and comes back from both forms.
func FuzzMilestoneJSON(f *testing.F) {
	for _, v := range milestoneVectors(f) {
		f.Add([]byte(v.JSON))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var m Milestone
		if err := m.UnmarshalJSON(text); err != nil {
			checkSentinel(t, err)
			return
		}
		raw, err := m.AppendBinary(nil)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if back, err := ParseMilestone(raw); err != nil || !reflect.DeepEqual(back, &m) {
			t.Errorf("ParseMilestone(%x) = %+v, %v; want %+v", raw, back, err, m)
		}
	})
}
