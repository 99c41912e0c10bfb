package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

func TestInfoHasExactlyTheFieldsOfTIP25(t *testing.T) {
	s := newTest(t, Config{Version: "1.2.3"}, newFakeLedger(100), proverFunc(search))
	w := call(s, "GET", "/api/core/v2/info", "")
	const zero = `"0x0000000000000000000000000000000000000000000000000000000000000000"`
	want := `{"name":"hedgerow","version":"1.2.3",` +
		`"status":{"isHealthy":true,"latestMilestone":{"index":0,"timestamp":0,"milestoneId":` + zero + `},` +
		`"confirmedMilestone":{"index":0,"timestamp":0,"milestoneId":` + zero + `},"pruningIndex":0},` +
		`"supportedProtocolVersions":[2],` +
		`"protocol":{"version":2,"networkName":"hedgerow-test","bech32Hrp":"hdg","minPowScore":100,"belowMaxDepth":15,` +
		`"rentStructure":{"vByteCost":100,"vByteFactorData":1,"vByteFactorKey":10},"tokenSupply":"1000000000000"},` +
		`"pendingProtocolParameters":[],` +
		`"baseToken":{"name":"Hedgerow","tickerSymbol":"HDG","unit":"HDG","decimals":6,"useMetricPrefix":false},` +
		`"metrics":{"blocksPerSecond":0,"referencedBlocksPerSecond":0,"referencedRate":0},"features":["PoW"]}`
	if w.Code != 200 || w.Body.String() != want {
		t.Errorf("info = %d %s\nwant %s", w.Code, w.Body, want)
	}
}

func TestInfoTellsWhatIsPruned(t *testing.T) {
	l := newFakeLedger(0)
	l.pruned = 907
	if w := call(newTest(t, Config{}, l, nil), "GET", "/api/core/v2/info", ""); !strings.Contains(w.Body.String(), `"pruningIndex":907`) {
		t.Errorf("info = %s", w.Body)
	}
}

func TestHealthIsThatOfTheLedgerWithoutBody(t *testing.T) {
	var sick error
	s := newTest(t, Config{Health: func() error { return sick }}, newFakeLedger(0), nil)
	for err, want := range map[error]int{nil: 200, errors.New("stopped"): 503} {
		sick = err
		if w := call(s, "GET", "/health", ""); w.Code != want || w.Body.Len() != 0 {
			t.Errorf("health with %v = %d %q, want %d without body", err, w.Code, w.Body, want)
		}
	}
	if w := call(s, "GET", "/api/core/v2/info", ""); !strings.Contains(w.Body.String(), `"isHealthy":`) {
		t.Errorf("info = %s", w.Body)
	}
}

func TestRoutesAndTips(t *testing.T) {
	l := newFakeLedger(0)
	s := newTest(t, Config{Routes: []string{"hedgerow/v1"}}, l, nil)
	if w := call(s, "GET", "/api/routes", ""); w.Body.String() != `{"routes":["core/v2","hedgerow/v1","poi/v1"]}` {
		t.Errorf("routes = %s", w.Body)
	}
	if w := call(s, "GET", "/api/core/v2/tips", ""); w.Body.String() != `{"tips":["`+stardust.GenesisID.String()+`"]}` {
		t.Errorf("tips = %s", w.Body)
	}
}

func TestRoutesOfLaterVersionsAreNotFoundInTheErrorForm(t *testing.T) {
	s := newTest(t, Config{}, newFakeLedger(0), nil)
	for _, path := range []string{
		"/", "/api/core/v2/outputs/0x00", "/api/core/v2/milestones/1/utxo-changes", "/api/indexer/v1/outputs/basic?address=hdg1", "/api/core/v2/blocks/",
	} {
		w := call(s, "GET", path, "")
		if text := errorText(t, w); w.Code != 404 || !strings.Contains(text, "no route") {
			t.Errorf("GET %s = %d %q, want 404", path, w.Code, text)
		}
	}
}

func TestOtherMethodsAreRefusedWithAllow(t *testing.T) {
	s := newTest(t, Config{}, newFakeLedger(0), nil)
	for _, tt := range []struct{ method, path, allow string }{
		{"DELETE", "/api/core/v2/info", "GET, HEAD, OPTIONS"},
		{"POST", "/api/core/v2/tips", "GET, HEAD, OPTIONS"},
		{"GET", "/api/core/v2/blocks", "POST, OPTIONS"},
		{"GET", "/api/poi/v1/validate", "POST, OPTIONS"},
	} {
		w := call(s, tt.method, tt.path, "")
		errorText(t, w)
		if w.Code != 405 || w.Header().Get("Allow") != tt.allow {
			t.Errorf("%s %s = %d Allow %q, want 405 %q", tt.method, tt.path, w.Code, w.Header().Get("Allow"), tt.allow)
		}
	}
}

