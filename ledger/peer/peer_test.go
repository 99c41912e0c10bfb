package peer_test

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/peer"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
	"github.com/hedgerow-iot/hedgerow/ledger/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A site is a network whose gateways meet in one NATS server of the test.
type site struct {
	t    testing.TB
	nats *server.Server
	file *network.File
	// first is the file of epoch 0 if file is a later one.
	first *network.File
	keys  map[string]ed25519.PrivateKey

	restoring string           // the gateway that is, when it starts
	patience  time.Duration    // of gateways that start; 0: as it is
	views     map[string]*view // what gateways know of the agreement; the ledger without one

	votes     bool             // gateways do
	forgets   string           // the gateway that hands out no signatures
	retention ledger.Retention // of gateways that start
}

func newSite(t testing.TB, names ...string) *site {
	t.Helper()
	s, err := server.NewServer(&server.Options{DontListen: true, NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	st := &site{t: t, nats: s, keys: map[string]ed25519.PrivateKey{}, views: map[string]*view{}}
	var members []network.Gateway
	for _, name := range names {
		public, key, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		st.keys[name] = key
		members = append(members, network.Gateway{Name: name, PublicKey: network.PublicKey(public), Weight: 1})
	}
	st.file = network.Create("site", members)
	st.file.MinPoWScore = 0
	return st
}

func (s *site) connect() *nats.Conn {
	s.t.Helper()
	conn, err := nats.Connect("", nats.InProcessServer(s.nats),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})) // messages dropped in a flood
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(conn.Close)
	return conn
}

// A gateway is a ledger with its peers.
type gateway struct {
	*ledger.Ledger
	t     testing.TB
	name  string
	peers *peer.Peers
	dir   string
	stop  func()
}

// A shelf keeps cursors in memory, over restarts of a gateway in one test.
type shelf struct {
	mu sync.Mutex
	b  []byte
}

func (s *shelf) Load() ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b, nil
}

func (s *shelf) Save(b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.b = b
	return nil
}

// start runs the gateway with this name on the store in dir until the test
// ends or it is stopped.
func (s *site) start(name, dir string, cursors peer.Cursors) *gateway {
	s.t.Helper()
	st, err := store.Open(dir, store.Options{Reserve: 1})
	if err != nil {
		s.t.Fatal(err)
	}
	g := &gateway{t: s.t, name: name, dir: dir}
	announce := func(id stardust.BlockID, raw []byte) { g.peers.Announce(id, raw) }
	lc := ledger.Config{Network: cmp.Or(s.first, s.file), Announce: announce, Retention: s.retention}
	if s.votes {
		lc.Key, lc.Publish = s.keys[name], func(sig consensus.Signature) { g.peers.Certified(sig) }
		if err := ledger.Begin(st); err != nil {
			s.t.Fatal(err)
		}
	}
	if g.Ledger, err = ledger.New(lc, st); err != nil {
		s.t.Fatal(err)
	}
	cfg := peer.Config{Network: s.file, Key: s.keys[name], Conn: s.connect(), Cursors: cursors}
	if g.peers, err = peer.New(cfg, g.Ledger); err != nil {
		s.t.Fatal(err)
	}
	g.peers.Restoring(name == s.restoring)
	if s.patience > 0 {
		g.peers.HavePatience(s.patience)
	}
	if v := s.views[name]; v != nil {
		g.peers.Agree(v)
	}
	if name == s.forgets {
		g.peers.Agree(forgetful{g.Ledger})
	}
	listeners := func() int { return s.nats.GlobalAccount().Interest(s.prefix() + ".block") }
	before := listeners()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- g.peers.Run(ctx) }()
	go func() { ended <- g.Run(ctx) }()
	g.stop = sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-ended, <-ended, st.Check(context.Background()), st.Close()); err != nil {
			s.t.Errorf("gateway %s: %v", name, err)
		}
	})
	s.t.Cleanup(g.stop)
	eventually(s.t, "the gateway listens to gossip", func() bool { return listeners() > before })
	return g
}

// fresh is start on an empty store.
func (s *site) fresh(name string) *gateway { return s.start(name, s.t.TempDir(), &shelf{}) }

