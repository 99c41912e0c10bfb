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

// from dials the routes' address of a box from a loopback address.
func from(t *testing.T, b *box, ip string) net.Conn {
	t.Helper()
	routes, _ := b.Addresses()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}, Timeout: 10 * time.Second}
	c, err := d.Dial("tcp", routes.String())
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// begun returns the first message of a handshake.
func begun(t *testing.T) []byte {
	t.Helper()
	near, far := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = tls.Client(near, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}).Handshake()
	}()
	b := make([]byte, 4096)
	n, err := far.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	_ = far.Close()
	<-done
	return b[:n]
}

// stall begins handshakes from an address and goes no further with them.
func stall(t *testing.T, b *box, ip string, hello []byte, n int) {
	t.Helper()
	for range n {
		if _, err := from(t, b, ip).Write(hello); err != nil {
			t.Fatal(err)
		}
	}
}

// shakes makes a handshake; a key is refused after the dialling side of it is
// done, too many handshakes before.
func shakes(t *testing.T, b *box, ip string, conf *tls.Config) bool {
	t.Helper()
	return tls.Client(from(t, b, ip), conf).Handshake() == nil
}

func TestOneSourceTakesFewHandshakes(t *testing.T) {
	s := newSite(t, "a")
	a, hello, stranger := open(t, s.config("a")), begun(t), showing(t, newKey(t))
	eventually(t, "the source has all that it may", func() bool {
		stall(t, a, "127.0.0.2", hello, 8)
		return !shakes(t, a, "127.0.0.2", stranger)
	})
	if !shakes(t, a, "127.0.0.3", stranger) {
		t.Error("another source has none left")
	}
}

// Strangers at many addresses have no share in the handshakes of members.
func TestStrangersLeaveMembersTheirHandshakes(t *testing.T) {
	s := newSite(t, "a", "b")
	a, hello := open(t, s.config("a")), begun(t)
	b := open(t, s.config("b", a.seed()))
	eventually(t, "b is known", func() bool { return a.hasRoutes("b") })
	b.stop()
	stranger, member := showing(t, newKey(t)), showing(t, s.keys["b"])
	eventually(t, "strangers have all that they may", func() bool {
		for i := range 20 {
			stall(t, a, fmt.Sprintf("127.0.2.%d", 1+i), hello, 4)
		}
		return !shakes(t, a, "127.0.3.1", stranger)
	})
	if !shakes(t, a, "127.0.0.1", member) {
		t.Error("a member has none left")
	}
}

// Who waits for a refusal takes no handshake from others at the same address.
func TestRefusedKeysHoldNoHandshakes(t *testing.T) {
	s := newSite(t, "a")
	a, stranger := open(t, s.config("a")), showing(t, newKey(t))
	for i := range uint64(20) {
		if !shakes(t, a, "127.0.0.2", stranger) {
			t.Fatalf("handshake %d is one too many", i+1)
		}
		eventually(t, "the key is refused", func() bool { return a.Status().Refused > i })
	}
}
