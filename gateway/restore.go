package gateway

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
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

// restoringFile stands in the data directory of a gateway of several whose
// ledger is new although it is not new itself: it does not know which of its
// readings stand in a block, but the others do. It goes when the marks are made
// from the gateway's own batches in the replica.
const restoringFile = "restoring.json"

// A restoring is the content of the file.
type restoring struct {
	// Next is the journal's next number when it was first opened beside the new
	// ledger; 0 until then. Numbers from it on are of readings that came since.
	Next uint64 `json:"next"`
}

func readRestoring(dir string) (*restoring, error) {
	return readJSON[restoring](filepath.Join(dir, restoringFile))
}

// readJSON reads a small file; nil when there is none.
func readJSON[T any](path string) (*T, error) {
	b, err := readSecretFile(path, false) // for its bound
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	v := new(T)
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return v, nil
}

// write makes the file, or replaces it, durably.
func (r restoring) write(dir string) error {
	return replaceFile(filepath.Join(dir, restoringFile), r)
}

// startOver makes a ledger where there is none, whose marks are to be restored.
func startOver(dir string, log *slog.Logger) error {
	if err := (restoring{}).write(dir); err != nil {
		return fmt.Errorf("note that the ledger's marks are to be restored: %w", err)
	}
	next, ledger := filepath.Join(dir, "ledger.new"), filepath.Join(dir, "ledger")
	if err := newLedger(dir, next, log); err != nil {
		return fmt.Errorf("make a new ledger: %w", err)
	}
	if err := os.Remove(ledger); err != nil && !errors.Is(err, fs.ErrNotExist) { // it is an empty directory
		return fmt.Errorf("make a new ledger: %w; there is no store in it, so put back what it held, or make it an empty directory that can be replaced", err)
	}
	return move(next, ledger)
}

// newLedger makes a ledger at path, in the place of what is there, that marks
// what stands in the archived chains of the data directory and nothing else.
func newLedger(dir, path string, log *slog.Logger) error {
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	runs, err := archivedRuns(dir)
	if err != nil {
		return err
	}
	return store.CreateWithRuns(path, runs, false, log)
}

// marksFile stands in the archive of a chain: the runs of readings that had
// been marked when it was left.
const marksFile = "marks.json"

// archivedRuns returns those of the chain left last, which had carried over
// those of the chains before.
func archivedRuns(dir string) (runs [][2]uint64, err error) {
	names, err := filepath.Glob(filepath.Join(dir, "archive", "*", marksFile))
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		var these [][2]uint64
		if err := json.Unmarshal(b, &these); err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		if n, m := len(these), len(runs); n > 0 && (m == 0 || these[n-1][1] > runs[m-1][1]) {
			runs = these
		}
	}
	return runs, nil
}

// How long a gateway waits, before it attaches anything, for the others to say
// which of its numbers they know: for the first one to be heard of, and for what
// they have.
const (
	meetFor  = 4 * time.Second
	learnFor = 20 * time.Second
)

// A restorer learns from the other gateways, before anything is attached, what
// they know of this one's readings: after the loss of the ledger which of them
// stand in a block, and at every start whether there are numbers that the
// journal has not given yet, as when the data directory was put back to an older
// copy.
type restorer struct {
	dir     string
	key     ed25519.PublicKey
	next    uint64 // of the journal; what others have from it on is of a journal that is gone
	lost    bool   // the ledger's marks are to be made
	ledger  *ledger.Ledger
	archive *archive.Archive
	peers   *peer.Peers
	log     *slog.Logger
	done    atomic.Bool
}

// newRestorer returns nil when there is nobody to learn from, or nothing.
func newRestorer(s *stages, g *Gateway) (*restorer, error) {
	dir := string(g.cfg.DataDir)
	lost, err := readRestoring(dir)
	if err != nil {
		return nil, err
	}
	if lost == nil && (len(g.home.network.Gateways) == 1 || g.home.fresh) {
		return nil, nil
	}
	r := &restorer{
		dir: dir, key: g.home.key.Public().(ed25519.PublicKey), next: s.journal.Next(), lost: lost != nil,
		ledger: s.ledger, archive: s.archive, peers: s.peers, log: g.log.With("stage", "restore"),
	}
	if !r.lost {
		return r, nil
	}
	s.peers.Restoring(true)
	if lost.Next > 0 {
		r.next = lost.Next
		return r, nil
	}
	return r, restoring{r.next}.write(dir) // before intake gives the next number
}

