// Package coap takes readings in over CoAP (RFC 7252) on UDP, answers a
// device only when its readings are durable, and serves last values, the time
// and /.well-known/core.
//
// It does not store, decode payloads or decide who may publish: that is the
// intake's. It has no block-wise transfer and no Observe: Block options are
// answered 4.13, Observe is ignored, as RFC 7641 allows.
//
// # Why it has a read loop of its own
//
// Types, codes and the encoder are go-coap's (v3.5.5); its server is not used,
// for facts that its options cannot change:
//
//   - it remembers answers by message id alone for 247 s: another request with
//     a used id gets the old answer, with the old token, and never reaches a
//     handler. A device that restarts its ids loses readings with 2.04;
//   - it makes a connection object of 16 KB for every source address, before
//     any check: spoofed sources cost memory, and one broken datagram throws
//     away what was remembered about the peer;
//   - its decoder drops options with an illegal length, critical ones too, and
//     passes on requests in ACK and RST messages, undefined codes, and a
//     payload marker without payload;
//   - it runs the requests of one endpoint one after the other and stalls
//     every endpoint when the queue of one is full.
//
// Here one goroutine per socket reads, checks each datagram ([gate]) and hands
// readings to the intake. With few clients it also commits them, as a
// [batching.Leader], and answers: one thread does what would otherwise be
// handed to and fro between three. A second one answers what others have
// committed, in the order of submission, looks after what waits for long, and
// calls for a deputy when a slow disk keeps the reader. Nothing is kept about
// an endpoint but its requests in flight, and those are bounded by endpoint, by
// address and in total.
//
// Repetitions are recognised by the whole datagram and its source (contract,
// "CoAP"): while the first is in flight here, later by the sink, also across a
// restart. A reused message id with other content is another message.
//
// An answer that would take longer than 1.5 s is announced by an empty
// acknowledgement and sent as a confirmable message of its own. An answer of
// more than three times the request goes only to this machine or to an
// address that returned an Echo value (RFC 9175).
package coap

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hedgerow-iot/hedgerow/protocols"
)

// Defaults of [Limits].
const (
	DefaultBody      = 16 << 10
	DefaultEndpoints = 4096
)

// Bounds that are not configurable.
const (
	maxPending    = 8192     // requests waiting for their commit, all endpoints
	maxPerSource  = 64       // requests in flight of one endpoint; RFC 7252 lets a device have one
	maxPerAddress = 2048     // requests in flight of one IP address, for networks behind NAT
	maxLookups    = 64       // GETs that read the store at the same time
	readBuffer    = 4 << 20  // asked of the kernel for each socket
	maxDatagram   = 64 << 10 // no UDP datagram is longer
	drainTime     = 10 * time.Second
	maxReadErrors = 100 // in a row, before a socket counts as broken
)

// Limits bound what clients may use. Zero fields mean the defaults.
type Limits struct {
	Body      int // largest payload in bytes
	Endpoints int // clients with a request in flight
}

// Config holds what a [Server] needs besides the intake. All fields but
// Limits, Gateway and Clock must be set.
type Config struct {
	Conns    []*net.UDPConn     // opened by the caller, closed by Run
	Registry protocols.Registry // asked for every request
	ACL      protocols.ACL      // MaySubscribe decides who may read last values
	Gateway  string             // first part of a reading's id
	Limits   Limits
	Log      *slog.Logger
	Clock    func() time.Time // nil: time.Now
}

// A Server serves CoAP on its sockets.
type Server struct {
	cfg     Config
	intake  *protocols.Intake
	last    protocols.LastValues
	log     *slog.Logger
	clock   func() time.Time
	echo    echo
	flight  *flight
	lookups chan struct{}  // one token per GET that reads the store
	reading sync.WaitGroup // the goroutines of GETs
	stats   counters
}

