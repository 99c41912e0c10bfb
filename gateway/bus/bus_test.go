package bus_test

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/hedgerow-iot/hedgerow/gateway/bus"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const prefix = "hedgerow.0123456789abcdef"

// A site is the gateways of one network file.
type site struct {
	t    *testing.T
	keys map[string]ed25519.PrivateKey

	mu      sync.Mutex
	members []bus.Member
}

func newSite(t *testing.T, names ...string) *site {
	s := &site{t: t, keys: map[string]ed25519.PrivateKey{}}
	for _, name := range names {
		s.keys[name] = newKey(t)
		s.members = append(s.members, bus.Member{Name: name, Key: public(s.keys[name])})
	}
	return s
}

func newKey(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func public(key ed25519.PrivateKey) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }

func (s *site) current() []bus.Member {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.members)
}

// remove makes an epoch without the gateway.
func (s *site) remove(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.members = slices.DeleteFunc(s.members, func(m bus.Member) bool { return m.Name == name })
}

func (s *site) add(name string, key ed25519.PublicKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.members = append(s.members, bus.Member{Name: name, Key: key})
}

// config is that of an embedded server of the gateway with free ports.
func (s *site) config(name string, routes ...string) bus.Config {
	return bus.Config{
		Mode: bus.Embedded, Gateway: name, Key: s.keys[name], Network: prefix, Members: s.current,
		Listen: "127.0.0.1:0", Routes: routes, Log: testLog(s.t),
	}
}

func testLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
}

// A box is a bus that a test runs.
type box struct {
	*bus.Bus
	t    *testing.T
	stop func()
}

func open(t *testing.T, cfg bus.Config) *box {
	t.Helper()
	b, err := bus.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		b.Close()
	})
	t.Cleanup(stop)
	return &box{b, t, stop}
}

// seed is the address under which others reach the box by route.
func (b *box) seed() string {
	routes, _ := b.Addresses()
	return "tls://" + routes.String()
}

func (b *box) clientURL() string {
	_, clients := b.Addresses()
	return "tls://" + clients.String()
}

// eventually polls until ok; a state that never comes fails the test.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(60 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never: %s", what)
		}
	}
}

func (b *box) hasRoutes(names ...string) bool {
	var got []string
	for _, r := range b.Status().Routes {
		got = append(got, r.Name)
	}
	return slices.Equal(got, names)
}

func subscribe(t *testing.T, c *nats.Conn, subject string) *nats.Subscription {
	t.Helper()
	sub, err := c.SubscribeSync(subject)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	return sub
}

// hears publishes until the subscription gets a message: interest travels
// after the connection is up.
func hears(t *testing.T, from *nats.Conn, sub *nats.Subscription) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s is heard", sub.Subject), func() bool {
		_ = from.Publish(sub.Subject, []byte("x"))
		_, err := sub.NextMsg(100 * time.Millisecond)
		return err == nil
	})
}

