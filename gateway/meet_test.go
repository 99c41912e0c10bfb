package gateway

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

// A newcomer keeps readings from its start on, gets the first file once its
// epoch has begun, and attaches what it has kept. The gateway that was alone is
// not restarted.
func TestASecondGatewayComesToOneThatIsAlone(t *testing.T) {
	north := start(t, testSandbox(t, t.TempDir(), "peers.listen=127.0.0.1:0"))
	genesis := north.epochs.current()

	mqtt, api := freeAddress(t), freeAddress(t)
	cfg := testSandbox(t, t.TempDir(), "name=west", "peers.listen=127.0.0.1:0", "peers.routes=tls://"+north.address("routes"),
		"mqtt.listen="+mqtt, "api.listen="+api)
	must(t, makeDir(filepath.Dir(cfg.Identity.Ref)))
	key, _, err := identity(cfg.Identity, false)
	must(t, err)
	must(t, createFile(filepath.Join(filepath.Dir(cfg.Identity.Ref), freshName), 0o600, nil)) // as init does
	next := genesis.Next()
	next.Add(network.Gateway{Name: "west", PublicKey: network.PublicKey(key.Public().(ed25519.PublicKey)), Weight: 1})
	next.Sign(north.home.key)
	must(t, makeDir(string(cfg.DataDir)))
	must(t, next.Save(cfg.networkPath()))

	// Stopped while it waits.
	early, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := Meet(early, cfg, testLog(t)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Meet = %v", err)
	}

	met := make(chan error, 1)
	go func() { met <- Meet(t.Context(), cfg, testLog(t)) }()
	get := func(path string) int {
		resp, err := http.Get("http://" + api + path)
		if err != nil {
			return 0
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	for end := time.Now().Add(20 * time.Second); get("/ready") != 200; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the newcomer takes no readings")
		}
	}
	if code := get("/api/hedgerow/v1/status"); code != 503 {
		t.Errorf("its status is %d", code)
	}
	kept := &runner{t: t, Gateway: &Gateway{sockets: &sockets{named: []Listener{{Protocol: "mqtt", Address: mqtt}}}}}
	for i := range 3 {
		must(t, kept.publish("readings/probe-1/count", fmt.Sprint(i)))
	}
	if code, text := north.post("/api/hedgerow/v1/network", fileText(t, next)); code != 202 {
		t.Fatalf("the update: %d %s", code, text)
	}
	north.epoch(1)
	must(t, <-met)
	west := start(t, cfg)
	west.readings(3)
	west.confirmed(3)
	if f := west.epochs.inForce(); f.Hash() != next.Hash() {
		t.Errorf("its ledger is at epoch %d", f.Epoch)
	}
	must(t, north.publish("readings/probe-2/count", "7"))
	north.confirmed(1) // with both
}

// confirmed waits until n readings are confirmed or further.
func (r *runner) confirmed(n int) {
	r.t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		var page struct{ Items []testReading }
		r.get("/api/hedgerow/v1/readings", &page)
		got := 0
		for _, it := range page.Items {
			if it.State == "confirmed" || it.State == "certified" {
				got++
			}
		}
		if got == n {
			return
		}
		if time.Now().After(end) {
			r.t.Fatalf("%d of %+v are confirmed, want %d", got, page.Items, n)
		}
	}
}
