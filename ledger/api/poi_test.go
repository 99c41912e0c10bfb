package api

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// certifiedBlocks returns a ledger of four gateways with n blocks in a certified
// milestone.
func certifiedBlocks(t testing.TB, n int) (*fakeLedger, []stardust.BlockID) {
	t.Helper()
	l := newFakeLedger(0)
	l.Chain = NewChain(4, 0)
	var data []string
	for i := range n {
		data = append(data, fmt.Sprint("block ", i))
	}
	ids := l.attach(t, data...)
	l.Confirm(entries(ids...)...)
	l.Certify()
	return l, ids
}

// validate returns whether a proof is said to hold, and if not why.
func validate(t testing.TB, s *Server, body string) (valid bool, reason string) {
	t.Helper()
	w := call(s, "POST", "/api/poi/v1/validate", body, isJSON)
	var got struct {
		Valid  *bool
		Reason string
	}
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != 200 || got.Valid == nil {
		t.Fatalf("validate %.200s = %d %s", body, w.Code, w.Body)
	}
	return *got.Valid, got.Reason
}

func TestProofOfEveryBlockOfAMilestoneHolds(t *testing.T) {
	for _, n := range []int{1, 2, 7, 33} {
		l, ids := certifiedBlocks(t, n)
		s := newTest(t, Config{}, l, nil)
		for i, id := range ids {
			w := call(s, "GET", "/api/poi/v1/create/"+id.String(), "")
			if w.Code != 200 {
				t.Fatalf("proof of block %d of %d = %d %s", i, n, w.Code, w.Body)
			}
			var parts map[string]json.RawMessage
			if err := json.Unmarshal(w.Body.Bytes(), &parts); err != nil || len(parts) != 3 {
				t.Errorf("proof has %d parts, %v; want milestone, block and proof", len(parts), err)
			}
			if valid, reason := validate(t, s, w.Body.String()); !valid || reason != "" {
				t.Errorf("proof of block %d of %d: valid %v, %s", i, n, valid, reason)
			}
		}
	}
}

func TestProofThatWasChangedDoesNotHold(t *testing.T) {
	l, ids := certifiedBlocks(t, 5)
	s := newTest(t, Config{}, l, nil)
	text := call(s, "GET", "/api/poi/v1/create/"+ids[2].String(), "").Body.Bytes()
	for _, tt := range []struct {
		name, reason string
		change       func(p *proof)
	}{
		{"block", "is of block", func(p *proof) { p.Block.Nonce++ }},
		{"value", "is of block", func(p *proof) { p.Inclusion.Block = ids[3] }},
		{"way", "does not lead", func(p *proof) { p.Inclusion.Siblings = p.Inclusion.Siblings[1:] }},
		{"hash", "does not lead", func(p *proof) { p.Inclusion.Siblings[0].Hash[0]++ }},
		{"side", "does not lead", func(p *proof) { p.Inclusion.Siblings[0].Left = !p.Inclusion.Siblings[0].Left }},
		{"root", "does not lead", func(p *proof) { p.Milestone.InclusionRoot[0]++ }},
		{"index", "does not fit", func(p *proof) { p.Milestone.Index++ }},
		{"a signature", "does not fit", func(p *proof) { p.Milestone.Signatures[0].Signature[0]++ }},
		{"quorum", "weight 2 of 3", func(p *proof) { p.Milestone.Signatures = p.Milestone.Signatures[:2] }},
		{"a stranger's signature", "is no member", func(p *proof) { p.Milestone.Signatures[3].PublicKey[0] = 0xff }},
		{"network", "not one of this network", func(p *proof) { p.Milestone.Metadata[8]++ }},
		{"epoch", "not one of this network", func(p *proof) { p.Milestone.Metadata[0]++ }},
		{"metadata", "not a milestone of this kind of network", func(p *proof) { p.Milestone.Metadata = nil }},
	} {
		var p proof
		if err := json.Unmarshal(text, &p); err != nil {
			t.Fatal(err)
		}
		tt.change(&p)
		changed, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		if valid, reason := validate(t, s, string(changed)); valid || !strings.Contains(reason, tt.reason) {
			t.Errorf("with another %s: valid %v, %q; want not, with %q", tt.name, valid, reason, tt.reason)
		}
	}
}

func TestProofIsJudgedByTheNetworkFileOfItsEpoch(t *testing.T) {
	l, ids := certifiedBlocks(t, 2)
	proof := call(newTest(t, Config{}, l, nil), "GET", "/api/poi/v1/create/"+ids[0].String(), "").Body.String()
	later := newFakeLedger(0) // one gateway, another file
	old := l.File
	s := newTest(t, Config{NetworkOf: func(hash [32]byte) *network.File {
		if hash != old.Hash() {
			return nil
		}
		return old
	}}, later, nil)
	if valid, reason := validate(t, s, proof); !valid {
		t.Errorf("a proof of an earlier epoch does not hold: %s", reason)
	}
	if valid, _ := validate(t, newTest(t, Config{}, later, nil), proof); valid {
		t.Error("a proof of an unknown network holds")
	}
}