// attach attaches n blocks of this gateway.
func (g *gateway) attach(n int, what string) (ids []stardust.BlockID) {
	g.t.Helper()
	for i := range n {
		b := &stardust.Block{
			Version: stardust.ProtocolVersion, Parents: g.Tips(),
			Payload: &stardust.TaggedData{Tag: []byte(what), Data: fmt.Append(nil, i)},
		}
		id, err := g.Attach(g.t.Context(), b, nil)
		if err != nil {
			g.t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids
}

// eventually waits until ok holds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// equal waits until the replicas hold the same n blocks.
func equal(t testing.TB, n uint64, all ...*gateway) {
	t.Helper()
	eventually(t, fmt.Sprint("equal replicas of ", n, " blocks"), func() bool {
		want, err := all[0].Digest()
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range all {
			if got, err := g.Digest(); err != nil || got != want || g.Stats().Blocks != n {
				return false
			}
		}
		return true
	})
}

func TestWhatOneAttachesAllHave(t *testing.T) {
	s := newSite(t, "a", "b", "c", "d")
	all := []*gateway{s.fresh("a"), s.fresh("b"), s.fresh("c"), s.fresh("d")}
	var at sync.WaitGroup
	for i, g := range all {
		at.Go(func() { g.attach(50, fmt.Sprint(i)) })
	}
	at.Wait()
	equal(t, 200, all...)
	for _, m := range all[0].peers.Stats().Members {
		if !m.Up || m.Invalid+m.Malformed+m.Forged+m.Replayed+m.Limited > 0 || m.Standing < 1 {
			t.Errorf("%s at a: %+v", m.Name, m)
		}
	}
}

func TestAnEmptyReplicaCatchesUp(t *testing.T) {
	const n = 20_000 // more than two pages of ids
	s := newSite(t, "a", "b", "c")
	a := s.fresh("a")
	fill(t, a, n)
	b := s.fresh("b")
	equal(t, n, a, b)
	// Most came as whole blocks: a request by id is two thirds as long as such
	// a block.
	if m := b.peers.Stats().Members[0]; m.Held > 0 || m.Invalid > 0 || m.Unanswered > 0 {
		t.Errorf("a at b: %+v", m)
	}
}

// fill puts n blocks of another kind of source into the replica, quickly.
func fill(t testing.TB, g *gateway, n int) {
	t.Helper()
	parents := g.Tips()
	var in []ledger.Incoming
	for i := range n {
		b := &stardust.Block{
			Version: stardust.ProtocolVersion, Parents: stardust.SortParents(parents[max(0, len(parents)-2):]),
			Payload: &stardust.TaggedData{Tag: []byte("fill"), Data: fmt.Append(nil, i)},
		}
		raw, err := b.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		in = append(in, ledger.Incoming{From: "test", Raw: raw})
		parents = append(parents, stardust.IDOf(raw))
	}
	for len(in) > 0 {
		k := min(len(in), ledger.MaxReceive)
		if _, err := g.Receive(t.Context(), in[:k]); err != nil {
			t.Fatal(err)
		}
		in = in[k:]
	}
}

func TestAReturningGatewayFollowsFromWhereItWas(t *testing.T) {
	s := newSite(t, "a", "b")
	a := s.fresh("a")
	fill(t, a, 10_000)
	dir, cursors := t.TempDir(), &shelf{}
	b := s.start("b", dir, cursors)
	equal(t, 10_000, a, b)
	b.stop()
	a.attach(300, "while b is away")
	served := a.peers.Stats().Members[0].Served
	b = s.start("b", dir, cursors)
	b.attach(1, "back")
	equal(t, 10_301, a, b)
	if n := a.peers.Stats().Members[0].Served - served; n > 300*300 {
		t.Errorf("%d bytes were fetched for 300 blocks", n)
	}
}

func TestAStoreMadeAnewIsFollowedFromTheBeginning(t *testing.T) {
	s := newSite(t, "a", "b")
	a, b := s.fresh("a"), s.fresh("b")
	a.attach(200, "a")
	equal(t, 200, a, b)
	a.stop()
	b.attach(10, "b")
	a = s.fresh("a") // as after the loss of its disk
	equal(t, 210, a, b)
	a.attach(10, "again")
	equal(t, 220, a, b)
}

// A store that was put back to an older copy of itself has the same id and goes
// on with other blocks at the same positions.
func TestAnOlderCopyOfAStoreIsFollowedFromTheBeginning(t *testing.T) {
	s := newSite(t, "a", "b")
	old, dir, cursors := t.TempDir(), t.TempDir(), &shelf{}
	a, b := s.start("a", old, &shelf{}), s.start("b", dir, cursors)
	a.attach(10, "old")
	equal(t, 10, a, b)
	a.stop()
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(old)); err != nil {
		t.Fatal(err)
	}
	a = s.start("a", old, &shelf{})
	a.attach(20, "lost")
	equal(t, 30, a, b)
	b.attach(1, "b") // and b walks a to its end once more
	equal(t, 31, a, b)
	a.stop()
	b.stop()
	a = s.start("a", copied, &shelf{})
	a.attach(25, "instead")
	b = s.start("b", dir, cursors)
	equal(t, 56, a, b)
}
