package gateway

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hedgerow-iot/hedgerow/ledger/network"

	"github.com/hedgerow-iot/hedgerow/batching/journal"
	"github.com/hedgerow-iot/hedgerow/ledger/store"
)

// Only damage and a newer format are called so: whoever reads "damaged"
// throws readings away that a chmod would bring back.
func TestStoreErrorNamesDamageOnly(t *testing.T) {
	for _, tt := range []struct {
		err     error
		damaged bool
	}{
		{fmt.Errorf("open journal d: %w: group 7 has 3 bytes", journal.ErrCorrupt), true},
		{fmt.Errorf("open journal d: %w: format 9", journal.ErrNewer), true},
		{fmt.Errorf("open ledger store d: %w: key 00", store.ErrDamaged), true},
		{fmt.Errorf("open ledger store d: %w: format 9", store.ErrNewer), true},
		{fmt.Errorf("store not opened: %w", journal.ErrDiskFull), false},
		{fmt.Errorf("open ledger store d: %w", store.ErrDiskFull), false},
		{fmt.Errorf("create journal d: %w", fs.ErrPermission), false},
		{errors.New("open journal d: During db.vlog.open err: open d/000002.vlog: permission denied"), false},
	} {
		if got := storeError(tt.err); errors.Is(got, ErrStore) != tt.damaged || !errors.Is(got, tt.err) {
			t.Errorf("storeError(%v) = %v, damaged %v; want %v", tt.err, got, errors.Is(got, ErrStore), tt.damaged)
		}
	}
}

// Both stores name damage when they are opened.
func TestOpeningADamagedStoreIsErrStore(t *testing.T) {
	for _, name := range []string{"journal", "ledger"} {
		for what, spoil := range map[string]func(manifest string) error{
			"damaged":    func(m string) error { return os.WriteFile(m, []byte("garbage"), 0o600) },
			"not a file": func(m string) error { return errors.Join(os.Remove(m), os.Mkdir(m, 0o700)) },
		} {
			cfg := Default()
			cfg.DataDir, cfg.Journal.Reserve = Path(t.TempDir()), 16<<20
			s, err := openStores(&cfg, slog.New(slog.DiscardHandler))
			if err == nil {
				err = s.close()
			}
			if err == nil {
				err = spoil(filepath.Join(string(cfg.DataDir), name, "MANIFEST"))
			}
			if err != nil {
				t.Fatal(err)
			}
			s, err = openStores(&cfg, slog.New(slog.DiscardHandler))
			if err == nil {
				t.Fatalf("%s %s is opened: %v", name, what, s.close())
			}
			if damaged := what == "damaged"; errors.Is(err, ErrStore) != damaged {
				t.Errorf("%s %s: %v, ErrStore %v; want %v", name, what, err, !damaged, damaged)
			}
		}
	}
}

// Root reads what it likes, but the files that a store makes when it is opened
// would be root's, and the gateway could not open them again.
func TestOfflineRefusesRootOnTheDataOfAnotherUser(t *testing.T) {
	dir := t.TempDir()
	if os.Geteuid() == 0 {
		if err := os.Chown(dir, 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
	if err := ownedBy(dir, 0); err == nil || !strings.Contains(err.Error(), "sudo -u") {
		t.Errorf("ownedBy for root = %v, want a refusal that says how", err)
	}
	if os.Geteuid() != 0 {
		if err := ownedBy(dir, os.Geteuid()); err != nil {
			t.Errorf("ownedBy for the owner = %v, want none", err)
		}
	}
	if err := ownedBy(dir, 4711); err != nil { // may belong to the group
		t.Errorf("ownedBy for a user who is not root = %v, want none: the system decides", err)
	}
}

// A ledger that is gone is made anew, and said: what stands in its blocks is
// attached a second time. A first start that got no further than an empty
// directory has lost none.
func TestLostLedgerIsSaid(t *testing.T) {
	cfg := Default()
	cfg.DataDir, cfg.Journal.Reserve = Path(t.TempDir()), 16<<20
	if err := os.Mkdir(filepath.Join(string(cfg.DataDir), "journal"), 0o700); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	for _, lost := range []bool{false, true} {
		said.Reset()
		log := slog.New(slog.NewTextHandler(&said, nil))
		f := network.NewOfOne("alone", "gw", make([]byte, 32))
		if err := prepareLedger(&cfg, &home{network: f}, log); err != nil {
			t.Fatal(err)
		}
		s, err := openStores(&cfg, log)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.close(); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(said.String(), "ledger is missing"); got != lost {
			t.Errorf("ledger lost: %v, log: %s", lost, said.String())
		}
		if err := os.RemoveAll(filepath.Join(string(cfg.DataDir), "ledger")); err != nil {
			t.Fatal(err)
		}
	}
}

// A configuration that admits nobody is valid, but hardly meant.
func TestStartSaysWhichProtocolAdmitsNobody(t *testing.T) {
	for _, tt := range []struct {
		name string
		set  func(*Config)
		want string
	}{
		{"default", func(*Config) {}, "mqtt coap"},
		{"anonymous", func(c *Config) { c.MQTT.Anonymous, c.CoAP.Anonymous = true, true }, ""},
		{"one is off", func(c *Config) { c.MQTT.Listen = nil }, "coap"},
		{"sandbox", func(c *Config) { c.Home = "x" }, ""},
	} {
		c := Default()
		tt.set(&c)
		if got := strings.Join(admitNobody(&c), " "); got != tt.want {
			t.Errorf("%s: admitNobody = %q, want %q", tt.name, got, tt.want)
		}
	}
}

// Whoever holds the lock is asked only if it is the gateway that wrote where
// it is reached: a command that reads the stores holds the lock as well, and a
// gateway that was killed leaves its address behind.
func TestRunningIsTheGatewayThatHoldsTheLock(t *testing.T) {
	cfg := Default()
	cfg.DataDir = Path(t.TempDir())
	check := func(when, want string) {
		t.Helper()
		if got, ok := Running(cfg); got != want || ok != (want != "") {
			t.Errorf("%s: Running = %q, %v; want %q", when, got, ok, want)
		}
	}
	check("nobody", "")
	lock, err := lockDir(string(cfg.DataDir))
	if err != nil {
		t.Fatal(err)
	}
	check("a command reads the stores", "")
	stale := fmt.Appendf(nil, `{"address":"127.0.0.1:1","pid":%d}`, os.Getpid()+1)
	if err := os.WriteFile(cfg.runningPath(), stale, 0o600); err != nil {
		t.Fatal(err)
	}
	check("an address of a killed gateway", "")
	if err := announce(&cfg, "127.0.0.1:2"); err != nil {
		t.Fatal(err)
	}
	check("a gateway", "127.0.0.1:2")
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	check("stopped", "")
}

// What stands in the stores is the site's: no other user of the box reads it.
func TestDataDirectoriesArePrivate(t *testing.T) {
	cfg := Default()
	cfg.DataDir, cfg.Journal.Reserve = Path(filepath.Join(t.TempDir(), "a", "data")), 16<<20
	s, err := openStores(&cfg, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	defer s.close() //nolint:errcheck // nothing was written
	for _, name := range []string{"..", ".", "journal", "ledger"} {
		info, err := os.Stat(filepath.Join(string(cfg.DataDir), name))
		if err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("mode of %s is %v, %v; want 0700", name, info.Mode(), err)
		}
	}
}
