package gateway

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

// home is what a gateway finds or makes before its stores: the lock, who it
// is, and which network it is in.
type home struct {
	lock    *os.File
	key     ed25519.PrivateKey
	token   string
	fresh   bool // the identity was not used before
	network *network.File
	genesis *network.File // of epoch 0
}

// openHome prepares the data directory for this process. At the first start
// it makes what is missing, each file private and durable before it is used.
func openHome(cfg *Config, log *slog.Logger) (_ *home, err error) {
	dir := string(cfg.DataDir)
	if err := makeDir(dir); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	h := &home{}
	if h.lock, err = lockDir(dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = h.lock.Close()
		}
	}()
	if err := errors.Join(joinDone(dir), repairDone(dir), unpackDone(dir)); err != nil {
		return nil, err
	}
	var made bool
	if h.key, made, err = identity(cfg.Identity, used(dir)); err != nil {
		return nil, err
	}
	h.fresh = made
	if made {
		log.Info("identity key made; keep a copy of it apart from the data", "file", cfg.Identity.Ref)
	}
	if h.token, made, err = adminToken(cfg.API.Token); err != nil {
		return nil, err
	}
	if made {
		log.Info("admin token made", "file", cfg.API.Token.Ref)
	}
	if h.network, err = openNetwork(cfg, h.key.Public().(ed25519.PublicKey)); err != nil {
		return nil, err
	}
	if h.genesis, err = openGenesis(dir, h.network); err != nil {
		return nil, err
	}
	h.fresh = h.fresh || isFresh(cfg.Identity)
	return h, nil
}

// epochPath is where the network file of an epoch is kept when a later one has
// taken its place.
func epochPath(dir string, epoch uint32) string {
	return filepath.Join(dir, "epochs", fmt.Sprintf("%d.json", epoch))
}

// keepEpoch keeps a network file that a later one is about to replace.
func keepEpoch(dir string, f *network.File) error {
	path := epochPath(dir, f.Epoch)
	if err := makeDir(filepath.Dir(path)); err != nil {
		return err
	}
	return f.Save(path)
}

// openGenesis returns the first file of the network.
func openGenesis(dir string, f *network.File) (*network.File, error) {
	if f.Epoch == 0 {
		return f, nil
	}
	path := epochPath(dir, 0)
	genesis, err := network.Load(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("the network file is of epoch %d, and %s, which must be the one of epoch 0, is missing: %w", f.Epoch, path, fs.ErrNotExist)
	case err != nil:
		return nil, err
	case genesis.Epoch != 0 || genesis.Hash() != f.GenesisHash():
		return nil, fmt.Errorf("%s is not the file of epoch 0 that the network file names", path)
	}
	return genesis, nil
}

// used reports whether stores of an earlier start are in dir.
func used(dir string) bool {
	for _, name := range []string{"network.json", "journal", "ledger"} {
		if exists(filepath.Join(dir, name)) {
			return true
		}
	}
	return false
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// openNetwork reads the network file, makes that of a network of one at the
// first start, and checks that this gateway is the member it says.
func openNetwork(cfg *Config, key ed25519.PublicKey) (*network.File, error) {
	path := cfg.networkPath()
	f, err := network.Load(path)
	if errors.Is(err, fs.ErrNotExist) && cfg.Network == "" {
		return makeNetwork(cfg, path, key)
	}
	if err != nil {
		return nil, err
	}
	return f, checkMemberOnce(string(cfg.DataDir), f, cfg.Name, key, path)
}

func (c *Config) networkPath() string {
	if c.Network != "" {
		return string(c.Network)
	}
	return filepath.Join(string(c.DataDir), "network.json")
}

// makeNetwork makes a network of one. Its name ends in random digits: what
// one sandbox signs must not count in another.
func makeNetwork(cfg *Config, path string, key ed25519.PublicKey) (*network.File, error) {
	if exists(filepath.Join(string(cfg.DataDir), "ledger")) {
		return nil, fmt.Errorf("%s is missing, but a ledger made with it is there: put the file back, or start with an empty data directory", path)
	}
	suffix := make([]byte, 4)
	_, _ = rand.Read(suffix) // never fails
	f := network.NewOfOne(cfg.Name+"-"+hex.EncodeToString(suffix), cfg.Name, key)
	if err := f.Save(path); err != nil {
		return nil, fmt.Errorf("make a network of one: %w", err)
	}
	return f, nil
}

// checkMember refuses to run as a member that this gateway is not.
func checkMember(f *network.File, name string, key ed25519.PublicKey, path string) error {
	i, ok := f.Index(key)
	switch {
	case ok && f.Gateways[i].Name == name:
		return nil
	case ok:
		return fmt.Errorf("%s knows this identity key as %s, the configuration says name: %s", path, f.Gateways[i].Name, name)
	}
	for _, g := range f.Gateways {
		if g.Name == name {
			return fmt.Errorf("%s has another key for %s, %v; the identity key here is %v", path, name, g.PublicKey, network.PublicKey(key))
		}
	}
	const most = 5
	var names []string
	for _, g := range f.Gateways[:min(most, len(f.Gateways))] {
		names = append(names, g.Name)
	}
	if n := len(f.Gateways) - most; n > 0 {
		names = append(names, fmt.Sprintf("and %d more", n))
	}
	return fmt.Errorf("%s has no gateway %s; it has %s", path, name, strings.Join(names, ", "))
}
