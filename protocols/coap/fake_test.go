package coap

import (
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/udp/coder"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/batching/reading"
	"github.com/hedgerow-iot/hedgerow/protocols"
)

// A memory is a sink that keeps packets and recognises repetitions like the
// journal. It resolves receipts at once, when release is called, or when it is
// led.
type memory struct {
	lead    func(release func()) bool // what a leader does; nil: nothing
	mu      sync.Mutex
	hold    bool
	refuse  error // what Submit returns
	panics  bool  // Submit panics, once
	packets []batching.Submission
	waiting []func()
}

func (m *memory) Submit(sub batching.Submission) (*batching.Receipt, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.panics {
		m.panics = false
		panic("sink broken on purpose")
	}
	if m.refuse != nil {
		return nil, m.refuse
	}
	r, resolve := batching.NewReceipt()
	first := slices.IndexFunc(m.packets, func(p batching.Submission) bool { return sub.Recall && p.Key == sub.Key })
	if first < 0 {
		first = len(m.packets)
		m.packets = append(m.packets, sub)
	}
	if m.hold {
		m.waiting = append(m.waiting, func() {
			resolve(uint64(first)+1, nil)
			sub.Leader.Resolved()
		})
	} else {
		resolve(uint64(first)+1, nil) // whom it would tell has not joined yet
	}
	return r, nil
}

func (m *memory) Lead(l batching.Leader) bool {
	return m.lead != nil && !l.More() && m.lead(m.release)
}

// release resolves what waits.
func (m *memory) release() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, resolve := range m.waiting {
		resolve()
	}
	m.waiting = nil
}

func (m *memory) stored() []batching.Submission {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.packets)
}

// Last returns the newest reading that was stored.
func (m *memory) Last(device, name string) (reading.Reading, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, p := range slices.Backward(m.packets) {
		for _, r := range p.Readings {
			if r.Device == device && r.Name == name {
				r.Seq, r.Received = uint64(i)+1, 1763806504233
				return r, nil
			}
		}
	}
	return reading.Reading{}, protocols.ErrNotFound
}

// newTestServer returns a server over m that admits everybody. Tests without
// sockets pass none.
func newTestServer(t testing.TB, m *memory, conns ...*net.UDPConn) *Server {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	anybody := protocols.AnonymousFrom(false)
	in, err := protocols.NewIntake(protocols.IntakeConfig{Sink: m, ACL: anybody, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	if len(conns) == 0 {
		conns = []*net.UDPConn{nil} // never run
	}
	s, err := New(Config{Conns: conns, Registry: anybody, ACL: anybody, Gateway: "barn-7", Log: log}, in, m)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A wire is a socket whose datagrams stay here.
type wire struct {
	*reader
	mu   sync.Mutex
	sent []message.Message
}

func newWire(t testing.TB, m *memory) *wire {
	t.Helper()
	w := &wire{}
	w.reader = &reader{socket: newSocket(newTestServer(t, m), func(b []byte, _ netip.AddrPort) (int, error) {
		got := parse(t, b)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.sent = append(w.sent, got)
		return len(b), nil
	}), waits: func() bool { return false }}
	return w
}

// take returns what was sent since the last call.
func (w *wire) take() []message.Message {
	w.mu.Lock()
	defer w.mu.Unlock()
	sent := w.sent
	w.sent = nil
	return sent
}

func parse(t testing.TB, b []byte) message.Message {
	m := message.Message{Options: make(message.Options, 0, 32)}
	if _, err := coder.DefaultCoder.Decode(slices.Clone(b), &m); err != nil {
		t.Errorf("sent %x: %v", b, err)
	}
	return m
}

var (
	loopback = netip.MustParseAddrPort("127.0.0.1:40001")
	remote   = netip.MustParseAddrPort("192.0.2.9:40001")
)

// build encodes a request; change may alter it first.
func build(t testing.TB, code codes.Code, path []string, payload string, change ...func(*message.Message)) []byte {
	t.Helper()
	m := message.Message{Type: message.Confirmable, MessageID: 77, Code: code, Token: message.Token{1, 2}, Payload: []byte(payload)}
	for _, p := range path {
		m.Options = append(m.Options, message.Option{ID: message.URIPath, Value: []byte(p)})
	}
	for _, f := range change {
		f(&m)
	}
	buf := make([]byte, maxDatagram)
	n, err := coder.DefaultCoder.Encode(m, buf)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n]
}

// with sets an option of a request.
func with(id message.OptionID, value ...byte) func(*message.Message) {
	return func(m *message.Message) { m.Options = m.Options.Add(message.Option{ID: id, Value: value}) }
}

func non(m *message.Message) { m.Type = message.NonConfirmable }
