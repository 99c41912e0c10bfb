package bus_test

import (
	"crypto/ed25519"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/hedgerow-iot/hedgerow/gateway/bus"
)

// A link is a TCP proxy that can be cut as a cable is: nothing comes through
// and no end is told.
type link struct {
	listener net.Listener
	target   string

	mu    sync.Mutex // guards what follows
	up    chan struct{}
	conns []net.Conn
	wg    sync.WaitGroup
}

func newLink(t *testing.T, target string) *link {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &link{listener: l, target: target, up: make(chan struct{})}
	close(p.up)
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		p.heal()
		_ = l.Close()
		p.mu.Lock()
		for _, c := range p.conns {
			_ = c.Close()
		}
		p.mu.Unlock()
		p.wg.Wait()
	})
	return p
}

func (p *link) accept() {
	for {
		near, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() {
			<-p.state()
			far, err := net.Dial("tcp", p.target)
			if err != nil {
				_ = near.Close()
				return
			}
			p.mu.Lock()
			p.conns = append(p.conns, near, far)
			p.mu.Unlock()
			p.wg.Go(func() { p.copy(far, near) })
			p.copy(near, far)
		})
	}
}

func (p *link) copy(to, from net.Conn) {
	defer to.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		<-p.state()
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// state returns a channel that is closed while the link is up.
func (p *link) state() chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.up
}

func (p *link) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.up = make(chan struct{})
}

func (p *link) heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.up:
	default:
		close(p.up)
	}
}

// A link that goes silent is noticed by both ends, and the route is back when
// the link is.
func TestASilentRouteIsGivenUpAndComesBack(t *testing.T) {
	s := newSite(t, "a", "b")
	a := open(t, s.config("a"))
	cable := newLink(t, strings.TrimPrefix(a.seed(), "tls://"))
	b := open(t, s.config("b", "tls://"+cable.listener.Addr().String()))
	eventually(t, "meshed", func() bool { return a.hasRoutes("b") && b.hasRoutes("a") })
	sub := subscribe(t, a.Conn(), prefix+".block")
	hears(t, b.Conn(), sub)

	cable.cut()
	eventually(t, "noticed by both", func() bool { return a.hasRoutes() && b.hasRoutes() })
	cable.heal()
	eventually(t, "meshed again", func() bool { return a.hasRoutes("b") && b.hasRoutes("a") })
	hears(t, b.Conn(), sub)
}

// The same for a client of another gateway's server.
func TestASilentClientIsGivenUpAndComesBack(t *testing.T) {
	s := newSite(t, "a", "b")
	cfg := s.config("a")
	cfg.Clients = "127.0.0.1:0"
	a := open(t, cfg)
	cable := newLink(t, strings.TrimPrefix(a.clientURL(), "tls://"))
	b := external(t, s, "b", "tls://"+cable.listener.Addr().String())
	eventually(t, "connected", func() bool { return b.Status().Connected && a.Status().Clients == 1 })
	sub := subscribe(t, b.Conn(), prefix+".block")

	cable.cut()
	eventually(t, "noticed by both", func() bool { return !b.Status().Connected && a.Status().Clients == 0 })
	cable.heal()
	eventually(t, "connected again", func() bool { return b.Status().Connected && a.Status().Clients == 1 })
	hears(t, a.Conn(), sub)
}

// Whoever connects without TLS, or says nothing, is cut and costs nothing.
func TestWhoeverSpeaksNoTLSIsCut(t *testing.T) {
	s := newSite(t, "a")
	cfg := s.config("a")
	cfg.Clients = "127.0.0.1:0"
	a := open(t, cfg)
	routes, clients := a.Addresses()
	for name, address := range map[string]string{"routes": routes.String(), "clients": clients.String()} {
		for _, say := range []string{"", "CONNECT {\"verbose\":false}\r\nPING\r\n", strings.Repeat("x", 4096)} {
			c, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			_ = c.SetDeadline(time.Now().Add(30 * time.Second))
			_, _ = io.WriteString(c, say)
			answer, err := io.ReadAll(c)
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				t.Errorf("%s: not cut after %.20q", name, say)
			}
			if strings.Contains(string(answer), "PONG") {
				t.Errorf("%s: answered %q", name, answer)
			}
			_ = c.Close()
		}
	}
	if st := a.Status(); st.Clients != 0 || len(st.Routes) != 0 {
		t.Errorf("status %+v", st)
	}
}

