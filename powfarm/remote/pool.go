package remote

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/hedgerow-iot/hedgerow/powfarm/curl"
)

const (
	answerRate = 500 // signatures of answers checked per second and sender
	lookEvery  = 250 * time.Millisecond
	grace      = 2 * time.Second // for an answer after its deadline
	maxWorkers = 256
)

// PoolConfig says whom a pool asks.
type PoolConfig struct {
	Key     ed25519.PrivateKey // signs searches
	Genesis [32]byte           // hash of the network's first file
	Prefix  string             // of the network's subjects
	// Members returns those of the network file in force, who may lend; our own
	// key among them is passed over. It is called time and again by one goroutine.
	// Nil: nobody.
	Members func() []Peer
	Workers []Key // further keys that may
	// Rate returns tries per second of the local farm, 0 when it has no worker
	// or has not searched yet; powfarm.Stats.Rate is it.
	Rate func() float64
}

// A Pool asks workers on other boxes. Its methods may be called concurrently.
type Pool struct {
	cfg    PoolConfig
	self   Key
	prefix string
	conn   *nats.Conn
	log    *slog.Logger

	mu         sync.Mutex // guards what follows, and the entries
	workers    map[Key]*entry
	members    map[Key]bool
	configured map[Key]bool
	asks       map[requestID]*ask
	searches   map[*search]struct{} // that want workers
	invalid    uint64
	closed     bool
}

// An ask is one worker's part of a search; it is in asks and in its search's
// until it ends.
type ask struct {
	id       requestID
	search   *search
	worker   *entry
	began    time.Time
	expected time.Duration // to take, on average
	deadline time.Time
}

// NewPool returns a pool that knows no worker until Run.
func NewPool(cfg PoolConfig, conn *nats.Conn, log *slog.Logger) (*Pool, error) {
	if len(cfg.Key) != ed25519.PrivateKeySize || cfg.Rate == nil || cfg.Prefix == "" {
		return nil, errors.New("a pool of remote workers needs the gateway's key, its rate and the prefix of subjects")
	}
	if cfg.Members == nil {
		cfg.Members = func() []Peer { return nil }
	}
	if n := len(cfg.Members()) + len(cfg.Workers); n > maxWorkers {
		return nil, fmt.Errorf("%d workers may lend, at most %d can", n, maxWorkers)
	}
	p := &Pool{
		cfg: cfg, self: publicOf(cfg.Key), prefix: cfg.Prefix, conn: conn, log: log,
		workers: make(map[Key]*entry), members: make(map[Key]bool), configured: make(map[Key]bool),
		asks: make(map[requestID]*ask), searches: make(map[*search]struct{}),
	}
	for _, k := range cfg.Workers {
		p.configured[k] = true
		p.enter(k, "")
	}
	p.admit(cfg.Members(), time.Now())
	return p, nil
}

// enter makes it possible that a worker with this key is asked.
func (p *Pool) enter(k Key, name string) {
	if k != p.self && p.workers[k] == nil {
		p.workers[k] = newEntry(k, name)
	}
}

// admit takes these for the members. What those that have left were asked is
// given up. The caller holds mu, or is alone.
func (p *Pool) admit(members []Peer, now time.Time) {
	before := p.members
	p.members = make(map[Key]bool, len(members))
	for _, m := range members[:min(len(members), maxWorkers-len(p.configured))] {
		p.members[m.Key] = true
		p.enter(m.Key, m.Name)
	}
	for k := range before {
		if e := p.workers[k]; e != nil && !p.members[k] && !p.configured[k] {
			p.lose(e, now)
			delete(p.workers, k)
		}
	}
}

// Run listens for workers and their answers until ctx ends. A pool that is not
// run searches locally only. Run may be called once.
func (p *Pool) Run(ctx context.Context) error {
	hellos, answers := make(chan *nats.Msg, inboxSize), make(chan *nats.Msg, inboxSize)
	for subject, in := range map[string]chan *nats.Msg{
		helloSubject(p.prefix):                             hellos,
		p.prefix + ".inbox." + p.self.id() + ".pow." + "*": answers,
	} {
		sub, err := p.conn.ChanSubscribe(subject, in)
		if err != nil {
			return fmt.Errorf("subscribe to remote workers: %w", err)
		}
		defer sub.Unsubscribe() //nolint:errcheck // the connection may be gone, and then it is too
	}
	defer p.close()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case msg := <-hellos:
			p.hello(msg.Data, time.Now())
		case msg := <-answers:
			p.answer(msg, time.Now())
		case <-tick.C:
			p.look(time.Now())
		case <-ctx.Done():
			return nil
		}
	}
}

// close lets searches that only wait for workers return.
func (p *Pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for s := range p.searches {
		s.note()
	}
}

