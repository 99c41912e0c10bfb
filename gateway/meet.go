package gateway

import (
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/gateway/bus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/peer"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// meetSays is how often a gateway that waits for the others says so.
const meetSays = time.Minute

// Meet gets the first file of the network from the other gateways, for a newcomer
// that has joined a later epoch: without it the ledger cannot begin. It returns at
// once, and nil, if nothing is missing, or if something else is, which [New] says.
// Until one of the others answers, which they do once the newcomer's epoch has
// begun there, readings are taken in and kept in the journal; every route of the
// API but /ready says what is waited for. Listeners are closed when it returns.
//
// The error is that of ctx when that ends, or says why nothing can be waited for.
func Meet(ctx context.Context, cfg Config, log *slog.Logger) (err error) {
	dir := string(cfg.DataDir)
	f, err := network.Load(cfg.networkPath())
	if err != nil || f.Epoch == 0 {
		return nil
	}
	if _, err := openGenesis(dir, f); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := makeDir(dir); err != nil {
		return err
	}
	lock, err := lockDir(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if err := errors.Join(joinDone(dir), repairDone(dir), unpackDone(dir)); err != nil {
		return err
	}
	key, err := readIdentity(cfg.Identity)
	if err != nil {
		return err
	}
	if err := checkMember(f, cfg.Name, key.Public().(ed25519.PublicKey), cfg.networkPath()); err != nil {
		return err
	}
	n := &newcomer{cfg: &cfg, key: key, file: f, log: log}
	defer func() { err = errors.Join(err, n.close()) }()
	if err := n.open(); err != nil {
		return err
	}
	first, err := n.run(ctx)
	if err != nil {
		return err
	}
	log.Info("first network file received", "network", first.NetworkName, "joined_epoch", f.Epoch)
	return keepEpoch(dir, first)
}

// A newcomer is a gateway without ledger: it has its key, the network file that
// names it, and a journal for what its devices send.
type newcomer struct {
	cfg  *Config
	key  ed25519.PrivateKey
	file *network.File
	log  *slog.Logger

	sockets *sockets
	bus     *bus.Bus
	stages  stages // without Tangle
}

// open opens the journal, what the others are reached by, and the listeners.
func (n *newcomer) open() (err error) {
	s := &n.stages
	if s.journal, err = openJournal(n.cfg, n.log); err != nil {
		return err
	}
	if n.sockets, err = openSockets(n.cfg); err != nil {
		return err
	}
	if n.bus, err = openBus(n.cfg, n.key, theMembers(n.file), n.log.With("stage", "bus")); err != nil {
		return err
	}
	var restore func(context.Context) (uint64, error)
	if !isFresh(n.cfg.Identity) { // it may have given numbers that the journal does not know
		restore = func(ctx context.Context) (uint64, error) {
			<-ctx.Done()
			return 0, context.Cause(ctx)
		}
	}
	s.batching, err = batching.New(batching.Config{
		Gateway: n.cfg.Name, Key: n.key, Genesis: n.file.GenesisHash(), Linger: linger(n.cfg.Journal.Linger),
		Clock: newClock(), Restore: restore, Log: n.log.With("stage", "batching"),
	}, s.journal, idleProver{}, noLedger{n.file.MinPoWScore})
	if err != nil {
		return err
	}
	if err := s.fronts(&Gateway{cfg: *n.cfg, log: n.log, sockets: n.sockets}); err != nil {
		return err
	}
	s.http = newHTTPServer(n.sockets.http, n, n.log.With("stage", "http"))
	return announce(n.cfg, n.sockets.http.Addr().String())
}

func (n *newcomer) close() (err error) {
	if n.sockets != nil {
		n.sockets.close()
	}
	if n.bus != nil {
		n.bus.Close()
	}
	if n.stages.journal != nil {
		err = storeError(n.stages.journal.Close())
	}
	return err
}

// run takes readings in until the first file has come, or ctx ends.
func (n *newcomer) run(ctx context.Context) (first *network.File, err error) {
	s := &n.stages
	all, failed := errgroup.WithContext(ctx)
	intake, endIntake := context.WithCancel(failed)
	defer endIntake()
	work, endWork := context.WithCancel(context.WithoutCancel(ctx))
	defer endWork()
	var fronts sync.WaitGroup
	servers := []func(context.Context) error{s.http.run, s.mqtt.Run}
	if s.coap != nil {
		servers = append(servers, s.coap.Run)
	}
	for _, run := range servers {
		fronts.Add(1)
		all.Go(func() error {
			defer fronts.Done()
			return run(intake)
		})
	}
	for _, run := range []func(context.Context) error{s.batching.Run, s.journal.Run, n.bus.Run} {
		all.Go(func() error { return run(work) })
	}
	all.Go(func() error { return n.say(intake) })
	all.Go(func() (err error) {
		defer endIntake()
		first, err = n.fetch(intake)
		return err
	})
	all.Go(func() error { // what was taken in is answered first
		<-intake.Done()
		fronts.Wait()
		s.batching.CloseIntake()
		endWork()
		return nil
	})
	return first, all.Wait()
}

func (n *newcomer) fetch(ctx context.Context) (*network.File, error) {
	return peer.FetchNetwork(ctx, peer.Config{Network: n.file, Key: n.key, Conn: n.bus.Conn(), Log: n.log.With("stage", "peer")}, n.file.GenesisHash())
}

// waitsFor is what a newcomer waits for, in words.
const waitsFor = "this gateway is new in its network and waits for another member to hand out the network's first file; " +
	"they do once the epoch that names this gateway has begun there. Readings are kept meanwhile"

// ServeHTTP answers whether a reading can be acknowledged now, and else what is
// waited for.
func (n *newcomer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if r.URL.Path == "/ready" && n.stages.batching.Ready() == nil {
		_, _ = io.WriteString(w, `{"ready":true}`+"\n")
		return
	}
	w.Header().Set("Retry-After", "5")
	w.WriteHeader(http.StatusServiceUnavailable)
	_, _ = io.WriteString(w, `{"error":{"code":"503","message":"`+waitsFor+`"}}`+"\n")
}

func (n *newcomer) say(ctx context.Context) error {
	tick := time.NewTicker(meetSays)
	defer tick.Stop()
	for {
		n.log.Warn(waitsFor, "network", n.file.NetworkName, "epoch", n.file.Epoch)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// idleProver finds nothing: there is no Tangle to attach to.
type idleProver struct{}

func (idleProver) Prove(ctx context.Context, _ [32]byte, _ int) (uint64, error) {
	<-ctx.Done()
	return 0, context.Cause(ctx)
}

// noLedger is one of which nothing is known.
type noLedger struct{ score uint32 }

func (noLedger) Tips() []stardust.BlockID { return []stardust.BlockID{stardust.GenesisID} }
func (l noLedger) MinPoWScore() uint32    { return l.score }

func (noLedger) Attach(ctx context.Context, _ *stardust.Block, _ [][2]uint64) (stardust.BlockID, error) {
	<-ctx.Done()
	return stardust.GenesisID, context.Cause(ctx)
}

func (noLedger) MarksFrom(uint64, func([2]uint64, stardust.BlockID) bool) error { return nil }

func (noLedger) Marked(uint64) (stardust.BlockID, bool, error) { return stardust.GenesisID, false, nil }

func (noLedger) Certified(stardust.BlockID) (bool, error) { return false, nil }
