package coap

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"go.uber.org/goleak"
)

// start runs a server on a loopback socket until the test ends and returns
// its address.
func start(t *testing.T, m *memory) (s *Server, addr *net.UDPAddr, stop func()) {
	t.Helper()
	return startOn(t, m, net.IPv4(127, 0, 0, 1))
}

func startOn(t *testing.T, m *memory, ip net.IP) (s *Server, addr *net.UDPAddr, stop func()) {
	t.Helper()
	u, err := net.ListenUDP("udp", &net.UDPAddr{IP: ip})
	if err != nil {
		t.Fatal(err)
	}
	s = newTestServer(t, m, u)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		m.release()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run = %v", err)
		}
	}
	t.Cleanup(stop)
	return s, u.LocalAddr().(*net.UDPAddr), stop
}

// dial returns a client socket with a read deadline.
func dial(t *testing.T, addr *net.UDPAddr) *net.UDPConn {
	t.Helper()
	c, err := net.DialUDP("udp", nil, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(10 * time.Second))
	return c
}

func read(t *testing.T, c *net.UDPConn) message.Message {
	t.Helper()
	buf := make([]byte, maxDatagram)
	n, err := c.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, buf[:n])
}

func TestRunAnswersWhatItTookInAndLeavesNothingBehind(t *testing.T) {
	defer goleak.VerifyNone(t)
	m := &memory{hold: true}
	s, addr, stop := start(t, m)
	c := dial(t, addr)
	c.Write(build(t, codes.PUT, temp, "21.5"))
	c.Write([]byte{0x40, 0, 0, 1}) // its answer says that the reading arrived
	if got := read(t, c); got.Type != message.Reset {
		t.Fatalf("ping answered %v", got)
	}
	stop()
	if got := read(t, c); got.Code != codes.Changed {
		t.Errorf("answered %v after stop, want 2.04", got)
	}
	if got := s.Stats(); got.Datagrams != 2 || got.Requests != 1 || got.Malformed != 0 || got.Pending != 0 {
		t.Errorf("stats %+v", got)
	}
}

// Datagrams that are not CoAP must not disturb anybody.
func TestMalformedDatagramsDoNotStopTheServer(t *testing.T) {
	m := &memory{}
	s, addr, _ := start(t, m)
	c := dial(t, addr)
	bad := []string{"", "40", "ffffffff", "49030001010203040506070809", "40030001f0", "40030001b161ff",
		"60030001b161ff31", "70030001b161ff31", "40c00001", "00030001", "40030001e0ffffe0ffff"}
	for range 100 {
		for _, h := range bad {
			b, _ := hex.DecodeString(h)
			c.Write(b)
		}
	}
	good := dial(t, addr)
	good.Write(build(t, codes.PUT, temp, "21.5"))
	if got := read(t, good); got.Code != codes.Changed {
		t.Errorf("answered %v, want 2.04", got)
	}
	if n := len(m.stored()); n != 1 {
		t.Errorf("stored %d packets, want 1", n)
	}
	if got := s.Stats(); got.Malformed == 0 || got.Panics != 0 {
		t.Errorf("stats %+v", got)
	}
}

// On a socket for both families IPv4 addresses arrive mapped into IPv6.
func TestSocketOnEveryAddressAnswersIPv4(t *testing.T) {
	_, addr, _ := startOn(t, &memory{}, nil)
	c := dial(t, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: addr.Port})
	c.Write(build(t, codes.GET, []string{".well-known", "core"}, "")) // long: only to a trusted address
	if got := read(t, c); got.Code != codes.Content {
		t.Errorf("answered %v, want 2.05", got)
	}
}

func TestRunEndsWhenItsSocketIsGone(t *testing.T) {
	u, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	s := newTestServer(t, &memory{}, u)
	u.Close()
	if err := s.Run(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Run = %v, want that the socket is closed", err)
	}
}