// hello takes the announcement of anybody.
func (p *Pool) hello(raw []byte, now time.Time) {
	kind, from, err := kindOf(raw)
	if err != nil || kind != kindHello || from == p.self {
		return
	}
	h, err := parseHello(raw)
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.workers[from]
	if err != nil || e == nil || e.replayed(&h) || !e.budget(&h, now).take(now) || !signed(p.cfg.Genesis, Key{}, raw) {
		p.invalid++
		return
	}
	was := e.Alive
	lost := e.greet(&h, p.members[from], now)
	e.trust(p.cfg.Rate())
	if was != e.Alive {
		p.log.Info("remote worker", "worker", e.Name, "key", e.Key, "alive", e.Alive, "kernel", e.Kernel, "tries_per_second", e.TriesPerSecond)
	}
	if lost {
		p.lose(e, now)
	}
	for s := range p.searches {
		s.note() // it may be asked now
	}
}

// lose gives up what a worker was asked. The caller holds mu.
func (p *Pool) lose(e *entry, now time.Time) {
	for _, a := range p.asks {
		if a.worker == e {
			e.Lost++
			p.drop(a, now, false)
		}
	}
}

// drop ends an ask and tells its search. The caller holds mu.
func (p *Pool) drop(a *ask, now time.Time, found bool) {
	a.worker.searched(a, now, found)
	a.worker.Open--
	delete(p.asks, a.id)
	delete(a.search.asks, a.worker)
	a.search.note()
}

// look finds what has not come, and who the members are.
func (p *Pool) look(now time.Time) {
	members := p.cfg.Members()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.admit(members, now)
	for _, e := range p.workers {
		if e.Alive && now.Sub(e.LastSeen) > aliveFor {
			e.Alive = false
			p.log.Warn("remote worker gone", "worker", e.Name, "key", e.Key)
			p.lose(e, now)
		}
	}
	for _, a := range p.asks {
		if now.After(a.deadline.Add(grace)) {
			e := a.worker
			e.TimedOut++
			e.silent++
			e.leaveAlone(now, e.silent, slowFirst, slowLongest)
			p.drop(a, now, false)
		}
	}
}

// answer takes an answer from anybody, or NATS's word that nobody listens.
func (p *Pool) answer(msg *nats.Msg, now time.Time) {
	if len(msg.Data) == 0 && msg.Header.Get("Status") == "503" {
		p.unheard(msg.Subject, now)
		return
	}
	kind, from, err := kindOf(msg.Data)
	if err != nil || kind != kindAnswer {
		p.refuse()
		return
	}
	r, err := parseAnswer(msg.Data)
	if err != nil || !p.genuine(from, r.id, msg.Data, now) {
		p.refuse()
		return
	}
	p.mu.Lock()
	a := p.asks[r.id]
	p.mu.Unlock()
	if a == nil {
		return // cancelled; it was on its way
	}
	right := r.result == resultFound && curl.Zeros(a.search.digest, r.nonce) >= a.search.zeros
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asks[r.id] != a {
		return
	}
	p.settle(a, &r, right, now)
}

// settle takes what the worker that was asked has answered. The caller holds mu.
func (p *Pool) settle(a *ask, r *answer, right bool, now time.Time) {
	e := a.worker
	switch {
	case right:
		e.Found++
		e.silent = 0
		select {
		case a.search.found <- r.nonce:
		default: // another was first
		}
	case r.result == resultFound:
		e.Wrong++
		e.leaveAlone(now, int(min(e.Wrong, 64)), liarFirst, liarLongest)
		p.log.Warn("remote worker gave a wrong nonce", "worker", e.Name, "key", e.Key, "times", e.Wrong, "left_alone_until", e.LeftAloneUntil)
	case r.result == resultExpired:
		e.Expired++
		e.silent = 0
	default:
		e.Refused++
		e.refused = e.stamp
	}
	p.drop(a, now, right)
}

func (p *Pool) refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.invalid++
}

// genuine tells whether the worker that was asked signed an answer. An answer
// to what is not open any more is not looked at.
func (p *Pool) genuine(from Key, id requestID, raw []byte, now time.Time) bool {
	p.mu.Lock()
	a := p.asks[id]
	ok := a == nil || a.worker.Key == from && a.worker.answers.take(now)
	p.mu.Unlock()
	return ok && (a == nil || signed(p.cfg.Genesis, p.self, raw))
}

// Refused returns how many messages were not what they should be: forged,
// replayed, garbage, from strangers, or too many.
func (p *Pool) Refused() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.invalid
}

// unheard notes that a request reached no worker. If it is alive after all, its
// next hello says so.
func (p *Pool) unheard(subject string, now time.Time) {
	var id requestID
	text := subject[strings.LastIndexByte(subject, '.')+1:]
	if n, err := hex.Decode(id[:], []byte(text[:min(len(text), 2*idSize)])); err != nil || n != idSize {
		p.refuse()
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if a := p.asks[id]; a != nil {
		a.worker.Alive = false
		p.lose(a.worker, now)
	}
}
