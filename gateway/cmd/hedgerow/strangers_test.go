package main_test

import (
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/gateway"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

// Who is no member, or of another network, gets no route, no block and no
// reading, and costs the members nothing but log lines.
func TestStrangersGetNoRoute(t *testing.T) {
	slow(t)
	f := newFleet(t, nil, "north", "south", "east")
	north, south, east := f.stations[0], f.stations[1], f.stations[2]
	f.stations = f.stations[:2]
	f.mesh(false)

	// The fifth wheel has written itself into the file that it was given.
	forged := f.copied()
	fifth := forged.add("fifth")
	forged.file.Add(network.Gateway{Name: "fifth", PublicKey: fifth.publicKey(), Weight: 1})
	forged.save()
	forged.configure(fifth, f.dialled(fifth))
	fifth.member = forged.file.Gateways[3]
	// East shows a member's key, but is in a network of another name.
	other := f.copied()
	other.file.NetworkName = "orchard"
	other.save()
	other.configure(east, f.dialled(east))

	f.start()
	strangers := map[*station]*network.File{fifth: forged.file, east: other.file}
	for s := range strangers {
		s.start()
	}
	for _, s := range f.stations {
		s.await("the refusal of a key", 90*time.Second, func() bool {
			bus := s.bus()
			return bus.Refused > 0 && strings.Contains(bus.LastRefused.Why, fifth.member.PublicKey.String())
		})
		s.garbage()
	}
	acked := map[string]map[string]bool{}
	tr := publishAt([]*station{north, south, fifth, east}, "s", 1, 20*time.Millisecond)
	pauseFor(2 * time.Second)
	tr.end(acked)
	f.awaitAttached()
	f.awaitEqual("of the members")
	f.checkOnceEverywhere(acked)
	for s, file := range strangers {
		s.awaitAttached(time.Minute)
		s.checkOnceOf(file, s.member, acked[s.member.Name])
		for _, m := range f.stations {
			m.checkKnowsNothingOf(s)
			s.checkKnowsNothingOf(m)
		}
	}
}

// The right file does not make a gateway with another key a member.
func TestWrongKeyDoesNotStart(t *testing.T) {
	f := newFleet(t, nil, "north", "south")
	twin := f.copied().add("south")
	twin.args = append(twin.args, "--set", "network="+f.path)
	twin.launch()
	select {
	case <-twin.exited:
	case <-time.After(time.Minute):
		t.Fatal("it runs")
	}
	if code := twin.cmd.ProcessState.ExitCode(); code != 2 || !strings.Contains(twin.logText(), "has another key for south") {
		t.Errorf("exit code %d, want 2 and the reason:\n%s", code, twin.logText())
	}
}

// copied returns a fleet without gateways that has a copy of the network file.
func (f *fleet) copied() *fleet {
	f.t.Helper()
	c := &fleet{t: f.t, path: filepath.Join(f.t.TempDir(), "farm.json"), file: f.file}
	c.save()
	c.load()
	return c
}

func (s *station) publicKey() network.PublicKey {
	s.t.Helper()
	key, err := gateway.ReadPublicKey(filepath.Join(s.dir, "identity.pub"))
	if err != nil {
		s.t.Fatal(err)
	}
	return network.PublicKey(key)
}

// dialled configures a stranger to dial the gateways of the fleet, from an
// address that no member has.
func (f *fleet) dialled(s *station) string {
	f.t.Helper()
	var routes []string
	for _, member := range f.stations {
		routes = append(routes, "tls://"+newLink(f.t, member.routes).addr())
	}
	return fmt.Sprintf("peers: {listen: %q, routes: %s}", s.routes, quoted(routes))
}

// garbage sends what is no TLS, TLS without a certificate, and nothing at all
// to the port for routes.
func (s *station) garbage() {
	s.t.Helper()
	noise := rand.NewChaCha8([32]byte{4})
	for i := range 60 {
		c, err := net.Dial("tcp", s.routes)
		if err != nil {
			s.t.Fatalf("the port for routes of %s: %v", s.member.Name, err)
		}
		s.t.Cleanup(func() { c.Close() })
		switch b := make([]byte, 4096); i % 3 {
		case 0:
			noise.Read(b)
			c.Write(b)
		case 1:
			c.SetDeadline(time.Now().Add(10 * time.Second))
			t := tls.Client(c, &tls.Config{InsecureSkipVerify: true})
			if t.Handshake() == nil { // the server has not looked for a certificate yet
				t.Write([]byte("CONNECT {}\r\nPING\r\n"))
			}
		}
	}
}

// checkKnowsNothingOf looks whether nothing of another gateway has come here,
// and no route.
func (s *station) checkKnowsNothingOf(of *station) {
	s.t.Helper()
	for _, name := range s.bus().routes() {
		if name == of.member.Name {
			s.t.Errorf("%s has a route of %s", s.member.Name, name)
		}
	}
	var page struct{ Items []string }
	s.getJSON("/api/hedgerow/v1/blocks?limit=1&tag=hedgerow/"+of.member.Name, &page)
	if len(page.Items) != 0 {
		s.t.Errorf("%s has a block of %s", s.member.Name, of.member.Name)
	}
}
