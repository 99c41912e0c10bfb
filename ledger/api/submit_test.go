package api

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

const blocksPath = "/api/core/v2/blocks"

// blockJSON returns the JSON of block bytes.
func blockJSON(t testing.TB, raw []byte) string {
	t.Helper()
	b, err := stardust.ParseBlock(raw)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// attached returns the block that a 201 names and checks that it says where.
func attached(t testing.TB, l *fakeLedger, w *httptest.ResponseRecorder) *stardust.Block {
	t.Helper()
	var got struct{ BlockID stardust.BlockID }
	if err := json.Unmarshal(w.Body.Bytes(), &got); w.Code != 201 || err != nil {
		t.Fatalf("answer is %d %s", w.Code, w.Body)
	}
	if want := blocksPath + "/" + got.BlockID.String(); w.Header().Get("Location") != want {
		t.Errorf("Location = %q, want %q", w.Header().Get("Location"), want)
	}
	raw, err := l.Block(got.BlockID)
	if err != nil {
		t.Fatalf("the block of a 201: %v", err)
	}
	b, err := stardust.ParseBlock(raw)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestCompleteBlockIsAttachedAsItIs(t *testing.T) {
	l := newFakeLedger(1)
	s := newTest(t, Config{}, l, nil)
	raw := block(t, 1, "hello")
	for _, tt := range []struct{ body, media string }{
		{string(raw), "application/vnd.iota.serializer-v1"},
		{blockJSON(t, raw), "application/json"},
		{blockJSON(t, raw), "application/json; charset=utf-8"},
		{blockJSON(t, raw), "Application/JSON;charset"},
	} {
		w := call(s, "POST", blocksPath, tt.body, "Content-Type: "+tt.media)
		if id, _ := attached(t, l, w).ID(); id != stardust.IDOf(raw) {
			t.Errorf("%s: attached %v, want %v", tt.media, id, stardust.IDOf(raw))
		}
	}
}

func TestGatewayChoosesParentsAndNonceWhenTheBlockHasNone(t *testing.T) {
	l := newFakeLedger(1)
	s := newTest(t, Config{}, l, proverFunc(search))
	a, b := block(t, 1, "a"), block(t, 1, "b")
	call(s, "POST", blocksPath, string(a), isBytes)
	call(s, "POST", blocksPath, string(b), isBytes)
	l.setTips(stardust.SortParents([]stardust.BlockID{stardust.IDOf(a), stardust.IDOf(b)})...)
	for _, body := range []string{
		`{"protocolVersion":2,"parents":[],"payload":{"type":5,"tag":"0x74","data":"0x00"},"nonce":"0"}`,
		`{"protocolVersion":2,"payload":{"type":5,"tag":"0x","data":"0x"},"nonce":""}`,
		`{"protocolVersion":2}`,
	} {
		got := attached(t, l, call(s, "POST", blocksPath, body, isJSON))
		if len(got.Parents) != 2 || got.Parents[0] != l.tips[0] {
			t.Errorf("%s: parents %v, want the tips %v", body, got.Parents, l.tips)
		}
	}
}

func TestParentsOfTheClientAreKeptWhenTheGatewaySearches(t *testing.T) {
	l := newFakeLedger(1)
	s := newTest(t, Config{}, l, proverFunc(search))
	parent := block(t, 1, "parent")
	call(s, "POST", blocksPath, string(parent), isBytes)
	raw := block(t, 1, "child", stardust.IDOf(parent))
	stardust.SetNonce(raw, 0)
	if ledger.CheckScore(raw, 1) == nil {
		t.Fatal("nonce 0 suffices; change the data")
	}
	for body, media := range map[string]string{string(raw): isBytes, blockJSON(t, raw): isJSON} {
		got := attached(t, l, call(s, "POST", blocksPath, body, media))
		if len(got.Parents) != 1 || got.Parents[0] != stardust.IDOf(parent) || got.Nonce == 0 {
			t.Errorf("%s: attached %+v, want the client's parent and a nonce", media, got)
		}
	}
}

func TestNonceZeroIsNotReplacedWhenItSuffices(t *testing.T) {
	l := newFakeLedger(0)
	s := newTest(t, Config{}, l, proverFunc(func(context.Context, [32]byte, int) (uint64, error) {
		t.Error("a nonce was searched")
		return 1, nil
	}))
	raw := block(t, 0, "hello")
	stardust.SetNonce(raw, 0)
	if got := attached(t, l, call(s, "POST", blocksPath, string(raw), isBytes)); got.Nonce != 0 {
		t.Errorf("nonce %d, want 0", got.Nonce)
	}
}

func TestRefusedBlocksAreToldWhy(t *testing.T) {
	l := newFakeLedger(20)
	s := newTest(t, Config{}, l, proverFunc(search))
	unknown := stardust.BlockID{0xab}
	orphan := blockJSON(t, block(t, 20, "", unknown))
	unproven := block(t, 20, "")
	stardust.SetNonce(unproven, 1)
	unprovenOrphan := block(t, 20, "x", unknown)
	stardust.SetNonce(unprovenOrphan, 0)
	for _, tt := range []struct {
		name, body, media string
		status            int
		text              string
	}{
		{"no media type", "{}", "", 415, `Content-Type is ""`},
		{"other media type", "{}", "text/plain", 415, "application/json"},
		{"nothing", "", "application/json", 400, "body: empty"},
		{"no JSON", "hello", "application/json", 400, "block:"},
		{"JSON null", "null", "application/json", 400, "block:"},
		{"JSON of another kind", "[1]", "application/json", 400, "block:"},
		{"no version", `{"parents":[]}`, "application/json", 400, "protocolVersion"},
		{"version", `{"protocolVersion":1}`, "application/json", 400, "protocolVersion"},
		{"tag", `{"protocolVersion":2,"payload":{"type":5,"tag":"12"}}`, "application/json", 400, "payload.tag"},
		{"payload", `{"protocolVersion":2,"payload":{"type":6}}`, "application/json", 400, "payload"},
		{"nonce without parents", `{"protocolVersion":2,"nonce":"5"}`, "application/json", 400, "parents is empty"},
		{"no block", "\x02\x01", "application/vnd.iota.serializer-v1", 400, "block:"},
		{"unknown parent", orphan, "application/json", 400, unknown.String()},
		{"unknown parent", orphan, "application/json", 400, "block is not solid"},
		{"unknown parent, no nonce", string(unprovenOrphan), "application/vnd.iota.serializer-v1", 400, unknown.String()},
		{"score", string(unproven), "application/vnd.iota.serializer-v1", 400, "need"},
		{"too long", strings.Repeat(" ", maxBody+1), "application/json", 413, "1048576"},
		{"too large", strings.Repeat("\x02", stardust.MaxBlockSize+1), "application/vnd.iota.serializer-v1", 400, "32768"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := call(s, "POST", blocksPath, tt.body, "Content-Type: "+tt.media)
			if text := errorText(t, w); w.Code != tt.status || !strings.Contains(text, tt.text) {
				t.Errorf("answer is %d %q, want %d with %q", w.Code, text, tt.status, tt.text)
			}
		})
	}
	if n := l.Stats().Blocks; n != 0 {
		t.Errorf("%d blocks attached, want none", n)
	}
}

func TestInvalidBlocksOfTheVectorsAreRefused(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "stardust", "testdata", "invalid_blocks.json"))
	if err != nil {
		t.Fatal(err)
	}
	var vectors struct {
		Blocks []struct {
			Name, Serialized string
			MustReject       bool
		}
	}
	if err := json.Unmarshal(text, &vectors); err != nil || len(vectors.Blocks) < 20 {
		t.Fatalf("%d vectors, %v", len(vectors.Blocks), err)
	}
	for _, v := range vectors.Blocks {
		t.Run(v.Name, func(t *testing.T) {
			raw, err := hex.DecodeString(strings.TrimPrefix(v.Serialized, "0x"))
			if err != nil {
				t.Fatal(err)
			}
			l := newFakeLedger(100)
			if b, err := stardust.ParseBlock(raw); err == nil {
				for _, p := range b.Parents {
					l.blocks[p] = []byte{} // parents are not the reason
				}
			}
			w := call(newTest(t, Config{}, l, nil), "POST", blocksPath, string(raw), isBytes)
			switch {
			case !v.MustReject:
				attached(t, l, w)
			case w.Code/100 != 4 && w.Code != 503: // 503: nonce 0, and no prover here
				t.Errorf("answer is %d %s, want a refusal", w.Code, w.Body)
			default:
				errorText(t, w)
			}
		})
	}
}

