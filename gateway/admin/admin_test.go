package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/batching/reading"
)

func TestEveryRouteWantsTheToken(t *testing.T) {
	b := newBox(t, Config{})
	for _, path := range []string{"status", "readings", "readings/barn-7/1", "latest", "blocks?tag=a", "peers", "workers", "config", "events", "nothing"} {
		for _, given := range []string{"", "Bearer", "Bearer wrong", "Basic " + token, token} {
			b.guard.sources = map[netip.Prefix]source{} // no waiting here
			w := call(b, "GET", "/api/hedgerow/v1/"+path, given)
			if errorText(t, w); w.Code != 401 || w.Header().Get("WWW-Authenticate") == "" {
				t.Errorf("GET %s with %q = %d, want 401", path, given, w.Code)
			}
		}
	}
	for _, given := range []string{"Bearer " + token, "bearer " + token + " "} {
		if w := call(b, "GET", "/api/hedgerow/v1/config", given); w.Code != 200 {
			t.Errorf("with %q = %d, want 200", given, w.Code)
		}
	}
}

func TestWrongTokensMakeTheirSourceWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t, Config{})
		ask := func(from, token string) *httptest.ResponseRecorder {
			r := httptest.NewRequest("GET", "/api/hedgerow/v1/config", nil)
			r.RemoteAddr = from
			r.Header.Set("Authorization", "Bearer "+token)
			w := httptest.NewRecorder()
			b.ServeHTTP(w, r)
			return w
		}
		const thief = "10.0.0.9:4711"
		for i := range freeFailures {
			if w := ask(thief, "guess"); w.Code != 401 {
				t.Fatalf("guess %d = %d, want 401", i+1, w.Code)
			}
		}
		w := ask("10.0.0.9:4712", token) // even the right one: or guessing goes on
		if errorText(t, w); w.Code != 429 || w.Header().Get("Retry-After") == "" {
			t.Errorf("after %d guesses = %d, want 429 with Retry-After", freeFailures, w.Code)
		}
		if w := ask("10.0.0.8:4711", token); w.Code != 200 {
			t.Errorf("another source = %d, want 200", w.Code)
		}
		if w := ask("[2001:db8::1]:5", token); w.Code != 200 {
			t.Errorf("an IPv6 source = %d, want 200", w.Code)
		}
		time.Sleep(time.Second)
		if w := ask(thief, "guess"); w.Code != 401 {
			t.Errorf("a second later = %d, want 401", w.Code)
		}
		time.Sleep(time.Second) // the wait has doubled
		if w := ask(thief, "guess"); w.Code != 429 {
			t.Errorf("another second later = %d, want 429", w.Code)
		}
		time.Sleep(time.Second)
		if w := ask(thief, token); w.Code != 200 {
			t.Errorf("the right token after the wait = %d, want 200", w.Code)
		}
		if w := ask(thief, "guess"); w.Code != 401 {
			t.Errorf("a failure after a success = %d, want 401", w.Code)
		}
	})
}

func TestSourcesRememberedAreBounded(t *testing.T) {
	g := newGuard(token, time.Now)
	for i := range maxSources + 100 {
		addr := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		g.failed(netip.PrefixFrom(addr, 32))
	}
	if n := len(g.sources); n != maxSources {
		t.Errorf("%d sources, want %d", n, maxSources)
	}
}

func TestSourceIsAnAddressOrAnIPv6Network(t *testing.T) {
	for remote, want := range map[string]string{
		"10.1.2.3:80":            "10.1.2.3/32",
		"[::ffff:10.1.2.3]:80":   "10.1.2.3/32",
		"[2001:db8:1:2:3::4]:80": "2001:db8:1:2::/64",
		"[fe80::1%eth0]:80":      "fe80::/64",
		"@":                      "invalid Prefix",
	} {
		if got := SourceOf(remote).String(); got != want {
			t.Errorf("SourceOf(%s) = %s, want %s", remote, got, want)
		}
	}
}

func TestRequireGuardsAnotherHandler(t *testing.T) {
	b := newBox(t, Config{})
	h := b.Require(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }))
	for given, want := range map[string]int{"": 401, "Bearer " + token: 204} {
		if w := call(h, "GET", "/api/core/v2/info", given); w.Code != want {
			t.Errorf("with %q = %d, want %d", given, w.Code, want)
		}
	}
	if w := call(h, "OPTIONS", "/api/core/v2/info", ""); w.Code != 204 {
		t.Errorf("OPTIONS = %d, want it passed on", w.Code)
	}
}

func TestOtherPathsAndMethodsAreRefused(t *testing.T) {
	b := newBox(t, Config{})
	if w := b.get("/"); w.Code != 404 || errorText(t, w) == "" {
		t.Errorf("GET / = %d, want 404", w.Code)
	}
	if w := b.get("/api/hedgerow/v1/wallets"); w.Code != 404 || errorText(t, w) == "" {
		t.Errorf("GET wallets = %d, want 404", w.Code)
	}
	w := call(b, "POST", "/api/hedgerow/v1/readings", "Bearer "+token)
	if errorText(t, w); w.Code != 405 || w.Header().Get("Allow") != "GET, HEAD" {
		t.Errorf("POST readings = %d, want 405", w.Code)
	}
}

