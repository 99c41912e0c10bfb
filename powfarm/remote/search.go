package remote

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/hedgerow-iot/hedgerow/powfarm"
	"github.com/hedgerow-iot/hedgerow/powfarm/curl"
)

const (
	// aim is how soon those who search for a digest should find: a local farm
	// that takes longer, or has taken longer, gets help.
	aim = 250 * time.Millisecond
	// patience is how many times the expected time is waited for the first
	// workers, before all others are asked too.
	patience = 3
	// A request is held for so many times the time that its worker needs on
	// average, between the bounds, and is then made anew.
	deadlineTimes, deadlineLeast, deadlineMost = 4, 5 * time.Second, maxRequest
)

// A Client is a pool with a local searcher and a priority. Its Prove has the
// form and the errors of powfarm.Client's.
type Client struct {
	pool     *Pool
	local    Searcher
	priority powfarm.Priority
}

// For returns the pool for callers of one priority; local searches too, first.
func (p *Pool) For(local Searcher, priority powfarm.Priority) Client {
	return Client{p, local, priority}
}

// A search is one call of Prove.
type search struct {
	digest   [32]byte
	zeros    int
	priority uint8
	tries    float64       // that it takes on average
	found    chan uint64   // has room for one
	changed  chan struct{} // has room for one: look again who can be asked
	wide     bool          // all workers are wanted; of the goroutine in Prove

	asks map[*entry]*ask // open; guarded by the pool's mu
}

// note has the goroutine in Prove look again.
func (s *search) note() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// local is what the local searcher has come to.
type local struct {
	nonce uint64
	err   error
	busy  bool // not ended: it goes on when the farm has room
}

// Prove returns a nonce for which the Curl-P-81 hash of digest and nonce ends
// in at least zeros zero trits; it is verified.
//
// The error wraps powfarm.ErrBusy or powfarm.ErrNoWorkers when nobody searches
// now, here or elsewhere: try again later. Or it wraps powfarm.ErrClosed or
// that of ctx.
func (c Client) Prove(ctx context.Context, digest [32]byte, zeros int) (uint64, error) {
	if zeros <= 0 || zeros > curl.MaxZeros {
		return c.local.Prove(ctx, digest, zeros) // it has the answer at once
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan local, 2) // at most one of each kind
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		c.search(ctx, digest, zeros, ended)
	}()
	defer func() {
		cancel()
		<-stopped
	}()
	s := &search{
		digest: digest, zeros: zeros, priority: uint8(c.priority), tries: math.Pow(3, float64(zeros)),
		found: make(chan uint64, 1), changed: make(chan struct{}, 1), asks: make(map[*entry]*ask),
	}
	defer c.pool.end(s)
	return c.pool.follow(ctx, s, ended)
}

// search searches locally, and waits while the farm is busy.
func (c Client) search(ctx context.Context, digest [32]byte, zeros int, ended chan<- local) {
	said := false
	for {
		nonce, err := c.local.Prove(ctx, digest, zeros)
		if !errors.Is(err, powfarm.ErrBusy) {
			ended <- local{nonce: nonce, err: err}
			return
		}
		if !said {
			said = true
			ended <- local{err: err, busy: true}
		}
		wait(ctx, aim)
		if ctx.Err() != nil {
			return
		}
	}
}

// follow waits for whoever is first, and asks workers as they are needed.
func (p *Pool) follow(ctx context.Context, s *search, ended <-chan local) (uint64, error) {
	var (
		asking  bool  // workers are wanted
		absent  error // why nothing searches locally
		patient = time.NewTimer(aim)
	)
	defer patient.Stop()
	if rate := p.cfg.Rate(); rate > 0 && s.tries/rate > aim.Seconds() {
		patient.Reset(0)
	}
	for {
		select {
		case nonce := <-s.found:
			return nonce, nil
		case l := <-ended:
			switch {
			case l.err == nil:
				return l.nonce, nil
			case !l.busy && !errors.Is(l.err, powfarm.ErrNoWorkers):
				return 0, l.err
			}
			absent = l.err
			asking = asking || p.start(s, patient)
		case <-patient.C:
			s.wide = asking
			asking = asking || p.start(s, patient)
		case <-s.changed:
		case <-ctx.Done():
			return 0, fmt.Errorf("search a nonce with %d zeros: %w", s.zeros, ctx.Err())
		}
		if !asking {
			continue
		}
		if open, err := p.ask(s); open == 0 && absent != nil && len(s.found) == 0 {
			return 0, nobody(absent, err)
		}
	}
}

