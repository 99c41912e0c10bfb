package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/hedgerow-iot/hedgerow/gateway"
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

// A yard is a network of one gateway with a NATS server that shows some key.
type yard struct {
	dir     string
	key     ed25519.PrivateKey // of the gateway
	genesis [32]byte
	nats    *server.Server
}

func newYard(t *testing.T, serverKey ed25519.PrivateKey) *yard {
	t.Helper()
	y := &yard{dir: t.TempDir()}
	var err error
	if y.key, _, err = gateway.MakeIdentity(filepath.Join(y.dir, "identity.key")); err != nil {
		t.Fatal(err)
	}
	f := network.NewOfOne("site", "barn-7", y.key.Public().(ed25519.PublicKey))
	y.genesis = f.GenesisHash()
	if err := f.Save(filepath.Join(y.dir, "network.json")); err != nil {
		t.Fatal(err)
	}
	if serverKey == nil {
		serverKey = y.key
	}
	config, err := pinned(&remote.ServerConfig{Key: serverKey})
	if err != nil {
		t.Fatal(err)
	}
	y.nats, err = server.NewServer(&server.Options{
		ServerName: "barn-7", Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true, TLSTimeout: 5,
		TLSConfig: &tls.Config{Certificates: config.Certificates, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13},
	})
	if err != nil {
		t.Fatal(err)
	}
	y.nats.Start()
	t.Cleanup(func() { y.nats.Shutdown(); y.nats.WaitForShutdown() })
	if !y.nats.ReadyForConnections(20 * time.Second) {
		t.Fatal("the NATS server does not listen")
	}
	return y
}

// worker runs the command until stop, which returns its exit code.
func (y *yard) worker(t *testing.T) (stdout, stderr *output, stop func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	stdout, stderr = new(output), new(output)
	code := make(chan int, 1)
	go func() {
		code <- command(&env{ctx: ctx, stdout: stdout, stderr: stderr}, []string{
			"worker", "--nats", fmt.Sprintf("tls://%s", y.nats.Addr()), "--network", filepath.Join(y.dir, "network.json"),
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
	if err != nil || remote.Key(public).String() != info.Key {
		t.Errorf("worker.pub is %x, %v; printed %s", public, err, info.Key)
	}

	// A gateway that has no worker of its own.
	config, err := pinned(&remote.ServerConfig{Key: y.key, Gateways: []remote.Peer{{Key: remote.Key(y.key.Public().(ed25519.PublicKey))}}})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := nats.Connect(fmt.Sprintf("tls://%s", y.nats.Addr()), nats.Secure(config))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	pool, err := remote.NewPool(remote.PoolConfig{
		Key: y.key, Genesis: y.genesis, Workers: []remote.Key{remote.Key(public)}, Rate: func() float64 { return 0 },
	}, conn, slog.New(slog.DiscardHandler))
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
		return strings.Contains(stderr.String(), "the server's key is not that of a gateway that may ask")
	})
	if n := y.nats.NumClients(); n != 0 {
		t.Errorf("%d clients are connected", n)
	}
	if code := stop(); code != 0 {
		t.Errorf("exit code %d\n%s", code, stderr)
	}
}