func TestBrowsersOfAnyOriginMayAsk(t *testing.T) {
	s := newTest(t, Config{}, newFakeLedger(0), nil)
	w := call(s, "OPTIONS", "/api/core/v2/blocks", "", "Origin: https://example.org", "Access-Control-Request-Method: POST")
	h := w.Header()
	if w.Code != http.StatusNoContent || h.Get("Access-Control-Allow-Origin") != "*" ||
		!strings.Contains(h.Get("Access-Control-Allow-Methods"), "POST") || !strings.Contains(h.Get("Access-Control-Allow-Headers"), "Content-Type") ||
		h.Get("Access-Control-Allow-Credentials") != "" {
		t.Errorf("preflight = %d %v", w.Code, h)
	}
	if w := call(s, "GET", "/api/core/v2/tips", "", "Origin: https://example.org"); w.Header().Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("tips has no Access-Control-Allow-Origin")
	}
}

func TestBlockComesAsAcceptAsks(t *testing.T) {
	l := newFakeLedger(0)
	s := newTest(t, Config{}, l, nil)
	raw := block(t, 0, "hello")
	if w := call(s, "POST", "/api/core/v2/blocks", string(raw), isBytes); w.Code != 201 {
		t.Fatal(w.Body)
	}
	id := stardust.IDOf(raw)
	for _, tt := range []struct {
		accept string
		bytes  bool
	}{
		{"", false}, {"*/*", false}, {"application/json", false}, {"text/html", false},
		{"application/vnd.iota.serializer-v1", true}, {"Application/vnd.iota.serializer-v1;q=0.9, */*;q=0.1", true},
		{"application/json, application/vnd.iota.serializer-v1", false},
	} {
		for _, path := range []string{id.String(), "0x" + strings.ToUpper(id.String()[2:])} {
			w := call(s, "GET", "/api/core/v2/blocks/"+path, "", "Accept: "+tt.accept)
			if got := w.Body.String() == string(raw); w.Code != 200 || got != tt.bytes {
				t.Errorf("Accept %q = %d, bytes %v, want %v", tt.accept, w.Code, got, tt.bytes)
			}
			var b stardust.Block
			if err := json.Unmarshal(w.Body.Bytes(), &b); !tt.bytes && err != nil {
				t.Errorf("Accept %q: %v", tt.accept, err)
			}
		}
	}
	want := `{"blockId":"` + id.String() + `","parents":["` + stardust.GenesisID.String() + `"],"isSolid":true,"shouldPromote":false,"shouldReattach":false}`
	if w := call(s, "GET", "/api/core/v2/blocks/"+id.String()+"/metadata", ""); w.Body.String() != want {
		t.Errorf("metadata = %s, want %s", w.Body, want)
	}
	want = `{"blockId":"` + stardust.GenesisID.String() + `","parents":[],"isSolid":true}`
	if w := call(s, "GET", "/api/core/v2/blocks/"+stardust.GenesisID.String()+"/metadata", ""); w.Body.String() != want {
		t.Errorf("metadata of the genesis = %s, want %s", w.Body, want)
	}
	want = `"count":1,"children":["` + id.String() + `"]}`
	if w := call(s, "GET", "/api/core/v2/blocks/"+stardust.GenesisID.String()+"/children", ""); !strings.HasSuffix(w.Body.String(), want) {
		t.Errorf("children of the genesis = %s, want …%s", w.Body, want)
	}
}

func TestUnknownBlockIs404AndMalformedIdIs400(t *testing.T) {
	s := newTest(t, Config{}, newFakeLedger(0), nil)
	unknown := "0x" + strings.Repeat("ab", 32)
	for _, tt := range []struct {
		id, text string
		status   int
	}{
		{unknown, "block " + unknown + " not known", 404},
		{stardust.GenesisID.String(), "genesis", 404},
		{"0x12", "block id in the path", 400},
		{"xyz", "block id in the path", 400},
		{strings.Repeat("ab", 32), "block id in the path", 400},
	} {
		for _, suffix := range []string{"", "/metadata", "/children"} {
			if suffix != "" && tt.id == stardust.GenesisID.String() {
				continue
			}
			w := call(s, "GET", "/api/core/v2/blocks/"+tt.id+suffix, "")
			if text := errorText(t, w); w.Code != tt.status || !strings.Contains(text, tt.text) {
				t.Errorf("GET %s%s = %d %q, want %d with %q", tt.id, suffix, w.Code, text, tt.status, tt.text)
			}
		}
	}
}
