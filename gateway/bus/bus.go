// Package bus is the NATS connection of a gateway.
//
// It knows three topologies. A single box has a server inside the process and
// no port. The boxes of a site mesh such servers by routes, with mutual TLS
// that is pinned to the identity keys of the members. A large site has a NATS
// cluster of its own, and the gateway is its client.
//
// The bus carries messages and nothing else: it knows no block, no subject but
// those in its permissions, and keeps no message for anybody who is away. It
// says who may connect; what a message says must be proved by the message.
// Servers of a mesh trust one another with every subject.
package bus

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// A Mode is how a gateway reaches the others.
type Mode string

// The modes.
const (
	Embedded Mode = "embedded" // a server in this process, alone or meshed by routes
	External Mode = "external" // client of a cluster, or of another gateway's Clients address
)

// A Member is a gateway of the network file in force.
type Member struct {
	Name string
	Key  ed25519.PublicKey
}

// TLS are certificates of the operator's own authority. Empty: the
// certificate is made in memory from the gateway's key, and the other side is
// known by its key alone.
type TLS struct {
	// Certificate is shown to servers, and by servers to clients.
	Certificate *tls.Certificate
	// CA is what the other side's certificate must chain to, by the usual
	// rules: names and times count, so a box whose clock is wrong is locked
	// out until it is right, and who leaves the network must be kept out by
	// the authority. Clients of Config.Clients are known by their key even so.
	CA *x509.CertPool
}

// Config is what Open needs. Gateway, Key, Network, Members and Log are
// always needed.
type Config struct {
	Mode    Mode
	Gateway string             // name of this gateway
	Key     ed25519.PrivateKey // its identity
	Network string             // first tokens of every subject, such as hedgerow.0123456789abcdef
	// Members returns those of the network file in force. It is called at
	// every handshake and every two seconds, must not block, and may be called
	// by several goroutines at once.
	Members func() []Member
	// Former returns what a key that may not connect was called when it was a
	// member's, or "", for the words about its refusal; nil: nobody knows.
	// It is called as Members is.
	Former func(ed25519.PublicKey) string
	TLS    TLS

	// Mode Embedded.
	Listen  string              // address for routes, host:port; empty: none, and no Routes
	Routes  []string            // other gateways' Listen, as tls://host:port
	Clients string              // address for clients, host:port; empty: none
	Workers []ed25519.PublicKey // who may connect to Clients besides members, for proof of work only

	// Mode External.
	URL         string // one or more nats://host:port or tls://host:port, comma-separated
	Credentials []byte // a .creds file or an nkey seed; empty: none

	Log *slog.Logger
}

// recheck is how often a Bus looks at Members, and at who is connected.
const recheck = 2 * time.Second

// A Bus is an open connection, and in mode Embedded the server behind it.
type Bus struct {
	cfg     Config
	log     *slog.Logger
	limited *limiter
	pins    *pins
	closing chan struct{} // ends what a handshake waits for
	once    sync.Once

	server *server.Server // nil in mode External
	token  string         // by which the server knows the gateway's own connection
	conn   *nats.Conn

	// Of Run alone.
	seen    []Member // that the connections were compared with
	again   bool     // whether that is to be done once more
	reloads int
}

// Open starts the server of mode Embedded and connects; in mode External it
// returns also when no server answers, and the connection is made as soon as
// one does. Run must follow, and Close.
func Open(cfg Config) (_ *Bus, err error) {
	if err := check(&cfg); err != nil {
		return nil, err
	}
	b := &Bus{cfg: cfg, log: cfg.Log, limited: newLimiter(), closing: make(chan struct{}), token: rand.Text()}
	b.seen = slices.Clone(cfg.Members())
	b.pins = &pins{members: cfg.Members, former: cfg.Former, closing: b.closing, sources: newSources()}
	defer func() {
		if err != nil {
			b.Close()
		}
	}()
	if cfg.Mode == External {
		b.conn, err = b.dialExternal()
		return b, err
	}
	if err := b.startServer(); err != nil {
		return nil, err
	}
	b.conn, err = nats.Connect(nats.DefaultURL, append(b.options(), nats.InProcessServer(b.server), nats.Token(b.token))...)
	if err != nil {
		return nil, fmt.Errorf("connect to the embedded NATS server: %w", err)
	}
	return b, nil
}

func check(cfg *Config) error {
	switch {
	case cfg.Mode != Embedded && cfg.Mode != External:
		return fmt.Errorf("mode is %q, want %q or %q", cfg.Mode, Embedded, External)
	case cfg.Gateway == "" || strings.ContainsAny(cfg.Gateway, " \t\r\n"):
		return fmt.Errorf("%q cannot name a gateway", cfg.Gateway)
	case len(cfg.Key) != ed25519.PrivateKeySize:
		return fmt.Errorf("the key has %d bytes, want %d", len(cfg.Key), ed25519.PrivateKeySize)
	case cfg.Members == nil || cfg.Log == nil:
		return errors.New("members and log are needed")
	case cfg.Mode == Embedded && cfg.URL != "", cfg.Mode == Embedded && len(cfg.Credentials) > 0:
		return errors.New("an embedded server has neither URL nor credentials")
	case cfg.Mode == External && (cfg.Listen != "" || cfg.Clients != "" || len(cfg.Routes) > 0):
		return errors.New("a client of a cluster listens on nothing and has no routes")
	case cfg.Listen == "" && len(cfg.Routes) > 0:
		return errors.New("routes need an address to listen on: the servers of a mesh dial one another")
	case (cfg.TLS.Certificate == nil) != (cfg.TLS.CA == nil) && cfg.Mode == Embedded:
		return errors.New("a certificate and its CA go together")
	}
	return checkNetwork(cfg.Network)
}

