package remote

import (
	"context"
	"crypto/ed25519"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/hedgerow-iot/hedgerow/powfarm"
	"github.com/hedgerow-iot/hedgerow/powfarm/curl"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var genesis = [32]byte{0xfe, 0xed, 31: 1}

const subjects = "hedgerow.feed000000000000"

// key is the private key of a box, by a letter.
func key(name string) ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	copy(seed, name)
	return ed25519.NewKeyFromSeed(seed)
}

func peer(name string) Peer { return Peer{name, publicOf(key(name))} }

// A site is a NATS server in this process, with the boxes at it, in a bubble of
// fake time.
type site struct {
	*testing.T
	nats  atomic.Pointer[server.Server]
	users []*server.User // who may what; nil: everybody everything
	as    string         // the user that connects next
}

func inSite(t *testing.T, test func(t *testing.T, s *site)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &site{T: t}
		s.up()
		t.Cleanup(s.down)
		test(t, s)
	})
}

// reconnect is how long clients wait between attempts.
const reconnect = 10 * time.Second

// up starts a server, at which those connect that were at the one before.
func (s *site) up() {
	s.Helper()
	ns, err := server.NewServer(&server.Options{ServerName: "site", DontListen: true, NoSigs: true, NoLog: true, Users: s.users})
	if err != nil {
		s.Fatal(err)
	}
	ns.Start()
	s.nats.Store(ns)
}

// InProcessConn is how clients connect.
func (s *site) InProcessConn() (net.Conn, error) { return s.nats.Load().InProcessConn() }

func (s *site) down() {
	s.nats.Load().Shutdown()
	s.nats.Load().WaitForShutdown()
}

// heard returns after the next hello of every worker has come.
func (s *site) heard() {
	time.Sleep(helloEvery)
	synctest.Wait()
}

func (s *site) connect() *nats.Conn {
	s.Helper()
	c, err := nats.Connect("", nats.InProcessServer(s), nats.UserInfo(s.as, ""), nats.MaxReconnects(-1), nats.CustomReconnectDelay(func(int) time.Duration { return reconnect }))
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(c.Close)
	return c
}

// A box runs a server or a pool; stop ends it in order, kill pulls the plug.
type box struct {
	site   *site
	conn   *nats.Conn
	server *Server
	pool   *Pool
	cancel context.CancelFunc
	done   chan error
}

func (b *box) run(run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	b.cancel, b.done = cancel, make(chan error, 1)
	go func() { b.done <- run(ctx) }()
	b.site.Cleanup(b.stop)
	synctest.Wait()
}

func (b *box) stop() {
	b.cancel()
	if err, ok := <-b.done; ok && err != nil {
		b.site.Errorf("Run: %v", err)
	}
	select {
	case <-b.done:
	default:
		close(b.done)
	}
	b.conn.Close()
	synctest.Wait()
}

func (b *box) kill() {
	b.conn.Close()
	synctest.Wait()
}

// worker starts a box that lends s to the gateways.
func (s *site) worker(name string, searcher Searcher, rate float64, gateways ...string) *box {
	s.Helper()
	cfg := ServerConfig{Name: name, Key: key(name), Genesis: genesis, Prefix: subjects, Kernel: "go", Rate: func() float64 { return rate }}
	cfg.Gateways = func() (all []Peer) {
		for _, g := range gateways {
			all = append(all, peer(g))
		}
		return all
	}
	b := &box{site: s, conn: s.connect()}
	var err error
	if b.server, err = NewServer(cfg, b.conn, searcher, slog.New(slog.DiscardHandler)); err != nil {
		s.Fatal(err)
	}
	b.run(b.server.Run)
	return b
}

// gateway starts a box that may use the workers.
func (s *site) gateway(name string, rate float64, workers ...string) *box {
	s.Helper()
	cfg := PoolConfig{Key: key(name), Genesis: genesis, Prefix: subjects, Members: func() []Peer { return []Peer{peer(name)} }, Rate: func() float64 { return rate }}
	for _, w := range workers {
		cfg.Workers = append(cfg.Workers, peer(w).Key)
	}
	b := &box{site: s, conn: s.connect()}
	var err error
	if b.pool, err = NewPool(cfg, b.conn, slog.New(slog.DiscardHandler)); err != nil {
		s.Fatal(err)
	}
	b.run(b.pool.Run)
	return b
}

// proving is a Prove in progress.
type proving struct {
	nonce  uint64
	err    error
	done   chan struct{}
	cancel context.CancelFunc
	digest [32]byte
	zeros  int
}

func (b *box) prove(local Searcher, digest byte, zeros int) *proving {
	ctx, cancel := context.WithCancel(context.Background())
	p := &proving{done: make(chan struct{}), cancel: cancel, digest: [32]byte{digest}, zeros: zeros}
	go func() {
		defer close(p.done)
		p.nonce, p.err = b.pool.For(local, powfarm.Telemetry).Prove(ctx, p.digest, zeros)
	}()
	b.site.Cleanup(func() { cancel(); <-p.done })
	synctest.Wait()
	return p
}

// wantFound waits for a right nonce.
func (p *proving) wantFound(t testing.TB) {
	t.Helper()
	<-p.done
	if p.err != nil || curl.Zeros(p.digest, p.nonce) < p.zeros {
		t.Fatalf("Prove(%x…, %d) = %d, %v with %d zeros", p.digest[:1], p.zeros, p.nonce, p.err, curl.Zeros(p.digest, p.nonce))
	}
}

func (p *proving) wantOpen(t testing.TB) {
	t.Helper()
	select {
	case <-p.done:
		t.Fatalf("Prove ended with %v, want it to go on", p.err)
	default:
	}
}

// seen returns what the gateway knows of a worker.
func (b *box) seen(name string) Worker {
	b.site.Helper()
	for _, w := range b.pool.Workers() {
		if w.Key == peer(name).Key {
			return w
		}
	}
	b.site.Fatalf("%s is not among %+v", name, b.pool.Workers())
	return Worker{}
}

// honest finds at once.
type honest struct{ searches atomic.Int64 }

func (h *honest) Prove(ctx context.Context, digest [32]byte, zeros int) (uint64, error) {
	h.searches.Add(1)
	for ctx.Err() == nil {
		if nonce := rand.Uint64(); curl.Zeros(digest, nonce) >= zeros {
			return nonce, nil
		}
	}
	return 0, ctx.Err()
}

// absent is a farm without workers.
type absent struct{}

func (absent) Prove(context.Context, [32]byte, int) (uint64, error) { return 0, powfarm.ErrNoWorkers }

// busy is a farm whose queue is full.
type busy struct{}

func (busy) Prove(context.Context, [32]byte, int) (uint64, error) { return 0, powfarm.ErrBusy }

// liar finds what is none.
type liar struct{}

func (liar) Prove(_ context.Context, digest [32]byte, zeros int) (uint64, error) {
	for nonce := uint64(0); ; nonce++ {
		if curl.Zeros(digest, nonce) < zeros {
			return nonce, nil
		}
	}
}

// stuck never finds, and notes how long it searched for which digest.
type stuck struct {
	mu    sync.Mutex
	spent map[byte]time.Duration // by the first byte of the digest
	now   int
}

func (s *stuck) Prove(ctx context.Context, digest [32]byte, _ int) (uint64, error) {
	began := time.Now()
	s.mu.Lock()
	s.now++
	s.mu.Unlock()
	<-ctx.Done()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now--
	if s.spent == nil {
		s.spent = make(map[byte]time.Duration)
	}
	s.spent[digest[0]] += time.Since(began)
	return 0, ctx.Err()
}

func (s *stuck) searching() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}
