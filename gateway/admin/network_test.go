package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

type fakeUpdates struct {
	p   Proposal
	err error
}

func (u *fakeUpdates) Propose(context.Context, *network.File) (Proposal, error) { return u.p, u.err }

func postFile(b box, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("POST", "/api/hedgerow/v1/network", strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+token)
	w := httptest.NewRecorder()
	b.ServeHTTP(w, r)
	return w
}

// updateBox is a box that takes network files.
func updateBox(t *testing.T, u Updates) box {
	b := newBox(t, Config{})
	b.file.Gateways[0].PublicKey[0] = 1 // none is zero
	src := b.src
	src.Updates = u
	h, err := New(b.cfg, src, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	b.Handler = h
	return b
}

func TestTheNetworkFileInForceIsAnsweredAsAFile(t *testing.T) {
	b := newBox(t, Config{})
	b.file.Gateways[0].PublicKey[0] = 1
	w := b.get("/api/hedgerow/v1/network")
	f, err := network.Parse(w.Body.Bytes())
	if w.Code != 200 || err != nil || f.Hash() != b.file.Hash() {
		t.Errorf("answer %d %s: %v", w.Code, w.Body, err)
	}
	if w := call(b, "GET", "/api/hedgerow/v1/network", ""); w.Code != 401 {
		t.Errorf("without token: %d", w.Code)
	}
	if w := postFile(b, "{}"); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("a box that takes no file: %d", w.Code)
	}
}

// What a file is refused for is said and counted.
func TestRefusedNetworkFilesAreCountedByReason(t *testing.T) {
	next, err := json.Marshal(updateBox(t, nil).file.Next())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		body   string
		err    error
		code   int
		reason string // "": not counted
	}{
		{"{", nil, 400, "invalid"},
		{strings.Repeat(" ", network.MaxFileSize+1), nil, 400, "invalid"},
		{string(next), network.ErrStale, 409, "stale"},
		{string(next), network.ErrForged, 409, "forged"},
		{string(next), network.ErrUnsigned, 409, "unsigned"},
		{string(next), network.ErrOtherNetwork, 409, "other_network"},
		{string(next), ErrTooLarge, 413, "too_large"},
		{string(next), ErrBehind, 503, "behind"},
		{string(next), ledger.ErrBusy, 503, ""},
	} {
		u := &fakeUpdates{}
		if tt.err != nil {
			u.err = fmt.Errorf("%w: as the test has it", tt.err)
		}
		b := updateBox(t, u)
		w := postFile(b, tt.body)
		if w.Code != tt.code || tt.err != nil && !strings.Contains(w.Body.String(), "as the test has it") {
			t.Errorf("%v: %d %s, want %d", tt.err, w.Code, w.Body, tt.code)
		}
		metrics := b.get("/metrics").Body.String()
		for _, why := range updateRefusals() {
			want := 0
			if why.reason == tt.reason {
				want = 1
			}
			if line := fmt.Sprintf("hedgerow_network_files_refused_total{reason=%q} %d\n", why.reason, want); !strings.Contains(metrics, line) {
				t.Errorf("%v: metrics lack %s", tt.err, line)
			}
		}
	}
}

func TestATakenNetworkFileIsAnsweredWithWhatHappensNext(t *testing.T) {
	u := &fakeUpdates{p: Proposal{Epoch: 1, Hash: [32]byte{1}, Block: fakeBlock}}
	b := updateBox(t, u)
	next, err := json.Marshal(b.file.Next())
	if err != nil {
		t.Fatal(err)
	}
	var got proposalJSON
	if w := postFile(b, string(next)); w.Code != 202 || json.Unmarshal(w.Body.Bytes(), &got) != nil ||
		got.State != "attached" || got.Block != fakeBlock.String() || got.Epoch != 1 || got.Next == "" {
		t.Errorf("answer %d %s", w.Code, w.Body)
	}
	u.p = Proposal{Epoch: 1, InForce: true}
	if w := postFile(b, string(next)); w.Code != 200 || !strings.Contains(w.Body.String(), `"state":"inForce"`) {
		t.Errorf("in force: %d %s", w.Code, w.Body)
	}
}
