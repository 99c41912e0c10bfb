// Package gateway loads the configuration, builds the stages of the gateway
// from it, runs them and stops them in order.
//
// It is the only package that knows both ends of an interface: it passes the
// journal, the prover and the ledger to batching, the stage to the front
// ends, and everything to the API. It decides nothing about readings or
// blocks, and nothing imports it but the command.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/batching/journal"
	"github.com/hedgerow-iot/hedgerow/gateway/bus"
	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/store"
)

// ErrStore is wrapped by errors of a store that is damaged or was written by
// a newer program: starting again does not help, somebody must act.
var ErrStore = errors.New("store damaged or newer than this program")

// storeFormat names the newest format of the two stores.
const storeFormat = "journal 3, ledger 3"

// A Gateway is everything between the devices and the Tangle on one box.
type Gateway struct {
	cfg     Config
	log     *slog.Logger
	home    *home
	stores  *stores
	marker  *marker
	sockets *sockets
	bus     *bus.Bus
	epochs  *epochs
	stages  *stages
}

// New takes the data directory, makes what the first start makes, opens the
// stores and the listeners, and builds the stages; nothing is served until
// [Gateway.Run], which must follow, or [Gateway.Close].
//
// The error wraps [ErrLocked] when another process runs on the directory and
// [ErrStore] when a store is damaged or newer.
func New(cfg Config, log *slog.Logger) (_ *Gateway, err error) {
	limitMemory(log)
	g := &Gateway{cfg: cfg, log: log}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.Close())
		}
	}()
	if g.home, err = openHome(&g.cfg, log); err != nil {
		return nil, err
	}
	if err := prepareLedger(&g.cfg, g.home, log); err != nil {
		return nil, err
	}
	if g.stores, err = openStores(&g.cfg, log); err != nil {
		return nil, err
	}
	if err := g.recognise(); err != nil {
		return nil, storeError(err)
	}
	if err := g.openEpochs(); err != nil {
		return nil, err
	}
	if err := g.begin(); err != nil {
		return nil, err
	}
	if g.sockets, err = openSockets(&g.cfg); err != nil {
		return nil, err
	}
	who := whoIs{subjects(g.home.network), g.epochs.pinned, g.epochs.former}
	if g.bus, err = openBus(&g.cfg, g.home.key, who, log.With("stage", "bus")); err != nil {
		return nil, err
	}
	g.sockets.named = append(g.sockets.named, busListeners(g.bus)...)
	for _, l := range g.sockets.named {
		switch {
		case l.Instead != "":
			log.Warn("address taken, another port found", "protocol", l.Protocol, "wanted", l.Instead, "address", l.Address)
		case g.cfg.Home == "": // the sandbox's command prints them
			log.Info("listening", "protocol", l.Protocol, "address", l.Address)
		}
	}
	if g.stages, err = newStages(g); err != nil {
		return nil, err
	}
	return g, nil
}

// Config returns the configuration in force.
func (g *Gateway) Config() Config { return g.cfg }

// Listeners returns the addresses that are listened on.
func (g *Gateway) Listeners() []Listener { return g.sockets.named }

// Token returns the admin token.
func (g *Gateway) Token() string { return g.home.token }

// Close gives back what New took, for a gateway that is not run: listeners,
// stores, and last the data directory.
func (g *Gateway) Close() error {
	if g.sockets != nil {
		g.sockets.close()
	}
	if g.bus != nil {
		g.bus.Close()
	}
	var err error
	if g.stores != nil {
		err = g.stores.close()
		g.stores = nil
	}
	if g.home != nil {
		err = errors.Join(err, g.home.lock.Close())
		g.home = nil
	}
	return err
}

// stores are the two stores of a gateway.
type stores struct {
	journal *journal.Journal
	ledger  *store.Store
	copying sync.RWMutex // held by backups; close excludes them
}

// prepareLedger deals with a ledger that is missing although this is not the
// first start.
func prepareLedger(cfg *Config, h *home, log *slog.Logger) error {
	dir := string(cfg.DataDir)
	// A directory alone is no ledger: it may be where one was mounted.
	if files, _ := os.ReadDir(filepath.Join(dir, "ledger")); len(files) > 0 {
		return nil
	}
	if len(h.network.Gateways) > 1 && !h.fresh {
		log.Error("the ledger is missing and is made anew from the other gateways", "data_dir", dir)
		return startOver(dir, log.With("store", "ledger"))
	}
	if files, _ := os.ReadDir(filepath.Join(dir, "journal")); len(files) > 0 { // what is wrong with it, opening says
		log.Error("the ledger is missing and is made anew; what the journal keeps is attached again", "data_dir", dir)
	}
	return nil
}

// openEpochs finds the network file to work with.
func (g *Gateway) openEpochs() error {
	stored, err := g.stores.ledger.Networks()
	if err != nil {
		return storeError(err)
	}
	own, err := g.stores.ledger.Own()
	if err != nil {
		return storeError(err)
	}
	g.epochs = newEpochs(&g.cfg, g.home, stored, own != nil && own.Recovering, g.log.With("stage", "epochs"))
	g.epochs.note = g.marker.note
	g.home.network = g.epochs.current()
	return nil
}

