package gateway

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching/archive"
	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/api"
	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/peer"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
	"github.com/hedgerow-iot/hedgerow/ledger/store"
	"github.com/hedgerow-iot/hedgerow/powfarm"
	"github.com/hedgerow-iot/hedgerow/powfarm/remote"
)

// refetchPatience is how long whoever reads a damaged block waits for the peers.
const refetchPatience = 10 * time.Second

// tangleStages builds the replica and what follows it.
func (s *stages) tangleStages(g *Gateway) (err error) {
	file, log := g.home.network, g.log
	s.epochs = g.epochs
	s.ledger, err = ledger.New(ledger.Config{
		Network: g.home.genesis, Key: g.home.key, Clock: voteClock(), Log: log.With("stage", "ledger"),
		Announce: func(id stardust.BlockID, raw []byte) { s.peers.Announce(id, raw) },
		Publish:  func(sig consensus.Signature) { s.peers.Certified(sig) },
		OnEpoch:  s.epochs.begin,
		Retention: ledger.Retention{
			Blocks: duration(g.cfg.Ledger.Retention.Blocks), Votes: duration(g.cfg.Ledger.Retention.Votes),
			// The marks are made from own batches.
			Hold: func(stardust.BlockID) bool { return s.restorer != nil && s.restorer.lost && !s.restorer.done.Load() },
		},
		Refetch: func(id stardust.BlockID) ([]byte, error) {
			ctx, cancel := context.WithTimeout(context.Background(), refetchPatience)
			defer cancel()
			return s.peers.Fetch(ctx, id)
		},
	}, g.stores.ledger)
	if err != nil {
		return storeError(err)
	}
	if s.archive, err = newArchive(s.epochs.current, s.ledger, g.stores, log.With("stage", "archive")); err != nil {
		return storeError(err)
	}
	s.peers, err = peer.New(peer.Config{
		Network: file, Key: g.home.key, Conn: g.bus.Conn(),
		Cursors: cursors{g.stores.ledger.Shelf(shelfPeers)}, Log: log.With("stage", "peer"),
	}, s.ledger)
	if err != nil {
		return storeError(err)
	}
	s.epochs.ledger, s.epochs.peers = s.ledger, s.peers
	s.events = api.NewEvents(s.ledger, tangleEvents{s}, log.With("stage", "events"))
	return nil
}

// remoteStages builds what exchanges proof of work with other boxes.
func (s *stages) remoteStages(g *Gateway) (err error) {
	cfg, file, log := &g.cfg, g.home.network, g.log.With("stage", "remote")
	members := func() (all []remote.Peer) {
		for _, m := range s.epochs.current().Gateways {
			all = append(all, remote.Peer{Name: m.Name, Key: remote.Key(m.PublicKey)})
		}
		return all
	}
	rate := func() float64 { return s.farm.Stats().Rate() }
	if cfg.Powfarm.Remote.Use {
		workers, err := remoteWorkers(cfg)
		if err != nil {
			return err
		}
		c := remote.PoolConfig{Key: g.home.key, Genesis: file.GenesisHash(), Prefix: subjects(file), Members: members, Rate: rate}
		for _, w := range workers {
			c.Workers = append(c.Workers, remote.Key(w))
		}
		if s.pool, err = remote.NewPool(c, g.bus.Conn(), log); err != nil {
			return err
		}
	}
	if cfg.Powfarm.Remote.Serve {
		s.lend, err = remote.NewServer(remote.ServerConfig{
			Name: cfg.Name, Key: g.home.key, Genesis: file.GenesisHash(), Prefix: subjects(file), Gateways: members,
			Kernel: s.farm.Stats().Kernel, Rate: rate,
		}, g.bus.Conn(), s.farm.For(powfarm.Guest), log)
	}
	return err
}

// A prover finds nonces for one priority.
type prover interface {
	Prove(ctx context.Context, digest [32]byte, zeros int) (nonce uint64, err error)
}

// prover returns the farm, together with the workers on other boxes when they
// are used.
func (s *stages) prover(p powfarm.Priority) prover {
	if s.pool == nil {
		return s.farm.For(p)
	}
	return s.pool.For(s.farm.For(p), p)
}

// Names of the shelves in the ledger's store.
const (
	shelfArchive = 'a'
	shelfPeers   = 'p'
)

func newArchive(file func() *network.File, l *ledger.Ledger, st *stores, log *slog.Logger) (*archive.Archive, error) {
	members := func() []archive.Member {
		var all []archive.Member
		for _, m := range file().Gateways {
			all = append(all, archive.Member{Name: m.Name, Key: m.PublicKey[:]})
		}
		return all
	}
	return archive.New(archive.Config{
		Genesis: file().GenesisHash(), Members: members, Network: func() [32]byte { return file().Hash() },
		Transient: func(err error) bool { return errors.Is(err, ledger.ErrBusy) }, Log: log,
	}, l, st.ledger.Shelf(shelfArchive))
}

// cursors keeps how far the peers were followed, beside what came from them.
type cursors struct{ shelf *store.Shelf }

var cursorsKey = []byte("cursors")

func (c cursors) Load() ([]byte, error) { return c.shelf.Get(cursorsKey) }

func (c cursors) Save(b []byte) error {
	return c.shelf.Write([][]byte{cursorsKey}, [][]byte{b})
}
