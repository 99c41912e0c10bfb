package bus

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"time"

	"github.com/nats-io/nats.go"
)

// probeTime bounds what [Probe] and [Try] do at one address. Who refuses a key
// takes its time to say so.
const probeTime = 5 * time.Second

// ErrRefused is wrapped by the error of [Probe] when there is a server that
// does not let this gateway in.
var ErrRefused = errors.New("the other side refuses this gateway's key")

// Probe dials a route, such as tls://10.0.0.8:6222, as an embedded server
// would, and returns the key that the other side has; nil if it is known by
// cfg.TLS.CA instead. Whose key it is, is for the caller to say. Of cfg,
// Gateway, Key and TLS are used.
func Probe(ctx context.Context, cfg Config, route string) (ed25519.PublicKey, error) {
	u, err := url.Parse(route)
	if err != nil {
		return nil, fmt.Errorf("%q is not a route: %w", route, err)
	}
	conf, err := probeTLS(&cfg)
	if err != nil {
		return nil, err
	}
	conf.ServerName = u.Hostname()
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return nil, err
	}
	defer raw.Close() //nolint:errcheck // nothing was written that matters
	conn := tls.Client(raw, conf)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	// The other side looks at our key after our side of the handshake is done;
	// a server that lets us in speaks first.
	end, _ := ctx.Deadline()
	_ = conn.SetReadDeadline(end) // fails only on a closed connection, as reading will
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		return keyOf(conn.ConnectionState()), fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if cfg.TLS.CA != nil {
		return nil, nil
	}
	return keyOf(conn.ConnectionState()), nil
}

func probeTLS(cfg *Config) (*tls.Config, error) {
	if cfg.TLS.CA != nil && cfg.TLS.Certificate != nil {
		return authority(cfg.TLS), nil
	}
	cert, err := certificate(cfg.Gateway, cfg.Key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert},
		InsecureSkipVerify: true, // the caller looks at the key
	}, nil
}

// Try connects once as [Open] would in mode External, and disconnects. It
// returns the address of the server that let us in, and its key when it is a
// member's.
func Try(cfg Config) (server string, key ed25519.PublicKey, err error) {
	if err := check(&cfg); err != nil {
		return "", nil, err
	}
	p := &pins{members: cfg.Members}
	conf, err := p.client(cfg.Gateway, cfg.Key, cfg.TLS, p.isMember)
	if err != nil {
		return "", nil, err
	}
	conn, err := connect(cfg.URL, cfg.Credentials, conf, slog.New(slog.DiscardHandler), newLimiter(), []nats.Option{
		nats.Name(cfg.Gateway), nats.Timeout(probeTime), nats.NoReconnect(), nats.RetryOnFailedConnect(false),
	})
	if err != nil {
		return "", nil, err
	}
	defer conn.Close()
	if k := p.server.Load(); k != nil {
		key = *k
	}
	return conn.ConnectedAddr(), key, nil
}
