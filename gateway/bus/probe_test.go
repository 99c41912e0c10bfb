package bus_test

import (
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/gateway/bus"
)

// closedAddress returns one on which nothing listens.
func closedAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return l.Addr().String()
}

func TestProbeTellsWhoIsAtTheOtherEndOfARoute(t *testing.T) {
	s, other := newSite(t, "a", "b"), newSite(t, "x")
	a := open(t, s.config("a"))
	key, err := bus.Probe(t.Context(), s.config("b"), a.seed())
	if err != nil || !key.Equal(public(s.keys["a"])) {
		t.Errorf("Probe = %x, %v; want the key of a", key, err)
	}
	key, err = bus.Probe(t.Context(), other.config("x"), a.seed())
	if !errors.Is(err, bus.ErrRefused) || !key.Equal(public(s.keys["a"])) {
		t.Errorf("Probe with a strange key = %x, %v; want a's key and %v", key, err, bus.ErrRefused)
	}
	if key, err := bus.Probe(t.Context(), s.config("b"), "tls://"+closedAddress(t)); err == nil || errors.Is(err, bus.ErrRefused) {
		t.Errorf("Probe where nobody listens = %x, %v", key, err)
	}
}

// With an authority the key says nothing, and the chain everything.
func TestProbeTrustsTheAuthorityOfRoutes(t *testing.T) {
	s := newSite(t, "a", "b")
	ca, strange := newAuthority(t), newAuthority(t)
	from, to := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	a := open(t, withTLS(s.config("a"), ca.issue(from, to)))
	if key, err := bus.Probe(t.Context(), withTLS(s.config("b"), ca.issue(from, to)), a.seed()); err != nil || key != nil {
		t.Errorf("Probe = %x, %v", key, err)
	}
	if key, err := bus.Probe(t.Context(), withTLS(s.config("b"), strange.issue(from, to)), a.seed()); err == nil {
		t.Errorf("Probe with another authority = %x, and no error", key)
	}
}

func TestTryConnectsOnce(t *testing.T) {
	s, other := newSite(t, "a", "b"), newSite(t, "x")
	cfg := s.config("a")
	cfg.Clients = "127.0.0.1:0"
	a := open(t, cfg)
	external := func(s *site, name, url string) bus.Config {
		c := s.config(name)
		c.Mode, c.Listen, c.URL = bus.External, "", url
		return c
	}
	server, key, err := bus.Try(external(s, "b", a.clientURL()))
	if err != nil || "tls://"+server != a.clientURL() || !key.Equal(public(s.keys["a"])) {
		t.Errorf("Try = %s, %x, %v", server, key, err)
	}
	eventually(t, "disconnected", func() bool { return a.Status().Clients == 0 })
	other.add("a", public(s.keys["a"])) // x would have it
	if _, _, err := bus.Try(external(other, "x", a.clientURL())); err == nil {
		t.Error("Try with a strange key has no error")
	}
	closed := closedAddress(t)
	if _, _, err := bus.Try(external(s, "b", "tls://"+closed)); err == nil || !strings.Contains(err.Error(), closed) {
		t.Errorf("Try where nobody listens: %v, want the address in it", err)
	}
}

// Why there is no server is logged, not only that there is none.
func TestAClusterThatIsDownIsNamed(t *testing.T) {
	s := newSite(t, "a")
	closed := closedAddress(t)
	cfg, lines := s.config("a"), &logLines{}
	cfg.Mode, cfg.Listen, cfg.URL = bus.External, "", "tls://"+closed
	cfg.Log = slog.New(slog.NewTextHandler(lines, nil))
	open(t, cfg)
	eventually(t, "the reason is logged", func() bool {
		return lines.has(`msg="no NATS server" err="dial tcp ` + closed + `: connect: connection refused"`)
	})
}

// A gateway that is down is one line for people, not an error of each attempt.
func TestARouteThatIsDownIsOneLine(t *testing.T) {
	s := newSite(t, "a", "b")
	closed := closedAddress(t)
	cfg, lines := s.config("a", "tls://"+closed), &logLines{}
	cfg.Log = slog.New(slog.NewTextHandler(lines, nil))
	open(t, cfg)
	eventually(t, "the route is said to be down", func() bool {
		return lines.has(`level=INFO msg="route is down, dialled until it is up" address=` + closed + ` err="connect: connection refused"`)
	})
	if lines.has("level=WARN") || lines.has("attempt") {
		t.Errorf("logged:\n%s", lines.text)
	}
}

func withTLS(c bus.Config, t bus.TLS) bus.Config {
	c.TLS = t
	return c
}
