package peer

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// maxOutbox is how many bytes of blocks wait to be sent; what is more is left
// to the walks of the others.
const maxOutbox = 4 << 20

// A frame, and a commit of what came in frames, cost as much as ten blocks in
// them, so what comes together is gathered before it goes. A block that is alone
// goes at once, and one of a few waits shortly: what waits for a vote waits for
// all of its hops. Only when many come does each of them wait longer.
const (
	gatherShort             = 2 * time.Millisecond
	gatherLong              = 10 * time.Millisecond
	promptRate, promptBurst = 50, 10 // short waits in a second, and together
)

// A pace says how long to gather what comes.
type pace struct {
	prompt bucket
	last   time.Time // that something went
}

func newPace() pace { return pace{prompt: bucket{rate: promptRate, burst: promptBurst}} }

// pause returns how long to wait before what has come now goes.
func (p *pace) pause(now time.Time) (d time.Duration) {
	switch {
	case now.Sub(p.last) >= gatherLong:
	case p.prompt.take(1, now):
		d = gatherShort
	default:
		d = gatherLong
	}
	p.last = now.Add(d)
	return d
}

// An outbox holds new blocks until they are sent.
type outbox struct {
	mu      sync.Mutex // guards what follows
	raws    [][]byte
	bytes   int
	dropped uint64

	more chan struct{} // capacity 1: there is something
}

func (o *outbox) init() { o.more = make(chan struct{}, 1) }

// Announce sends a block that was attached here to the others, soon. It does
// not block and keeps raw until then.
func (p *Peers) Announce(_ stardust.BlockID, raw []byte) {
	if len(p.others()) == 0 {
		return
	}
	o := &p.outbox
	o.mu.Lock()
	if o.bytes+len(raw) > maxOutbox {
		o.dropped++
	} else {
		o.raws, o.bytes = append(o.raws, raw), o.bytes+len(raw)
	}
	o.mu.Unlock()
	signal(o.more)
}

// waits reports whether there is something to be sent.
func (o *outbox) waits() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.raws) > 0
}

// take returns the body of the next frame; nil: there is none.
func (o *outbox) take() (body []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	for _, raw := range o.raws {
		if n == maxBlocks || n > 0 && len(body)+2+len(raw) > maxBytes {
			break
		}
		body = appendBlock(body, raw)
		o.bytes -= len(raw)
		n++
	}
	if o.raws = o.raws[n:]; len(o.raws) == 0 {
		o.raws = nil
	}
	return body
}

// send publishes what the outbox gets, until ctx ends.
func (p *Peers) send(ctx context.Context) error {
	for pace := newPace(); ; {
		select {
		case <-p.outbox.more:
		case <-ctx.Done():
			return ctx.Err()
		}
		for p.outbox.waits() {
			if !wait(ctx, pace.pause(time.Now())) {
				return ctx.Err()
			}
			body := p.outbox.take()
			frame := p.signer.seal(kindGossip, network.PublicKey{}, nil, body)
			if err := p.conn.Publish(p.prefix+".block", frame); err != nil {
				p.log.Debug("gossip not sent", "err", err)
			}
			p.counted.gossip.Add(1)
		}
	}
}

// listen takes in gossip and frontiers, until ctx ends.
func (p *Peers) listen(ctx context.Context, heard <-chan *nats.Msg) error {
	for pace := newPace(); ; {
		var in []sent
		select {
		case msg := <-heard:
			in = p.gossip(msg, in)
		case <-ctx.Done():
			return ctx.Err()
		}
		if !wait(ctx, pace.pause(time.Now())) {
			return ctx.Err()
		}
		for more := true; more && len(in) < maxBlocks; { // what waits is stored together
			select {
			case msg := <-heard:
				in = p.gossip(msg, in)
			default:
				more = false
			}
		}
		if _, err := p.receive(ctx, in); err != nil {
			return err
		}
	}
}

// gossip appends the blocks of a message to in.
func (p *Peers) gossip(msg *nats.Msg, in []sent) []sent {
	if kindOf(msg.Data) != kindGossip {
		p.counted.strange.Add(1)
		return in
	}
	m, f, ok := p.open(msg.Data, network.PublicKey{}, nil)
	if !ok {
		return in
	}
	raws, err := parseBlocks(f.body)
	if err != nil {
		p.malformed(m, err)
		return in
	}
	rate, now := p.roster.Load().votes, time.Now()
	for _, raw := range raws[:m.takes(len(raws), now)] {
		if gateway, ok := voteOf(raw); ok && !m.takesVote(gateway, rate, now) {
			continue
		}
		in = append(in, sent{by: m, raw: raw})
	}
	return in
}