func TestWithoutProverTheClientHasToSearch(t *testing.T) {
	s := newTest(t, Config{}, newFakeLedger(20), nil)
	w := call(s, "POST", blocksPath, `{"protocolVersion":2}`, isJSON)
	if text := errorText(t, w); w.Code != 400 || !strings.Contains(text, "/api/core/v2/tips") {
		t.Errorf("no parents: %d %q, want 400 that names the tips", w.Code, text)
	}
	raw := block(t, 20, "")
	stardust.SetNonce(raw, 0)
	w = call(s, "POST", blocksPath, string(raw), isBytes)
	if text := errorText(t, w); w.Code != 503 || !strings.Contains(text, "no proof of work") {
		t.Errorf("no nonce: %d %q, want 503", w.Code, text)
	}
	if w := call(s, "GET", "/api/core/v2/info", ""); !strings.Contains(w.Body.String(), `"features":[]`) {
		t.Errorf("info promises proof of work: %s", w.Body)
	}
}

func TestWhatPassesByItselfIs503WithRetryAfter(t *testing.T) {
	raw := string(block(t, 0, ""))
	for _, err := range []error{ledger.ErrBusy, ledger.ErrClosed, fmt.Errorf("%w: disk full", ledger.ErrBusy)} {
		l := newFakeLedger(0)
		l.err = err
		w := call(newTest(t, Config{}, l, nil), "POST", blocksPath, raw, isBytes)
		if text := errorText(t, w); w.Code != 503 || w.Header().Get("Retry-After") == "" || !strings.Contains(text, err.Error()) {
			t.Errorf("%v: %d %q Retry-After %q", err, w.Code, text, w.Header().Get("Retry-After"))
		}
	}
	busy := proverFunc(func(context.Context, [32]byte, int) (uint64, error) { return 0, errors.New("queue full") })
	w := call(newTest(t, Config{}, newFakeLedger(20), busy), "POST", blocksPath, `{"protocolVersion":2}`, isJSON)
	if text := errorText(t, w); w.Code != 503 || !strings.Contains(text, "queue full") {
		t.Errorf("busy prover: %d %q", w.Code, text)
	}
}

