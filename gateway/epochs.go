package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/peer"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// updatePatience is how long a network file in a block may take to come into
// force before it is attached once more.
const updatePatience = time.Minute

// epochs keeps the network file: it puts one of the next epoch, which somebody
// joined, before the members, and those that they have agreed on into force.
type epochs struct {
	dir    string // data directory
	path   string // of the network file
	file   atomic.Pointer[network.File]
	begun  chan *network.File // by the ledger; some are left out if later ones follow
	ledger *ledger.Ledger
	peers  *peer.Peers
	prover prover
	log    *slog.Logger
}

func newEpochs(cfg *Config, h *home, log *slog.Logger) *epochs {
	e := &epochs{dir: string(cfg.DataDir), path: cfg.networkPath(), begun: make(chan *network.File, 1), log: log}
	e.file.Store(h.network)
	return e
}

// current returns the newest network file: that in force, or the one of the next
// epoch that this gateway has joined.
func (e *epochs) current() *network.File { return e.file.Load() }

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

// run puts epochs into force until ctx ends.
func (e *epochs) run(ctx context.Context) error {
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		select {
		case f := <-e.begun:
			if err := e.enter(f); err != nil {
				return err
			}
		case <-retry.C:
			if err := e.propose(ctx); err != nil && ctx.Err() == nil {
				e.log.Warn("the network file of the next epoch is not attached yet", "err", err)
			}
			if e.current().Epoch > e.ledger.Agreed().Epoch {
				retry.Reset(updatePatience)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// enter takes a network file that has come into force in the place of the one
// before, unless that is it already.
func (e *epochs) enter(f *network.File) error {
	old := e.current()
	if f.Epoch <= old.Epoch {
		return nil
	}
	if err := errors.Join(keepEpoch(e.dir, old), f.Save(e.path)); err != nil {
		return fmt.Errorf("keep the network file of epoch %d: %w", f.Epoch, err)
	}
	e.file.Store(f)
	e.peers.SetNetwork(f)
	e.log.Info("network file of the epoch in force saved", "epoch", f.Epoch, "file", e.path)
	return nil
}

// propose attaches the network file if it is of the next epoch, once this
// replica knows what the others have.
func (e *epochs) propose(ctx context.Context) error {
	f := e.current()
	if f.Epoch == e.ledger.Agreed().Epoch {
		return nil
	}
	if err := e.peers.Synced(ctx); err != nil {
		return err
	}
	if f.Epoch != e.ledger.Agreed().Epoch+1 {
		return nil // there, or the epochs between are to be confirmed first
	}
	id, err := attachUpdate(ctx, f, e.ledger, e.prover)
	if err == nil {
		e.log.Info("network file of the next epoch attached; it is in force once it is confirmed", "epoch", f.Epoch, "block", id)
	}
	return err
}

// attachUpdate attaches a network file as a block (consensus.md §2).
func attachUpdate(ctx context.Context, f *network.File, l *ledger.Ledger, p prover) (stardust.BlockID, error) {
	text, err := json.Marshal(f)
	if err != nil {
		return stardust.GenesisID, err
	}
	b := &stardust.Block{
		Version: stardust.ProtocolVersion, Parents: l.Tips(),
		Payload: &stardust.TaggedData{Tag: []byte(consensus.TagUpdate), Data: text},
	}
	raw, err := b.AppendBinary(nil)
	if err != nil {
		return stardust.GenesisID, fmt.Errorf("network file as a block: %w", err)
	}
	b.Nonce, err = p.Prove(ctx, stardust.PoWDigest(raw), stardust.TargetZeros(len(raw), l.MinPoWScore()))
	if err != nil {
		return stardust.GenesisID, fmt.Errorf("proof of work of a network file: %w", err)
	}
	return l.Attach(ctx, b, nil)
}
