package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/gateway"
	"github.com/hedgerow-iot/hedgerow/gateway/bus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/powfarm"
	"github.com/hedgerow-iot/hedgerow/powfarm/curl"
	"github.com/hedgerow-iot/hedgerow/powfarm/remote"
)

// output is written by a command and read by a test meanwhile.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// eventually polls until ok holds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// A yard is a network of one gateway and a worker, with a NATS server that
// shows some key.
type yard struct {
	dir  string
	key  ed25519.PrivateKey // of the gateway
	lent remote.Key         // of the worker
	file *network.File
	bus  *bus.Bus
}

func newYard(t *testing.T, serverKey ed25519.PrivateKey) *yard {
	t.Helper()
	y := &yard{dir: t.TempDir()}
	identity := func(name string) (key ed25519.PrivateKey) {
		key, _, err := gateway.MakeIdentity(filepath.Join(y.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	y.key = identity("identity.key")
	public := y.key.Public().(ed25519.PublicKey)
	y.lent = remote.Key(identity("worker.key").Public().(ed25519.PublicKey))
	y.file = network.NewOfOne("site", "barn-7", public)
	if err := y.file.Save(filepath.Join(y.dir, "network.json")); err != nil {
		t.Fatal(err)
	}
	if serverKey == nil {
		serverKey = y.key
	}
	var err error
	y.bus, err = bus.Open(bus.Config{
		Mode: bus.Embedded, Gateway: "barn-7", Key: serverKey, Network: y.prefix(),
		Members: func() []bus.Member { return []bus.Member{{Name: "barn-7", Key: public}} },
		Clients: "127.0.0.1:0", Workers: []ed25519.PublicKey{y.lent[:]}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(y.bus.Close)
	return y
}

func (y *yard) prefix() string { return network.SubjectPrefix(y.file.GenesisHash()) }

// worker runs the command until stop, which returns its exit code.
func (y *yard) worker(t *testing.T) (stdout, stderr *output, stop func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	stdout, stderr = new(output), new(output)
	_, address := y.bus.Addresses()
	code := make(chan int, 1)
	go func() {
		code <- command(&env{ctx: ctx, stdout: stdout, stderr: stderr}, []string{
			"worker", "--nats", fmt.Sprintf("tls://%s", address), "--network", filepath.Join(y.dir, "network.json"),
			"--identity", filepath.Join(y.dir, "worker.key"), "--name", "shed", "--threads", "1", "--json",
		})
	}()
	stop = sync.OnceValue(func() int { cancel(); return <-code })
	t.Cleanup(func() { stop() })
	return stdout, stderr, stop
}

func TestWorkerSearchesForTheGatewaysOfItsNetwork(t *testing.T) {
	y := newYard(t, nil)
	stdout, stderr, stop := y.worker(t)
	var info workerInfo
	eventually(t, "the worker prints its key", func() bool {
		return json.Unmarshal([]byte(stdout.String()), &info) == nil
	})
	if info.Name != "shed" || info.Threads != 1 || info.Kernel == "" || len(info.Gateways) != 1 {
		t.Errorf("printed %+v", info)
	}
	if st, err := os.Stat(filepath.Join(y.dir, "worker.key")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("worker.key: %v, %v", st, err)
	}
	public, err := gateway.ReadPublicKey(filepath.Join(y.dir, "worker.pub"))
	if err != nil || remote.Key(public).String() != info.Key || info.Key != y.lent.String() {
		t.Errorf("worker.pub is %x, %v; printed %s", public, err, info.Key)
	}

	// A gateway that has no worker of its own.
	pool, err := remote.NewPool(remote.PoolConfig{
		Key: y.key, Genesis: y.file.GenesisHash(), Prefix: y.prefix(), Workers: []remote.Key{y.lent}, Rate: func() float64 { return 0 },
	}, y.bus.Conn(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- pool.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
	}()
	eventually(t, "the gateway hears of the worker", func() bool { return pool.Workers()[0].Alive })
	idle, err := powfarm.New(powfarm.Config{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	digest, zeros := [32]byte{7}, 8
	nonce, err := pool.For(idle.For(powfarm.Telemetry), powfarm.Telemetry).Prove(t.Context(), digest, zeros)
	if err != nil || curl.Zeros(digest, nonce) < zeros {
		t.Errorf("Prove = %d, %v\n%s", nonce, err, stderr)
	}
	if code := stop(); code != 0 {
		t.Errorf("exit code %d\n%s", code, stderr)
	}
	eventually(t, "the gateway hears that the worker left", func() bool { return !pool.Workers()[0].Alive })
	lines := strings.Split(strings.TrimSpace(stdout.String()), "\n")
	var st remote.ServerStats
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &st); err != nil || st.Found != 1 || st.Rate == 0 {
		t.Errorf("last line %s, %v; want one nonce found", lines[len(lines)-1], err)
	}
}

func TestWorkerTakesNoServerWithAnotherKey(t *testing.T) {
	_, other, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	y := newYard(t, other)
	_, stderr, stop := y.worker(t)
	eventually(t, "the worker says why it does not connect", func() bool {
		return strings.Contains(stderr.String(), "which is not the one given")
	})
	// It tries again and again: one that is about to be refused may be counted.
	eventually(t, "no client stays connected", func() bool { return y.bus.Status().Clients == 0 })
	if code := stop(); code != 0 {
		t.Errorf("exit code %d\n%s", code, stderr)
	}
}
