package remote

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/hedgerow-iot/hedgerow/powfarm"
	"github.com/hedgerow-iot/hedgerow/powfarm/curl"
)

const (
	helloEvery  = 2 * time.Second
	stampsKept  = 4 // hellos that a request may answer to: it is at most 8 s old
	requestRate = 500
	inboxSize   = 256
	maxRequest  = 30 * time.Second // longest that a search is held
	longest     = 10 * time.Minute // a search expected to take longer is refused
	calibration = 100 * time.Millisecond
	maxGateways = 256
)

// A Searcher searches nonces on this box. powfarm.Client is one.
type Searcher interface {
	// Prove returns a nonce, or an error that wraps powfarm.ErrBusy,
	// powfarm.ErrNoWorkers, powfarm.ErrClosed or that of ctx.
	Prove(ctx context.Context, digest [32]byte, zeros int) (nonce uint64, err error)
}

// ServerConfig says for whom a server searches.
type ServerConfig struct {
	Name    string             // shown at the gateways; 1-32 letters, digits, . _ -
	Key     ed25519.PrivateKey // signs hellos and answers
	Genesis [32]byte           // hash of the network's first file
	Prefix  string             // of the network's subjects
	// Gateways returns those of the network file in force, who may ask; our own
	// key among them is passed over. It is called time and again by one goroutine.
	Gateways func() []Peer
	Kernel   string // shown at the gateways
	// Rate returns tries per second of all threads together, 0 when not known
	// yet; powfarm.Stats.Rate is it.
	Rate func() float64
}

// A Server searches for gateways. Its methods may be called concurrently.
type Server struct {
	cfg      ServerConfig
	self     Key
	prefix   string
	conn     *nats.Conn
	searcher Searcher
	log      *slog.Logger

	// Of the goroutine that Run runs in.
	session  uint64
	stamps   [stampsKept]uint64 // of the last hellos, the latest first
	gateways map[Key]*gatewayState

	queue *queue
	mu    sync.Mutex // guards stats
	stats ServerStats
}

// ServerStats says what a server has done since it was made.
type ServerStats struct {
	Requests  uint64  `json:"requests"` // that were taken on
	Found     uint64  `json:"found"`
	Expired   uint64  `json:"expired"`   // nothing found in time
	Cancelled uint64  `json:"cancelled"` // by the gateway, mostly because another searcher had found
	Busy      uint64  `json:"busy"`      // refused: no room
	Refused   uint64  `json:"refused"`   // refused: too long a search, or none possible here
	Invalid   uint64  `json:"invalid"`   // not answered: forged, replayed, stale, from a stranger, too many
	Queued    int     `json:"queued"`    // held now
	Rate      float64 `json:"triesPerSecond"`
}

// gatewayState is what a server knows of one that may ask.
type gatewayState struct {
	name  string
	check budget            // of a new series; bounds seen, too, as the next does
	goes  budget            // of the last series
	last  requestID         // that was signed
	seen  map[requestID]int // requests that came, with the number of hellos since
}

// budget returns the one for a request.
func (g *gatewayState) budget(id requestID) *budget {
	if id.continues(g.last) {
		return &g.goes
	}
	return &g.check
}

// NewServer returns a server that does nothing until Run.
func NewServer(cfg ServerConfig, conn *nats.Conn, searcher Searcher, log *slog.Logger) (*Server, error) {
	if err := CheckName(cfg.Name); err != nil {
		return nil, fmt.Errorf("name of the worker: %w", err)
	}
	if err := checkWord(cfg.Kernel, maxKernel); err != nil {
		return nil, fmt.Errorf("kernel of the worker: %w", err)
	}
	if len(cfg.Key) != ed25519.PrivateKeySize || cfg.Rate == nil || cfg.Prefix == "" {
		return nil, errors.New("a worker needs its key, its rate and the prefix of subjects")
	}
	if cfg.Gateways == nil {
		cfg.Gateways = func() []Peer { return nil }
	}
	if n := len(cfg.Gateways()); n > maxGateways {
		return nil, fmt.Errorf("%d gateways may ask, at most %d can", n, maxGateways)
	}
	s := &Server{
		cfg: cfg, self: publicOf(cfg.Key), prefix: cfg.Prefix,
		conn: conn, searcher: searcher, log: log,
		gateways: make(map[Key]*gatewayState), queue: newQueue(),
	}
	s.admit(cfg.Gateways())
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails
	s.session = binary.BigEndian.Uint64(random[:])
	return s, nil
}

// admit takes these for the gateways that may ask. What others have asked is
// searched to its end.
func (s *Server) admit(gateways []Peer) {
	before := s.gateways
	s.gateways = make(map[Key]*gatewayState, len(gateways))
	for _, g := range gateways[:min(len(gateways), maxGateways)] {
		switch old := before[g.Key]; {
		case g.Key == s.self:
		case old != nil && old.name == g.Name:
			s.gateways[g.Key] = old
		default:
			s.gateways[g.Key] = &gatewayState{name: g.Name, check: budget{rate: requestRate}, goes: budget{rate: requestRate}, seen: make(map[requestID]int)}
		}
	}
}

// Stats returns the current figures.
func (s *Server) Stats() ServerStats {
	s.mu.Lock()
	st := s.stats
	s.mu.Unlock()
	st.Queued = s.queue.size()
	st.Rate = s.cfg.Rate()
	return st
}

func (s *Server) count(change func(*ServerStats)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.stats)
}

