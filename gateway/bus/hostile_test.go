package bus_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"
)

// showing returns a TLS configuration that shows a certificate of the key.
func showing(t *testing.T, key ed25519.PrivateKey) *tls.Config {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{
		InsecureSkipVerify: true, MinVersion: tls.VersionTLS13,
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
	}
}

// A puppet is a member's server whose every line the test decides on.
type puppet struct {
	conn *tls.Conn
	name string
}

// join makes the puppet a route of the box.
func join(t *testing.T, b *box, name string, key ed25519.PrivateKey) *puppet {
	t.Helper()
	routes, _ := b.Addresses()
	raw, err := net.Dial("tcp", routes.String())
	if err != nil {
		t.Fatal(err)
	}
	p := &puppet{tls.Client(raw, showing(t, key)), name}
	done := make(chan struct{})
	if err := p.conn.Handshake(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(done)
		_, _ = io.Copy(io.Discard, p.conn) // until the end of the test
	}()
	t.Cleanup(func() { _ = p.conn.Close(); <-done })
	p.say(t, `CONNECT {"tls_required":true,"headers":true,"name":%q,"cluster":%q}`, p.id(0), prefix)
	p.tell(t, 0, "127.0.0.1", "127.0.0.1:1")
	eventually(t, "the puppet is a route", func() bool { return b.hasRoutes(name) })
	return p
}

func (p *puppet) id(i int) string { return fmt.Sprintf("N%s%054d", strings.ToUpper(p.name), i) }

// tell speaks of a server; number 0 is the puppet itself.
func (p *puppet) tell(t *testing.T, i int, host, address string) {
	t.Helper()
	name := p.name
	if i > 0 {
		name = fmt.Sprintf("%s%d", p.name, i)
	}
	p.say(t, `INFO {"server_id":%q,"server_name":%q,"version":"2.15.0","proto":1,"host":%q,"port":1,"headers":true,"cluster":%q,"ip":"nats-route://%s/","route_pool_size":1}`,
		p.id(i), name, host, prefix, address)
}

func (p *puppet) say(t *testing.T, format string, v ...any) {
	t.Helper()
	if _, err := fmt.Fprintf(p.conn, format+"\r\n", v...); err != nil {
		t.Fatal(err)
	}
}

// Lines of a member's server cost a bounded number of goroutines and dials.
func TestAMemberThatTellsOfManyServersMakesFewDials(t *testing.T) {
	const lines = 3000
	s := newSite(t, "a", "b", "r")
	down := closedAddress(t)
	for name, address := range map[string]func(i int) string{
		"many addresses": func(i int) string { return fmt.Sprintf("127.0.0.1:%d", 1+i%1000) },
		"one address":    func(int) string { return "127.0.0.1:1" },
		"a route of ours": func(int) string {
			return down
		},
		"names": func(i int) string { return fmt.Sprintf("localhost:%d", 1+i%1000) },
	} {
		t.Run(name, func(t *testing.T) {
			a := open(t, s.config("a", "tls://"+down))
			r := join(t, a, "r", s.keys["r"])
			before := runtime.NumGoroutine()
			for i := range lines {
				r.tell(t, i+1, "127.0.0.2", address(i))
			}
			// What is said later is heard later, so all lines have been read.
			b := open(t, s.config("b", a.seed()))
			eventually(t, "b is a route", func() bool { return a.hasRoutes("b", "r") && b.hasRoutes("a") })
			eventually(t, "few goroutines are left", func() bool { return runtime.NumGoroutine() < before+200 })
		})
	}
}