func TestASingleBoxHasNoPort(t *testing.T) {
	s := newSite(t, "a")
	cfg := s.config("a")
	cfg.Listen = ""
	b := open(t, cfg)
	if routes, clients := b.Addresses(); routes != nil || clients != nil {
		t.Errorf("listens on %v and %v", routes, clients)
	}
	id := bus.ID(public(s.keys["a"]))
	sub := subscribe(t, b.Conn(), prefix+".peer."+id)
	go func() {
		if m, err := sub.NextMsg(10 * time.Second); err == nil {
			_ = m.Respond(append([]byte(m.Reply+" "), m.Data...))
		}
	}()
	m, err := b.Conn().Request(prefix+".peer."+id, []byte("x"), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if want := prefix + ".inbox." + id + "."; len(m.Data) < len(want) || string(m.Data[:len(want)]) != want {
		t.Errorf("the reply subject is %q, want one below %s", m.Data, want)
	}
	if st := b.Status(); !st.Connected || st.Clients != 0 || len(st.Routes) != 0 {
		t.Errorf("status %+v", st)
	}
}

// B, C and D know only A; the mesh is complete even so, and a fifth whose key
// nobody knows stays outside.
func TestFourMeshAndAFifthWithAWrongKeyIsRefused(t *testing.T) {
	s := newSite(t, "a", "b", "c", "d")
	boxes := map[string]*box{"a": open(t, s.config("a"))}
	for _, name := range []string{"b", "c", "d"} {
		boxes[name] = open(t, s.config(name, boxes["a"].seed()))
	}
	eventually(t, "a full mesh", func() bool {
		return boxes["a"].hasRoutes("b", "c", "d") && boxes["b"].hasRoutes("a", "c", "d") &&
			boxes["c"].hasRoutes("a", "b", "d") && boxes["d"].hasRoutes("a", "b", "c")
	})
	sub := subscribe(t, boxes["d"].Conn(), prefix+".block")
	for _, name := range []string{"a", "b", "c"} {
		hears(t, boxes[name].Conn(), sub)
	}

	fifth := newSite(t, "e")
	for _, m := range s.current() {
		fifth.add(m.Name, m.Key)
	}
	cfg, lines := fifth.config("e", boxes["a"].seed(), boxes["b"].seed()), &logLines{}
	cfg.Log = slog.New(slog.NewTextHandler(lines, nil))
	e := open(t, cfg)
	eventually(t, "refused by both", func() bool {
		return boxes["a"].Status().Refused > 0 && boxes["b"].Status().Refused > 0
	})
	if !e.hasRoutes() || !boxes["a"].hasRoutes("b", "c", "d") {
		t.Errorf("e has routes %v, a %v", e.Status().Routes, boxes["a"].Status().Routes)
	}
	eventually(t, "e is told that it is refused", func() bool { return lines.has("hedgerow doctor says whether") })
}

// The dialled side is checked too.
func TestAServerWithAWrongKeyIsNotJoined(t *testing.T) {
	s, other := newSite(t, "a"), newSite(t, "b")
	other.add("a", public(s.keys["a"])) // b knows a, a does not know b
	b := open(t, other.config("b"))
	a := open(t, s.config("a", b.seed()))
	eventually(t, "refused", func() bool { return a.Status().Refused > 0 })
	if !a.hasRoutes() || !b.hasRoutes() {
		t.Errorf("routes %v, %v", a.Status().Routes, b.Status().Routes)
	}
	if st := a.Status(); st.RefusedAt.IsZero() || !strings.Contains(st.RefusedWhy, hex.EncodeToString(public(other.keys["b"]))) {
		t.Errorf("refused at %v because %q, want the key of b in it", st.RefusedAt, st.RefusedWhy)
	}
	if st := b.Status(); st.Refused != 0 || !st.RefusedAt.IsZero() || st.RefusedWhy != "" {
		t.Errorf("b refused nobody, status %+v", st)
	}
}

func TestAMemberOfAnotherNetworkIsNotMeshed(t *testing.T) {
	s := newSite(t, "a", "b", "c")
	a := open(t, s.config("a"))
	cfg := s.config("b", a.seed())
	cfg.Network = "hedgerow.ffffffffffffffff"
	b := open(t, cfg)
	c := open(t, s.config("c", a.seed()))
	eventually(t, "a and c meshed", func() bool { return a.hasRoutes("c") && c.hasRoutes("a") })
	if !b.hasRoutes() {
		t.Errorf("b of another network has routes %v", b.Status().Routes)
	}
}

// An epoch change takes effect on what is connected.
func TestARemovedMemberIsCutAndANewOneAdmitted(t *testing.T) {
	s := newSite(t, "a", "b", "c")
	cfg := s.config("a")
	cfg.Clients = "127.0.0.1:0"
	b0 := public(s.keys["b"])
	cfg.Former = func(key ed25519.PublicKey) string {
		if key.Equal(b0) {
			return "b"
		}
		return ""
	}
	a := open(t, cfg)
	b := open(t, s.config("b", a.seed()))
	c := external(t, s, "c", a.clientURL())
	eventually(t, "connected", func() bool { return a.hasRoutes("b") && b.hasRoutes("a") && a.Status().Clients == 1 })

	before := a.Status().Refused
	s.remove("b")
	s.remove("c")
	eventually(t, "cut and refused", func() bool {
		st := a.Status()
		return a.hasRoutes() && st.Clients == 0 && st.Refused > before
	})
	eventually(t, "c disconnected", func() bool { return !c.Status().Connected })
	eventually(t, "b is named", func() bool { return strings.Contains(a.Status().RefusedWhy, "is that of b, which is no member") })

	s.add("b", public(s.keys["b"]))
	s.add("c", public(s.keys["c"]))
	eventually(t, "back", func() bool { return a.hasRoutes("b") && b.hasRoutes("a") && c.Status().Connected })
}

func TestARestartedServerIsBackInTheMesh(t *testing.T) {
	s := newSite(t, "a", "b", "c")
	a := open(t, s.config("a"))
	b := open(t, s.config("b", a.seed()))
	c := open(t, s.config("c", a.seed(), b.seed()))
	full := func() bool { return a.hasRoutes("b", "c") && b.hasRoutes("a", "c") && c.hasRoutes("a", "b") }
	eventually(t, "a full mesh", full)
	sub := subscribe(t, c.Conn(), prefix+".block")

	cfg := s.config("a")
	addr, _ := a.Addresses()
	cfg.Listen = addr.String()
	a.stop()
	eventually(t, "a gone", func() bool { return b.hasRoutes("c") && c.hasRoutes("b") })
	hears(t, b.Conn(), sub)
	a = open(t, cfg)
	eventually(t, "a back", full)
	hears(t, a.Conn(), sub)
}

func TestATakenAddressIsAnErrorOfOpen(t *testing.T) {
	s := newSite(t, "a", "b")
	a := open(t, s.config("a"))
	addr, _ := a.Addresses()
	for _, set := range []func(*bus.Config){
		func(c *bus.Config) { c.Listen = addr.String() },
		func(c *bus.Config) { c.Clients = addr.String() },
	} {
		cfg := s.config("b")
		set(&cfg)
		if b, err := bus.Open(cfg); err == nil {
			b.Close()
			t.Errorf("Open on %s succeeded", addr)
		}
	}
}

func TestOpenRefusesWhatCannotBe(t *testing.T) {
	s := newSite(t, "a")
	for name, set := range map[string]func(*bus.Config){
		"mode":                  func(c *bus.Config) { c.Mode = "leaf" },
		"name with a space":     func(c *bus.Config) { c.Gateway = "a b" },
		"no key":                func(c *bus.Config) { c.Key = nil },
		"no members":            func(c *bus.Config) { c.Members = nil },
		"wildcard network":      func(c *bus.Config) { c.Network = "hedgerow.>" },
		"empty token":           func(c *bus.Config) { c.Network = "hedgerow." },
		"routes without listen": func(c *bus.Config) { c.Listen, c.Routes = "", []string{"tls://127.0.0.1:1"} },
		"plain route":           func(c *bus.Config) { c.Routes = []string{"nats://127.0.0.1:1"} },
		"route with user":       func(c *bus.Config) { c.Routes = []string{"tls://u:p@127.0.0.1:1"} },
		"listen without port":   func(c *bus.Config) { c.Listen = "127.0.0.1" },
		"embedded with url":     func(c *bus.Config) { c.URL = "nats://127.0.0.1:1" },
		"external that listens": func(c *bus.Config) { c.Mode, c.URL = bus.External, "nats://127.0.0.1:1" },
		"external without url":  func(c *bus.Config) { c.Mode, c.Listen = bus.External, "" },
		"external with user":    func(c *bus.Config) { c.Mode, c.Listen, c.URL = bus.External, "", "nats://u:p@127.0.0.1:1" },
		"external, bad credential": func(c *bus.Config) {
			c.Mode, c.Listen, c.URL, c.Credentials = bus.External, "", "nats://127.0.0.1:1", []byte("x")
		},
	} {
		cfg := s.config("a")
		set(&cfg)
		if b, err := bus.Open(cfg); err == nil {
			b.Close()
			t.Errorf("%s: Open succeeded", name)
		}
	}
}

// external opens the bus of a member that is client of another's server.
func external(t *testing.T, s *site, name, url string) *box {
	t.Helper()
	cfg := s.config(name)
	cfg.Mode, cfg.Listen, cfg.URL = bus.External, "", url
	return open(t, cfg)
}