// New checks cfg and returns a server that does nothing until Run.
func New(cfg Config, intake *protocols.Intake, last protocols.LastValues) (*Server, error) {
	switch {
	case len(cfg.Conns) == 0:
		return nil, errors.New("coap needs a socket")
	case cfg.Registry == nil || cfg.ACL == nil || cfg.Log == nil || intake == nil || last == nil:
		return nil, errors.New("coap needs a registry, an access list, a logger, an intake and last values")
	case cfg.Limits.Body < 0 || cfg.Limits.Body > maxDatagram || cfg.Limits.Endpoints < 0:
		return nil, errors.New("coap limits: body from 0 to 64 KiB and endpoints from 0 on")
	}
	if cfg.Limits.Body == 0 {
		cfg.Limits.Body = DefaultBody
	}
	if cfg.Limits.Endpoints == 0 {
		cfg.Limits.Endpoints = DefaultEndpoints
	}
	s := &Server{
		cfg: cfg, intake: intake, last: last, log: cfg.Log, clock: cfg.Clock,
		flight:  newFlight(cfg.Limits.Endpoints),
		lookups: make(chan struct{}, maxLookups),
	}
	if s.clock == nil {
		s.clock = time.Now
	}
	rand.Read(s.echo.secret[:]) // never fails: it ends the process instead
	return s, nil
}

// Run serves until ctx ends and returns after the last answer to a request
// taken in before, or 10 s later, but not before a commit that it is about ends.
// It closes the sockets. The error says why a
// socket could not be read any more; the others are stopped then.
func (s *Server) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, func() {
		for _, u := range s.cfg.Conns {
			u.SetReadDeadline(time.Unix(1, 0))
		}
	})
	defer stop()
	for _, u := range s.cfg.Conns {
		if err := u.SetReadBuffer(readBuffer); err != nil {
			s.log.Warn("coap receive buffer stays small", "err", err)
		}
		c := newSocket(s, u.WriteToUDPAddrPort)
		read := func(deputy bool) func() error {
			return func() error {
				defer c.queue.leave()
				r := &reader{socket: c, deputy: deputy, waits: func() bool { return datagramWaits(u) }}
				return r.run(ctx, u)
			}
		}
		relieve := func() {
			if ctx.Err() == nil && c.queue.enter() {
				g.Go(read(true))
			}
		}
		g.Go(read(false))
		g.Go(func() error {
			c.answerAll(relieve)
			return nil
		})
	}
	err := g.Wait()
	s.reading.Wait() // no reader is left that could start another
	for _, u := range s.cfg.Conns {
		u.Close()
	}
	return err
}

// Stats are counts since the start; Pending and Endpoints are of now.
type Stats struct {
	Datagrams uint64 // received
	Requests  uint64 // well-formed ones among them
	Malformed uint64 // ignored or answered with a Reset
	Refused   uint64 // answered 4.xx or 5.xx
	OverLimit uint64 // not answered: too many requests of one endpoint or address in flight
	Repeated  uint64 // repetitions of a request in flight
	Separate  uint64 // answers sent apart from their acknowledgement
	Resent    uint64 // of those, retransmissions
	Panics    uint64
	SendError uint64
	Pending   int // requests waiting for their commit
	Endpoints int // clients they come from
}

// Stats may be called at any time.
func (s *Server) Stats() Stats {
	pending, endpoints := s.flight.size()
	return Stats{
		Datagrams: s.stats.datagrams.Load(),
		Requests:  s.stats.requests.Load(),
		Malformed: s.stats.malformed.Load(),
		Refused:   s.stats.refused.Load(),
		OverLimit: s.stats.overLimit.Load(),
		Repeated:  s.stats.repeated.Load(),
		Separate:  s.stats.separate.Load(),
		Resent:    s.stats.resent.Load(),
		Panics:    s.stats.panics.Load(),
		SendError: s.stats.sendError.Load(),
		Pending:   pending,
		Endpoints: endpoints,
	}
}

type counters struct {
	datagrams, requests, malformed, refused, overLimit, repeated atomic.Uint64
	separate, resent, panics, sendError                          atomic.Uint64
}
