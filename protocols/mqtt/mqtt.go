// Package mqtt is the MQTT front end: an ordinary broker (3.1.1 and 5) whose
// PUBLISH on a mapped topic is answered exactly when its receipt says that the
// readings are durable.
//
// Connections, subscriptions, delivery and sessions are mochi-mqtt's. What a
// client publishes never reaches that library's own publish path, because it
// acknowledges before anybody stored anything and answers storage errors with
// success: the hook takes PUBLISH and PUBREL out of the inbound stream,
// submits, and one ack writer per client answers in the order of arrival after
// commit and fan-out. The package also guards the library against hostile
// input: a panic ends one connection, packets are bounded before they are
// allocated, and silent, slow and surplus connections are closed.
//
// The gateway publishes its own events (TIP-28) through [Broker.Event]. On
// their topics nobody else publishes; devices may subscribe to them, and so may
// the guests of [Broker.GuestEvents], who are let in without login and have no
// other topic.
//
// It knows no disk, no block and no payload form. Sessions, subscriptions and
// retained messages live in memory and end with the process.
package mqtt

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/protocols"
)

// Limits bound what clients may cost. A zero field means its default.
type Limits struct {
	Packet            int           // bytes of one packet after login, default 256 KiB
	PacketBeforeLogin int           // bytes of the CONNECT packet, default 4 KiB
	Connections       int           // open connections, default 1000
	PerAddress        int           // of them from one IPv4 address or IPv6 /64, default 100
	Inflight          int           // unanswered publishes of one client, default 256, at most that: twice as many of a client's publishes are recognised when sent again
	ConnectTimeout    time.Duration // from accept to a complete CONNECT, default 10 s
	WriteTimeout      time.Duration // one write to a client, default 5 s; then it is closed
	Sessions          int           // connected and remembered clients, default 4096
	SessionExpiry     time.Duration // how long an absent client is remembered at most, default 24 h
	Queue             int           // undelivered messages kept for one client, default 512
	QueuedBytes       int           // of undelivered messages kept for all clients, default 64 MiB
	Subscriptions     int           // of one client, default 128
	AllSubscriptions  int           // of all clients, default 20,000
	Retained          int           // retained messages, default 10,000
	RetainedBytes     int           // of their payloads and topics, default 32 MiB
	Guests            int           // open connections on the public path for events, beside those of devices, default 64
	GuestsPerAddress  int           // of them from one IPv4 address or IPv6 /64, default 16
}

func (l Limits) withDefaults() Limits {
	return Limits{
		Packet:            cmp.Or(l.Packet, 256<<10),
		PacketBeforeLogin: cmp.Or(l.PacketBeforeLogin, 4<<10),
		Connections:       cmp.Or(l.Connections, 1000),
		PerAddress:        cmp.Or(l.PerAddress, 100),
		Inflight:          cmp.Or(l.Inflight, 256),
		ConnectTimeout:    cmp.Or(l.ConnectTimeout, 10*time.Second),
		WriteTimeout:      cmp.Or(l.WriteTimeout, 5*time.Second),
		Sessions:          cmp.Or(l.Sessions, 4096),
		SessionExpiry:     cmp.Or(l.SessionExpiry, 24*time.Hour),
		Queue:             cmp.Or(l.Queue, 512),
		QueuedBytes:       cmp.Or(l.QueuedBytes, 64<<20),
		Subscriptions:     cmp.Or(l.Subscriptions, 128),
		AllSubscriptions:  cmp.Or(l.AllSubscriptions, 20_000),
		Retained:          cmp.Or(l.Retained, 10_000),
		RetainedBytes:     cmp.Or(l.RetainedBytes, 32<<20),
		Guests:            cmp.Or(l.Guests, 64),
		GuestsPerAddress:  cmp.Or(l.GuestsPerAddress, 16),
	}
}

func (l Limits) check() error {
	for _, f := range []struct {
		name        string
		v, min, max int64
	}{
		{"packet", int64(l.Packet), 128, 256 << 20},
		{"packet before login", int64(l.PacketBeforeLogin), 128, 256 << 20},
		{"connections", int64(l.Connections), 1, 1 << 20},
		{"connections per address", int64(l.PerAddress), 1, 1 << 20},
		{"inflight", int64(l.Inflight), 1, 256},
		{"sessions", int64(l.Sessions), 1, 1 << 24},
		{"queue", int64(l.Queue), 1, 65535},
		{"queued bytes", int64(l.QueuedBytes), 1, 1 << 40},
		{"subscriptions", int64(l.Subscriptions), 1, 1 << 20},
		{"subscriptions of all clients", int64(l.AllSubscriptions), 1, 1 << 24},
		{"retained", int64(l.Retained), 1, 1 << 24},
		{"retained bytes", int64(l.RetainedBytes), 1, 1 << 40},
		{"guests", int64(l.Guests), 1, 1 << 20},
		{"guests per address", int64(l.GuestsPerAddress), 1, 1 << 20},
		{"connect timeout", int64(l.ConnectTimeout / time.Millisecond), 1, 1 << 30},
		{"write timeout", int64(l.WriteTimeout / time.Millisecond), 1, 1 << 30},
		{"session expiry", int64(l.SessionExpiry / time.Second), 1, 1<<32 - 1},
	} {
		if f.v < f.min || f.v > f.max {
			return fmt.Errorf("mqtt limit %s is %d, want %d to %d", f.name, f.v, f.min, f.max)
		}
	}
	return nil
}

// Config holds what a [Broker] needs beside its neighbours.
type Config struct {
	// Listeners are open; Run closes them.
	Listeners []net.Listener
	WebSocket WebSocket
	Limits    Limits
	// Drain bounds how long Run waits, after its context has ended, for the
	// receipts of what clients have already sent. Default 10 s.
	Drain time.Duration
	// Events is asked what event topics say when somebody subscribes to them.
	// nil: nothing, until the next [Broker.Event].
	Events EventState
	Log    *slog.Logger
}

