package mqtt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/protocols"
)

// crash is an MQTT 5 SUBSCRIBE whose last filter has no options: it panics in
// the library's decoder.
var crash = []byte{0x82, 0x06, 0x00, 0x0f, 0x00, 0x00, 0x01, 0x61}

func TestAPanicEndsOneConnection(t *testing.T) {
	sink := newSink(true)
	b := start(t, sink, nil)
	sub := connect(t, b.addr, login{id: "sub"})
	sub.subscribe(1, "#", 0)
	victim := connect(t, b.addr, login{id: "victim", v5: true, will: "lost/victim"})
	victim.subscribe(2, "private", 0)
	victim.send(crash)
	victim.ended("after the panic")
	if topic, _, _ := sub.message(); topic != "lost/victim" {
		t.Errorf("got %s, want the will of the lost client", topic)
	}
	eventually(t, "session over", func() bool { return b.Stats().Sessions == 1 && b.Stats().Subscriptions == 1 })
	if n := b.Stats().Panics; n != 1 {
		t.Errorf("Panics = %d, want 1", n)
	}
	c := connect(t, b.addr, login{id: "probe"})
	c.publish(pub{topic: temp, payload: "1", qos: 1, id: 1})
	c.want("others are served", 0x40, 0, 1)
}

func TestAPanicDoesNotLoseWhatIsPending(t *testing.T) {
	sink := newSink(false)
	b := start(t, sink, nil)
	sub := connect(t, b.addr, login{id: "sub"})
	sub.subscribe(1, "readings/#", 0)
	c := connect(t, b.addr, login{id: "probe", v5: true})
	c.send(append(c.packet(pub{topic: temp, payload: "1", qos: 1, id: 1}), crash...))
	sink.next(t).resolve(1, nil)
	if topic, _, _ := sub.message(); topic != temp {
		t.Errorf("got %s, want the reading", topic)
	}
}

