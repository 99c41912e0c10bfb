package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/options"
	"github.com/plgd-dev/go-coap/v3/udp"

	"github.com/hedgerow-iot/hedgerow/batching"
)

// testSandbox returns the configuration of a sandbox on free ports.
func testSandbox(t *testing.T, home string, set ...string) Config {
	t.Helper()
	cfg, err := Override(Sandbox(home), append([]string{
		"mqtt.listen=127.0.0.1:0", "coap.listen=127.0.0.1:0", "api.listen=127.0.0.1:0",
		"batching.max_age=50ms", "journal.reserve=16MiB",
	}, set...))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// A runner is a gateway that a test runs.
type runner struct {
	*Gateway
	t     *testing.T
	token string
	stop  func() error // ends intake, waits, and returns Run's error
}

func start(t *testing.T, cfg Config) *runner {
	t.Helper()
	g, err := New(cfg, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx, nil) }()
	r := &runner{Gateway: g, t: t, token: g.Token()}
	stopped := false
	r.stop = func() error {
		cancel()
		stopped = true
		return <-done
	}
	t.Cleanup(func() {
		if !stopped {
			if err := r.stop(); err != nil {
				t.Errorf("Run: %v", err)
			}
		}
	})
	return r
}

func testLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
}

func (r *runner) address(protocol string) string {
	r.t.Helper()
	for _, l := range r.Listeners() {
		if l.Protocol == protocol {
			return l.Address
		}
	}
	r.t.Fatalf("nothing listens for %s", protocol)
	return ""
}

// get asks the API and decodes a JSON answer into v unless that is nil.
func (r *runner) get(path string, v any) int {
	r.t.Helper()
	req, err := http.NewRequest(http.MethodGet, "http://"+r.address("http")+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+r.token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	if v != nil {
		if err := json.Unmarshal(b, v); err != nil {
			r.t.Fatalf("GET %s: %v in %s", path, err, b)
		}
	}
	return resp.StatusCode
}

type testReading struct {
	ID, Device, Name, State, BlockID, Source string
	Value                                    any
}

// readings waits until n readings are listed and all of them are attached, or
// further.
func (r *runner) readings(n int) []testReading {
	r.t.Helper()
	var page struct{ Items []testReading }
	deadline := time.After(time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		r.get("/api/hedgerow/v1/readings", &page)
		attached := 0
		for _, it := range page.Items {
			if slices.Contains([]string{"attached", "approved", "confirmed", "certified"}, it.State) {
				attached++
			}
		}
		if attached == n && len(page.Items) == n {
			return page.Items
		}
		select {
		case <-tick.C:
		case <-deadline:
			r.t.Fatalf("got %+v, want %d attached readings", page.Items, n)
		}
	}
}

// attached waits until n readings were attached since the start, and reports
// another number: counts follow what is listed.
func (r *runner) attached(n uint64) {
	r.t.Helper()
	for end := time.Now().Add(10 * time.Second); r.Stats().Attached != n; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Errorf("%d readings were attached since the start, want %d", r.Stats().Attached, n)
			return
		}
	}
}

func (r *runner) publish(topic, payload string) error {
	c := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + r.address("mqtt")).
		SetClientID("test").SetConnectRetry(false).SetAutoReconnect(false).SetConnectTimeout(10 * time.Second))
	if tok := c.Connect(); !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
		return fmt.Errorf("connect: %w", tok.Error())
	}
	defer c.Disconnect(100)
	tok := c.Publish(topic, 1, false, payload)
	if !tok.WaitTimeout(10 * time.Second) {
		return errors.New("no PUBACK within 10 s")
	}
	return tok.Error()
}

func (r *runner) put(path, payload string) (codes.Code, error) {
	// Without its ticker, which outlives the client by seconds: nothing is
	// lost on loopback.
	c, err := udp.Dial(r.address("coap"), options.WithPeriodicRunner(func(func(time.Time) bool) {}))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	resp, err := c.Put(ctx, path, message.TextPlain, strings.NewReader(payload))
	if err != nil {
		return 0, err
	}
	return resp.Code(), nil
}

