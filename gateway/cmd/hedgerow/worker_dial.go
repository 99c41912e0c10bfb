package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/hedgerow-iot/hedgerow/powfarm/remote"
)

// dialWorker connects a worker to a gateway's NATS server and keeps it
// connected for ever; the server need not be there yet. Over TLS both sides
// show their identity keys: the server must have that of a gateway that may
// ask.
func dialWorker(urls string, cfg *remote.ServerConfig, log *slog.Logger) (*nats.Conn, error) {
	var why atomic.Value // there is no connection; tried every second or two, said once
	opts := []nats.Option{
		nats.Name("hedgerow worker"), nats.NoEcho(),
		nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.IgnoreAuthErrorAbort(),
		nats.ReconnectWait(time.Second), nats.ReconnectJitter(time.Second, time.Second), nats.PingInterval(15 * time.Second),
		nats.ConnectHandler(func(c *nats.Conn) { log.Info("connected", "server", c.ConnectedUrlRedacted()) }),
		nats.ReconnectHandler(func(c *nats.Conn) { log.Info("connected again", "server", c.ConnectedUrlRedacted()) }),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { log.Warn("connection lost", "err", err) }),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) {
			if text := err.Error(); why.Swap(text) != text {
				log.Warn("no connection, trying on", "err", err)
			}
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { log.Warn("connection", "err", err) }),
	}
	if strings.Contains(urls, "tls://") {
		config, err := pinned(cfg)
		if err != nil {
			return nil, err
		}
		opts = append(opts, nats.Secure(config))
	}
	return nats.Connect(urls, opts...)
}

// checkURLs says what is wrong with the addresses of --nats. Without TLS only
// loopback is taken: what is sent is signed, but anybody could be connected.
func checkURLs(urls string) error {
	for one := range strings.SplitSeq(urls, ",") {
		u, err := url.Parse(strings.TrimSpace(one))
		switch {
		case err != nil || u.Host == "":
			return errors.New("not an address such as tls://10.0.0.8:4222")
		case u.Scheme == "tls":
		case u.Scheme != "nats":
			return fmt.Errorf("scheme %q, want tls (or nats on this machine)", u.Scheme)
		case u.Hostname() != "localhost" && !net.ParseIP(u.Hostname()).IsLoopback():
			return errors.New("leaves this machine without TLS; say tls://")
		}
	}
	return nil
}

// pinned shows our identity key and wants to see one of the gateways'.
func pinned(cfg *remote.ServerConfig) (*tls.Config, error) {
	template := x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Unix(0, 0), // the key counts; boxes without a clock come up in 1970
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, cfg.Key.Public(), cfg.Key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate of the identity key: %w", err)
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		Certificates:       []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: cfg.Key}},
		InsecureSkipVerify: true, // no name and no authority: VerifyConnection looks at the key
		VerifyConnection: func(s tls.ConnectionState) error {
			key, ok := s.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
			if ok && slices.ContainsFunc(cfg.Gateways, func(g remote.Peer) bool { return g.Key == remote.Key(key) }) {
				return nil
			}
			return errors.New("the server's key is not that of a gateway that may ask")
		},
	}, nil
}