func TestReadyTellsTheTruth(t *testing.T) {
	b := newBox(t, Config{})
	if w := call(b, "GET", "/ready", ""); w.Code != 200 {
		t.Errorf("ready = %d, want 200", w.Code)
	}
	for reason, want := range map[error]string{
		batching.ErrBusy: "gateway busy",
		fmt.Errorf("%w: disk of /home/x has 7 bytes free", batching.ErrBusy): "gateway busy",
		batching.ErrClosed:         "gateway stopping",
		errors.New("open /home/x"): "not ready",
	} {
		b.stage.notReady = reason
		w := call(b, "GET", "/ready", "")
		if text := errorText(t, w); w.Code != 503 || text != want {
			t.Errorf("not ready for %q = %d %q, want 503 and why in words for anybody", reason, w.Code, text)
		}
	}
}

func TestStatusOfANetworkOfOne(t *testing.T) {
	clock := func() (time.Time, reading.Clock) { return time.UnixMilli(1795342504120), reading.ClockGood }
	b := newBox(t, Config{
		Clock:     clock,
		Listeners: func() []Listener { return []Listener{{"mqtt", "127.0.0.1:1883"}} },
	})
	b.fill(10)
	b.ledger.blocks = 3
	b.stage.stats = batching.Stats{Acked: 10, Backlog: batching.Backlog{Stored: 2, Batched: 3}}
	w := b.get("/api/hedgerow/v1/status")
	var got map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	for field, want := range map[string]string{
		"name": `"barn-7"`, "version": `"1.2.3"`, "network": `"hedgerow-test"`, "epoch": `0`,
		"quorum": `{"members":1,"needed":1,"up":1,"weight":1}`, "lastMilestone": `null`,
		"replica": `{"blocks":3,"digest":"0x03` + strings.Repeat("00", 31) + `","held":1,"tips":2}`,
		"backlog": `{"approved":0,"attached":0,"batched":3,"confirmed":0,"stored":2}`, "certified": `0`,
		"peers": `[]`, "disk": `{"free":1073741824,"journal":4096}`,
		"clock": `{"quality":"good","time":"2026-11-22T10:15:04.120Z"}`, "alarms": `[]`, "ready": `true`,
		"pow":       `{"kernel":"go","proven":5,"queued":2,"tries":12,"triesPerSecond":14,"workers":1}`,
		"listeners": `[{"address":"127.0.0.1:1883","protocol":"mqtt"}]`, "frontEnds": `[]`,
	} {
		v, ok := got[field]
		if text, _ := json.Marshal(v); !ok || string(text) != want {
			t.Errorf("status.%s = %s, want %s", field, text, want)
		}
	}
}

func TestAlarmsTellWhatIsWrong(t *testing.T) {
	b := newBox(t, Config{
		Clock:    func() (time.Time, reading.Clock) { return time.UnixMilli(0), reading.ClockBad },
		Warnings: func() []Alarm { return []Alarm{{"insecure", "mqtt is open"}} },
	})
	b.stage.notReady = batching.ErrBusy
	b.stage.stats = batching.Stats{Skipped: 4}
	var got struct {
		Ready    bool
		NotReady string
		Alarms   []Alarm
	}
	if err := json.Unmarshal(b.get("/api/hedgerow/v1/status").Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, a := range got.Alarms {
		names = append(names, a.Name)
	}
	if s := strings.Join(names, " "); s != "intake clock journal insecure" || got.Ready || got.NotReady == "" {
		t.Errorf("alarms %q, ready %v %q", s, got.Ready, got.NotReady)
	}
}

func TestDigestAndNumberOfBlocksAreOfOneMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t, Config{})
		b.ledger.blocks = 7
		if rep, err := b.replica(); err != nil || rep.Blocks != 7 || b.ledger.digests != 1 {
			t.Errorf("replica = %+v, %v after %d walks", rep, err, b.ledger.digests)
		}
		// Long walks rest ten times as long as they took.
		b.ledger.walk = time.Second
		b.ledger.blocks = 8
		if rep, _ := b.replica(); rep.Blocks != 8 || b.ledger.digests != 2 {
			t.Errorf("replica = %+v after %d walks", rep, b.ledger.digests)
		}
		b.ledger.blocks = 9
		time.Sleep(9 * time.Second)
		if rep, _ := b.replica(); rep.Blocks != 8 || rep.Digest[:4] != "0x08" || b.ledger.digests != 2 {
			t.Errorf("after 9 s = %+v after %d walks, want the old pair", rep, b.ledger.digests)
		}
		time.Sleep(time.Second)
		if rep, _ := b.replica(); rep.Blocks != 9 || rep.Digest[:4] != "0x09" {
			t.Errorf("after 10 s = %+v, want the new pair", rep)
		}
	})
}