// restore returns once it is known what the others know. above is the highest
// number that they have and the journal has not given; 0: there is none.
func (r *restorer) restore(ctx context.Context) (above uint64, err error) {
	defer r.done.Store(true)
	if r.lost {
		return r.restoreMarks(ctx)
	}
	if err := r.learn(ctx); err != nil {
		return 0, err
	}
	highest, ok, err := r.archive.Highest(r.key)
	if err != nil || !ok || highest < r.next {
		return 0, err
	}
	r.log.Error("the other gateways have readings of this one that its journal lacks: the data directory is an older copy",
		"up_to", highest, "next", r.next)
	_, err = r.mark(ctx)
	return highest, err
}

// learn waits for the blocks of others that are up, for a while.
func (r *restorer) learn(ctx context.Context) error {
	soon, cancel := context.WithTimeout(ctx, meetFor)
	defer cancel()
	if r.peers.Met(soon) != nil {
		return ctx.Err()
	}
	later, cancel := context.WithTimeout(ctx, learnFor)
	defer cancel()
	if r.peers.Synced(later) == nil {
		_ = r.indexed(later, r.ledger.Position())
	}
	return ctx.Err()
}

// restoreMarks waits until the replica has what the others had, and marks every
// reading that stands in one of this gateway's blocks.
func (r *restorer) restoreMarks(ctx context.Context) (above uint64, err error) {
	r.log.Warn("the ledger is new, or an older copy; nothing is attached before the blocks have come from the other gateways")
	if err := r.peers.Synced(ctx); err != nil {
		return 0, err
	}
	if err := r.indexed(ctx, r.ledger.Position()); err != nil {
		return 0, err
	}
	marked, err := r.mark(ctx)
	if err != nil {
		return 0, err
	}
	highest, _, err := r.archive.Highest(r.key)
	if err != nil {
		return 0, err
	}
	if highest >= r.next {
		above = highest
		r.log.Error("the other gateways have readings of this one that its journal lacks", "up_to", highest, "next", r.next)
	}
	// The next start must know that the numbers are in use before this goes; it
	// learns that from the others, too.
	if err := errors.Join(os.Remove(filepath.Join(r.dir, restoringFile)), syncDir(r.dir)); err != nil {
		return 0, fmt.Errorf("note that the ledger's marks are restored: %w", err)
	}
	r.peers.Restoring(false)
	r.log.Info("the ledger's marks are restored", "blocks", r.ledger.Position(), "readings", marked)
	return above, nil
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
func (r *restorer) mark(ctx context.Context) (marked uint64, err error) {
	var work errgroup.Group
	work.SetLimit(64)
	err = r.archive.Runs(r.key, func(runs [][2]uint64, block stardust.BlockID) bool {
		var own [][2]uint64
		for _, run := range runs {
			if r.next > 1 {
				run[1] = min(run[1], r.next-1)
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
	return marked, errors.Join(err, work.Wait(), ctx.Err())
}

func (r *restorer) markBlock(ctx context.Context, id stardust.BlockID, runs [][2]uint64) error {
	raw, err := r.ledger.Block(id)
	if errors.Is(err, ledger.ErrNotFound) { // pruned since it was indexed
		r.log.Warn("a block of this gateway is kept no more; its readings are attached again", "block", id, "readings", runs)
		return nil
	}
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

// recovering is the alarm while this gateway does not know in which rounds it may
// have voted (consensus.md §7).
func (s *stages) recovering() []admin.Alarm {
	if !s.ledger.Trouble().Recovering {
		return nil
	}
	f := s.epochs.current()
	text := "this gateway does not vote: its ledger is new or an older copy, or its key is in use elsewhere; it votes again once a quorum of the others has said which of its votes they know"
	if !mayRecover(f, s.epochs.self.PublicKey[:]) {
		text = "this gateway does not vote: its ledger is new or an older copy, or its key is in use elsewhere, and the others are no quorum without it; have it take part with another key"
	}
	return []admin.Alarm{{Name: "recovering", Text: text}}
}

// restoring are the alarms while readings wait for what the other gateways have.
func (s *stages) restoring() (all []admin.Alarm) {
	if s.restorer != nil && s.restorer.lost && !s.restorer.done.Load() {
		all = append(all, admin.Alarm{Name: "restoring", Text: "the ledger is new, or an older copy; readings wait until its blocks have come from the other gateways"})
	}
	if s.ledger.Syncing() {
		all = append(all, admin.Alarm{Name: "syncing", Text: "the others have pruned what this gateway missed; readings wait until it has taken over their milestones"})
	}
	return all
}