// At the clients address a key decides what a client may do.
func TestClientsMayWhatTheirKeyMay(t *testing.T) {
	s := newSite(t, "a", "b")
	worker, stranger := newKey(t), newKey(t)
	cfg := s.config("a")
	cfg.Listen, cfg.Clients = "", "127.0.0.1:0"
	cfg.Workers = append(cfg.Workers, public(worker))
	a := open(t, cfg)
	b := external(t, s, "b", a.clientURL())
	dial := func(c bus.Client) *nats.Conn {
		t.Helper()
		c.URL, c.Network, c.Log, c.Name = a.clientURL(), prefix, testLog(t), "worker"
		conn, err := bus.Dial(c)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(conn.Close)
		return conn
	}
	w := dial(bus.Client{Key: worker, Servers: s.serverKeys("a")})
	eventually(t, "both connected", func() bool { return b.Status().Connected && w.IsConnected() && a.Status().Clients == 2 })

	before := a.Status().Refused
	unknown := dial(bus.Client{Key: stranger, Servers: s.serverKeys("a")})
	eventually(t, "a stranger is refused", func() bool { return a.Status().Refused > before })
	wrong := dial(bus.Client{Key: worker, Servers: s.serverKeys("b")}) // not b's server
	nobody := dial(bus.Client{Key: worker})                            // and no authority vouches for it
	for name, c := range map[string]*nats.Conn{"stranger": unknown, "pinned to another": wrong, "pinned to none": nobody} {
		eventually(t, name+" has tried", func() bool { return c.Status() == nats.RECONNECTING })
	}

	hears(t, b.Conn(), subscribe(t, a.Conn(), prefix+".block"))
	idW := bus.ID(public(worker))
	hears(t, w, subscribe(t, a.Conn(), prefix+".pow.hello"))
	if _, err := w.Subscribe(prefix+".pow."+idW, func(m *nats.Msg) { _ = m.Respond(m.Data) }); err != nil {
		t.Fatal(err)
	}
	for _, asker := range []*nats.Conn{a.Conn(), b.Conn()} {
		eventually(t, "the worker answers", func() bool {
			_, err := asker.Request(prefix+".pow."+idW, []byte("x"), time.Second)
			return err == nil
		})
	}

	idA, idB := bus.ID(public(s.keys["a"])), bus.ID(public(s.keys["b"]))
	for _, subject := range []string{prefix + ".block", prefix + ".cert", prefix + ".peer." + idB, prefix + ".inbox." + idB + ".>", prefix + ".pow.hello", prefix + ".pow." + idB, ">"} {
		mayNot(t, w, "subscribe", subject)
	}
	for _, subject := range []string{prefix + ".block", prefix + ".cert", prefix + ".peer." + idA, prefix + ".inbox." + idA + ".x", prefix + ".pow." + idA, prefix + ".pow." + idB} {
		mayNot(t, w, "publish", subject)
	}
	for _, subject := range []string{prefix + ".peer." + idA, prefix + ".inbox." + idA + ".>", "other.block"} {
		mayNot(t, b.Conn(), "subscribe", subject)
	}
	mayNot(t, b.Conn(), "publish", "other.block")
	if st := a.Status(); st.Clients != 2 {
		t.Errorf("%d clients, want 2", st.Clients)
	}
}

func (s *site) serverKeys(name string) []ed25519.PublicKey {
	return []ed25519.PublicKey{public(s.keys[name])}
}

// mayNot checks that the server refuses; it answers in order, so a flush has
// waited for the refusal.
func mayNot(t *testing.T, c *nats.Conn, what, subject string) {
	t.Helper()
	if what == "subscribe" {
		if _, err := c.SubscribeSync(subject); err != nil {
			t.Fatal(err)
		}
	} else if err := c.Publish(subject, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := c.FlushTimeout(10 * time.Second); err != nil {
		t.Fatal(err)
	}
	if err := c.LastError(); err == nil || !strings.Contains(strings.ToLower(err.Error()), "permissions violation") || !strings.Contains(err.Error(), `"`+subject+`"`) {
		t.Errorf("%s %s: last error %v, want a refusal", what, subject, err)
	}
}
