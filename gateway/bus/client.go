package bus

import (
	"bytes"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
)

const (
	dialTimeout     = 2 * time.Second
	reconnectWait   = 500 * time.Millisecond // and a random part of as much
	reconnectJitter = 500 * time.Millisecond
	reconnectBuffer = 64 << 10 // bytes published while there is no connection; nothing relies on them
	ownPing         = 3 * time.Second
	ownPings        = 2
)

// dialExternal connects to the cluster of the configuration, or to another
// gateway's clients address.
func (b *Bus) dialExternal() (*nats.Conn, error) {
	c := b.cfg
	conf, err := b.pins.client(c.Gateway, c.Key, c.TLS, b.pins.isMember)
	if err != nil {
		return nil, err
	}
	return connect(c.URL, c.Credentials, conf, b.log, b.limited, b.options())
}

// options are those of every connection of a gateway.
func (b *Bus) options() []nats.Option {
	return options(b.cfg.Gateway, b.cfg.Network, b.cfg.Key, b.log, b.limited)
}

// A Client is what [Dial] needs besides Credentials and TLS.
type Client struct {
	URL     string             // one or more tls://host:port or nats://host:port, comma-separated
	Name    string             // shown by the server
	Key     ed25519.PrivateKey // who we are; its certificate is shown to the server
	Network string             // first tokens of every subject
	// Servers are the keys of the gateways that may answer. Empty: the server
	// is checked by TLS.CA or the system's authorities, and by its name.
	Servers     []ed25519.PublicKey
	TLS         TLS
	Credentials []byte // a .creds file or an nkey seed, for a cluster that wants them
	Log         *slog.Logger
}

// Dial connects a remote worker to a gateway's clients address, or to the
// cluster of the gateways. The caller closes the connection.
//
// It returns also when nobody answers, or refuses: the connection then is
// made as soon as possible, and made again whenever it is lost. An error is
// one of the configuration.
func Dial(c Client) (*nats.Conn, error) {
	if len(c.Key) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("the key has %d bytes, want %d", len(c.Key), ed25519.PrivateKeySize)
	}
	if err := checkNetwork(c.Network); err != nil {
		return nil, err
	}
	known := func(key ed25519.PublicKey) bool {
		return len(key) > 0 && slices.ContainsFunc(c.Servers, func(s ed25519.PublicKey) bool { return key.Equal(s) })
	}
	conf, err := new(pins).client(c.Name, c.Key, c.TLS, known)
	if err != nil {
		return nil, err
	}
	if len(c.Servers) > 0 { // then nobody else will do
		conf.InsecureSkipVerify = true
		conf.VerifyConnection = func(state tls.ConnectionState) error {
			if key := keyOf(state); !known(key) {
				return fmt.Errorf("the server has the key %s, which is not the one given", hexKey(key))
			}
			return nil
		}
	}
	limited := newLimiter()
	return connect(c.URL, c.Credentials, conf, c.Log, limited, options(c.Name, c.Network, c.Key, c.Log, limited))
}

// client returns the configuration of a connection to a server: with an
// authority of the operator's it must vouch for the server; without, the
// server's key must be known, or the system's authorities vouch for its name.
func (p *pins) client(name string, key ed25519.PrivateKey, t TLS, known func(ed25519.PublicKey) bool) (*tls.Config, error) {
	cert, err := certificate(name, key)
	if err != nil {
		return nil, err
	}
	if t.Certificate != nil {
		cert = *t.Certificate
	}
	conf := &tls.Config{
		MinVersion: tls.VersionTLS12, // clusters are others' business
		RootCAs:    t.CA,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &cert, nil // whatever authorities the server names
		},
	}
	if t.CA != nil {
		return conf, nil
	}
	conf.InsecureSkipVerify = true // VerifyConnection does it
	conf.VerifyConnection = func(state tls.ConnectionState) error {
		key := keyOf(state)
		switch {
		case known(key):
			p.server.Store(&key)
		case publicChain(state):
			p.server.Store(nil)
		default:
			err := fmt.Errorf("the server has the key %s, which is not one of the network, and no authority of this system vouches for its name", hexKey(key))
			p.refused.note(err)
			return err
		}
		return nil
	}
	return conf, nil
}