func TestBlocksAreFoundByTagAsTextAndHex(t *testing.T) {
	b := newBox(t, Config{})
	for query, want := range map[string]string{
		"tag=hedgerow/barn-7":                  `{"items":["` + fakeBlock.String() + `"],"cursor":""}`,
		"tag=0x6865646765726f772f6261726e2d37": `{"items":["` + fakeBlock.String() + `"],"cursor":""}`,
		"tag=hedgerow/barn-7&limit=1":          `{"items":["` + fakeBlock.String() + `"],"cursor":"next"}`,
		"tag=other":                            `{"items":[],"cursor":""}`,
	} {
		if w := b.get("/api/hedgerow/v1/blocks?" + query); strings.TrimSpace(w.Body.String()) != want {
			t.Errorf("blocks?%s = %d %s, want %s", query, w.Code, w.Body, want)
		}
	}
	b.ledger.err = errBroken
	if w := b.get("/api/hedgerow/v1/blocks?tag=a"); w.Code != 500 || strings.Contains(w.Body.String(), "secret") {
		t.Errorf("a broken store = %d %s, want 500 without details", w.Code, w.Body)
	}
}

func TestConfigIsWhatGatewayShows(t *testing.T) {
	b := newBox(t, Config{Settings: func() any { return map[string]string{"name": "barn-7"} }})
	if w := b.get("/api/hedgerow/v1/config"); strings.TrimSpace(w.Body.String()) != `{"name":"barn-7"}` {
		t.Errorf("config = %s", w.Body)
	}
}

func TestMetricsHoldEveryPromise(t *testing.T) {
	b := newBox(t, Config{})
	b.fill(4)
	b.src.FrontEnds = func() []FrontEnd {
		return []FrontEnd{{Protocol: "mqtt", Clients: 3, Messages: 4, Undecodable: 1, Panics: 2, Refused: map[string]uint64{"busy": 5}}}
	}
	b.stage.stats = batching.Stats{Acked: 4, Duplicates: 1, Attached: 2, Batches: 1,
		Backlog: batching.Backlog{Stored: 1, Batched: 1},
		Commit:  batching.Histogram{Bounds: []float64{0.01, 0.1}, Counts: []uint64{3, 1, 1}, Sum: 0.5},
	}
	w := call(b, "GET", "/metrics", "")
	body := w.Body.String()
	for _, line := range []string{
		`hedgerow_build_info{kernel="go",version="1.2.3"} 1`,
		`hedgerow_ready 1`,
		`hedgerow_readings_acked_total 4`,
		`hedgerow_packets_duplicate_total 1`,
		`hedgerow_readings_attached_total 2`,
		`hedgerow_batches_sealed_total 1`,
		`hedgerow_backlog_readings{state="stored"} 1`,
		`hedgerow_backlog_readings{state="batched"} 1`,
		`hedgerow_clients{protocol="mqtt"} 3`,
		`hedgerow_messages_undecodable_total{protocol="mqtt"} 1`,
		`hedgerow_messages_refused_total{protocol="mqtt",reason="busy"} 5`,
		`hedgerow_panics_guarded_total{protocol="mqtt"} 2`,
		`hedgerow_journal_bytes 4096`,
		`hedgerow_disk_free_bytes 1.073741824e+09`,
		`hedgerow_ledger_tips 2`,
		`hedgerow_pow_tries_total{kernel="go"} 7`,
		`hedgerow_pow_tries_total{kernel="avx2"} 5`,
		`hedgerow_pow_expected_tries_total{kernel="go"} 6`,
		`hedgerow_pow_searching_seconds_total{kernel="go"} 0.5`,
		`hedgerow_pow_queued{priority="telemetry"} 2`,
		`hedgerow_pow_queue_age_seconds{priority="telemetry"} 1`,
		`hedgerow_pow_queue_age_seconds{priority="guest"} 0`,
		`hedgerow_pow_proven_total{priority="urgent"} 4`,
		`hedgerow_pow_preemptions_total 3`,
		`hedgerow_commit_seconds_bucket{le="0.01"} 3`,
		`hedgerow_commit_seconds_bucket{le="0.1"} 4`,
		`hedgerow_commit_seconds_bucket{le="+Inf"} 5`,
		`hedgerow_commit_seconds_sum 0.5`,
		`go_goroutines `, `process_resident_memory_bytes `,
	} {
		if !strings.Contains(body, "\n"+line) {
			t.Errorf("no line %s", line)
		}
	}
	problems, err := promlint.New(strings.NewReader(body)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("metric %s: %s", p.Metric, p.Text)
	}
}

func TestNewRefusesAWeakToken(t *testing.T) {
	if _, err := New(Config{Name: "barn-7", Token: "short", Network: newBox(t, Config{}).cfg.Network}, Sources{}, nil); err == nil {
		t.Error("token of 5 bytes accepted")
	}
}