func TestBlocksWithoutProofAreRefusedByName(t *testing.T) {
	l, _ := certifiedBlocks(t, 2)
	s := newTest(t, Config{}, l, nil)
	free := l.attach(t, "free")[0].String()
	confirmed := l.attach(t, "confirmed")
	l.Confirm(entries(confirmed...)...)
	unknown := "0x" + strings.Repeat("ab", 32)
	for _, tt := range []struct {
		id, text string
		status   int
	}{
		{unknown, "block " + unknown + " not known here", 404},
		{stardust.GenesisID.String(), "genesis", 404},
		{free, "block " + free + " is not referenced by a milestone yet", 404},
		{confirmed[0].String(), "milestone 2 is not signed by a quorum", 503},
		{"0x12", "block id in the path", 400},
	} {
		w := call(s, "GET", "/api/poi/v1/create/"+tt.id, "")
		if text := errorText(t, w); w.Code != tt.status || !strings.Contains(text, tt.text) {
			t.Errorf("GET %s = %d %q, want %d with %q", tt.id, w.Code, text, tt.status, tt.text)
		}
	}
}

func TestProofsThatCannotBeReadAreRefused(t *testing.T) {
	l, ids := certifiedBlocks(t, 2)
	s := newTest(t, Config{}, l, nil)
	good := call(s, "GET", "/api/poi/v1/create/"+ids[0].String(), "").Body.String()
	for _, tt := range []struct {
		name, body, header, text string
		status                   int
	}{
		{"not said to be JSON", good, isBytes, "Content-Type", 415},
		{"empty", "", isJSON, "proof: ", 400},
		{"null", "null", isJSON, "want a JSON object with milestone, block and proof", 400},
		{"a part missing", `{"block":{"protocolVersion":2}}`, isJSON, "want a JSON object", 400},
		{"a part null", strings.Replace(good, `"proof":{`, `"proof":null,"x":{`, 1), isJSON, "want a JSON object", 400},
		{"block of another version", strings.Replace(good, `"block":{"protocolVersion":2`, `"block":{"protocolVersion":3`, 1), isJSON, "protocolVersion: 3", 400},
		{"nested deeply", `{"proof":` + strings.Repeat(`{"l":`, 20_000), isJSON, "proof: ", 400},
		{"long", `{"proof":"` + strings.Repeat("x", smallBody) + `"}`, isJSON, "above 131072 bytes", 413},
	} {
		w := call(s, "POST", "/api/poi/v1/validate", tt.body, tt.header)
		if text := errorText(t, w); w.Code != tt.status || !strings.Contains(text, tt.text) {
			t.Errorf("%s: %d %q, want %d with %q", tt.name, w.Code, text, tt.status, tt.text)
		}
	}
}

func TestProofsInWorkAreBounded(t *testing.T) {
	l, ids := certifiedBlocks(t, 2)
	s := newTest(t, Config{}, l, nil)
	create := func() *httptest.ResponseRecorder { return call(s, "GET", "/api/poi/v1/create/"+ids[0].String(), "") }
	good := create().Body.String()
	for range maxProofs {
		s.proofs <- struct{}{}
	}
	for _, w := range []*httptest.ResponseRecorder{create(), call(s, "POST", "/api/poi/v1/validate", good, isJSON)} {
		if text := errorText(t, w); w.Code != 503 || w.Header().Get("Retry-After") == "" || !strings.Contains(text, "4 proofs in progress") {
			t.Errorf("one more = %d %q", w.Code, text)
		}
	}
	<-s.proofs
	if w := create(); w.Code != 200 {
		t.Errorf("with a place free = %d %s", w.Code, w.Body)
	}
	if len(s.proofs) != maxProofs-1 {
		t.Errorf("%d places taken, want %d", len(s.proofs), maxProofs-1)
	}
}

// Whatever is posted as a proof is answered, and what is no proof is not valid.
func FuzzValidateProof(f *testing.F) {
	l, ids := certifiedBlocks(f, 3)
	s := newTest(f, Config{}, l, nil)
	good := call(s, "GET", "/api/poi/v1/create/"+ids[0].String(), "").Body.String()
	f.Add(good)
	f.Add(`{"milestone":null}`)
	var want proof
	if err := json.Unmarshal([]byte(good), &want); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body string) {
		w := call(s, "POST", "/api/poi/v1/validate", body, isJSON)
		if w.Code != 200 {
			errorText(t, w)
			return
		}
		var p proof
		if valid, _ := validate(t, s, body); valid && (json.Unmarshal([]byte(body), &p) != nil || p.Milestone.ID() != want.Milestone.ID()) {
			t.Errorf("%s is said to hold", body)
		}
	})
}
