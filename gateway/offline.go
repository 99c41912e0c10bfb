package gateway

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/gateway/admin"
	"github.com/hedgerow-iot/hedgerow/gateway/bus"
	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/peer"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
	"github.com/hedgerow-iot/hedgerow/powfarm"
)

// ErrEmpty is wrapped by the error of [OpenOffline] when no gateway ever
// stored anything in the data directory.
var ErrEmpty = errors.New("no readings are stored")

// Offline answers the admin's questions from stores that no gateway uses.
type Offline struct {
	http.Handler
	lock   *os.File
	stores *stores
	stage  resting
	token  string
}

// OpenOffline opens the stores of a gateway that does not run. No reading and
// no block is written; a store that was not closed is recovered as a start
// would. Close gives everything back. The error wraps [ErrEmpty], or is as
// that of [New].
func OpenOffline(cfg Config, log *slog.Logger) (_ *Offline, err error) {
	dir := string(cfg.DataDir)
	if _, err := os.Stat(filepath.Join(dir, "journal")); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w in %s", ErrEmpty, dir)
	} else if err != nil {
		return nil, fmt.Errorf("look for the stores: %w", err)
	}
	if err := ownedBy(dir, os.Geteuid()); err != nil {
		return nil, err
	}
	f, err := network.Load(cfg.networkPath())
	if err != nil {
		return nil, err
	}
	secret := make([]byte, 16)
	_, _ = rand.Read(secret) // never fails
	o := &Offline{token: hex.EncodeToString(secret)}
	defer func() {
		if err != nil {
			err = errors.Join(err, o.Close())
		}
	}()
	if o.lock, err = lockDir(dir); err != nil {
		return nil, err
	}
	if err = errors.Join(joinDone(dir), repairDone(dir), unpackDone(dir)); err != nil {
		return nil, err
	}
	if o.stores, err = openStores(&cfg, log); err != nil {
		return nil, err
	}
	genesis, err := openGenesis(dir, f)
	if err != nil {
		return nil, err
	}
	l, err := ledger.New(ledger.Config{Network: genesis, Log: log}, o.stores.ledger)
	if err != nil {
		return nil, storeError(err)
	}
	a, err := newArchive(func() *network.File { return f }, l, o.stores, log)
	if err != nil {
		return nil, storeError(err)
	}
	o.stage = resting{l}
	o.Handler, err = admin.New(admin.Config{
		Name: cfg.Name, Version: version, Token: o.token, Network: func() *network.File { return f },
		Settings: func() any { return settings(&cfg) }, Clock: newClock(),
	}, admin.Sources{
		Journal: o.stores.journal, Stage: o.stage, Ledger: l, Farm: noFarm{}, Archive: a,
		Peers: restingPeers{f, cfg.Name}, Bus: restingBus(cfg.Peers.Mode),
		Backup: &copier{&cfg, o.stores, func() *network.File { return f }},
	}, log)
	return o, err
}

// ownedBy refuses root on a directory of another user: the files that a store
// makes when it is opened would be root's, and its gateway could not open them.
func ownedBy(dir string, uid int) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || uid != 0 || st.Uid == 0 {
		return nil
	}
	who := "'#" + strconv.FormatUint(uint64(st.Uid), 10) + "'"
	if u, err := user.LookupId(strconv.FormatUint(uint64(st.Uid), 10)); err == nil {
		who = u.Username
	}
	return fmt.Errorf("%s belongs to user %s, whose gateway could not open the files that root would leave there; "+
		"ask as that user, with sudo -u %s", dir, who, who)
}

// Token is what the handler wants as the admin token.
func (o *Offline) Token() string { return o.token }

// Close closes the stores and gives the data directory back.
func (o *Offline) Close() error {
	var err error
	if o.stores != nil {
		err = o.stores.close()
	}
	if o.lock != nil {
		err = errors.Join(err, o.lock.Close())
	}
	return err
}

// resting is a batching stage that does nothing: what stands in no block is
// stored.
type resting struct{ ledger *ledger.Ledger }

func (r resting) State(seq uint64) (batching.State, stardust.BlockID, error) {
	block, ok, err := r.ledger.Marked(seq)
	switch {
	case err != nil:
		return "", block, err
	case ok:
		return batching.Attached, block, nil
	}
	return batching.Stored, block, nil
}

func (r resting) Stats() batching.Stats { return batching.Stats{} }

func (r resting) WaitStored(ctx context.Context, before uint64) (uint64, error) {
	<-ctx.Done()
	return before, context.Cause(ctx)
}

func (r resting) Ready() error { return errors.New("the gateway does not run") }

type noFarm struct{}

func (noFarm) Stats() powfarm.Stats { return powfarm.Stats{} }

// restingPeers are the other gateways while nobody listens to them.
type restingPeers struct {
	file *network.File
	own  string // name
}

func (r restingPeers) Stats() peer.Stats {
	s := peer.Stats{Members: []peer.Member{}}
	for _, g := range r.file.Gateways {
		if g.Name != r.own {
			s.Members = append(s.Members, peer.Member{Gateway: g})
		}
	}
	return s
}

// restingBus is a connection that is not made.
type restingBus bus.Mode

func (r restingBus) Status() bus.Status { return bus.Status{Mode: bus.Mode(r)} }
