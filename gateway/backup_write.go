package gateway

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching/journal"
	"github.com/hedgerow-iot/hedgerow/gateway/backup"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/store"
)

// Names of what stands in a backup.
const (
	backupNetwork = "network.json"
	backupConfig  = "hedgerow.yaml"
	backupJournal = "journal"
	backupLedger  = "ledger"
)

// backupEpoch is the name of the network file of an epoch before the one in
// force.
func backupEpoch(epoch uint32) string { return fmt.Sprintf("epochs/%d.json", epoch) }

// A copier makes backups of a gateway, running or not. It implements
// [admin.Backup].
type copier struct {
	cfg     *Config
	stores  *stores
	network func() *network.File // the newest one
}

// Size implements [admin.Backup]: what the stores take on disk.
func (c *copier) Size() int64 {
	ledger, _ := c.stores.ledger.DiskBytes() // an estimate
	return c.stores.journal.Stats().DiskBytes + ledger
}

// Write implements [admin.Backup]. The copies are taken in the order in which
// they need each other: the ledger first, because the journal must know every
// number that the ledger marks, and the network file last, because it must not
// be older than the ledger. Neither the identity key nor the admin token is
// among what is copied.
func (c *copier) Write(ctx context.Context, w io.Writer) error {
	c.stores.copying.RLock()
	defer c.stores.copying.RUnlock()
	ledger := c.stores.ledger.Snapshot()
	defer ledger.Close()
	readings, err := c.stores.journal.Snapshot()
	if err != nil {
		return err
	}
	defer readings.Close()
	f := c.network()
	header, err := c.header(f)
	if err != nil {
		return err
	}
	files, err := c.files(f, header)
	if err != nil {
		return err
	}
	b, err := backup.NewWriter(w, *header)
	if err != nil {
		return err
	}
	for i, name := range header.Files {
		if err := b.File(name, files[i]); err != nil {
			return err
		}
	}
	if err := b.Store(backupLedger, stoppable(ctx, ledger.Each)); err != nil {
		return fmt.Errorf("copy the ledger: %w", err)
	}
	if err := b.Store(backupJournal, stoppable(ctx, readings.Each)); err != nil {
		return fmt.Errorf("copy the journal: %w", err)
	}
	return b.Close()
}

// records is how stores hand out what is in them.
type records = func(yield func(key, value []byte, expires uint64) error) error

// stoppable ends when ctx does.
func stoppable(ctx context.Context, each records) records {
	return func(yield func(key, value []byte, expires uint64) error) error {
		return each(func(key, value []byte, expires uint64) error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return yield(key, value, expires)
		})
	}
}

func (c *copier) header(f *network.File) (*backup.Header, error) {
	genesis := f.GenesisHash()
	h := &backup.Header{
		Created: time.Now().UTC().Truncate(time.Second), Version: version, Gateway: c.cfg.Name,
		Network: f.NetworkName, Genesis: hex.EncodeToString(genesis[:]), Epoch: f.Epoch, Gateways: len(f.Gateways),
		Stores: map[string]int{backupJournal: journal.Format, backupLedger: store.Format},
	}
	for _, g := range f.Gateways {
		if g.Name == c.cfg.Name {
			h.PublicKey = g.PublicKey.String()
			return h, nil
		}
	}
	return nil, fmt.Errorf("the network file has no gateway %s any more", c.cfg.Name)
}

// files returns the small files, whose names it notes in the header.
func (c *copier) files(f *network.File, h *backup.Header) (all [][]byte, err error) {
	add := func(name string, content []byte) { h.Files, all = append(h.Files, name), append(all, content) }
	text, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return nil, err
	}
	add(backupNetwork, text)
	for epoch := range f.Epoch {
		b, err := readBounded(epochPath(string(c.cfg.DataDir), epoch))
		switch {
		case errors.Is(err, fs.ErrNotExist) && epoch > 0: // joined later
		case err != nil:
			return nil, err
		default:
			add(backupEpoch(epoch), b)
		}
	}
	if c.cfg.File == "" {
		return all, nil
	}
	// What a file that is no configuration holds, nobody has checked for secrets.
	if _, err := Load(c.cfg.File, nil); err != nil {
		return all, nil
	}
	b, err := readBounded(c.cfg.File)
	if err == nil {
		add(backupConfig, b)
	}
	return all, err
}

// maxBackupFile bounds a small file, in bytes.
const maxBackupFile = 4 << 20

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // nothing was written
	b, err := io.ReadAll(io.LimitReader(f, maxBackupFile+1))
	if err == nil && len(b) > maxBackupFile {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxBackupFile)
	}
	return b, err
}

// SaveBackup writes the backup that comes from r to path, which it replaces
// once the new one is whole, checked and durable. progress is called with the
// bytes that were written. The error wraps [backup.ErrDamaged] when r ended
// early; nothing is left beside path then.
func SaveBackup(path string, r io.Reader, progress func(written int64)) (h backup.Header, err error) {
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return h, err
	}
	f, err := os.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return h, err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(tmp)
		}
	}()
	size, err := io.Copy(f, told{r, progress, new(int64)})
	if err != nil {
		return h, fmt.Errorf("take the backup: %w", err)
	}
	if err := f.Sync(); err != nil {
		return h, err
	}
	b, err := backup.Open(f, size, nil)
	if err != nil {
		return h, err
	}
	if err := f.Close(); err != nil {
		return h, err
	}
	if err := os.Rename(tmp, path); err != nil {
		return h, err
	}
	return b.Header, syncDir(filepath.Dir(path))
}

// told tells how much was read.
type told struct {
	io.Reader
	tell func(int64)
	n    *int64
}

func (t told) Read(b []byte) (int, error) {
	n, err := t.Reader.Read(b)
	*t.n += int64(n)
	t.tell(*t.n)
	return n, err
}
