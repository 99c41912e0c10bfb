package gateway

import (
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/store"
)

// Joined says what [Join] did.
type Joined struct {
	Network *network.File
	Archive string // directory of the chain that the gateway had before; empty: it had none
	Already bool   // it was in this network, at this epoch
}

// joinFile stands in the data directory while the chain of a gateway is being
// replaced: it holds the network file that is joined, so that a join that was
// cut off can only go on.
const joinFile = "joining.json"

// Join makes the gateway of cfg, which must not run, a member of the network
// that the file at path describes. The file must name the gateway with its key.
//
// A gateway that has no network takes the file as it is; of a later epoch than
// the first, only if somebody signed it. One that is in the
// network takes the file of the next epoch if a quorum signed it ([network.File.Follows]).
// One that was alone in a network of its own leaves it: its chain goes, read
// only, to an archive in the data directory, and the readings that are in no
// block yet are attached to the new network when it starts.
//
// When it is cut off it is to be called again with the same file; a start in
// between is refused.
func Join(cfg Config, path string, log *slog.Logger) (_ *Joined, err error) {
	dir := string(cfg.DataDir)
	if err := makeDir(dir); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	if err := ownedBy(dir, os.Geteuid()); err != nil {
		return nil, err
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if err := errors.Join(repairDone(dir), unpackDone(dir)); err != nil {
		return nil, err
	}
	f, err := network.Load(path)
	if err != nil {
		return nil, err
	}
	key, err := readIdentity(cfg.Identity)
	if err != nil {
		return nil, err
	}
	if err := checkMember(f, cfg.Name, key.Public().(ed25519.PublicKey), path); err != nil {
		return nil, err
	}
	if err := sameJoin(dir, f); err != nil {
		return nil, err
	}
	j := &joining{dir: dir, target: cfg.networkPath(), file: f, log: log}
	return j.run()
}

// sameJoin refuses another file than that of a join that was cut off.
func sameJoin(dir string, f *network.File) error {
	begun, err := network.Load(filepath.Join(dir, joinFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case begun.Hash() != f.Hash():
		return fmt.Errorf("joining the network %s was cut off; call join with its file, a copy of which is %s", begun.NetworkName, filepath.Join(dir, joinFile))
	}
	return nil
}

// joinDone refuses to start on a data directory between two networks.
func joinDone(dir string) error {
	if name := filepath.Join(dir, joinFile); exists(name) {
		return fmt.Errorf("joining a network was cut off; finish it with: hedgerow join --config FILE %s", name)
	}
	return nil
}

type joining struct {
	dir    string
	target string // of the network file
	file   *network.File
	log    *slog.Logger
}

func (j *joining) run() (*Joined, error) {
	begun := exists(filepath.Join(j.dir, joinFile))
	old, err := network.Load(j.target)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !exists(filepath.Join(j.dir, "ledger")):
		if err := j.signed(); err != nil {
			return nil, err
		}
		return &Joined{Network: j.file}, j.file.Save(j.target)
	case err != nil:
		return nil, err
	case old.Hash() == j.file.Hash():
		// The archive is whole when the network file is in place.
		return &Joined{Network: j.file, Already: true}, j.finish()
	}
	follows := j.file.Follows(old)
	switch {
	case begun:
	case follows == nil:
		if err := keepEpoch(j.dir, old); err != nil {
			return nil, err
		}
		return &Joined{Network: j.file}, j.file.Save(j.target)
	case j.file.NetworkName == old.NetworkName:
		return nil, follows
	case len(old.Gateways) > 1:
		return nil, fmt.Errorf("this gateway is in the network %s of %s, which it would leave; take it out there first, and start with an empty data directory: %w",
			old.NetworkName, counted(len(old.Gateways), "gateway"), follows)
	}
	if err := j.signed(); err != nil {
		return nil, err
	}
	archive := filepath.Join(j.dir, "archive", old.NetworkName)
	if !begun && exists(archive) {
		return nil, fmt.Errorf("%s is there already: move it away, it would be mixed with the chain that this gateway has now", archive)
	}
	if err := j.file.Save(filepath.Join(j.dir, joinFile)); err != nil {
		return nil, err
	}
	if err := j.archive(old, archive); err != nil {
		return nil, fmt.Errorf("archive the chain of %s: %w", old.NetworkName, err)
	}
	if err := j.file.Save(j.target); err != nil {
		return nil, err
	}
	return &Joined{Network: j.file, Archive: archive}, j.finish()
}

// signed refuses a draft that nobody signed. That is all that a newcomer can
// see: the members whose signatures count stand in the epoch before.
func (j *joining) signed() error {
	if j.file.Epoch == 0 || len(j.file.Signatures) > 0 {
		return nil
	}
	return fmt.Errorf("%w: it is a draft of epoch %d without any signature; have a quorum of the gateways of epoch %d sign it (hedgerow network sign), and join the signed file",
		network.ErrUnsigned, j.file.Epoch, j.file.Epoch-1)
}

func (j *joining) finish() error {
	err := os.Remove(filepath.Join(j.dir, joinFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errors.Join(err, syncDir(j.dir))
}

// archive moves the ledger away and puts a new one in its place that knows what
// is attached already. Each step can be done again.
func (j *joining) archive(old *network.File, archive string) error {
	if err := makeDir(archive); err != nil {
		return err
	}
	if err := old.Save(filepath.Join(archive, "network.json")); err != nil {
		return err
	}
	from, to, next := filepath.Join(j.dir, "ledger"), filepath.Join(archive, "ledger"), filepath.Join(j.dir, "ledger.new")
	if !exists(to) { // from is the old one
		if err := os.RemoveAll(next); err != nil {
			return err
		}
		if err := j.carry(from, next, archive); err != nil {
			return err
		}
		if err := move(from, to); err != nil {
			return err
		}
	}
	if err := readOnly(to); err != nil { // it was opened to be read until here
		return err
	}
	if exists(next) {
		return move(next, from)
	}
	return nil
}

// move renames a directory, durably.
func move(from, to string) error {
	if err := syncDir(filepath.Dir(from)); err != nil { // it may be new
		return err
	}
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return errors.Join(syncDir(filepath.Dir(to)), syncDir(filepath.Dir(from)))
}

// carry makes a ledger that holds the marks of another one and nothing else.
// They name the genesis: the blocks are in the archive. The archive gets them,
// too, for a ledger that may be made anew later.
func (j *joining) carry(from, to, archive string) error {
	runs, err := store.ReadRuns(from, j.log)
	if err != nil {
		return err
	}
	text, err := json.Marshal(runs)
	if err != nil {
		return err
	}
	if err := createFile(filepath.Join(archive, marksFile), 0o400, text); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return store.CreateWithRuns(to, runs, true, j.log)
}

// readOnly takes the right to write from the files of a directory.
func readOnly(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, os.Chmod(filepath.Join(dir, e.Name()), 0o400))
	}
	return err
}

// String says what was joined.
func (j *Joined) String() string {
	hash := j.Network.Hash()
	return fmt.Sprintf("network %s, epoch %d, %s, hash 0x%s", j.Network.NetworkName, j.Network.Epoch, counted(len(j.Network.Gateways), "gateway"), hex.EncodeToString(hash[:]))
}