func TestOversizedPacketsAreNotAllocated(t *testing.T) {
	b := start(t, newSink(true), func(c *Config) { c.Limits.Packet = 1000; c.Limits.PacketBeforeLogin = 200 })
	huge := []byte{0x10, 0xff, 0xff, 0xff, 0x7f} // claims 256 MB

	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 8 {
		c := dial(t, b.addr)
		c.send(huge)
		c.ended("CONNECT of 256 MB")
		c = connect(t, b.addr, login{id: "probe"})
		c.send(append([]byte{0x30}, huge[1:]...))
		c.ended("PUBLISH of 256 MB")
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 64<<20 {
		t.Errorf("%d MB allocated, want next to nothing", n>>20)
	}
	if n := b.Stats().Oversized; n != 8 {
		t.Errorf("Oversized = %d, want 8", n)
	}

	c := dial(t, b.addr)
	c.send(login{id: strings.Repeat("x", 200)}.packet())
	c.ended("CONNECT above its limit")
	// The first packet alone is bounded by the limit before login, even when
	// the next one is sent with it.
	c = dial(t, b.addr)
	c.send(append(login{id: "probe"}.packet(), c.packet(pub{topic: temp, payload: strings.Repeat("1", 800), qos: 1, id: 1})...))
	c.want("login", 0x20, 0, 0)
	c.want("large publish", 0x40, 0, 1)
	c.publish(pub{topic: temp, payload: strings.Repeat("1", 1000), qos: 1, id: 1})
	c.ended("publish above its limit")
}

func TestMQTT5ClientsAreToldTheLimits(t *testing.T) {
	b := start(t, newSink(true), nil)
	c := dial(t, b.addr)
	c.send(login{id: "probe", v5: true}.packet())
	_, body := c.read()
	for _, want := range [][]byte{
		{0x27, 0, 4, 0, 0}, // maximum packet size 256 KiB
		{0x21, 1, 0},       // receive maximum 256
		{0x22, 0, 16},      // topic alias maximum
	} {
		if !bytes.Contains(body, want) {
			t.Errorf("CONNACK %x does not hold %x", body, want)
		}
	}
}

// The library multiplies the keepalive by 1.5 in 16 bits: 43691 s become 0.
func TestLongKeepalivesAreCapped(t *testing.T) {
	each(t, func(t *testing.T, v5 bool) {
		b := start(t, newSink(true), nil)
		c := dial(t, b.addr)
		p := login{id: "probe", v5: v5}.packet()
		p[10], p[11] = 0xff, 0xff
		c.send(p)
		if _, body := c.read(); v5 && !bytes.Contains(body, []byte{0x13, 0xaa, 0xaa}) {
			t.Errorf("CONNACK %x does not announce a keepalive of 43690", body)
		}
		c.quiet("the connection lives")
	})
}

func TestSilentConnectionsAreClosed(t *testing.T) {
	for _, half := range [][]byte{nil, {0x10}, {0x10, 0x80}, login{id: "probe"}.packet()[:9]} {
		t.Run(fmt.Sprintf("after %d bytes", len(half)), func(t *testing.T) {
			b := start(t, newSink(true), func(c *Config) { c.Limits.ConnectTimeout = 30 * time.Millisecond })
			c := dial(t, b.addr)
			c.send(half)
			c.ended("no CONNECT")
			eventually(t, "counted", func() bool { return b.Stats().Unconnected == 1 && b.Stats().Connections == 0 })
		})
	}
}

// Half packets after login are bounded by the keepalive.
func TestKeepaliveEndsHalfPackets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		ln := &pipeListener{conns: make(chan net.Conn, 1), closed: make(chan struct{})}
		in, err := protocols.NewIntake(protocols.IntakeConfig{Sink: newSink(true), ACL: protocols.AnonymousFrom(false), Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		all := protocols.AnonymousFrom(false)
		b, err := New(Config{Listeners: []net.Listener{ln}, Log: slog.New(slog.DiscardHandler)}, in, all, all)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- b.Run(ctx) }()
		ln.conns <- far
		begin := time.Now()
		near.Write(login{id: "probe"}.packet()) // keepalive 60 s
		near.Read(make([]byte, 4))
		near.Write([]byte{0x30, 50, 0, 9})
		if _, err := near.Read(make([]byte, 1)); err == nil {
			t.Error("the broker answered half a packet")
		}
		if took := time.Since(begin); took < 90*time.Second || took > 92*time.Second {
			t.Errorf("closed after %v, want 1.5 times the keepalive", took)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	select {
	case <-l.closed:
	default:
		close(l.closed)
	}
	return nil
}

func (l *pipeListener) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }

func TestSurplusConnectionsAreClosed(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Limits)
	}{
		{"in total", func(l *Limits) { l.Connections = 2 }},
		{"of one address", func(l *Limits) { l.PerAddress = 2 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := start(t, newSink(true), func(c *Config) { tt.change(&c.Limits) })
			one, two := connect(t, b.addr, login{id: "1"}), dial(t, b.addr)
			eventually(t, "both open", func() bool { return b.Stats().Connections == 2 })
			dial(t, b.addr).ended("surplus")
			if n := b.Stats().Surplus; n != 1 {
				t.Errorf("Surplus = %d, want 1", n)
			}
			two.Close()
			eventually(t, "room again", func() bool { return b.Stats().Connections == 1 })
			connect(t, b.addr, login{id: "3"})
			one.quiet("still served")
		})
	}
}

func TestSessionsAreBounded(t *testing.T) {
	b := start(t, newSink(true), func(c *Config) { c.Limits.Sessions = 2 })
	for _, id := range []string{"a", "b"} {
		connect(t, b.addr, login{id: id, keep: true}).Close()
	}
	c := dial(t, b.addr)
	c.send(login{id: "c", keep: true}.packet())
	c.want("server unavailable", 0x20, 0, 3)
	c.ended("too many sessions")
	connect(t, b.addr, login{id: "a", keep: true})
}

