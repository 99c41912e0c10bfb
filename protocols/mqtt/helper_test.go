package mqtt

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/protocols"
)

// patienceInTests bounds every wait for something that must happen.
const patienceInTests = 10 * time.Second

// A held submission is one that the test resolves.
type held struct {
	batching.Submission
	resolve func(first uint64, err error)
}

// A fakeSink keeps submissions until the test resolves them, or resolves them
// itself when auto is set. It recalls like batching does.
type fakeSink struct {
	auto   bool
	mu     sync.Mutex
	refuse error // what Submit answers, when set
	seq    uint64
	stored []batching.Submission
	known  map[batching.Key]*batching.Receipt
	got    chan held
}

func newSink(auto bool) *fakeSink {
	return &fakeSink{auto: auto, known: make(map[batching.Key]*batching.Receipt), got: make(chan held, 1024)}
}

func (s *fakeSink) Lead(batching.Leader) bool { return false }

func (s *fakeSink) Submit(sub batching.Submission) (*batching.Receipt, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse != nil {
		return nil, s.refuse
	}
	if r := s.known[sub.Key]; sub.Recall && r != nil {
		return r, nil
	}
	r, resolve := batching.NewReceipt()
	if sub.Key != (batching.Key{}) {
		s.known[sub.Key] = r
	}
	s.stored = append(s.stored, sub)
	if s.auto {
		s.seq += uint64(len(sub.Readings))
		resolve(s.seq, nil)
	} else {
		s.got <- held{sub, resolve}
	}
	return r, nil
}

func (s *fakeSink) setRefuse(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = err
}

func (s *fakeSink) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.stored)
}

// next returns the oldest submission not yet taken by the test.
func (s *fakeSink) next(t testing.TB) held {
	t.Helper()
	select {
	case h := <-s.got:
		return h
	case <-time.After(patienceInTests):
		t.Fatal("nothing was submitted")
		panic("unreachable")
	}
}

type running struct {
	*Broker
	addr string
	stop func() // ends Run and waits for it
}

// start runs a broker on a loopback port until the test ends.
func start(t testing.TB, sink protocols.Sink, change func(*Config)) *running {
	t.Helper()
	return startWith(t, sink, protocols.AnonymousFrom(true), protocols.AnonymousFrom(true), change)
}

func startWith(t testing.TB, sink protocols.Sink, reg protocols.Registry, acl protocols.ACL, change func(*Config)) *running {
	t.Helper()
	ignore := goleak.IgnoreCurrent()
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("HEDGEROW_TEST_LOG") != "" {
		log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	in, err := protocols.NewIntake(protocols.IntakeConfig{Sink: sink, ACL: acl, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Listeners: []net.Listener{ln}, Drain: time.Second, Log: log}
	if change != nil {
		change(&cfg)
	}
	b, err := New(cfg, in, reg, acl)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	var once sync.Once
	stop := func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	t.Cleanup(func() {
		stop()
		if err := goleak.Find(ignore); err != nil {
			t.Errorf("after Run: %v", err)
		}
	})
	return &running{Broker: b, addr: ln.Addr().String(), stop: stop}
}

// A client speaks MQTT byte by byte.
type client struct {
	t testing.TB
	net.Conn
	r  *bufio.Reader
	v5 bool
}

type login struct {
	id        string
	v5        bool
	keep      bool   // ask for a session that outlives the connection
	will      string // topic
	willDelay uint32
	retained  bool // retain the will
	receive   byte // receive maximum of MQTT 5
}

func str(s string) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(s))), s...)
}

func frame(head byte, body ...[]byte) []byte {
	n := 0
	for _, p := range body {
		n += len(p)
	}
	out := binary.AppendUvarint([]byte{head}, uint64(n))
	for _, p := range body {
		out = append(out, p...)
	}
	return out
}

func (l login) packet() []byte {
	flags, version := byte(2), byte(4)
	if l.v5 {
		version = 5
	}
	if l.keep {
		flags = 0
	}
	body := [][]byte{str("MQTT"), {version}}
	var will []byte
	if l.will != "" {
		flags |= 4
		if l.retained {
			flags |= 32
		}
		if l.v5 {
			will = append(will, 5, 0x18)
			will = binary.BigEndian.AppendUint32(will, l.willDelay)
		}
		will = append(will, str(l.will)...)
		will = append(will, str("7")...)
	}
	body = append(body, []byte{flags, 0, 60})
	if l.v5 {
		var props []byte
		if l.keep {
			props = []byte{0x11, 0, 0, 0x0e, 0x10}
		}
		if l.receive > 0 {
			props = append(props, 0x21, 0, l.receive)
		}
		body = append(body, []byte{byte(len(props))}, props)
	}
	return frame(0x10, append(body, str(l.id), will)...)
}

// dial opens a connection without a word.
func dial(t testing.TB, addr string) *client {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &client{t: t, Conn: c, r: bufio.NewReader(c)}
}