func TestWhoIsNotAdmittedIsTold429AndAttachesNothing(t *testing.T) {
	l := newFakeLedger(0)
	s := newTest(t, Config{Admit: func(_ context.Context, remote string) error {
		return &TooManyError{Why: remote, After: 1500 * time.Millisecond}
	}}, l, nil)
	before := len(l.blocks)
	w := call(s, "POST", blocksPath, string(block(t, 0, "")), isBytes)
	if text := errorText(t, w); w.Code != 429 || w.Header().Get("Retry-After") != "2" || !strings.Contains(text, "192.0.2.1:1234; come again in 2s") {
		t.Errorf("%d %q Retry-After %q", w.Code, text, w.Header().Get("Retry-After"))
	}
	if len(l.blocks) != before {
		t.Error("a block was attached all the same")
	}
}

func TestAnErrorOfTheStoreIsNotShown(t *testing.T) {
	l := newFakeLedger(0)
	l.err = errors.New("secret path")
	w := call(newTest(t, Config{}, l, nil), "POST", blocksPath, string(block(t, 0, "")), isBytes)
	if text := errorText(t, w); w.Code != 500 || strings.Contains(text, "secret") {
		t.Errorf("answer is %d %q, want 500 without details", w.Code, text)
	}
}

// never blocks until its context ends.
var never = proverFunc(func(ctx context.Context, _ [32]byte, _ int) (uint64, error) {
	<-ctx.Done()
	return 0, ctx.Err()
})

func TestNewerTipsAreTakenDuringALongSearch(t *testing.T) {
	parent := block(t, 1, "parent")
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLedger(1)
		l.blocks[stardust.IDOf(parent)] = parent
		searches := 0
		p := proverFunc(func(ctx context.Context, digest [32]byte, zeros int) (uint64, error) {
			if searches++; searches < 3 {
				return never(ctx, digest, zeros)
			}
			return search(ctx, digest, zeros)
		})
		s := newTest(t, Config{TipRefresh: time.Second}, l, p)
		time.AfterFunc(1500*time.Millisecond, func() { l.setTips(stardust.IDOf(parent)) })
		got := attached(t, l, call(s, "POST", blocksPath, `{"protocolVersion":2}`, isJSON))
		if searches != 3 || got.Parents[0] != stardust.IDOf(parent) {
			t.Errorf("%d searches, parents %v; want 3 and the newer tip", searches, got.Parents)
		}
	})
}

func TestSearchEndsAfterItsTime(t *testing.T) {
	parent := block(t, 20, "")
	stardust.SetNonce(parent, 0)
	for name, req := range map[string][2]string{"parents of the gateway": {`{"protocolVersion":2}`, isJSON}, "of the client": {string(parent), isBytes}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				s := newTest(t, Config{PoWTime: 7 * time.Second, TipRefresh: 2 * time.Second}, newFakeLedger(20), never)
				w := call(s, "POST", blocksPath, req[0], req[1])
				if text := errorText(t, w); w.Code != 503 || !strings.Contains(text, "7s") || time.Since(start) != 7*time.Second {
					t.Errorf("after %v: %d %q, want 503 after 7s", time.Since(start), w.Code, text)
				}
			})
		})
	}
}

func TestSearchesAtATimeAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTest(t, Config{PoWJobs: 2}, newFakeLedger(20), never)
		for range 2 {
			go call(s, "POST", blocksPath, `{"protocolVersion":2}`, isJSON)
		}
		synctest.Wait()
		w := call(s, "POST", blocksPath, `{"protocolVersion":2}`, isJSON)
		if text := errorText(t, w); w.Code != 503 || w.Header().Get("Retry-After") == "" || !strings.Contains(text, "2 other blocks") {
			t.Errorf("third search: %d %q, want 503", w.Code, text)
		}
		time.Sleep(3 * time.Minute) // the two have ended
		synctest.Wait()
		if searchesOf(s) != 0 || len(s.submits) != 0 {
			t.Errorf("%d searches, %d submissions left, want none", searchesOf(s), len(s.submits))
		}
	})
}

func searchesOf(s *Server) int {
	s.jobs.mu.Lock()
	defer s.jobs.mu.Unlock()
	return s.jobs.total
}

func TestAClientHasHalfOfTheSearches(t *testing.T) {
	client := func(remote string) netip.Prefix { return netip.MustParsePrefix(remote + "/32") }
	j := newJobs(4, client)
	var leave []func()
	for _, tt := range []struct{ remote, refused string }{
		{"10.0.0.1", ""}, {"10.0.0.1", ""}, {"10.0.0.1", "2 of your blocks"},
		{"10.0.0.2", ""}, {"10.0.0.3", ""}, {"10.0.0.4", "4 other blocks"},
	} {
		end, err := j.enter(tt.remote)
		if (err == nil) != (tt.refused == "") || err != nil && !strings.Contains(err.Error(), tt.refused) {
			t.Errorf("enter of %s: %v, want %q", tt.remote, err, tt.refused)
		}
		if err == nil {
			leave = append(leave, end)
		}
	}
	for _, end := range leave {
		end()
	}
	if j.total != 0 || len(j.of) != 0 {
		t.Errorf("%d searches of %v are left", j.total, j.of)
	}
}

func TestAClientThatLeavesEndsItsSearch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTest(t, Config{}, newFakeLedger(20), never)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		r := httptest.NewRequestWithContext(ctx, "POST", blocksPath, strings.NewReader(`{"protocolVersion":2}`))
		r.Header.Set("Content-Type", "application/json")
		start := time.Now()
		s.ServeHTTP(httptest.NewRecorder(), r)
		if time.Since(start) != time.Second || searchesOf(s) != 0 {
			t.Errorf("search went on for %v", time.Since(start))
		}
	})
}

// A block that fills its 32 KiB leaves no room for a second parent.
func TestFewerParentsAreTakenWhenTheBlockIsFull(t *testing.T) {
	l := newFakeLedger(0)
	s := newTest(t, Config{}, l, proverFunc(search))
	other := block(t, 0, "other")
	l.blocks[stardust.IDOf(other)] = other
	l.setTips(stardust.GenesisID, stardust.IDOf(other))
	data := strings.Repeat("00", stardust.MaxBlockSize-46-9)
	got := attached(t, l, call(s, "POST", blocksPath, `{"protocolVersion":2,"payload":{"type":5,"data":"0x`+data+`"}}`, isJSON))
	if len(got.Parents) != 1 || got.Size() != stardust.MaxBlockSize {
		t.Errorf("%d parents, %d bytes", len(got.Parents), got.Size())
	}
}

// Whatever the body is, the answer is 201 or an error that names a reason,
// and what was attached is a block that the ledger would take again.
func FuzzSubmit(f *testing.F) {
	raw := block(f, 0, "seed")
	f.Add(true, string(raw))
	f.Add(false, blockJSON(f, raw))
	f.Add(false, `{"protocolVersion":2,"parents":[],"payload":{"type":5,"tag":"0x74","data":"0x00"},"nonce":"0"}`)
	f.Add(false, `{"protocolVersion":2,"parents":["0x`+strings.Repeat("00", 32)+`"],"nonce":"18446744073709551615"}`)
	l := newFakeLedger(0)
	s := newTest(f, Config{}, l, proverFunc(search))
	f.Fuzz(func(t *testing.T, bytes bool, body string) {
		media := isJSON
		if bytes {
			media = isBytes
		}
		w := call(s, "POST", blocksPath, body, media)
		if w.Code != 201 {
			if errorText(t, w); w.Code != 400 && w.Code != 413 {
				t.Errorf("status %d", w.Code)
			}
			return
		}
		b := attached(t, l, w)
		if again, err := b.AppendBinary(nil); err != nil || bytes && string(again) != body {
			t.Errorf("attached %x from %q, %v", again, body, err)
		}
		clear(l.blocks)
	})
}