// open reads a frame of another gateway, to this one or to all, and reports
// whether it is to be heeded.
func (p *Peers) open(data []byte, to network.PublicKey, context []byte) (m *member, f frame, ok bool) {
	f, err := parseFrame(data)
	if err != nil {
		p.counted.strange.Add(1)
		return nil, f, false
	}
	if f.sender == p.signer.public {
		return nil, f, false // own gossip comes back
	}
	now := time.Now()
	if m = p.roster.Load().sender(f, now); m == nil {
		p.counted.strange.Add(1)
		return nil, f, false
	}
	if !m.admit(f, now) {
		return nil, f, false
	}
	if !p.signer.signed(f, to, context) {
		m.count(func(c *MemberCounts) { c.Forged++ })
		return nil, f, false
	}
	return m, f, m.accept(f, now)
}

// malformed blames a member for a frame that it signed and that cannot be read.
func (p *Peers) malformed(m *member, err error) {
	m.count(func(c *MemberCounts) { c.Malformed++ })
	p.blame(m, forMalformed, err)
}

func (p *Peers) blame(m *member, by float64, why error) {
	if m.blame(by, time.Now()) {
		p.log.Warn("peer shunned for a while", "peer", m.Name, "err", why)
	}
}

// A sent is the bytes of a block and the member that sent it.
type sent struct {
	by    *member
	raw   []byte
	asked bool // it was asked for it
}

// A tally says what became of blocks that were handed in. What is in neither
// count was refused.
type tally struct {
	have  int // the replica has them now, or has no use for them
	later int // wait for a parent, or for their epoch to begin
}

func (t *tally) add(o *ledger.Outcome) {
	switch {
	case o.Err != nil:
	case o.Later || len(o.Missing) > 0:
		t.later++
	default:
		t.have++
	}
}

// receive hands blocks to the ledger; missing parents of held ones are fetched.
// The error means that the ledger takes nothing more at all.
func (p *Peers) receive(ctx context.Context, in []sent) (t tally, err error) {
	for len(in) > 0 {
		part := in[:min(len(in), ledger.MaxReceive)]
		in = in[len(part):]
		blocks := make([]ledger.Incoming, len(part))
		for i, s := range part {
			blocks[i] = ledger.Incoming{From: s.by.Name, Raw: s.raw}
		}
		outcomes, err := p.replica.Receive(ctx, blocks)
		if err != nil {
			return t, err
		}
		for i := range outcomes {
			p.judge(&part[i], &outcomes[i])
			t.add(&outcomes[i])
		}
	}
	return t, nil
}

// judge draws the conclusions from what became of a block.
func (p *Peers) judge(s *sent, o *ledger.Outcome) {
	m, now := s.by, time.Now()
	m.count(func(c *MemberCounts) { c.add(o) })
	if s.asked && !o.Known {
		m.handsOut(s.raw, p.roster.Load().votes, now)
	}
	switch {
	case errors.Is(o.Err, ledger.ErrBusy):
	case errors.Is(o.Err, stardust.ErrUnsupported):
		p.newer(m, o.Err)
	case o.Err != nil:
		p.blame(m, forInvalid, o.Err)
	case o.Useless:
		p.shed.add(o.ID, now)
	case len(o.Missing) > 0:
		p.wants.add(m, o.Missing, now)
	}
}

func (c *MemberCounts) add(o *ledger.Outcome) {
	switch {
	case errors.Is(o.Err, ledger.ErrBusy):
	case errors.Is(o.Err, stardust.ErrUnsupported):
		c.Unsupported++
	case o.Err != nil:
		c.Invalid++
	case o.Known:
		c.Duplicates++
	case o.Useless:
		c.Useless++
	case o.Later || len(o.Missing) > 0:
		c.Held++
	default:
		c.New++
	}
}

// newer notes that a member sends what this version does not know: its order
// cannot be followed beyond that, which is not its fault.
func (p *Peers) newer(m *member, why error) {
	now := time.Now()
	m.mu.Lock()
	known := now.Before(m.newer)
	m.newer = now.Add(newerPause)
	m.mu.Unlock()
	if !known {
		p.log.Warn("peer runs a newer version and sends what this one does not know; update this gateway", "peer", m.Name, "err", why)
	}
}

// signal puts a token into a channel of capacity 1.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
