package gateway

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/hedgerow-iot/hedgerow/batching/journal"
	"github.com/hedgerow-iot/hedgerow/gateway/backup"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/store"
)

// unpackingFile stands in the data directory while a backup is restored into
// it, so that a restore that was cut off can only be begun anew.
const unpackingFile = "unpacking"

// Steps of [Restore], for who shows its progress.
const (
	StepVerify  = "verifying"
	StepLedger  = "ledger"
	StepJournal = "journal"
	StepCheck   = "checking"
)

// Restored says what [Restore] did.
type Restored struct {
	backup.Header
	Readings, Blocks uint64
	Next             string // what becomes of the gateway now, as a sentence
}

// A restore is a call of [Restore].
type restore struct {
	cfg      *Config
	dir      string
	file     *backup.File
	key      ed25519.PublicKey
	network  *network.File // that will stand in the data directory, or stands where the configuration says
	replaced *network.File // that of the backup, if it is an older one
	progress func(step string, read int64)
	log      *slog.Logger
}

// Restore puts the backup at path into the data directory of cfg, which must be
// empty, for the gateway whose identity key is there already: a backup has none.
// The backup is verified before anything is written, and both stores are checked
// whole afterwards. A restored gateway never votes twice in one round and gives
// no number twice, see [Restored].Next.
//
// When it is cut off it is to be called again; a start in between is refused.
// The error wraps [backup.ErrDamaged] or [backup.ErrNewer] when that is why.
func Restore(ctx context.Context, cfg Config, path string, log *slog.Logger, progress func(step string, read int64)) (_ *Restored, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // nothing was written
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	r := &restore{cfg: &cfg, dir: string(cfg.DataDir), progress: progress, log: log}
	if r.file, err = backup.Open(f, info.Size(), func(n int64) { progress(StepVerify, n) }); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := r.mine(); err != nil {
		return nil, err
	}
	if err := makeDir(r.dir); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	if err := ownedBy(r.dir, os.Geteuid()); err != nil {
		return nil, err
	}
	lock, err := lockDir(r.dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if err := r.room(info.Size()); err != nil {
		return nil, err
	}
	return r.run(ctx)
}

// mine refuses a backup that is not of this gateway, or that this program does
// not know.
func (r *restore) mine() error {
	for name, newest := range map[string]int{backupJournal: journal.Format, backupLedger: store.Format} {
		if found := r.file.Stores[name]; found > newest || found < 1 {
			return fmt.Errorf("%w: its %s has format %d, this program knows %d", backup.ErrNewer, name, found, newest)
		}
	}
	if r.file.Gateway != r.cfg.Name {
		return fmt.Errorf("the backup is of gateway %s, the configuration says name: %s", clip(r.file.Gateway), r.cfg.Name)
	}
	key, err := readIdentity(r.cfg.Identity)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w; a backup never holds it: put the gateway's key back first", err)
	}
	if err != nil {
		return err
	}
	r.key = key.Public().(ed25519.PublicKey)
	if own := network.PublicKey(r.key).String(); own != r.file.PublicKey {
		return fmt.Errorf("the backup is of a gateway with the key %s, the identity key here is %s", clip(r.file.PublicKey), own)
	}
	text, err := r.file.ReadFile(backupNetwork)
	if err != nil {
		return err
	}
	if r.network, err = network.Parse(text); err != nil {
		return err
	}
	if err := r.newerNetwork(); err != nil {
		return err
	}
	return newMarker(r.cfg.Identity, r.key, r.network, nil, r.log).outgrown(r.network, "name it in the configuration (network: FILE), and restore again")
}

// newerNetwork takes the network file that the configuration names, if there is
// one, in the place of the backup's.
func (r *restore) newerNetwork() error {
	if r.cfg.Network == "" {
		return nil
	}
	there, err := network.Load(string(r.cfg.Network))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case there.GenesisHash() != r.network.GenesisHash():
		return fmt.Errorf("the backup is of the network %s, %s is the file of another, %s", r.network.NetworkName, r.cfg.Network, there.NetworkName)
	case there.Epoch > r.network.Epoch:
		r.network, r.replaced = there, r.network
	}
	return nil
}