// Run serves until ctx ends or the searcher stops, and returns after its last
// search has ended. A connection that is lost is NATS's to bring back; the
// gateways find the worker again within two seconds of it. Run may be called
// once.
func (s *Server) Run(ctx context.Context) error {
	if err := s.calibrate(ctx); err != nil {
		return err
	}
	in := make(chan *nats.Msg, inboxSize)
	sub, err := s.conn.ChanSubscribe(workerSubject(s.prefix, s.self), in)
	if err != nil {
		return fmt.Errorf("subscribe to searches: %w", err)
	}
	defer sub.Unsubscribe() //nolint:errcheck // the connection may be gone, and then it is too
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		defer cancel() // the searcher has stopped
		s.work(ctx)
	}()
	s.hello(time.Now(), false)
	tick := time.NewTicker(helloEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case msg := <-in:
			s.receive(ctx, msg.Data, time.Now())
		case <-tick.C:
			s.admit(s.cfg.Gateways())
			s.hello(time.Now(), false)
		case <-ctx.Done():
		}
	}
	<-stopped
	s.hello(time.Now(), true)
	if s.conn.IsConnected() {
		flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = s.conn.FlushWithContext(flush) // gateways notice without it, later
	}
	return nil
}

// calibrate searches in vain for a moment, so that there is a speed to tell.
func (s *Server) calibrate(ctx context.Context) error {
	if s.cfg.Rate() > 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, calibration)
	defer cancel()
	_, err := s.searcher.Prove(ctx, [32]byte{}, curl.MaxZeros)
	if errors.Is(err, powfarm.ErrNoWorkers) {
		return fmt.Errorf("measure the speed of the worker: %w", err)
	}
	return nil // otherwise later searches will tell
}

// most returns the number of zeros that this worker takes on.
func (s *Server) most() int {
	rate := max(s.cfg.Rate(), 1e5) // before the first search: a slow one
	return min(curl.MaxZeros, int(math.Log(rate*longest.Seconds())/math.Log(3)))
}

// hello announces the worker, and forgets the requests that answered to hellos
// too old now.
func (s *Server) hello(now time.Time, leaving bool) {
	stamp := max(uint64(max(0, now.UnixNano())), s.stamps[0]+1)
	copy(s.stamps[1:], s.stamps[:])
	s.stamps[0] = stamp
	for _, g := range s.gateways {
		for id := range g.seen {
			if g.seen[id]++; g.seen[id] > stampsKept {
				delete(g.seen, id)
			}
		}
	}
	h := hello{
		session: s.session, stamp: stamp, rate: uint64(min(maxRate, max(0, s.cfg.Rate()))), most: uint8(s.most()), leaving: leaving,
		slots: perGateway, queued: uint16(s.queue.size()), name: s.cfg.Name, kernel: s.cfg.Kernel,
	}
	s.publish(helloSubject(s.prefix), Key{}, appendHello(s.self, &h))
}

// publish sends unless there is no connection: NATS would keep it all for later,
// when it is worth nothing.
func (s *Server) publish(subject string, to Key, body []byte) {
	if !s.conn.IsConnected() {
		return
	}
	if err := s.conn.Publish(subject, sign(s.cfg.Key, s.cfg.Genesis, to, body)); err != nil {
		s.log.Debug("message not sent", "subject", subject, "err", err)
	}
}

// receive takes a message from anybody.
func (s *Server) receive(ctx context.Context, raw []byte, now time.Time) {
	kind, from, err := kindOf(raw)
	g := s.gateways[from]
	if err != nil || g == nil {
		s.invalid(nil, "from a stranger, or no request")
		return
	}
	// What costs nothing is looked at before the signature.
	switch kind {
	case kindSearch:
		r := parseRequest(raw)
		_, seen := g.seen[r.id]
		switch {
		case seen || !slices.Contains(s.stamps[:], r.stamp):
			s.invalid(g, "seen before, or too old")
		case !g.budget(r.id).take(now):
			s.invalid(g, "too many messages")
		case !signed(s.cfg.Genesis, s.self, raw):
			s.invalid(g, "signature")
		default:
			g.last, g.seen[r.id] = r.id, 0
			s.take(ctx, g, from, &r, now)
		}
	case kindCancel:
		id := parseCancel(raw)
		switch {
		case !s.queue.has(from, id): // it has ended
		case !g.goes.take(now): // few know its number
			s.invalid(g, "too many messages")
		case !signed(s.cfg.Genesis, s.self, raw):
			s.invalid(g, "signature")
		default:
			if s.queue.cancel(from, id) {
				s.count(func(st *ServerStats) { st.Cancelled++ })
			}
		}
	default:
		s.invalid(g, "no request")
	}
}

func (s *Server) invalid(g *gatewayState, why string) {
	s.count(func(st *ServerStats) { st.Invalid++ })
	name := ""
	if g != nil {
		name = g.name
	}
	s.log.Debug("message refused", "gateway", name, "why", why)
}

// take queues a request that is a gateway's, or says why not.
func (s *Server) take(ctx context.Context, g *gatewayState, from Key, r *request, now time.Time) {
	j := &job{
		gateway: from, id: r.id, digest: r.digest, zeros: int(r.zeros), priority: r.priority,
		ends: now.Add(min(maxRequest, time.Duration(r.millis)*time.Millisecond)),
	}
	switch {
	case j.zeros > s.most():
		s.count(func(st *ServerStats) { st.Refused++ })
		s.answer(j, resultRefused, 0)
	case !s.queue.add(ctx, j):
		s.count(func(st *ServerStats) { st.Busy++ })
		s.answer(j, resultBusy, 0)
	default:
		s.count(func(st *ServerStats) { st.Requests++ })
		s.log.Debug("search taken on", "gateway", g.name, "zeros", j.zeros)
	}
}

func (s *Server) answer(j *job, r result, nonce uint64) {
	s.publish(answerSubject(s.prefix, j.gateway, j.id), j.gateway,
		appendAnswer(s.self, &answer{id: j.id, result: r, nonce: nonce}))
}
