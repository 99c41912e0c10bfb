package bus_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"log/slog"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/gateway/bus"
)

// authority issues certificates for loopback.
type authority struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{t: t, key: key, pool: x509.NewCertPool()}
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "site"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Unix(0, 0), NotAfter: time.Now().AddDate(10, 0, 0), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, a.cert, a.cert, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pool.AddCert(a.cert)
	return a
}

func (a *authority) issue(from, to time.Time) bus.TLS {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "box"}, NotBefore: from, NotAfter: to,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return bus.TLS{Certificate: &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, CA: a.pool}
}

// With the operator's authority its certificates decide, for routes; clients
// are known by their keys even so.
func TestOwnAuthority(t *testing.T) {
	s := newSite(t, "a", "b", "c", "d")
	ca := newAuthority(t)
	from, to := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	cfg := withTLS(s.config("a"), ca.issue(from, to))
	cfg.Clients = "127.0.0.1:0"
	lines := &logLines{}
	cfg.Log = slog.New(slog.NewTextHandler(lines, nil))
	a := open(t, cfg)
	b := open(t, withTLS(s.config("b", a.seed()), ca.issue(from, to)))
	eventually(t, "meshed", func() bool { return a.hasRoutes("b") && b.hasRoutes("a") })

	own := open(t, s.config("c", a.seed())) // a member, but without the authority
	expired := open(t, withTLS(s.config("d", a.seed()), ca.issue(from, from.Add(time.Minute))))
	eventually(t, "c has met another certificate than a member's", func() bool { return own.Status().Refused > 0 })
	eventually(t, "a has met d's certificate", func() bool { return lines.has("certificate has expired") })
	if !own.hasRoutes() || !expired.hasRoutes() || !a.hasRoutes("b") {
		t.Errorf("routes %v, %v, %v", own.Status().Routes, expired.Status().Routes, a.Status().Routes)
	}

	ext := s.config("c")
	ext.Mode, ext.Listen, ext.URL, ext.TLS.CA = bus.External, "", a.clientURL(), ca.pool
	c := open(t, ext)
	eventually(t, "a client by key", func() bool { return c.Status().Connected && a.Status().Clients == 1 })
}

// logLines keeps what is logged.
type logLines struct {
	mu   sync.Mutex
	text []byte
}

func (l *logLines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, b...)
	return len(b), nil
}

func (l *logLines) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(string(l.text), text)
}

// A refused key dials again every second and is logged once a minute.
func TestARefusedKeyIsLoggedOnceAMinute(t *testing.T) {
	s, other := newSite(t, "a"), newSite(t, "b")
	other.add("a", public(s.keys["a"]))
	cfg, lines := s.config("a"), &logLines{}
	cfg.Log = slog.New(slog.NewTextHandler(lines, nil))
	a := open(t, cfg)
	open(t, other.config("b", a.seed()))
	eventually(t, "refused three times", func() bool { return a.Status().Refused >= 3 })
	lines.mu.Lock()
	defer lines.mu.Unlock()
	if n := strings.Count(string(lines.text), "is not one of the network"); n != 1 || !strings.Contains(string(lines.text), "once its epoch has begun here") {
		t.Errorf("%d lines of it:\n%s", n, lines.text)
	}
}

// A certificate's times and names are nothing: a box whose clock stands at
// 1970 or anywhere else is let in by its key.
func TestACertificateOfAnyTimeIsLetInByItsKey(t *testing.T) {
	s := newSite(t, "a", "b")
	cfg := s.config("a")
	cfg.Clients = "127.0.0.1:0"
	a := open(t, cfg)
	routes, clients := a.Addresses()
	for _, tt := range []struct {
		name     string
		key      ed25519.PrivateKey
		from, to time.Time
		in       bool
	}{
		{"expired in 1970", s.keys["b"], time.Unix(0, 0), time.Unix(60, 0), true},
		{"not yet valid", s.keys["b"], time.Now().AddDate(50, 0, 0), time.Now().AddDate(51, 0, 0), true},
		{"wrong key, valid", newKey(t), time.Now().Add(-time.Hour), time.Now().Add(time.Hour), false},
	} {
		template := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "b"}, NotBefore: tt.from, NotAfter: tt.to}
		der, err := x509.CreateCertificate(nil, template, template, tt.key.Public(), tt.key)
		if err != nil {
			t.Fatal(err)
		}
		conf := &tls.Config{
			InsecureSkipVerify: true, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: tt.key}},
			Time: func() time.Time { return time.Unix(1, 0) }, // our clock is wrong, too
		}
		if got := serverTalks(t, routes.String(), "", conf); got != tt.in {
			t.Errorf("%s: let in as route: %v, want %v", tt.name, got, tt.in)
		}
		if got := serverTalks(t, clients.String(), "INFO", conf); got != tt.in {
			t.Errorf("%s: let in as client: %v, want %v", tt.name, got, tt.in)
		}
	}
}

// serverTalks makes a TLS connection, after a greeting of the server if there
// is one, and reports whether the server says anything in it: with TLS 1.3 it
// refuses after the client's handshake is complete.
func serverTalks(t *testing.T, address, greeting string, conf *tls.Config) bool {
	t.Helper()
	raw, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	_ = raw.SetDeadline(time.Now().Add(30 * time.Second))
	if greeting != "" {
		var line []byte
		for b := make([]byte, 1); b[0] != '\n'; line = append(line, b[0]) {
			if _, err := raw.Read(b); err != nil {
				t.Fatalf("greeting %q, %v", line, err)
			}
		}
		if !strings.HasPrefix(string(line), greeting) {
			t.Fatalf("greeting %q", line)
		}
	}
	c := tls.Client(raw, conf)
	if err := c.Handshake(); err != nil {
		return false
	}
	_, _ = c.Write([]byte("CONNECT {\"verbose\":true}\r\nPING\r\n"))
	b := make([]byte, 16)
	n, err := c.Read(b)
	return err == nil && n > 0
}

func FuzzCheckCredentials(f *testing.F) {
	f.Add([]byte("SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"))
	f.Add([]byte("-----BEGIN NATS USER JWT-----\neyJ0\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\nSUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY\n------END USER NKEY SEED------\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		err := bus.CheckCredentials(b)
		if secret := strings.TrimSpace(string(b)); err != nil && len(secret) > 8 && strings.Contains(err.Error(), secret) {
			t.Errorf("the error holds the credentials: %v", err)
		}
	})
}

func TestCheckCredentials(t *testing.T) {
	const seed = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
	for _, tt := range []struct {
		name, text string
		ok         bool
	}{
		{"none", "", true},
		{"seed", seed + "\n", true},
		{"creds file", "-----BEGIN NATS USER JWT-----\neyJ0eXAi\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n" + seed + "\n------END USER NKEY SEED------\n", true},
		{"JWT alone", "-----BEGIN NATS USER JWT-----\neyJ0eXAi\n------END NATS USER JWT------\n", false},
		{"account's seed", "SAANJIBNEKGCRUWJCPIWUXFBFJLR36FJTFKGBGKAT7AQXH2LVFNQWZJMQU", false},
		{"password", "user:hunter2", false},
		{"public half", "UCNDHZKH5JIK2GQBGOQ7RSHSFMOAX5SY6JVYZX2AXVJK7P6G74XC347Y", false},
	} {
		if err := bus.CheckCredentials([]byte(tt.text)); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}
