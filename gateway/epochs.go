package gateway

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/peer"
)

const (
	// updatePatience is how long a network file in a block may take to come into
	// force before it is attached once more, and twice as long each time.
	updatePatience, updateLongest = time.Minute, time.Hour
	// updateRetry is how soon a network file that could not be attached is tried
	// again.
	updateRetry = 5 * time.Second
	// saveRetry is how soon a network file that could not be saved is tried again.
	saveRetry = 10 * time.Second
	// leavingFor is how long the connections of members that have left are kept:
	// they have to get the blocks that tell them so.
	leavingFor = 10 * time.Second
)

// epochs keeps the network files: it puts one of the next epoch, which somebody
// joined, before the members, and those that they have agreed on into force.
type epochs struct {
	dir    string // data directory
	path   string // of the network file
	self   network.Gateway
	file   atomic.Pointer[network.File] // of the members that this gateway works with
	left   atomic.Pointer[leavers]
	past   atomic.Pointer[[]*network.File] // those that are or were in force
	begun  chan *network.File              // by the ledger; some are left out if later ones follow
	note   func()                          // notes beside the key that an epoch has begun
	ledger *ledger.Ledger
	peers  *peer.Peers
	prover prover
	log    *slog.Logger

	attaching chan struct{} // a token while a network file is being attached
	news      chan struct{} // capacity 1: next was set
	mu        sync.Mutex    // guards next
	next      *offer        // nil: nobody has joined a later file
}

// leavers are the members that have left with the last epoch.
type leavers struct {
	gateways []network.Gateway
	until    time.Time // when their connections end
}

// newEpochs decides which network file this gateway works with: the one in force
// as far as its ledger knows, which has stored these, or a later one that it was
// given. The latter if it is no member of the former: a newcomer has to ask those
// that know it; and if it is alone in the former and lost means that it does not
// know its last votes there: the others of the latter do.
func newEpochs(cfg *Config, h *home, stored []*network.File, lost bool, log *slog.Logger) *epochs {
	e := &epochs{
		dir: string(cfg.DataDir), path: cfg.networkPath(),
		self:  network.Gateway{Name: cfg.Name, PublicKey: network.PublicKey(h.key.Public().(ed25519.PublicKey))},
		begun: make(chan *network.File, 1), note: func() {}, log: log,
		attaching: make(chan struct{}, 1), news: make(chan struct{}, 1),
	}
	given := h.network
	e.file.Store(given)
	e.past.Store(&stored)
	if given.Epoch > 0 {
		e.next = &offer{file: given}
	}
	if len(stored) == 0 {
		return e
	}
	known := stored[len(stored)-1]
	switch {
	case known.Hash() == given.Hash():
		e.next = nil
	case given.Epoch <= known.Epoch: // the process ended before the file was saved, or another one won
		e.next = nil
		e.file.Store(known)
	case lost && len(known.Gateways) == 1:
	case given.Follows(known) == nil && e.isMember(known):
		e.file.Store(known)
	}
	return e
}

// current returns the network file whose members this gateway works with: the
// one in force, or a later one while it does not have all blocks up to that.
func (e *epochs) current() *network.File { return e.file.Load() }

func (e *epochs) isMember(f *network.File) bool {
	_, ok := f.Index(e.self.PublicKey[:])
	return ok
}

// begin is told of an epoch by the ledger's writer, which must not wait.
func (e *epochs) begin(f *network.File) {
	for {
		select {
		case e.begun <- f:
			return
		default:
		}
		select { // an older one makes room
		case <-e.begun:
		default:
		}
	}
}

// run puts epochs into force, and files before the members, until ctx ends.
func (e *epochs) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return e.follow(ctx) })
	g.Go(func() error { return e.propose(ctx) })
	return g.Wait()
}

// follow takes the epochs that begin. A file that cannot be written, because the
// disk is full, is in force all the same, and written later: the ledger has it.
func (e *epochs) follow(ctx context.Context) error {
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		var err error
		select {
		case f := <-e.begun:
			err = e.enter(f)
		case <-retry.C:
			err = e.save(e.current())
		case <-ctx.Done():
			return nil
		}
		if err != nil {
			e.log.Warn("network file in force not saved", "err", err)
			retry.Reset(saveRetry)
		}
	}
}

// enter puts a network file into force. The error is that of saving it.
func (e *epochs) enter(f *network.File) error {
	if old := e.current(); f.Epoch < old.Epoch || f.Hash() == old.Hash() {
		return nil // a later one is to be reached still, or it is that
	} else if f.Epoch == old.Epoch {
		e.log.Error("the members agreed on another network file of this epoch than the one that was joined here", "epoch", f.Epoch)
	}
	files := e.ledger.Networks()
	e.past.Store(&files)
	e.note()
	err := e.save(f)
	e.adopt(f)
	e.peers.SetNetwork(f)
	e.log.Info("epoch in force", "epoch", f.Epoch, "gateways", len(f.Gateways), "quorum", f.Quorum(), "file", e.path)
	for _, a := range e.standing() {
		e.log.Error(a.Text, "alarm", a.Name, "epoch", f.Epoch)
	}
	return err
}

