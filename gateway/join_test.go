package gateway

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

// networkWith writes the genesis of a network of the sandbox's gateway and
// another one, and returns it with the keys of both.
func networkWith(t *testing.T, cfg Config, name string) (*network.File, string, []ed25519.PrivateKey) {
	t.Helper()
	if err := makeDir(filepath.Dir(cfg.Identity.Ref)); err != nil {
		t.Fatal(err)
	}
	own, _, err := identity(cfg.Identity, false)
	if err != nil {
		t.Fatal(err)
	}
	public, other, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	f := network.Create(name, []network.Gateway{
		{Name: cfg.Name, PublicKey: network.PublicKey(own.Public().(ed25519.PublicKey)), Weight: 1},
		{Name: "other", PublicKey: network.PublicKey(public), Weight: 1},
	})
	return f, saved(t, f), []ed25519.PrivateKey{own, other}
}

func saved(t *testing.T, f *network.File) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "network.json")
	if err := f.Save(path); err != nil {
		t.Fatal(err)
	}
	return path
}

func quietLog() *slog.Logger { return slog.New(slog.DiscardHandler) }

// used box: three readings attached alone, two not.
func usedBox(t *testing.T, home string) Config {
	t.Helper()
	g := start(t, testSandbox(t, home))
	for i := range 3 {
		if err := g.publish("readings/probe-1/count", fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	g.readings(3)
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	cfg := testSandbox(t, home, "powfarm.workers=0", "shutdown.drain=0s")
	g = start(t, cfg)
	for i := range 2 {
		if err := g.publish("readings/probe-1/count", fmt.Sprint(3+i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	return testSandbox(t, home)
}

func TestAUsedBoxJoinsANetworkWithWhatIsNotAttached(t *testing.T) {
	home := t.TempDir()
	cfg := usedBox(t, home)
	f, path, _ := networkWith(t, cfg, "site")
	j, err := Join(cfg, path, quietLog())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := network.Load(filepath.Join(j.Archive, "network.json")); err != nil || !exists(filepath.Join(j.Archive, "ledger", "MANIFEST")) {
		t.Errorf("the chain is not in the archive %q: %v", j.Archive, err)
	}
	if info, err := os.Stat(filepath.Join(j.Archive, "ledger", "MANIFEST")); err != nil || info.Mode().Perm()&0o222 != 0 {
		t.Errorf("the archive can be written: %v, %v", info.Mode(), err)
	}
	g := start(t, cfg)
	rs := g.readings(5)
	for i, r := range rs {
		if has := r.BlockID != ""; has != (i >= 3) {
			t.Errorf("reading %d stands in block %q: the first three are in the archive's", i+1, r.BlockID)
		}
	}
	if blocks := g.stages.ledger.Stats().Blocks; blocks == 0 || g.home.network.Hash() != f.Hash() {
		t.Errorf("%d blocks in network %s", blocks, g.home.network.NetworkName)
	}
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(string(cfg.DataDir), joinFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the mark of a join is still there: %v", err)
	}
	if j, err := Join(cfg, path, quietLog()); err != nil || !j.Already {
		t.Errorf("a second time: %+v, %v", j, err)
	}
}

// Whatever step a join is cut off behind, it is refused to start, and the same
// call finishes it.
func TestAJoinThatWasCutOffIsFinishedByTheNext(t *testing.T) {
	steps := []string{"moved", "begun", "carried", "in place"}
	if testing.Short() {
		steps = steps[:1]
	}
	for _, step := range steps {
		t.Run(step, func(t *testing.T) {
			home := t.TempDir()
			cfg := usedBox(t, home)
			f, path, _ := networkWith(t, cfg, "site")
			dir := string(cfg.DataDir)
			j := &joining{dir: dir, target: cfg.networkPath(), file: f, log: quietLog()}
			old, err := network.Load(j.target)
			if err != nil {
				t.Fatal(err)
			}
			archive := filepath.Join(dir, "archive", old.NetworkName)
			ledger, next := filepath.Join(dir, "ledger"), filepath.Join(dir, "ledger.new")
			do := []func() error{
				func() error { return f.Save(filepath.Join(dir, joinFile)) },
				func() error { return errors.Join(makeDir(archive), j.carry(ledger, next, archive)) },
				func() error {
					return errors.Join(old.Save(filepath.Join(archive, "network.json")), os.Rename(ledger, filepath.Join(archive, "ledger")))
				},
				func() error { return os.Rename(next, ledger) },
			}
			for i, name := range []string{"begun", "carried", "moved", "in place"} {
				if err := do[i](); err != nil {
					t.Fatal(err)
				}
				if name == step {
					break
				}
			}
			if _, err := New(cfg, testLog(t)); err == nil || !strings.Contains(err.Error(), "hedgerow join") {
				t.Errorf("New = %v, want it to name the way out", err)
			}
			other, elsewhere, _ := networkWith(t, cfg, "elsewhere")
			if _, err := Join(cfg, elsewhere, quietLog()); err == nil || !strings.Contains(err.Error(), "cut off") || other.Hash() == f.Hash() {
				t.Errorf("Join of another network = %v", err)
			}
			if _, err := Join(cfg, path, quietLog()); err != nil {
				t.Fatal(err)
			}
			g := start(t, cfg)
			g.readings(5)
			g.attached(2)
		})
	}
}

func TestAFreshBoxJoinsAndTakesTheNextEpoch(t *testing.T) {
	cfg := testSandbox(t, t.TempDir())
	f, path, keys := networkWith(t, cfg, "site")
	must(t, os.WriteFile(filepath.Join(filepath.Dir(cfg.Identity.Ref), freshName), nil, 0o600)) // as init does
	if j, err := Join(cfg, path, quietLog()); err != nil || j.Archive != "" || j.Already {
		t.Fatalf("Join = %+v, %v", j, err)
	}
	next := f.Next()
	if err := next.SetWeight("other", 2); err != nil {
		t.Fatal(err)
	}
	if _, err := Join(cfg, saved(t, next), quietLog()); !errors.Is(err, network.ErrUnsigned) {
		t.Errorf("an epoch that nobody signed: %v", err)
	}
	next.Sign(keys[0])
	next.Sign(keys[1])
	if _, err := Join(cfg, saved(t, next), quietLog()); err != nil {
		t.Errorf("a signed epoch: %v", err)
	}
	if _, err := Join(cfg, path, quietLog()); !errors.Is(err, network.ErrStale) {
		t.Errorf("the epoch before: %v", err)
	}
	_, other, _ := networkWith(t, cfg, "elsewhere")
	if _, err := Join(cfg, other, quietLog()); err == nil || !strings.Contains(err.Error(), "of 2 gateways") {
		t.Errorf("another network: %v", err)
	}
	g := start(t, cfg)
	if err := g.publish("readings/probe-1/count", "1"); err != nil {
		t.Fatal(err)
	}
	g.readings(1)
	if got, want := g.home.network.GenesisHash(), f.Hash(); got != want || g.home.network.Epoch != 1 {
		t.Errorf("epoch %d with genesis %x, want %x", g.home.network.Epoch, got, want)
	}
}

func TestAFileThatDoesNotNameTheGatewayIsRefused(t *testing.T) {
	cfg := testSandbox(t, t.TempDir())
	f, _, _ := networkWith(t, cfg, "site")
	f.Gateways[0].PublicKey[0] ^= 1
	if _, err := Join(cfg, saved(t, f), quietLog()); err == nil || !strings.Contains(err.Error(), "another key") {
		t.Errorf("another key: %v", err)
	}
	f.Gateways[0].Name = "somebody"
	if _, err := Join(cfg, saved(t, f), quietLog()); err == nil || !strings.Contains(err.Error(), "has no gateway") {
		t.Errorf("no such member: %v", err)
	}
	if _, err := Join(cfg, filepath.Join(t.TempDir(), "x"), quietLog()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func TestARunningGatewayCannotJoin(t *testing.T) {
	cfg := testSandbox(t, t.TempDir())
	_, path, _ := networkWith(t, cfg, "site")
	start(t, cfg)
	if _, err := Join(cfg, path, quietLog()); !errors.Is(err, ErrLocked) {
		t.Errorf("Join = %v, want %v", err, ErrLocked)
	}
}

func TestAnArchiveIsNeverMixedWithAnotherChain(t *testing.T) {
	cfg := usedBox(t, t.TempDir())
	old, err := network.Load(cfg.networkPath())
	if err != nil {
		t.Fatal(err)
	}
	if err := makeDir(filepath.Join(string(cfg.DataDir), "archive", old.NetworkName)); err != nil {
		t.Fatal(err)
	}
	_, path, _ := networkWith(t, cfg, "site")
	if _, err := Join(cfg, path, quietLog()); err == nil || !strings.Contains(err.Error(), "move it away") {
		t.Errorf("Join = %v", err)
	}
	start(t, cfg) // nothing has begun
}