func TestClientsThatMayNotConnect(t *testing.T) {
	for _, tt := range []struct {
		name  string
		login login
		reg   protocols.Registry
		code  [2]byte // 3.1.1, 5
	}{
		{"registry says no", login{id: "probe"}, protocols.DenyAll{}, [2]byte{5, 0x86}},
		{"will on a reserved topic", login{id: "probe", will: "$SYS/x"}, nil, [2]byte{5, 0x86}},
		{"will on an event topic", login{id: "probe", will: "milestones"}, nil, [2]byte{5, 0x86}},
		{"will with a bad device name", login{id: "probe", will: "readings//x"}, nil, [2]byte{5, 0x86}},
		{"long client id", login{id: strings.Repeat("x", 300)}, nil, [2]byte{2, 0x85}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			each(t, func(t *testing.T, v5 bool) {
				if tt.reg == nil {
					tt.reg = protocols.AnonymousFrom(true)
				}
				b := startWith(t, newSink(true), tt.reg, protocols.AnonymousFrom(true), nil)
				c := dial(t, b.addr)
				tt.login.v5 = v5
				c.send(tt.login.packet())
				want := tt.code[0]
				if v5 {
					want = tt.code[1]
				}
				if head, body := c.read(); head != 0x20 || body[1] != want {
					t.Errorf("got packet %x %x, want CONNACK %x", head, body, want)
				}
				c.ended("refused")
				if n := b.Stats().Denied; n != 1 {
					t.Errorf("Denied = %d, want 1", n)
				}
			})
		})
	}
}

func TestMalformedPacketsEndOneConnection(t *testing.T) {
	b := start(t, newSink(true), nil)
	good := connect(t, b.addr, login{id: "good"})
	for _, in := range [][]byte{
		{0x36, 4, 0, 1, 'a', 0},              // QoS 3
		{0x38, 4, 0, 1, 'a', 0},              // DUP at QoS 0
		{0x32, 5, 0, 1, 'a', 0, 0},           // packet id 0
		{0x30, 3, 0, 1, '#'},                 // wildcard
		{0x30, 3, 0, 0, 'x'},                 // no topic
		{0x30, 4, 0, 2, 0xff, 0xfe},          // not UTF-8
		{0x30, 2, 0, 9},                      // cut off inside
		{0x80, 0},                            // wrong flags
		{0x82, 2, 0, 1},                      // no filter
		{0xf1, 0},                            // reserved
		{0x10, 0},                            // empty CONNECT
		login{id: "good-again"}.packet(),     // second CONNECT
		{0x30, 0xff, 0xff, 0xff, 0xff, 0xff}, // length of five bytes
	} {
		c := connect(t, b.addr, login{id: "bad"})
		c.send(in)
		c.ended(fmt.Sprintf("after %x", in))
	}
	for _, in := range [][]byte{{0xc0, 0}, {0, 0}, []byte("GET / HTTP/1.1\r\n\r\n"), {0x10, 2, 0, 4}} {
		c := dial(t, b.addr)
		c.send(in)
		if !bytes.Equal(in, []byte{0x10, 2, 0, 4}) {
			c.ended(fmt.Sprintf("first packet %x", in))
		}
	}
	good.quiet("others are served")
	if n := b.Stats().Panics; n != 0 {
		t.Errorf("Panics = %d, want 0", n)
	}
}

func TestRunAnswersWhatItReadBeforeItEnds(t *testing.T) {
	each(t, func(t *testing.T, v5 bool) {
		sink := newSink(false)
		b := start(t, sink, func(c *Config) { c.Drain = patienceInTests })
		c := connect(t, b.addr, login{id: "probe", v5: v5, will: temp})
		c.publish(pub{topic: temp, payload: "1", qos: 1, id: 1})
		h := sink.next(t)
		ended := make(chan struct{})
		go func() { b.stop(); close(ended) }()
		eventually(t, "stopping", b.stopping.Load)
		if _, err := net.DialTimeout("tcp", b.addr, time.Second); err == nil {
			t.Error("a stopping broker accepts connections")
		}
		h.resolve(1, nil)
		c.want("the last ack", 0x40, 0, 1)
		if v5 {
			c.want("good-bye", 0xe0, 0x8b)
		}
		c.ended("stopped")
		<-ended
		if n := sink.count(); n != 1 {
			t.Errorf("%d stored, want no will of a client that was not lost", n)
		}
	})
}

func TestRunGivesUpAfterTheDrainTime(t *testing.T) {
	sink := newSink(false)
	b := start(t, sink, func(c *Config) { c.Drain = 20 * time.Millisecond; c.Limits.Inflight = 1 })
	c := connect(t, b.addr, login{id: "probe"})
	for id := range uint16(5) { // the reader is blocked as well
		c.publish(pub{topic: temp, payload: "1", qos: 1, id: id + 1})
	}
	sink.next(t)
	b.stop()
	c.ended("no ack for what nobody stored")
}