func options(name, network string, key ed25519.PrivateKey, log *slog.Logger, limited *limiter) []nats.Option {
	id := ID(key.Public().(ed25519.PublicKey))
	return []nats.Option{
		nats.Name(name),
		nats.CustomInboxPrefix(network + ".inbox." + id),
		nats.Timeout(dialTimeout),
		nats.MaxReconnects(-1), nats.ReconnectWait(reconnectWait), nats.ReconnectJitter(reconnectJitter, reconnectJitter),
		nats.IgnoreAuthErrorAbort(), // whoever is refused today may be admitted tomorrow
		nats.ReconnectBufSize(reconnectBuffer),
		nats.PingInterval(ownPing), nats.MaxPingsOutstanding(ownPings),
		nats.NoCallbacksAfterClientClose(),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if limited.allow("disconnected") {
				log.Warn("disconnected from NATS", "err", err)
			}
		}),
		nats.ReconnectHandler(func(c *nats.Conn) {
			if limited.allow("reconnected") {
				log.Info("connected to NATS again", "server", c.ConnectedAddr())
			}
		}),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			subject := ""
			if sub != nil {
				subject = sub.Subject
			}
			if limited.allow("error " + subject + " " + fmt.Sprintf("%T", err)) {
				log.Warn("nats", "subject", subject, "err", err)
			}
		}),
	}
}

// connect makes the connection, or leaves that to the library when no server
// answers yet.
func connect(urls string, credentials []byte, conf *tls.Config, log *slog.Logger, limited *limiter, opts []nats.Option) (*nats.Conn, error) {
	secure, err := checkURLs(urls)
	if err != nil {
		return nil, err
	}
	login, err := loginOption(credentials)
	if err != nil {
		return nil, err
	}
	d := &dialer{}
	all := append([]nats.Option{
		nats.RetryOnFailedConnect(true), login, nats.SetCustomDialer(d),
		nats.ConnectHandler(func(c *nats.Conn) { log.Info("connected to NATS", "server", c.ConnectedAddr()) }),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) {
			if limited.allow("no server") {
				log.Warn("no NATS server", "err", d.reason(err))
			}
		}),
		func(o *nats.Options) error {
			o.TLSConfig, o.Secure = conf, secure // a nats:// server may still ask for TLS
			return nil
		},
	}, opts...)
	c, err := nats.Connect(urls, all...)
	if err != nil {
		return nil, fmt.Errorf("connect to NATS at %s: %w", urls, d.reason(err))
	}
	return c, nil
}

// A dialer remembers why the last address could not be dialled: the library
// says only that there is no server.
type dialer struct {
	mu  sync.Mutex // guards why
	why error
}

// Dial implements [nats.CustomDialer].
func (d *dialer) Dial(network, address string) (net.Conn, error) {
	c, err := net.DialTimeout(network, address, dialTimeout)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.why = err
	return c, err
}

// reason returns what err of the library means.
func (d *dialer) reason(err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.why != nil && errors.Is(err, nats.ErrNoServers) {
		return d.why
	}
	return err
}

// checkURLs reports whether the connection must be encrypted: one address
// that says so says it for all.
func checkURLs(urls string) (secure bool, err error) {
	for u := range strings.SplitSeq(urls, ",") {
		scheme, host, ok := strings.Cut(strings.TrimSpace(u), "://")
		if !ok || scheme != "tls" && scheme != "nats" || host == "" {
			return false, fmt.Errorf("%q is no address of a NATS server; want tls://host:port or nats://host:port", u)
		}
		if strings.Contains(host, "@") {
			return false, errors.New("the address of a NATS server holds a user; credentials stand apart")
		}
		secure = secure || scheme == "tls"
	}
	return secure, nil
}

// CheckCredentials says whether credentials of an external cluster can be
// used. The error does not hold them.
func CheckCredentials(b []byte) error {
	_, err := loginOption(b)
	return err
}

// loginOption recognises credentials by their content: a .creds file holds a
// JWT and a seed, another file the seed of a user's nkey alone.
//
// The identity key is no nkey on purpose: a server chooses what a client
// signs.
func loginOption(b []byte) (nats.Option, error) {
	b = bytes.TrimSpace(b)
	if len(b) == 0 {
		return func(*nats.Options) error { return nil }, nil
	}
	if bytes.Contains(b, []byte("BEGIN NATS USER JWT")) {
		token, err := nkeys.ParseDecoratedJWT(b)
		if err != nil {
			return nil, errors.New("the credentials hold no JWT that can be read")
		}
		pair, err := nkeys.ParseDecoratedUserNKey(b)
		if err != nil {
			return nil, errors.New("the credentials hold a JWT, but no seed of a user")
		}
		return nats.UserJWT(func() (string, error) { return token, nil }, pair.Sign), nil
	}
	pair, err := nkeys.ParseDecoratedNKey(b)
	if err != nil {
		return nil, errors.New("the credentials are neither a .creds file nor the seed of an nkey (SU…)")
	}
	public, err := pair.PublicKey()
	if err != nil || !nkeys.IsValidPublicUserKey(public) {
		return nil, errors.New("the credentials are the seed of an nkey that is not a user's (SU…)")
	}
	return nats.Nkey(public, pair.Sign), nil
}

// ParseCA reads the certificates of an authority, PEM.
func ParseCA(pem []byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("no certificate in it; want PEM blocks CERTIFICATE")
	}
	return pool, nil
}
