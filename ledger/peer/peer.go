// Package peer keeps the replicas of a network's gateways equal: it sends new
// blocks to the others, learns what they have, and fetches what this replica
// lacks (consensus.md §9).
//
// NATS only carries bytes. Nothing here relies on a message that arrives,
// arrives once or arrives in order, and what a message says of its sender is
// believed because the sender signed it, not because of where it came from.
// Blocks are judged by the ledger alone.
//
// # The way of a block
//
// A block that was attached here goes out at once, signed and together with
// others that wait (gossip). Whoever misses one of its parents asks for it by
// id. That is the fast path, and any of it may be lost.
//
// What makes replicas equal is the slow path. Every few hundred milliseconds a
// gateway tells a random other one its frontier: its tips and how many blocks
// it has. When a tip is unknown, the receiver walks the sender's order of
// blocks from where it last knew everything (the cursor): first by ids, fetching
// those that it lacks, and by whole blocks as soon as it lacks most of them.
// That order has parents before children, so a walk never waits for a parent.
//
// # The way of a word
//
// With its frontier a gateway says how far it follows the agreement and which
// rounds it knows to be opened. One that starts or recovers must not vote before
// it knows that of a quorum: it calls all others at once, and again until they
// have answered. Else words come as seldom as frontiers do; a member of which
// nothing at all is heard for two seconds, longer among many, is asked for its word,
// and counts as down after three times that.
//
// # The way of a certificate
//
// A gateway publishes every signature that it gives to a milestone. They prove
// themselves, so they are of whose key they name, whoever passes them on. When a
// replica knows milestones that lack signatures for a second, it asks a member
// that knows more for them.
//
// # The way of a network file
//
// Later epochs come in blocks. A gateway that joins then has the file of its own
// epoch only, and asks the members that stand in it for the first one, which
// its file names by hash, before it has a replica; see [FetchNetwork].
//
// # State sync
//
// Gateways lose bodies of old blocks, and say in their words above which
// milestone they have all. Walking the order of one is no use to a replica that
// has not come so far: it takes over that one's milestones with the ids of their
// blocks, each proved by a certified milestone above, and walks from there.
//
// # Limits
//
// Frames are bounded by what NATS carries (1 MiB), lists by their place in a
// frame, queues by number and bytes. A gateway's gossip, requests and answers
// are metered by its name; one that sends what an honest gateway never sends
// loses standing and is not listened to for a while. Pulling goes on all the
// same from the others, and every few seconds from a random one, whatever the
// frontiers say.
package peer

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// A Cursors keeps, over a restart, how far this replica has followed the
// others. What it loses costs time only.
type Cursors interface {
	Load() ([]byte, error) // nil: none were saved
	Save([]byte) error
}

// A Config says who speaks with whom. All fields but Log are required.
type Config struct {
	Network *network.File
	Key     ed25519.PrivateKey // of this gateway; see [Peers.SetNetwork] for one that is no member
	Conn    *nats.Conn
	Cursors Cursors
	Log     *slog.Logger
}

// Peers are the other gateways of the network. All methods may be called
// concurrently.
type Peers struct {
	prefix  string
	signer  signer
	conn    *nats.Conn
	replica *ledger.Ledger
	agreed  agreement
	cursors Cursors
	log     *slog.Logger

	roster   atomic.Pointer[roster]
	changing sync.Mutex // held while the roster is replaced
	telling  sync.Mutex // orders frontiers

	outbox      outbox
	unpublished chan consensus.Signature // own ones; never closed
	wants       wants
	shed        shed
	synced      synced

	restoring atomic.Bool
	asks      asks
	walks     chan struct{} // capacity 1: a member waits to be walked
	news      chan struct{} // capacity 1: the others are to be told at once
	saved     []byte        // cursors; owned by New, then by follow, then by Run
	progress  progress      // owned by follow
	counted   counters
}

// An agreement is what the replica knows of how far the gateways agree.
// *ledger.Ledger is one.
type agreement interface {
	Word() ledger.Word
	Hear(from network.PublicKey, w ledger.Word)
	Certify(signatures []consensus.Signature) error
	Signatures(from, to uint32, most int) ([]consensus.Signature, error)
	Doubts() map[network.PublicKey]consensus.Signature
	Contradict(e *consensus.Essence, sig consensus.Signature) error
}