func TestOneClientsWaitDoesNotHoldUpAnother(t *testing.T) {
	m := &memory{hold: true}
	_, addr, _ := start(t, m)
	slow, quick := dial(t, addr), dial(t, addr)
	for i := range maxPerSource {
		slow.Write(build(t, codes.PUT, temp, fmt.Sprint(i)))
	}
	quick.Write(build(t, codes.GET, []string{"time"}, ""))
	if got := read(t, quick); got.Code != codes.Content {
		t.Errorf("answered %v, want 2.05", got)
	}
}

// While the reader is kept by a disk that stalls, a deputy serves: what needs
// no disk is answered, and what waits is acknowledged. The same at the next
// stall.
func TestStalledCommitKeepsNobodyFromReading(t *testing.T) {
	defer goleak.VerifyNone(t)
	var stall atomic.Bool
	disk := make(chan struct{})
	m := &memory{hold: true}
	var turn sync.Mutex // one commits
	m.lead = func(release func()) bool {
		if !turn.TryLock() {
			return false
		}
		defer turn.Unlock()
		if stall.CompareAndSwap(true, false) {
			<-disk
		}
		release()
		return true
	}
	_, addr, stop := start(t, m)
	defer stop()
	stalled, other := dial(t, addr), dial(t, addr)
	for round := range 2 {
		stall.Store(true)
		stalled.Write(build(t, codes.PUT, temp, fmt.Sprint("stalled ", round)))
		for stall.Load() { // until it is on
			time.Sleep(time.Millisecond)
		}
		other.Write(build(t, codes.GET, []string{"time"}, ""))
		if got := read(t, other); got.Code != codes.Content {
			t.Errorf("answered %v, want 2.05", got)
		}
		if got := read(t, stalled); got.Code != codes.Empty || got.Type != message.Acknowledgement {
			t.Errorf("sent %v, want an empty acknowledgement", got)
		}
		disk <- struct{}{}
		got := read(t, stalled)
		if got.Code != codes.Changed || got.Type != message.Confirmable {
			t.Errorf("answered %v, want a separate 2.04", got)
		}
		stalled.Write([]byte{0x60, 0, byte(got.MessageID >> 8), byte(got.MessageID)})
		for i := range 20 { // the deputy goes, the reader is back
			other.Write(build(t, codes.PUT, temp, fmt.Sprint(round, i)))
			if got := read(t, other); got.Code != codes.Changed || got.Type != message.Acknowledgement {
				t.Fatalf("answered %v, want 2.04", got)
			}
		}
	}
}

// A stall that outlasts the server must not have deputies come and go: their
// reads end at once then.
func TestStalledServerThatStopsCallsNobody(t *testing.T) {
	disk := make(chan struct{})
	var leads atomic.Int32
	m := &memory{hold: true}
	m.lead = func(release func()) bool {
		if leads.Add(1) > 1 {
			return false
		}
		<-disk
		release()
		return true
	}
	u, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	s := newTestServer(t, m, u)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	c := dial(t, u.LocalAddr().(*net.UDPAddr))
	c.Write(build(t, codes.PUT, temp, "1"))
	for leads.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	c.Write([]byte{0x40, 0, 0, 1}) // the deputy answers
	read(t, c)
	cancel()
	time.Sleep(3 * tick)
	close(disk)
	if err := <-ended; err != nil {
		t.Errorf("Run = %v", err)
	}
	if n := leads.Load(); n > 5 { // a deputy's last act is one
		t.Errorf("%d deputies in %v", n, 3*tick)
	}
}

func TestNewRefusesWhatItCannotServe(t *testing.T) {
	good := newTestServer(t, &memory{})
	for what, change := range map[string]func(*Config){
		"no sockets":  func(c *Config) { c.Conns = nil },
		"no registry": func(c *Config) { c.Registry = nil },
		"no ACL":      func(c *Config) { c.ACL = nil },
		"no logger":   func(c *Config) { c.Log = nil },
		"huge bodies": func(c *Config) { c.Limits.Body = 1 << 20 },
		"negative":    func(c *Config) { c.Limits.Endpoints = -1 },
	} {
		cfg := good.cfg
		change(&cfg)
		if _, err := New(cfg, good.intake, good.last); err == nil {
			t.Errorf("%s: New gave no error", what)
		}
	}
}