// checkNetwork refuses what would not stand for itself in a subject.
func checkNetwork(prefix string) error {
	for token := range strings.SplitSeq(prefix, ".") {
		if token == "" || strings.ContainsAny(token, "*> \t\r\n") {
			return fmt.Errorf("%q cannot begin a subject", prefix)
		}
	}
	return nil
}

// Conn returns the connection. It is the same from Open to Close and made
// again by itself whenever it is lost; what is published in between is mostly
// dropped. Replies come on <network>.inbox.<id>.
func (b *Bus) Conn() *nats.Conn { return b.conn }

// Run keeps the connections in step with the members: who is no member any
// more is cut within a few seconds. It returns nil when ctx ends.
func (b *Bus) Run(ctx context.Context) error {
	tick := time.NewTicker(recheck)
	defer tick.Stop()
	up := map[string]Route{}
	for {
		up = b.logRoutes(up)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			b.cutStrangers()
		}
	}
}

// logRoutes says which routes came and went since it returned before.
func (b *Bus) logRoutes(before map[string]Route) map[string]Route {
	now := map[string]Route{}
	for _, r := range b.routes() {
		now[r.Name] = r
		if _, ok := before[r.Name]; !ok {
			b.log.Info("route up", "gateway", r.Name, "address", r.Address)
		}
	}
	for name, r := range before {
		if _, ok := now[name]; !ok {
			b.log.Info("route down", "gateway", name, "address", r.Address)
		}
	}
	return now
}

// cutStrangers ends the connections with those that may not have them now.
func (b *Bus) cutStrangers() {
	b.cutClients()
	now := b.cfg.Members()
	changed := !slices.EqualFunc(now, b.seen, func(x, y Member) bool { return x.Key.Equal(y.Key) })
	if changed || b.again { // once more, for what was not complete at the first look
		b.cutRoutes(now)
		b.cutServer()
	}
	b.seen, b.again = slices.Clone(now), changed
}

// cutServer leaves another gateway's server when it is no member's any more.
func (b *Bus) cutServer() {
	key := b.pins.server.Load()
	if b.cfg.Mode != External || key == nil || b.pins.isMember(*key) {
		return
	}
	b.log.Warn("the NATS server is no member's any more", "key", hexKey(*key))
	_ = b.conn.ForceReconnect() // fails only when it is closed
}

// Close ends the connection and the server, and returns after the last of
// their goroutines. It may be called more than once, and while Run runs.
func (b *Bus) Close() {
	b.once.Do(func() {
		close(b.closing)
		if b.conn != nil {
			b.conn.Close()
		}
		if b.server != nil {
			b.server.Shutdown()
		}
	})
}

// A Status is the state of a Bus.
type Status struct {
	Mode      Mode
	Connected bool    // the gateway to its server
	Server    string  // address of the server in mode external, while connected
	Routes    []Route // to other embedded servers
	Clients   int     // members and workers at the clients address

	Refused    uint64    // handshakes with keys that may not connect, since the start
	RefusedAt  time.Time // the last of them; zero: none
	RefusedWhy string    // in words
}

// A Route is a connection with another gateway's embedded server.
type Route struct {
	Name    string // as the other server says
	Address string
	Since   time.Time
}

// Status returns the state of now.
func (b *Bus) Status() Status {
	s := Status{Mode: b.cfg.Mode, Connected: b.conn.IsConnected(), Routes: b.routes()}
	b.pins.refused.tell(&s)
	if b.server != nil {
		s.Clients = max(0, b.server.NumClients()-1) // one is the gateway itself
	} else if s.Connected {
		s.Server = b.conn.ConnectedAddr()
	}
	return s
}

// Addresses returns what the server listens on for routes and for clients, nil
// for nothing.
func (b *Bus) Addresses() (routes, clients net.Addr) {
	if b.server == nil {
		return nil, nil
	}
	if a := b.server.ClusterAddr(); a != nil {
		routes = a
	}
	if a := b.server.Addr(); a != nil {
		clients = a
	}
	return routes, clients
}

// ID returns how subjects name the gateway or worker with this key: the first
// 8 bytes in hex.
func ID(key ed25519.PublicKey) string { return hex.EncodeToString(key[:8]) }

func hexKey(key ed25519.PublicKey) string {
	if len(key) == 0 {
		return "none"
	}
	return "0x" + hex.EncodeToString(key)
}
