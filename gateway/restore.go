package gateway

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hedgerow-iot/hedgerow/batching/archive"
	"github.com/hedgerow-iot/hedgerow/gateway/admin"
	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/peer"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
	"github.com/hedgerow-iot/hedgerow/ledger/store"
)

// A gateway that was in a network of several and whose ledger is new does not
// know which of its readings stand in a block: the others do. The new ledger
// holds the key restoringKey on the gateway's shelf until the marks are made
// from the gateway's own batches in the replica.
const shelfGateway = 'g'

var restoringKey = []byte("restoring")

// startOver makes a ledger in the data directory, where there must be none,
// whose marks are to be restored. It is there complete or not at all.
func startOver(dir string, log *slog.Logger) error {
	next := filepath.Join(dir, "ledger.new")
	if err := makeRestoring(next, log); err != nil {
		return fmt.Errorf("make a new ledger: %w", err)
	}
	return move(next, filepath.Join(dir, "ledger"))
}

// makeRestoring makes such a ledger at path, in the place of what is there.
func makeRestoring(path string, log *slog.Logger) error {
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	if err := makeDir(path); err != nil {
		return err
	}
	s, err := store.Open(path, store.Options{Reserve: 1, Log: log})
	if err != nil {
		return err
	}
	err = s.Shelf(shelfGateway).Write([][]byte{restoringKey}, [][]byte{{1}})
	return errors.Join(err, s.Close())
}

// A restorer makes the marks of a new ledger.
type restorer struct {
	key     ed25519.PublicKey
	shelf   *store.Shelf
	ledger  *ledger.Ledger
	archive *archive.Archive
	peers   *peer.Peers
	log     *slog.Logger
	done    atomic.Bool
}

// newRestorer returns nil when the ledger has its marks.
func newRestorer(s *stages, g *Gateway) (*restorer, error) {
	shelf := g.stores.ledger.Shelf(shelfGateway)
	if v, err := shelf.Get(restoringKey); v == nil || err != nil {
		return nil, err
	}
	return &restorer{
		key: g.home.key.Public().(ed25519.PublicKey), shelf: shelf,
		ledger: s.ledger, archive: s.archive, peers: s.peers, log: g.log.With("stage", "restore"),
	}, nil
}

// restore returns once the replica has what the others had, and the marks name
// every reading below next that stands in one of this gateway's blocks.
func (r *restorer) restore(ctx context.Context, next uint64) error {
	r.log.Warn("the ledger is new; nothing is attached before the blocks have come from the other gateways")
	if err := r.peers.Synced(ctx); err != nil {
		return err
	}
	if err := r.indexed(ctx, r.ledger.Position()); err != nil {
		return err
	}
	marked, err := r.mark(ctx, next)
	if err != nil {
		return err
	}
	if err := r.shelf.Write([][]byte{restoringKey}, [][]byte{nil}); err != nil {
		return fmt.Errorf("note that the ledger's marks are restored: %w", err)
	}
	r.done.Store(true)
	r.log.Info("the ledger's marks are restored", "blocks", r.ledger.Position(), "readings", marked)
	return nil
}

// indexed waits until the archive has looked at the blocks up to a position.
func (r *restorer) indexed(ctx context.Context, position uint64) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for r.archive.Stats().Position < position {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// mark marks the readings below next of all own batches, many at a time so that
// they share syncs. With an empty journal it marks them all: numbers go on above.
func (r *restorer) mark(ctx context.Context, next uint64) (marked uint64, err error) {
	var work errgroup.Group
	work.SetLimit(64)
	beyond := uint64(0)
	err = r.archive.Runs(r.key, func(runs [][2]uint64, block stardust.BlockID) bool {
		var own [][2]uint64
		for _, run := range runs {
			if next > 1 && run[1] >= next {
				beyond = max(beyond, run[1])
				run[1] = next - 1
			}
			if run[0] <= run[1] {
				own = append(own, run)
				marked += run[1] - run[0] + 1
			}
		}
		if len(own) > 0 {
			work.Go(func() error { return r.markBlock(ctx, block, own) })
		}
		return ctx.Err() == nil
	})
	if beyond > 0 {
		r.log.Error("the other gateways have readings of this one that its journal lacks: it was restored from an older copy", "up_to", beyond, "next", next)
	}
	return marked, errors.Join(err, work.Wait(), ctx.Err())
}

func (r *restorer) markBlock(ctx context.Context, id stardust.BlockID, runs [][2]uint64) error {
	raw, err := r.ledger.Block(id)
	if err != nil {
		return err
	}
	b, err := stardust.ParseBlock(raw)
	if err != nil {
		return fmt.Errorf("block %v: %w", id, err)
	}
	for {
		_, err := r.ledger.Attach(ctx, b, runs)
		switch {
		case errors.Is(err, ledger.ErrMarked):
			r.log.Warn("readings stand in two blocks", "err", err)
			return nil
		case !errors.Is(err, ledger.ErrBusy):
			return err
		}
		timer := time.NewTimer(100 * time.Millisecond)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
	}
}

// restoring is the alarm while marks are restored.
func (s *stages) restoring() []admin.Alarm {
	if s.restorer == nil || s.restorer.done.Load() {
		return nil
	}
	return []admin.Alarm{{Name: "restoring", Text: "the ledger is new; readings wait until its blocks have come from the other gateways"}}
}