// begin has the ledger know that a new identity has never voted, whatever an
// earlier one did, and only then removes the marker that says so. A network of one
// has nobody who could tell what a lost ledger had voted, and nobody who was told.
func (g *Gateway) begin() error {
	own, err := g.stores.ledger.Own()
	if err != nil {
		return storeError(err)
	}
	if g.home.fresh || own == nil && len(g.home.network.Gateways) == 1 {
		if err := ledger.Begin(g.stores.ledger); err != nil {
			return storeError(fmt.Errorf("begin the ledger: %w", err))
		}
	}
	if err := g.marker.pair(); err != nil {
		return storeError(fmt.Errorf("mark the ledger as that of this start: %w", err))
	}
	return useIdentity(g.cfg.Identity)
}

// openStores opens both stores, or none.
func openStores(cfg *Config, log *slog.Logger) (*stores, error) {
	dir := string(cfg.DataDir)
	j, err := openJournal(cfg, log)
	if err != nil {
		return nil, err
	}
	if err := makeDir(filepath.Join(dir, "ledger")); err != nil {
		return nil, errors.Join(err, j.Close())
	}
	l, err := store.Open(filepath.Join(dir, "ledger"), store.Options{
		MaxDisk: int64(cfg.Ledger.Retention.MaxDisk), Reserve: int64(cfg.Journal.Reserve),
		Log: log.With("store", "ledger"),
	})
	if err != nil {
		return nil, errors.Join(storeError(err), j.Close())
	}
	return &stores{journal: j, ledger: l}, nil
}

func openJournal(cfg *Config, log *slog.Logger) (*journal.Journal, error) {
	j, err := journal.Open(filepath.Join(string(cfg.DataDir), "journal"), journal.Options{
		MaxDisk: int64(cfg.Journal.MaxDisk), Reserve: int64(cfg.Journal.Reserve),
		Retention: duration(cfg.Journal.Retention), Log: log.With("store", "journal"),
	})
	return j, storeError(err)
}

// close closes the journal last: what the ledger marked must not be newer
// than what the journal knows.
func (s *stores) close() error {
	s.copying.Lock()
	defer s.copying.Unlock()
	return errors.Join(storeError(s.ledger.Close()), storeError(s.journal.Close()))
}

// inDoubt returns the error of a write that has failed in one of the stores,
// whoever was told of it.
func (s *stores) inDoubt() (err error) {
	if of := s.ledger.Ready(); !errors.Is(of, ledger.ErrBusy) {
		err = of
	}
	if of := s.journal.Ready(); errors.Is(of, journal.ErrInDoubt) {
		err = errors.Join(err, of)
	}
	return err
}

// storeError marks the errors that a restart does not heal. The stores name
// them; what has another cause (a permission, a full disk) is left as it is.
func storeError(err error) error {
	for _, damaged := range []error{journal.ErrCorrupt, journal.ErrNewer, store.ErrDamaged, store.ErrNewer} {
		if errors.Is(err, damaged) {
			return fmt.Errorf("%w: %w", ErrStore, err)
		}
	}
	return err
}

// Run serves until ctx ends or a stage fails, and returns after everything
// has stopped and the stores are closed. When ctx ends, intake ends with it,
// and what was acknowledged is attached for up to shutdown.drain, or until
// now is closed. The error is nil unless something failed.
func (g *Gateway) Run(ctx context.Context, now <-chan struct{}) error {
	if err := announce(&g.cfg, g.sockets.http.Addr().String()); err != nil {
		return errors.Join(err, g.Close())
	}
	g.log.Info("gateway started", "name", g.cfg.Name, "network", g.home.network.NetworkName,
		"version", version, "data_dir", string(g.cfg.DataDir))
	for _, w := range warnings(&g.cfg) {
		g.log.Warn("configuration allows what is not safe", "alarm", w.Name, "text", w.Text)
	}
	for _, a := range g.epochs.standing() {
		g.log.Error(a.Text, "alarm", a.Name)
	}
	if text := lonely(&g.cfg, g.home.network); text != "" {
		g.log.Warn("no other gateway can be met", "text", text)
	}
	for _, protocol := range admitNobody(&g.cfg) {
		g.log.Warn("no device is admitted", "protocol", protocol, "unless", protocol+".anonymous: true")
	}
	if err := g.stores.journal.Ready(); err != nil {
		g.log.Warn("readings are refused for now", "err", err)
	}
	err := storeError(g.stages.run(ctx, now, duration(g.cfg.Shutdown.Drain), g.log))
	_ = os.Remove(g.cfg.runningPath())
	g.marker.note()
	waiting := g.Stats().Backlog
	if n := waiting.Stored + waiting.Batched; n > 0 && err == nil {
		g.log.Warn("readings are in no block yet; they are kept, and attached after the next start", "readings", n)
	}
	if err = errors.Join(err, g.Close()); err == nil {
		g.log.Info("gateway stopped")
	}
	return err
}

// Stats returns what the batching stage has done since the start.
func (g *Gateway) Stats() batching.Stats { return g.stages.batching.Stats() }

// Submit takes a packet in as the front ends do; for measurements.
func (g *Gateway) Submit(sub batching.Submission) (*batching.Receipt, error) {
	return g.stages.batching.Submit(sub)
}
