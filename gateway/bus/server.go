package bus

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// Bounds of the embedded server.
const (
	maxPayload = 1 << 20 // bytes of a message
	maxPending = 8 << 20 // bytes that wait for a slow connection before it is cut
	maxClients = 256     // connections at once, our own included
	maxSubs    = 1024    // subscriptions of one of them
	maxLine    = 2 << 10 // bytes of a protocol line without the message
	maxClosed  = 16      // connections that are remembered after their end

	startTimeout  = 5 * time.Second
	authTimeout   = 3 * time.Second // from the handshake to the answer
	tlsTimeout    = 2 * time.Second // of a handshake
	writeDeadline = 5 * time.Second

	// A route whose other end has gone silent is given up after four
	// intervals at the latest, and dialled again every second.
	routePing   = 2 * time.Second
	routePings  = 2
	clientPing  = 5 * time.Second
	clientPings = 2
	// noPort makes a server with routes not listen for clients. DontListen,
	// which is for that, also keeps the routes from starting: they wait for
	// the listener (nats-server 2.15). An address that cannot be ends the wait.
	noPort = 1 << 16

	// How long a gateway that another one told of is dialled in vain: nobody
	// tells of it again while a link is down. The type dials bounds how many.
	implicitDays = 2
)

// startServer starts the server of cfg and waits until it listens.
func (b *Bus) startServer() error {
	opts, err := b.serverOptions()
	if err != nil {
		return err
	}
	srv, err := server.NewServer(opts)
	if err != nil {
		return fmt.Errorf("make the embedded NATS server: %w", err)
	}
	lines := &serverLog{log: b.log, limited: b.limited, fatal: make(chan string, 1), noClients: opts.Port == noPort, dials: newDials(opts.Routes, b.cfg.Members), sources: b.pins.sources}
	srv.SetLogger(lines, true, false) // for dials: serverLog drops the other lines
	b.server = srv
	srv.Start()
	tick, end := time.NewTicker(5*time.Millisecond), time.NewTimer(startTimeout)
	defer tick.Stop()
	defer end.Stop()
	for {
		select {
		case why := <-lines.fatal:
			return fmt.Errorf("start the embedded NATS server: %s", why)
		case <-end.C:
			return fmt.Errorf("start the embedded NATS server: not ready within %v", startTimeout)
		case <-tick.C:
		}
		if routes, clients := b.Addresses(); (routes != nil) == (b.cfg.Listen != "") && (clients != nil) == (b.cfg.Clients != "") {
			return nil
		}
	}
}

// serverOptions returns new options for every call: a reload compares them.
func (b *Bus) serverOptions() (*server.Options, error) {
	cfg := &b.cfg
	opts := &server.Options{
		ServerName: cfg.Gateway,
		DontListen: cfg.Clients == "",
		NoLog:      true, // the logger is set apart
		NoSigs:     true,
		MaxConn:    maxClients, MaxSubs: maxSubs, MaxControlLine: maxLine,
		MaxPayload: maxPayload, MaxPending: maxPending, MaxClosedClients: maxClosed,
		AuthTimeout: authTimeout.Seconds(), TLSTimeout: tlsTimeout.Seconds(), WriteDeadline: writeDeadline,
		PingInterval: clientPing, MaxPingsOut: clientPings,
		NoSystemAccount:            true,
		ConnectErrorReports:        downAttempts,
		ReconnectErrorReports:      downAttempts,
		CustomClientAuthentication: (*clientAuth)(b),
		CustomRouterAuthentication: (*routeAuth)(b),
	}
	cert, err := certificate(cfg.Gateway, cfg.Key)
	if err != nil {
		return nil, err
	}
	if cfg.Clients != "" {
		if opts.Host, opts.Port, err = address(cfg.Clients); err != nil {
			return nil, err
		}
		shown := cert
		if cfg.TLS.Certificate != nil {
			shown = *cfg.TLS.Certificate
		}
		opts.TLS, opts.TLSConfig = true, b.pins.mutual(shown, b.mayConnect)
	}
	if cfg.Listen == "" {
		return opts, nil
	}
	if cfg.Clients == "" {
		opts.DontListen, opts.Host, opts.Port = false, "127.0.0.1", noPort
	}
	return opts, b.clusterOptions(opts, cert)
}

func (b *Bus) clusterOptions(opts *server.Options, cert tls.Certificate) (err error) {
	cfg, c := &b.cfg, &opts.Cluster
	c.Name = cfg.Network
	if c.Host, c.Port, err = address(cfg.Listen); err != nil {
		return err
	}
	c.TLSConfig = b.routeTLS(cert)
	c.AuthTimeout, c.TLSTimeout = authTimeout.Seconds(), tlsTimeout.Seconds()
	c.WriteDeadline = writeDeadline
	c.NoAdvertise = true // of the address for clients
	c.ConnectRetries = implicitDays * 24 * 3600
	c.PoolSize = 1
	c.Compression.Mode = server.CompressionOff
	c.PingInterval, c.MaxPingsOut = routePing, routePings
	for _, r := range cfg.Routes {
		u, err := url.Parse(r)
		if err != nil || u.Scheme != "tls" || u.Port() == "" || u.User != nil {
			return fmt.Errorf("%q is not a route; want tls://host:port", r)
		}
		opts.Routes = append(opts.Routes, u)
	}
	return nil
}