// start puts a search among those that want workers, and sets when all are
// wanted.
func (p *Pool) start(s *search, patient *time.Timer) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.searches[s] = struct{}{}
	patient.Reset(patience * aim)
	return true
}

// nobody is the error when nobody searches.
func nobody(absent, err error) error {
	switch {
	case errors.Is(err, powfarm.ErrClosed):
		return err
	case errors.Is(absent, powfarm.ErrNoWorkers) && err != nil:
		return err
	}
	return absent
}

// end ends what is open of a search.
func (p *Pool) end(s *search) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.searches, s)
	now := time.Now()
	for e, a := range s.asks {
		e.cancelled(a, now)
		p.drop(a, now, false)
		p.send(workerSubject(p.prefix, e.Key), "", e.Key, appendCancel(p.self, a.id))
	}
}

// ask asks as many workers as the search needs now, and returns how many
// search for it, or why none does.
func (p *Pool) ask(s *search) (open int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return 0, powfarm.ErrClosed
	}
	if !p.conn.IsConnected() {
		return len(s.asks), fmt.Errorf("%w here, and remote workers cannot be reached", powfarm.ErrNoWorkers)
	}
	now := time.Now()
	var free []*entry
	var rate float64
	alive := 0
	for _, e := range p.workers {
		e.forget(now)
		switch {
		case s.asks[e] != nil:
			rate += e.earned()
		case e.free(s, now):
			free = append(free, e)
		}
		if e.Alive {
			alive++
		}
	}
	slices.SortFunc(free, func(a, b *entry) int {
		return cmp.Or(cmp.Compare(b.earned(), a.earned()), slices.Compare(a.Key[:], b.Key[:]))
	})
	for _, e := range free {
		if !s.wide && rate > 0 && s.tries/rate <= aim.Seconds() {
			break
		}
		p.give(s, e, now)
		rate += e.earned()
	}
	switch {
	case len(s.asks) > 0:
		return len(s.asks), nil
	case alive > 0:
		return 0, fmt.Errorf("%w: none of %d remote workers is free", powfarm.ErrBusy, alive)
	}
	return 0, fmt.Errorf("%w here, and no remote worker is there", powfarm.ErrNoWorkers)
}

// give asks one worker. The caller holds mu.
func (p *Pool) give(s *search, e *entry, now time.Time) {
	expected := time.Duration(min(deadlineMost.Seconds(), s.tries/max(1, e.earned())) * float64(time.Second))
	d := min(deadlineMost, max(deadlineLeast, deadlineTimes*expected))
	e.asked++
	a := &ask{id: newRequestID(e.random, e.asked), search: s, worker: e, began: now, expected: expected, deadline: now.Add(d)}
	p.asks[a.id], s.asks[e] = a, a
	e.Given++
	e.Open++
	r := request{id: a.id, stamp: e.stamp, digest: s.digest, zeros: uint8(s.zeros), priority: s.priority, millis: uint32(d.Milliseconds())}
	p.send(workerSubject(p.prefix, e.Key), answerSubject(p.prefix, p.self, a.id), e.Key, appendRequest(p.self, &r))
}

// send signs and sends what one worker shall do. What does not arrive is found
// out by its silence.
func (p *Pool) send(subject, reply string, to Key, body []byte) {
	if !p.conn.IsConnected() {
		return // NATS would keep it for later, when it is worth nothing
	}
	msg := &nats.Msg{Subject: subject, Reply: reply, Data: sign(p.cfg.Key, p.cfg.Genesis, to, body)}
	if err := p.conn.PublishMsg(msg); err != nil {
		p.log.Debug("message not sent", "subject", subject, "err", err)
	}
}