// What devices send over either protocol ends in a block of the Tangle that
// the API returns, and is still there after a restart.
func TestReadingsOfBothProtocolsAreAttached(t *testing.T) {
	home := t.TempDir()
	r := start(t, testSandbox(t, home))
	if err := r.publish("readings/probe-1/temperature", "21.5"); err != nil {
		t.Fatal(err)
	}
	if code, err := r.put("/readings/probe-2/humidity", "48"); err != nil || code != codes.Changed {
		t.Fatalf("PUT = %v, %v; want 2.04", code, err)
	}
	before := r.readings(2)
	for _, it := range before {
		if code := r.get("/api/core/v2/blocks/"+it.BlockID, nil); code != http.StatusOK {
			t.Errorf("block %s of %s: %d", it.BlockID, it.ID, code)
		}
	}
	if before[0].Value != 21.5 || before[0].Source != "mqtt" || before[1].Value != 48.0 || before[1].Source != "coap" {
		t.Errorf("got %+v", before)
	}
	for _, path := range []string{"/health", "/ready", "/metrics", "/api/core/v2/info"} {
		if code := r.get(path, nil); code != http.StatusOK {
			t.Errorf("GET %s: %d", path, code)
		}
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r = start(t, testSandbox(t, home))
	after := r.readings(2)
	for i := range after {
		after[i].State = before[i].State // it goes on to be confirmed meanwhile
	}
	if after[0] != before[0] || after[1] != before[1] {
		t.Errorf("after a restart %+v, before %+v", after, before)
	}
}

// A gateway that is told to stop attaches what it has acknowledged.
func TestStopDrainsWhatWasAcknowledged(t *testing.T) {
	home := t.TempDir()
	r := start(t, testSandbox(t, home, "batching.max_age=1h"))
	for i := range 3 {
		if code, err := r.put("/readings/probe/count", fmt.Sprint(i)); err != nil || code != codes.Changed {
			t.Fatalf("PUT = %v, %v; want 2.04", code, err)
		}
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	off, err := OpenOffline(testSandbox(t, home), testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	defer off.Close()
	for seq := range uint64(3) {
		state, _, err := off.stage.State(seq + 1)
		if err != nil || state != batching.Attached {
			t.Errorf("reading %d is %v, %v; want attached", seq+1, state, err)
		}
	}
}

// A directory has one gateway, and whoever asks is told where it runs.
func TestASecondGatewayIsRefused(t *testing.T) {
	cfg := testSandbox(t, t.TempDir())
	if address, ok := Running(cfg); ok {
		t.Errorf("Running = %s before the start", address)
	}
	r := start(t, cfg)
	r.readings(0)
	if _, err := New(cfg, testLog(t)); !errors.Is(err, ErrLocked) {
		t.Errorf("second New = %v, want ErrLocked", err)
	}
	if address, ok := Running(cfg); !ok || address != r.address("http") {
		t.Errorf("Running = %q, %v; want %s", address, ok, r.address("http"))
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if address, ok := Running(cfg); ok {
		t.Errorf("Running = %s after the stop", address)
	}
	if _, err := os.Stat(cfg.runningPath()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is still there: %v", cfg.runningPath(), err)
	}
}

// The sandbox finds a port when a default one is taken, and says so; a port
// that somebody chose is not replaced.
func TestTakenPorts(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:1883")
	if err == nil {
		defer taken.Close()
	} // otherwise somebody else has it, which is as good
	cfg := testSandbox(t, t.TempDir(), "mqtt.listen=127.0.0.1:1883")
	g, err := New(cfg, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	if l := g.Listeners()[0]; l.Instead != "127.0.0.1:1883" || l.Address == l.Instead {
		t.Errorf("listener %+v, want another port instead of 1883", l)
	}
	chosen := g.Listeners()[0].Address
	cfg = testSandbox(t, t.TempDir(), "mqtt.listen="+chosen)
	if _, err := New(cfg, testLog(t)); err == nil || !strings.Contains(err.Error(), "another program has this address") {
		t.Errorf("New on a chosen port that is taken = %v, want a refusal", err)
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}
}

// With a configuration, devices are refused until it admits them.
func TestConfigurationAdmitsNobodyByDefault(t *testing.T) {
	dir := t.TempDir()
	text := fmt.Sprintf("data_dir: data\nidentity: file:secret/id.key\n" +
		"mqtt: {listen: [\"127.0.0.1:0\"]}\ncoap: {listen: [\"127.0.0.1:0\"], anonymous: true}\n" +
		"api: {listen: \"127.0.0.1:0\", public: false}\njournal: {reserve: 16MiB}\nbatching: {max_age: 50ms}\n")
	file := filepath.Join(dir, "hedgerow.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := Load(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, cfg)
	if err := r.publish("readings/probe-1/temperature", "21.5"); err == nil {
		t.Error("MQTT without login was acknowledged, want a refusal")
	}
	if code, err := r.put("/readings/probe-2/humidity", "48"); err != nil || code != codes.Changed {
		t.Errorf("CoAP = %v, %v; want 2.04, it is anonymous", code, err)
	}
	r.readings(1)
	var status struct{ Alarms []struct{ Name, Text string } }
	r.get("/api/hedgerow/v1/status", &status)
	if !slices.ContainsFunc(status.Alarms, func(a struct{ Name, Text string }) bool {
		return a.Name == "anonymous_devices" && strings.HasPrefix(a.Text, "coap.anonymous")
	}) {
		t.Errorf("alarms %+v do not say that CoAP is anonymous", status.Alarms)
	}
	r.token = "a wrong token 123456"
	for path, want := range map[string]int{"/api/core/v2/info": 401, "/api/hedgerow/v1/status": 401, "/health": 200, "/ready": 200} {
		if code := r.get(path, nil); code != want {
			t.Errorf("GET %s without token: %d, want %d", path, code, want)
		}
	}
	if err := Check(file, nil); err != nil {
		t.Errorf("Check of what runs: %v", err)
	}
}

// The stores belong to the key they were made with.
func TestAnotherIdentityIsRefused(t *testing.T) {
	home := t.TempDir()
	cfg := testSandbox(t, home)
	g, err := New(cfg, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	other := Secret{"file", filepath.Join(home, "other.key")}
	if _, _, err := identity(other, false); err != nil {
		t.Fatal(err)
	}
	cfg.Identity = other
	if _, err := New(cfg, testLog(t)); err == nil || !strings.Contains(err.Error(), "has another key for sandbox") {
		t.Errorf("New with another key = %v, want a refusal", err)
	}
	cfg.Identity.Ref = filepath.Join(home, "lost.key")
	if _, err := New(cfg, testLog(t)); err == nil || !strings.Contains(err.Error(), "put the key back") {
		t.Errorf("New without its key = %v, want a refusal", err)
	}
}

// A damaged store is said to be one: the process exits with its own code.
func TestDamagedStoreIsNamed(t *testing.T) {
	home := t.TempDir()
	cfg := testSandbox(t, home)
	g, err := New(cfg, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"journal", "ledger"} {
		file := filepath.Join(string(cfg.DataDir), name, "MANIFEST")
		good, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, bytes.Repeat([]byte{0xff}, len(good)), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := New(cfg, testLog(t)); !errors.Is(err, ErrStore) {
			t.Errorf("New with a damaged %s = %v, want ErrStore", name, err)
		}
		if err := os.WriteFile(file, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// The settings that the API shows have every key and no secret.
func TestSettingsShowEveryKey(t *testing.T) {
	cfg := Sandbox("/home/x")
	b, err := json.Marshal(settings(&cfg))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"linger":"5ms"`, `"max_disk":"8GiB"`, `"token":"file:/home/x/admin.token"`, `"workers":"auto"`, `"listen":["127.0.0.1:1883"]`} {
		if !strings.Contains(string(b), want) {
			t.Errorf("settings lack %s: %s", want, b)
		}
	}
}