// connect logs in and checks that the broker accepts.
func connect(t testing.TB, addr string, l login) *client {
	t.Helper()
	return dial(t, addr).login(l)
}

// login logs in and checks that the broker accepts.
func (c *client) login(l login) *client {
	c.t.Helper()
	c.v5 = l.v5
	c.send(l.packet())
	if head, body := c.read(); head != 0x20 || body[1] != 0 {
		c.t.Fatalf("answer to CONNECT is %x %x, want an accepting CONNACK", head, body)
	}
	return c
}

func (c *client) send(b []byte) {
	c.t.Helper()
	if _, err := c.Write(b); err != nil {
		c.t.Fatalf("write: %v", err)
	}
}

// receive returns the next packet or why there is none.
func (c *client) receive(within time.Duration) (head byte, body []byte, err error) {
	if err := c.SetReadDeadline(time.Now().Add(within)); err != nil {
		return 0, nil, err
	}
	head, err = c.r.ReadByte()
	if err != nil {
		return 0, nil, err
	}
	n, err := binary.ReadUvarint(c.r)
	if err != nil {
		return 0, nil, err
	}
	body = make([]byte, n)
	_, err = io.ReadFull(c.r, body)
	return head, body, err
}

func (c *client) read() (head byte, body []byte) {
	c.t.Helper()
	head, body, err := c.receive(patienceInTests)
	if err != nil {
		c.t.Fatalf("read: %v", err)
	}
	return head, body
}

// want reads one packet and compares it with the expected bytes.
func (c *client) want(what string, head byte, body ...byte) {
	c.t.Helper()
	h, b := c.read()
	if h != head || string(b) != string(body) {
		c.t.Fatalf("%s: got packet %x %x, want %x %x", what, h, b, head, body)
	}
}

// quiet checks that the broker has nothing to say: PINGRESP is the next packet.
func (c *client) quiet(what string) {
	c.t.Helper()
	c.send([]byte{0xc0, 0})
	c.want(what+": nothing but PINGRESP", 0xd0)
}

// ended checks that the broker closed the connection, allowing a DISCONNECT.
func (c *client) ended(what string) {
	c.t.Helper()
	for {
		head, body, err := c.receive(patienceInTests)
		switch {
		case err == nil && head == 0xe0:
		case err == nil:
			c.t.Fatalf("%s: got packet %x %x, want the end of the connection", what, head, body)
		case errors.Is(err, os.ErrDeadlineExceeded):
			c.t.Fatalf("%s: the connection is still open", what)
		default:
			return
		}
	}
}

type pub struct {
	topic, payload string
	qos            byte
	id             uint16
	dup, retain    bool
}

func (c *client) packet(p pub) []byte {
	head := byte(0x30) | p.qos<<1
	if p.dup {
		head |= 8
	}
	if p.retain {
		head |= 1
	}
	body := str(p.topic)
	if p.qos > 0 {
		body = binary.BigEndian.AppendUint16(body, p.id)
	}
	if c.v5 {
		body = append(body, 0)
	}
	return frame(head, body, []byte(p.payload))
}

func (c *client) publish(p pub) { c.t.Helper(); c.send(c.packet(p)) }

// subscribe subscribes and checks the grant. options is 0 to 2 for the QoS, in
// MQTT 5 with bit 2 for No Local.
func (c *client) subscribe(id uint16, filter string, options byte) {
	c.t.Helper()
	if code := c.trySubscribe(id, filter, options); code != options&3 {
		c.t.Fatalf("subscribe to %q: got code %x, want %x", filter, code, options&3)
	}
}

func (c *client) trySubscribe(id uint16, filter string, options byte) (code byte) {
	c.t.Helper()
	body := binary.BigEndian.AppendUint16(nil, id)
	if c.v5 {
		body = append(body, 0)
	}
	c.send(frame(0x82, body, str(filter), []byte{options}))
	head, body := c.read()
	if head != 0x90 || binary.BigEndian.Uint16(body) != id {
		c.t.Fatalf("answer to SUBSCRIBE is %x %x, want a SUBACK for %d", head, body, id)
	}
	return body[len(body)-1]
}

// message reads a QoS 0 PUBLISH.
func (c *client) message() (topic, payload string, retain bool) {
	c.t.Helper()
	head, body := c.read()
	if head&0xf6 != 0x30 {
		c.t.Fatalf("got packet %x %x, want a PUBLISH of QoS 0", head, body)
	}
	n := int(binary.BigEndian.Uint16(body))
	rest := body[2+n:]
	if c.v5 {
		rest = rest[1+int(rest[0]):]
	}
	return string(body[2 : 2+n]), string(rest), head&1 == 1
}

// eventually waits until ok, asking again and again.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(patienceInTests)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: not so after %v", what, patienceInTests)
		}
	}
}

// each runs a test for both versions of the protocol.
func each(t *testing.T, f func(t *testing.T, v5 bool)) {
	t.Run("3.1.1", func(t *testing.T) { f(t, false) })
	t.Run("5", func(t *testing.T) { f(t, true) })
}