func (b *Bus) routeTLS(cert tls.Certificate) *tls.Config {
	if b.cfg.TLS.CA != nil {
		return b.pins.gate(authority(b.cfg.TLS), nil)
	}
	return b.pins.mutual(cert, b.pins.isMember)
}

// address takes host:port apart as the server wants it: -1 is any free port.
func address(s string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, fmt.Errorf("listen for NATS on %q: %w", s, err)
	}
	if port, err = strconv.Atoi(text); err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("listen for NATS on %q: no port from 0 to 65535", s)
	}
	if port == 0 {
		port = -1
	}
	return host, port, nil
}

// cutRoutes ends the routes of those that are not among the members. The
// server knows its routes' keys, but looks at them only when it is given
// others.
func (b *Bus) cutRoutes(members []Member) {
	if b.cfg.Listen == "" || b.cfg.TLS.CA != nil {
		return
	}
	b.reloads++
	opts, err := b.serverOptions()
	if err == nil {
		opts.Cluster.TLSPinnedCerts = pinnedCerts(members, b.reloads)
		err = b.server.ReloadOptions(opts)
	}
	if err != nil {
		b.log.Error("routes of former members are not cut", "err", err)
	}
}

// pinnedCerts is what the server compares the keys of its routes with. No two
// calls return the same: that would cut nothing.
func pinnedCerts(members []Member, call int) server.PinnedCertSet {
	set := server.PinnedCertSet{}
	add := func(b []byte) {
		sum := sha256.Sum256(b)
		set[hex.EncodeToString(sum[:])] = struct{}{}
	}
	for _, m := range members {
		if spki, err := x509.MarshalPKIXPublicKey(m.Key); err == nil { // it has a length that is right
			add(spki)
		}
	}
	add([]byte(strconv.Itoa(call)))
	return set
}

// routes returns the routes in the order of their names.
func (b *Bus) routes() []Route {
	all := []Route{}
	if b.server == nil || b.cfg.Listen == "" {
		return all
	}
	z, err := b.server.Routez(nil)
	if err != nil {
		return all
	}
	for _, r := range z.Routes {
		all = append(all, Route{r.RemoteName, net.JoinHostPort(r.IP, strconv.Itoa(r.Port)), r.Start})
	}
	slices.SortFunc(all, func(x, y Route) int { return strings.Compare(x.Name, y.Name) })
	return all
}

// routeAuth refuses at CONNECT who stopped being a member since the
// handshake.
type routeAuth Bus

func (a *routeAuth) Check(c server.ClientAuthentication) bool {
	state := c.GetTLSConnectionState()
	ok := a.cfg.TLS.CA != nil || // the handshake has checked the chain
		state != nil && a.pins.isMember(keyOf(*state))
	if ok {
		a.pins.sources.note(c.RemoteAddress())
	}
	return ok
}

// clientAuth gives every client the permissions of its kind: our own
// connection by its token, the others by the key of their certificate.
type clientAuth Bus

func (a *clientAuth) Check(c server.ClientAuthentication) bool {
	state := c.GetTLSConnectionState()
	if state == nil { // only inside the process is there a connection without
		return subtle.ConstantTimeCompare([]byte(c.GetOpts().Token), []byte(a.token)) == 1
	}
	key := keyOf(*state)
	switch {
	case a.pins.isMember(key):
		c.RegisterUser(&server.User{Username: hexKey(key), Permissions: memberPermissions(a.cfg.Network, key)})
	case isWorker(a.cfg.Workers, key):
		c.RegisterUser(&server.User{Username: hexKey(key), Permissions: workerPermissions(a.cfg.Network, key)})
	default:
		return false
	}
	a.pins.sources.note(c.RemoteAddress())
	return true
}

func (b *Bus) mayConnect(key ed25519.PublicKey) bool {
	return b.pins.isMember(key) || isWorker(b.cfg.Workers, key)
}

func isWorker(workers []ed25519.PublicKey, key ed25519.PublicKey) bool {
	return len(key) > 0 && slices.ContainsFunc(workers, func(w ed25519.PublicKey) bool { return key.Equal(w) })
}

// cutClients ends the connections of clients that may not connect now.
func (b *Bus) cutClients() {
	if b.cfg.Clients == "" {
		return
	}
	z, err := b.server.Connz(&server.ConnzOptions{Username: true, Limit: maxClients})
	if err != nil {
		return // only for options that are wrong
	}
	for _, c := range z.Conns {
		key, err := hex.DecodeString(strings.TrimPrefix(c.AuthorizedUser, "0x"))
		if err == nil && len(key) == ed25519.PublicKeySize && !b.mayConnect(key) {
			b.log.Warn("client cut", "key", c.AuthorizedUser, "address", c.IP)
			_ = b.server.DisconnectClientByID(c.Cid) // it may have gone by itself
		}
	}
}