// New returns the peers of the gateway with cfg.Key. Nothing is sent until
// [Peers.Run].
func New(cfg Config, replica *ledger.Ledger) (*Peers, error) {
	own := network.PublicKey(cfg.Key.Public().(ed25519.PublicKey))
	p := &Peers{
		prefix:      network.SubjectPrefix(cfg.Network.GenesisHash()),
		signer:      newSigner(cfg.Key, cfg.Network.GenesisHash()),
		conn:        cfg.Conn,
		replica:     replica,
		agreed:      replica,
		cursors:     cfg.Cursors,
		log:         cmp.Or(cfg.Log, slog.New(slog.DiscardHandler)),
		walks:       make(chan struct{}, 1),
		unpublished: make(chan consensus.Signature, maxUnpublished),
		news:        make(chan struct{}, 1),
	}
	p.roster.Store(newRoster(cfg.Network, own, &roster{}))
	p.outbox.init()
	p.wants.init()
	p.synced.init()
	p.asks.init(p.prefix + ".inbox." + own.SubjectID() + ".ask.")
	if err := p.loadCursors(); err != nil {
		return nil, err
	}
	return p, nil
}

// Run exchanges blocks until ctx ends. It returns an error only when the
// replica fails, which must end the process.
func (p *Peers) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	heard, requests, certs := make(chan *nats.Msg, gossipAtOnce), make(chan *nats.Msg), make(chan *nats.Msg, gossipAtOnce)
	subs := subscriptions{conn: p.conn, done: ctx.Done()}
	defer subs.close()
	subs.to(p.prefix+".peer."+p.signer.public.SubjectID(), requestMessages, requestBytes, requests)
	subs.call(p.asks.inbox+"*", answerMessages, answerBytes, p.asks.answer)
	subs.to(p.prefix+".block", gossipMessages, gossipBytes, heard)
	subs.to(p.prefix+".cert", certMessages, certBytes, certs)
	if subs.err != nil {
		return fmt.Errorf("listen to peers: %w", subs.err)
	}
	g.Go(func() error { return p.send(ctx) })
	g.Go(func() error { return p.listen(ctx, heard) })
	g.Go(func() error { return p.serve(ctx, requests) })
	g.Go(func() error { return p.tell(ctx) })
	g.Go(func() error { return p.call(ctx) })
	g.Go(func() error { return p.publish(ctx) })
	g.Go(func() error { return p.collect(ctx, certs) })
	g.Go(func() error { return p.repair(ctx) })
	g.Go(func() error { return p.compare(ctx) })
	g.Go(func() error { return p.follow(ctx) })
	g.Go(func() error { return p.fetch(ctx) })
	err := g.Wait()
	p.saveCursors()
	return fatal(err)
}

// fatal returns err unless it only says that somebody stops.
func fatal(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, ledger.ErrClosed) {
		return nil
	}
	return err
}

// What may wait between NATS and those who read it; NATS drops what is more.
const (
	gossipMessages, gossipBytes   = 1024, 8 << 20
	requestMessages, requestBytes = 256, 1 << 20
	answerMessages, answerBytes   = 64, 16 << 20
	certMessages, certBytes       = 1024, 4 << 20

	gossipAtOnce = 16 // frames whose blocks are stored together
)

// subscriptions passes on what NATS delivers, one message at a time.
type subscriptions struct {
	conn *nats.Conn
	done <-chan struct{}
	subs []*nats.Subscription
	busy sync.WaitGroup
	err  error
}

func (s *subscriptions) to(subject string, messages, bytes int, out chan<- *nats.Msg) {
	s.call(subject, messages, bytes, func(m *nats.Msg) {
		select {
		case out <- m:
		case <-s.done:
		}
	})
}

func (s *subscriptions) call(subject string, messages, bytes int, f func(*nats.Msg)) {
	if s.err != nil {
		return
	}
	sub, err := s.conn.Subscribe(subject, f)
	if err != nil {
		s.err = err
		return
	}
	s.busy.Add(1)
	sub.SetClosedHandler(func(string) { s.busy.Done() })
	s.subs = append(s.subs, sub)
	s.err = sub.SetPendingLimits(messages, bytes)
}

// close returns once no callback runs any more.
func (s *subscriptions) close() {
	for _, sub := range s.subs {
		if sub.Unsubscribe() != nil {
			s.busy.Done() // the connection is closed: no handler is called
		}
	}
	s.busy.Wait()
}

// wait returns false when ctx ended before d was over.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// lacking returns those of the ids that the replica does not hold.
func (p *Peers) lacking(ids []stardust.BlockID) (unknown []stardust.BlockID, err error) {
	now := time.Now()
	for _, id := range ids {
		switch ok, err := p.replica.Has(id); {
		case err != nil:
			return nil, err
		case !ok && !p.shed.has(id, now):
			unknown = append(unknown, id)
		}
	}
	return unknown, nil
}