func TestABrokenListenerEndsRun(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	all := protocols.AnonymousFrom(true)
	in, err := protocols.NewIntake(protocols.IntakeConfig{Sink: newSink(true), ACL: all, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	b, err := New(Config{Listeners: []net.Listener{ln}, Log: log}, in, all, all)
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	if err := b.Run(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Run = %v, want what happened to the listener", err)
	}
}

func TestNewChecksItsConfiguration(t *testing.T) {
	all, log := protocols.AnonymousFrom(true), slog.New(slog.DiscardHandler)
	in, err := protocols.NewIntake(protocols.IntakeConfig{Sink: newSink(true), ACL: all, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range []Limits{{Packet: -1}, {Inflight: 70000}, {Packet: 300 << 20}, {ConnectTimeout: -1 * time.Second}} {
		if _, err := New(Config{Log: log, Limits: l}, in, all, all); err == nil {
			t.Errorf("New accepts %+v", l)
		}
	}
	if _, err := New(Config{Log: log}, nil, all, all); err == nil {
		t.Error("New accepts a broker without intake")
	}
}

func TestAMomentOfFullInboxIsWaitedOut(t *testing.T) {
	sink := newSink(true)
	sink.setRefuse(batching.ErrBusy)
	b := start(t, sink, nil)
	c := connect(t, b.addr, login{id: "probe"})
	c.publish(pub{topic: temp, payload: "1", qos: 1, id: 1})
	eventually(t, "tried", func() bool { return b.Stats().Mapped == 1 })
	sink.setRefuse(nil)
	c.want("ack", 0x40, 0, 1)
}

func TestTheLibrarysLogHoldsNoPayloads(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(quiet{inner: slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})}).With("listener", "l")
	log.Info("not this", "packet", "canary")
	log.Warn("that", "pk", "canary", "packet", "canary", "will", "canary", "client", "c")
	log.WithGroup("g").Error("this", "err", "e")
	if s := out.String(); strings.Contains(s, "canary") || strings.Contains(s, "not this") ||
		!strings.Contains(s, "level=DEBUG msg=that listener=l client=c") || !strings.Contains(s, "level=WARN msg=this") {
		t.Errorf("log is:\n%s", s)
	}
}

func TestAddressesAreGrouped(t *testing.T) {
	for in, want := range map[string]string{
		"10.0.0.7:1":               "10.0.0.7",
		"[::ffff:10.0.0.7]:1":      "10.0.0.7",
		"[2001:db8:1:2:3:4:5:6]:1": "2001:db8:1:2::/64",
		"[fe80::1%eth0]:1":         "fe80::/64",
	} {
		a, err := net.ResolveTCPAddr("tcp", in)
		if err != nil {
			t.Fatal(err)
		}
		if got := groupOf(remote(a)); got != want {
			t.Errorf("groupOf(%s) = %s, want %s", in, got, want)
		}
	}
	if got := groupOf(remote(pipeAddr{})); got != "invalid IP" {
		t.Errorf("group of no address = %s", got)
	}
}

// What others left behind must not keep out a client that leaves nothing.
func TestAbsentSessionsKeepNobodyOut(t *testing.T) {
	each(t, func(t *testing.T, v5 bool) {
		b := start(t, newSink(true), func(c *Config) { c.Limits.Sessions = 2 })
		for _, id := range []string{"a", "b"} {
			connect(t, b.addr, login{id: id, keep: true, v5: v5}).Close()
		}
		eventually(t, "both gone", func() bool { return b.Stats().Connections == 0 })
		connect(t, b.addr, login{id: "c", v5: v5}).quiet("served")
	})
}

// The library caps the session expiry of CONNECT only.
func TestDisconnectCannotMakeASessionLast(t *testing.T) {
	b := start(t, newSink(true), func(c *Config) { c.Limits.SessionExpiry = time.Minute })
	c := connect(t, b.addr, login{id: "probe", v5: true, keep: true})
	c.send([]byte{0xe0, 7, 0, 5, 0x11, 0xff, 0xff, 0xff, 0xff})
	c.ended("good-bye")
	eventually(t, "gone", func() bool { return b.Stats().Connections == 0 })
	cl, ok := b.server.Clients.Get("probe")
	if !ok || cl.Properties.Props.SessionExpiryInterval != 60 {
		t.Errorf("session kept: %v, for %d s; want 60", ok, cl.Properties.Props.SessionExpiryInterval)
	}
}