// An Intake takes the messages of mapped topics. [protocols.Intake] is one.
type Intake interface {
	Submit(m protocols.Message) (*batching.Receipt, error)
	// CountDuplicate counts a repetition that the broker recognised itself.
	CountDuplicate(device string)
}

// A Broker serves MQTT clients.
type Broker struct {
	cfg      Config
	limits   Limits
	in       Intake
	registry protocols.Registry
	acl      protocols.ACL
	log      *slog.Logger
	denials  *limiter // of log lines about refused clients
	server   *mochi.Server
	counts   counters

	subscribed atomic.Uint64 // generation of the subscription index
	retained   retained
	passing    passing
	store      store
	waits      waits
	receiving  receiving
	wills      wills
	events     events

	stopping atomic.Bool
	abort    chan struct{} // closed by Run when waiting for receipts is over
	handlers sync.WaitGroup

	mu     sync.Mutex
	conns  map[*conn]struct{}
	guests int            // of conns
	from   map[source]int // open connections
}

// New returns a broker that does nothing until [Broker.Run]. Its listeners
// stay the caller's if it returns an error.
func New(cfg Config, in Intake, registry protocols.Registry, acl protocols.ACL) (*Broker, error) {
	if in == nil || registry == nil || acl == nil || cfg.Log == nil {
		return nil, errors.New("mqtt needs an intake, a registry, an access list and a logger")
	}
	cfg.Drain = cmp.Or(cfg.Drain, 10*time.Second)
	cfg.WebSocket.Path = cmp.Or(cfg.WebSocket.Path, "/mqtt")
	b := &Broker{
		cfg:      cfg,
		limits:   cfg.Limits.withDefaults(),
		in:       in,
		registry: registry,
		acl:      acl,
		log:      cfg.Log,
		denials:  &limiter{every: time.Second},
		abort:    make(chan struct{}),
		conns:    make(map[*conn]struct{}),
		from:     make(map[source]int),
	}
	b.wills.init()

	if err := b.limits.check(); err != nil {
		return nil, err
	}
	b.server = mochi.New(b.options())
	b.events.init(b.server, cfg.Events)
	if err := b.server.AddHook(&hook{b: b}, nil); err != nil {
		return nil, fmt.Errorf("attach hook: %w", err)
	}
	return b, nil
}

// options are the library's, as measured: see its pitfalls in the comments.
func (b *Broker) options() *mochi.Options {
	caps := mochi.NewDefaultServerCapabilities()
	caps.MaximumClients = int64(b.limits.Connections + b.limits.Guests)
	caps.MaximumMessageExpiryInterval = 0           // else retained messages vanish after a day
	caps.MaximumClientWritesPending = writesPending // the default of 8192 costs 68 KB per connection
	caps.MaximumSessionExpiryInterval = uint32(b.limits.SessionExpiry / time.Second)
	caps.MaximumPacketSize = uint32(b.limits.Packet)
	caps.MaximumInflight = uint16(b.limits.Queue)
	caps.ReceiveMaximum = uint16(b.limits.Inflight)
	caps.TopicAliasMaximum = maxAliases
	caps.Compatibilities.NoInheritedPropertiesOnAck = true
	return &mochi.Options{
		Capabilities:            caps,
		ClientNetReadBufferSize: 4 << 10,
		SysTopicResendInterval:  60, // each tick stops the world to read memory statistics
		Logger:                  slog.New(quiet{inner: b.log.Handler()}),
	}
}

// Run serves until ctx ends. Then it stops reading, waits up to the drain time
// for the receipts of what was already read, answers it, and closes all
// connections and listeners. It returns after its last goroutine has ended;
// the error is nil unless a listener broke.
func (b *Broker) Run(ctx context.Context) error {
	work, cancel := context.WithCancel(ctx)
	defer cancel()
	var loops sync.WaitGroup
	all := slices.Concat(b.cfg.Listeners, b.cfg.WebSocket.Listeners)
	broken := make(chan error, len(all))
	for i, ln := range all {
		l := &listener{
			b: b, id: fmt.Sprintf("mqtt-%d", i), ln: ln, web: i >= len(b.cfg.Listeners),
			broken: broken, done: make(chan struct{}),
		}
		if err := b.server.AddListener(l); err != nil {
			return fmt.Errorf("add listener %s: %w", l.Address(), err)
		}
		loops.Go(func() { <-l.done })
	}
	if err := b.server.Serve(); err != nil {
		return fmt.Errorf("start broker: %w", err)
	}
	loops.Go(func() { b.sendDueWills(work) })
	loops.Go(func() { b.sendEvents(work) })

	var err error
	select {
	case <-ctx.Done():
	case err = <-broken:
	}
	cancel()
	for _, ln := range all {
		_ = ln.Close() // ends its accept loop
	}
	loops.Wait()
	b.drain()
	return errors.Join(err, b.server.Close())
}

// drain ends every connection: gently while the drain time lasts.
func (b *Broker) drain() {
	b.stopping.Store(true)
	b.mu.Lock()
	for c := range b.conns {
		c.linger()
	}
	b.mu.Unlock()

	ended := make(chan struct{})
	go func() { b.handlers.Wait(); close(ended) }()
	timer := time.NewTimer(b.cfg.Drain)
	defer timer.Stop()
	select {
	case <-ended:
		close(b.abort)
		return
	case <-timer.C:
	}
	close(b.abort)
	b.mu.Lock()
	for c := range b.conns {
		c.shut()
	}
	b.mu.Unlock()
	<-ended
}