// client returns the path of libcoap's client. Without it the test is
// skipped, or fails where skips are forbidden.
func client(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"coap-client-notls", "coap-client-openssl", "coap-client-gnutls", "coap-client"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	const why = "libcoap's coap-client is not installed (Debian: libcoap3-bin)"
	if os.Getenv("HEDGEROW_NO_SKIP") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
	return ""
}

// The dialect of the client that most people will paste a line of.
func TestLibcoapClient(t *testing.T) {
	bin := client(t)
	m := &memory{}
	_, addr, _ := start(t, m)
	base := "coap://" + addr.String()
	senml := filepath.Join(t.TempDir(), "pack.cbor")
	pack, err := hex.DecodeString("82a321646465763a0061610201a2006162" + "04f5")
	if err != nil {
		t.Fatal(err)
	}
	long := filepath.Join(t.TempDir(), "long.txt")
	for path, content := range map[string][]byte{senml: pack, long: bytes.Repeat([]byte("x"), 5000)} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		what string
		args []string
		out  string // part of what it prints
		add  int    // packets stored
	}{
		{"PUT", []string{"-m", "put", "-e", "21.5", base + "/readings/dev/temp"}, "", 1},
		{"POST of JSON", []string{"-m", "post", "-t", "50", "-e", `{"t":1,"h":2}`, base + "/readings/dev"}, "", 1},
		{"PUT of SenML CBOR", []string{"-m", "put", "-t", "112", "-f", senml, base + "/readings/dev"}, "", 1},
		{"non-confirmable PUT", []string{"-N", "-m", "put", "-e", "22", base + "/readings/dev/non"}, "", 1},
		{"encoded path", []string{"-m", "put", "-e", "1", base + "/readings/d%C3%A9v%201/temp"}, "", 1},
		{"GET", []string{"-m", "get", base + "/readings/dev/temp"}, "21.5", 0},
		{"GET of JSON", []string{"-m", "get", "-A", "50", base + "/readings/dev/temp"}, `"value":21.5`, 0},
		{"GET of what is not there", []string{"-m", "get", base + "/readings/dev/none"}, "4.04", 0},
		{"links", []string{"-m", "get", base + "/.well-known/core"}, `</readings>`, 0},
		{"octet stream", []string{"-m", "put", "-t", "42", "-e", "1", base + "/readings/dev/temp"}, "4.15", 0},
		{"DELETE", []string{"-m", "delete", base + "/readings/dev/temp"}, "4.05", 0},
		{"block-wise", []string{"-m", "put", "-b", "64", "-f", long, base + "/readings/dev/temp"}, "4.13", 0},
	} {
		t.Run(tt.what, func(t *testing.T) {
			before := len(m.stored())
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			out, err := exec.CommandContext(ctx, bin, append([]string{"-B", "10"}, tt.args...)...).CombinedOutput()
			if err != nil && tt.out == "" || !strings.Contains(string(out), tt.out) {
				t.Errorf("coap-client %s: %v, printed %q, want %q", strings.Join(tt.args, " "), err, out, tt.out)
			}
			if tt.out == "" && strings.Contains(string(out), "4.") {
				t.Errorf("coap-client %s printed %q", strings.Join(tt.args, " "), out)
			}
			if got := len(m.stored()) - before; got != tt.add {
				t.Errorf("coap-client %s stored %d packets, want %d", strings.Join(tt.args, " "), got, tt.add)
			}
		})
	}
}

func TestDatagramWaits(t *testing.T) {
	u, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if datagramWaits(u) {
		t.Error("a datagram waits, and none was sent")
	}
	c := dial(t, u.LocalAddr().(*net.UDPAddr))
	c.Write([]byte("x"))
	c.Write([]byte("y"))
	if runtime.GOOS == "linux" && !datagramWaits(u) {
		t.Error("no datagram waits, and two were sent")
	}
	for range 2 {
		u.Read(make([]byte, 9))
	}
	if datagramWaits(u) {
		t.Error("a datagram waits, and all are read")
	}
}