// adopt works with the members of f from now on, and keeps those that leave
// connected for a moment.
func (e *epochs) adopt(f *network.File) {
	e.left.Store(&leavers{leaving(e.current(), f), time.Now().Add(leavingFor)})
	e.file.Store(f)
}

// save writes the file in force, unless a later epoch was joined, and keeps those
// of the epochs before.
func (e *epochs) save(f *network.File) error {
	for _, of := range *e.past.Load() {
		if of.Epoch >= f.Epoch || exists(epochPath(e.dir, of.Epoch)) {
			continue
		}
		if err := keepEpoch(e.dir, of); err != nil {
			return fmt.Errorf("keep the network file of epoch %d: %w", of.Epoch, err)
		}
	}
	if on, err := network.Load(e.path); err == nil && (on.Hash() == f.Hash() || on.Epoch > f.Epoch && e.proposed() != nil) {
		return nil
	}
	return f.Save(e.path)
}

// leaving returns the members of old whose keys f does not have.
func leaving(old, f *network.File) (gone []network.Gateway) {
	for _, g := range old.Gateways {
		if _, ok := f.Index(g.PublicKey[:]); !ok {
			gone = append(gone, g)
		}
	}
	return gone
}

// pinned returns who may connect: the members, those of the file that is to come
// into force next, and for a moment those that have just left.
func (e *epochs) pinned() []network.Gateway {
	f := e.current()
	all := f.Gateways
	add := func(more []network.Gateway) {
		for _, g := range more {
			if _, ok := f.Index(g.PublicKey[:]); !ok {
				all = append(all[:len(all):len(all)], g)
			}
		}
	}
	if next := e.proposed(); next != nil && next.Epoch == f.Epoch+1 {
		add(next.Gateways)
	}
	if l := e.left.Load(); l != nil && time.Now().Before(l.until) {
		add(l.gateways)
	}
	return all
}

// former returns what a key that is no member's was called when it was one; ""
// for a stranger's.
func (e *epochs) former(key ed25519.PublicKey) string {
	files := *e.past.Load()
	for i := len(files) - 1; i >= 0; i-- {
		if g, ok := files[i].Index(key); ok {
			return files[i].Gateways[g].Name
		}
	}
	return ""
}

// propose puts a network file that somebody has joined before the members, again
// if it has to be, until ctx ends.
func (e *epochs) propose(ctx context.Context) error {
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		select {
		case <-e.news:
		case <-retry.C:
		case <-ctx.Done():
			return nil
		}
		at, err := e.repeat(ctx)
		if err != nil && ctx.Err() == nil {
			e.log.Warn("the network file of the next epoch is not attached yet", "err", err)
			at = time.Now().Add(updateRetry)
		}
		if retry.Stop(); !at.IsZero() {
			retry.Reset(time.Until(at))
		}
	}
}

// repeat attaches the next network file, once this replica knows what the others
// have, unless it has come into force. It returns when to look again; the zero
// time: when there is another one.
func (e *epochs) repeat(ctx context.Context) (again time.Time, err error) {
	u := e.waiting()
	if u == nil {
		return again, nil
	}
	if at := u.again(); time.Now().Before(at) {
		return at, nil
	}
	if err := e.peers.Synced(ctx); err != nil {
		return again, err
	}
	if u = e.waiting(); u == nil {
		return again, nil
	}
	inForce := e.inForce()
	if u.file.Epoch > inForce.Epoch+1 || !e.isMember(inForce) {
		return time.Now().Add(updateRetry), nil // what the others have confirmed comes by itself
	}
	if err := u.file.Follows(inForce); err != nil {
		e.log.Error("the network file that was joined cannot come into force", "epoch", u.file.Epoch, "err", err)
		e.settle(u)
		return again, nil
	}
	if _, err := e.attach(ctx, u.file); err != nil {
		return again, err
	}
	return e.waiting().again(), nil
}

// waiting returns the file that somebody has joined, unless its epoch has begun.
func (e *epochs) waiting() *offer {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.next != nil && e.next.file.Epoch <= e.inForce().Epoch {
		e.next = nil
	}
	return e.next
}

// settle forgets an offer, unless another one has come.
func (e *epochs) settle(u *offer) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.next == u {
		e.next = nil
	}
}

// proposed returns the file that is to come into force next; nil: none.
func (e *epochs) proposed() *network.File {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.next == nil {
		return nil
	}
	return e.next.file
}

// inForce returns the network file in force as far as the ledger knows.
func (e *epochs) inForce() *network.File {
	files := e.ledger.Networks()
	return files[len(files)-1]
}