// room looks whether the data directory is empty, but for what a restore that
// was cut off left, which it removes, and whether its disk has room.
func (r *restore) room(size int64) error {
	files, err := os.ReadDir(r.dir)
	if err != nil {
		return err
	}
	begun := exists(filepath.Join(r.dir, unpackingFile))
	for _, f := range files {
		switch name := f.Name(); {
		case name == lockFile || name == unpackingFile:
		case !begun:
			return fmt.Errorf("%s is not empty: %s is there. A restore replaces nothing: move what is there away, and keep it until the restored gateway runs", r.dir, name)
		default:
			if err := os.RemoveAll(filepath.Join(r.dir, name)); err != nil {
				return err
			}
		}
	}
	disk, err := statDisk(r.dir)
	if need := 2*size + int64(r.cfg.Journal.Reserve); err == nil && disk.free < need {
		return fmt.Errorf("%s has %s free, %s are needed", r.dir, bytesText(disk.free), bytesText(need))
	}
	return nil
}

func (r *restore) run(ctx context.Context) (*Restored, error) {
	mark := filepath.Join(r.dir, unpackingFile)
	if err := createFile(mark, 0o600, nil); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	if err := useIdentity(r.cfg.Identity); err != nil { // it is not new
		return nil, err
	}
	if err := r.files(); err != nil {
		return nil, err
	}
	if err := r.unpack(ctx); err != nil {
		return nil, err
	}
	done, err := r.finish(ctx)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(os.Remove(mark), syncDir(r.dir)); err != nil {
		return nil, errors.Join(err, os.WriteFile(mark, nil, 0o600)) // what is there must not count
	}
	return done, nil
}

// files writes the network files.
func (r *restore) files() error {
	for epoch := range r.network.Epoch {
		if !r.file.Has(backupEpoch(epoch)) {
			continue
		}
		text, err := r.file.ReadFile(backupEpoch(epoch))
		if err != nil {
			return err
		}
		f, err := network.Parse(text)
		if err != nil {
			return fmt.Errorf("%s of the backup: %w", backupEpoch(epoch), err)
		}
		if f.Epoch != epoch {
			return fmt.Errorf("%w: %s is of epoch %d", backup.ErrDamaged, backupEpoch(epoch), f.Epoch)
		}
		if err := keepEpoch(r.dir, f); err != nil {
			return err
		}
	}
	if r.replaced != nil {
		if err := keepEpoch(r.dir, r.replaced); err != nil {
			return err
		}
	}
	return r.network.Save(r.cfg.networkPath())
}

// unpack makes the stores.
func (r *restore) unpack(ctx context.Context) error {
	next := func(name, step string) backup.Next {
		records := r.file.Store(name, func(n int64) { r.progress(step, n) })
		return func() (key, value []byte, expires uint64, err error) {
			if ctx.Err() != nil {
				return nil, nil, 0, context.Cause(ctx)
			}
			return records()
		}
	}
	if err := store.Import(filepath.Join(r.dir, "ledger"), next(backupLedger, StepLedger), r.log); err != nil {
		return err
	}
	return journal.Import(filepath.Join(r.dir, "journal"), next(backupJournal, StepJournal), journal.Options{Reserve: 1, Log: r.log})
}

// finish checks the stores and prepares them as those of an older copy.
func (r *restore) finish(ctx context.Context) (_ *Restored, err error) {
	s, err := openStores(r.cfg, r.log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.inDoubt(), s.close()) }()
	r.progress(StepCheck, 0)
	if err := errors.Join(s.ledger.Check(ctx), s.journal.Check(ctx)); err != nil {
		return nil, err
	}
	position, _, _, err := s.ledger.Count()
	if err != nil {
		return nil, err
	}
	alone, err := s.copied(r.dir, r.network)
	if err != nil {
		return nil, err
	}
	if err := newMarker(r.cfg.Identity, r.key, r.network, s.ledger, r.log).pair(); err != nil {
		return nil, err
	}
	return &Restored{r.file.Header, s.journal.Stats().Readings, position, afterCopy(r.network, r.key, alone)}, nil
}

// unpackDone refuses to use a data directory in which a restore was cut off.
func unpackDone(dir string) error {
	if exists(filepath.Join(dir, unpackingFile)) {
		return errors.New("restoring a backup was cut off; begin it anew with: hedgerow restore FILE")
	}
	return nil
}
