package gateway

import (
	"context"
	"crypto/ed25519"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hedgerow-iot/hedgerow/gateway/bus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/peer"
)

// meetSays is how often a gateway that waits for the others says so.
const meetSays = time.Minute

// Meet gets the first file of the network from the other gateways, for a newcomer
// that has joined a later epoch: without it the ledger cannot begin. It returns at
// once, and nil, if nothing is missing, or if something else is, which [New] says.
// Until one of the others answers, which they do once the newcomer's epoch has
// begun there, the API says what is waited for, and devices are not served.
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
	key, err := readIdentity(cfg.Identity)
	if err != nil {
		return err
	}
	if err := checkMember(f, cfg.Name, key.Public().(ed25519.PublicKey), cfg.networkPath()); err != nil {
		return err
	}
	first, err := (&newcomer{&cfg, key, f, log}).meet(ctx)
	if err != nil {
		return err
	}
	log.Info("first network file received", "network", first.NetworkName, "joined_epoch", f.Epoch)
	return keepEpoch(dir, first)
}

// A newcomer is a gateway that has nothing but its key and the network file that
// names it.
type newcomer struct {
	cfg  *Config
	key  ed25519.PrivateKey
	file *network.File
	log  *slog.Logger
}

// meet opens what the others are reached by, and what tells of it, until the
// first file has come.
func (n *newcomer) meet(ctx context.Context) (first *network.File, err error) {
	listener, err := net.Listen("tcp", n.cfg.API.Listen)
	if err != nil {
		return nil, listenError("http", n.cfg.API.Listen, err)
	}
	server := newHTTPServer(listener, http.HandlerFunc(n.wait), n.log)
	b, err := openBus(n.cfg, n.key, theMembers(n.file), n.log.With("stage", "bus"))
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	defer b.Close()
	if err := announce(n.cfg, listener.Addr().String()); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	below, end := context.WithCancel(ctx)
	defer end()
	g, below := errgroup.WithContext(below)
	g.Go(func() error { return server.run(below) })
	g.Go(func() error { return b.Run(below) })
	g.Go(func() error { return n.say(below) })
	g.Go(func() (err error) {
		defer end()
		first, err = n.fetch(below, b)
		return err
	})
	return first, g.Wait()
}

func (n *newcomer) fetch(ctx context.Context, b *bus.Bus) (*network.File, error) {
	return peer.FetchNetwork(ctx, peer.Config{Network: n.file, Key: n.key, Conn: b.Conn(), Log: n.log.With("stage", "peer")}, n.file.GenesisHash())
}

// waitsFor is what a newcomer waits for, in words.
const waitsFor = "this gateway is new in its network and waits for another member to hand out the network's first file; " +
	"they do once the epoch that names this gateway has begun there"

func (n *newcomer) wait(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Retry-After", "5")
	w.WriteHeader(http.StatusServiceUnavailable)
	_, _ = w.Write([]byte(`{"error":{"code":"503","message":"` + waitsFor + `"}}` + "\n"))
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
