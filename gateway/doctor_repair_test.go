package gateway

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dgraph-io/badger/v4"
)

// joinedBox is a used box in a network of two: of its seven readings three are
// marked as attached in the chain that it had alone, and four in the new one.
// Its blocks are so large that they share no block of a table with the marks.
func joinedBox(t *testing.T, home string) Config {
	t.Helper()
	cfg := usedBox(t, home)
	_, path, _ := networkWith(t, cfg, "site")
	if _, err := Join(cfg, path, quietLog()); err != nil {
		t.Fatal(err)
	}
	g := start(t, cfg)
	g.readings(5)
	for range 2 {
		must(t, g.publish("readings/probe-1/text", randomText(7000)))
	}
	g.readings(7)
	must(t, g.stop())
	return cfg
}

// randomText cannot be compressed much.
func randomText(n int) string {
	var b strings.Builder
	for b.Len() < n {
		b.WriteString(rand.Text())
	}
	return b.String()
}

// only returns the first file that matches.
func only(t *testing.T, pattern string) string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) == 0 {
		t.Fatalf("%s: %v, %v", pattern, names, err)
	}
	return names[0]
}

// flip changes a bit of a byte of a file; at counts from its end when negative.
func flip(t *testing.T, name string, at int) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if at < 0 {
		at += len(b)
	}
	b[at] ^= 0x10
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func journalDir(cfg Config) string { return filepath.Join(string(cfg.DataDir), jobJournal) }
func ledgerDir(cfg Config) string  { return filepath.Join(string(cfg.DataDir), jobLedger) }

// damages are ways in which a ledger was really found damaged.
func damages(t *testing.T, dir string) map[string]func() {
	table := func() string { return only(t, filepath.Join(dir, "*.sst")) }
	return map[string]func(){
		"a bit in a block":           func() { flip(t, table(), 60) },
		"a bit at the table's end":   func() { flip(t, table(), -2) },
		"a bit in the table's index": func() { flip(t, table(), -40) },
		"a table cut short": func() {
			if err := os.Truncate(table(), 100); err != nil {
				t.Fatal(err)
			}
		},
		"a table of zeros": func() {
			info, err := os.Stat(table())
			if err == nil {
				err = os.WriteFile(table(), make([]byte, info.Size()), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		},
		"a table is missing": func() {
			if err := os.Remove(table()); err != nil {
				t.Fatal(err)
			}
		},
		"the manifest is missing": func() {
			if err := os.Remove(filepath.Join(dir, badger.ManifestFilename)); err != nil {
				t.Fatal(err)
			}
		},
		"a bit in the manifest": func() { flip(t, filepath.Join(dir, badger.ManifestFilename), 20) },
	}
}

// Alone, everything that the journal keeps is attached again, and the damaged
// ledger is kept.
func TestADamagedLedgerIsReplaced(t *testing.T) {
	for name := range damages(t, "") {
		t.Run(name, func(t *testing.T) {
			cfg := usedBox(t, t.TempDir())
			d := doctorOf(t, cfg)
			damages(t, ledgerDir(cfg))[name]()
			all := d.Examine(t.Context())
			want(t, all, "ledger", VerdictBad, "doctor --repair")
			want(t, all, "journal", VerdictOK, "5 readings")
			if !found(all, "ledger")[0].Store {
				t.Error("it does not count as damage of a store")
			}
			want(t, d.Repair(t.Context()), "repair", VerdictOK, "moved the damaged ledger")
			want(t, d.Examine(t.Context()), "ledger", VerdictOK, "0 blocks")
			want(t, d.Repair(t.Context()), "repair", VerdictOK, "nothing had to be repaired")
			only(t, filepath.Join(string(cfg.DataDir), "ledger.damaged-*"))
			g := start(t, cfg)
			g.readings(5)
			g.attached(5)
		})
	}
}

// alone starts a gateway whose ledger is new while the other one of its network
// is away: it takes readings in and attaches nothing.
func alone(t *testing.T, cfg Config, kept int) {
	t.Helper()
	cfg.Shutdown.Drain = 0
	g := start(t, cfg)
	must(t, g.publish("readings/probe-1/count", "9"))
	var s struct {
		Backlog struct{ Stored, Attached int }
		Alarms  []struct{ Name string }
	}
	g.get("/api/hedgerow/v1/status", &s)
	if s.Backlog.Stored != kept+1 || s.Backlog.Attached != 0 || !slices.ContainsFunc(s.Alarms, func(a struct{ Name string }) bool { return a.Name == "restoring" }) {
		t.Errorf("status is %+v, want %d readings stored and the alarm", s, kept+1)
	}
	must(t, g.stop())
}

// blockTable returns the table of the ledger that holds its first block.
func blockTable(t *testing.T, cfg Config) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(ledgerDir(cfg), "*.sst"))
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	slices.Sort(names)
	return names[len(names)-1]
}

// The journal is reported and never touched, and no ledger is replaced beside
// one that is damaged.
func TestADamagedJournalIsLeft(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, dir string){
		"head cut short":       func(t *testing.T, dir string) { must(t, os.Truncate(filepath.Join(dir, "head"), 4096)) },
		"head missing":         func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, "head"))) },
		"table missing":        func(t *testing.T, dir string) { must(t, os.Remove(only(t, filepath.Join(dir, "*.sst")))) },
		"manifest missing":     func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, badger.ManifestFilename))) },
		"a bit in a table":     func(t *testing.T, dir string) { flip(t, only(t, filepath.Join(dir, "*.sst")), 30) },
		"a bit in the index":   func(t *testing.T, dir string) { flip(t, only(t, filepath.Join(dir, "*.sst")), -40) },
		"a table without size": func(t *testing.T, dir string) { must(t, os.Truncate(only(t, filepath.Join(dir, "*.sst")), 0)) },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := usedBox(t, t.TempDir())
			damage(t, journalDir(cfg))
			flip(t, blockTable(t, cfg), 60)
			before := contents(t, journalDir(cfg))
			d := doctorOf(t, cfg)
			all := d.Examine(t.Context())
			want(t, all, "journal", VerdictBad, "nothing is repaired in the journal")
			if !found(all, "journal")[0].Store {
				t.Error("it does not count as damage of a store")
			}
			want(t, d.Repair(t.Context()), "repair", VerdictBad, "the journal has to be whole first")
			if !exists(ledgerDir(cfg)) || exists(filepath.Join(string(cfg.DataDir), repairFile)) {
				t.Error("the ledger was moved")
			}
			for name, text := range contents(t, journalDir(cfg)) {
				if old, ok := before[name]; ok && old != text && strings.HasSuffix(name, ".sst") {
					t.Errorf("%s is another now", name)
				}
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		must(t, err)
		all[e.Name()] = string(b)
	}
	return all
}

// Bits that flip in what a crash left of the last commits cost these commits in
// the ledger, never readings: they are attached again.
func TestADamagedLogOfTheLedgerCostsNoReading(t *testing.T) {
	home := t.TempDir()
	cfg := testSandbox(t, home)
	g := start(t, cfg)
	for range 3 {
		must(t, g.publish("readings/probe-1/count", "1"))
	}
	g.readings(3)
	crashed := t.TempDir() // what a killed process leaves
	must(t, os.CopyFS(crashed, os.DirFS(home)))
	must(t, errors.Join(os.Chmod(filepath.Join(crashed, "identity.key"), 0o600), os.Chmod(filepath.Join(crashed, "admin.token"), 0o600)))
	must(t, g.stop())
	cfg = testSandbox(t, crashed)
	log := only(t, filepath.Join(ledgerDir(cfg), "*.mem"))
	text, err := os.ReadFile(log)
	must(t, err)
	flip(t, log, len(strings.TrimRight(string(text), "\x00"))*2/3)
	d := doctorOf(t, cfg)
	all := d.Examine(t.Context())
	want(t, all, "ledger", VerdictOK, "")
	want(t, all, "journal", VerdictOK, "3 readings")
	want(t, d.Repair(t.Context()), "repair", VerdictOK, "nothing had to be repaired")
	g = start(t, cfg)
	g.readings(3)
}

// Whatever step a repair is cut off behind, a start is refused, and the next
// repair finishes it.
func TestARepairThatWasCutOffIsFinishedByTheNext(t *testing.T) {
	steps := []string{"moved", "made", "begun", "in place"}
	if testing.Short() {
		steps = steps[:1]
	}
	for _, step := range steps {
		t.Run(step, func(t *testing.T) {
			cfg := joinedBox(t, t.TempDir())
			dir := string(cfg.DataDir)
			d := doctorOf(t, cfg)
			flip(t, blockTable(t, cfg), 60)
			const aside = "ledger.damaged-20261127T080000Z"
			next := filepath.Join(dir, "ledger.new")
			do := []func() error{
				func() error { return errors.Join(restoring{}.write(dir), newLedger(dir, next, quietLog())) },
				func() error {
					return os.WriteFile(filepath.Join(dir, repairFile), []byte(`{"damaged":"`+aside+`"}`), 0o600)
				},
				func() error { return os.Rename(ledgerDir(cfg), filepath.Join(dir, aside)) },
				func() error { return os.Rename(next, ledgerDir(cfg)) },
			}
			for i, name := range []string{"made", "begun", "moved", "in place"} {
				must(t, do[i]())
				if name == step {
					break
				}
			}
			if step != "made" { // that one has not begun
				if _, err := New(cfg, quietLog()); err == nil || !strings.Contains(err.Error(), "doctor --repair") {
					t.Errorf("New = %v, want it to name the way out", err)
				}
				if _, err := OpenOffline(cfg, quietLog()); err == nil || !strings.Contains(err.Error(), "doctor --repair") {
					t.Errorf("OpenOffline = %v", err)
				}
				_, path, _ := networkWith(t, cfg, "elsewhere")
				if _, err := Join(cfg, path, quietLog()); err == nil || !strings.Contains(err.Error(), "doctor --repair") {
					t.Errorf("Join = %v", err)
				}
				want(t, d.Examine(t.Context()), "data_directory", VerdictBad, "doctor --repair")
			}
			want(t, d.Repair(t.Context()), "repair", VerdictOK, "damaged ledger")
			want(t, d.Repair(t.Context()), "repair", VerdictOK, "nothing had to be repaired")
			if n, err := filepath.Glob(filepath.Join(dir, "ledger.damaged-*")); len(n) != 1 || err != nil {
				t.Errorf("moved aside: %v, %v", n, err)
			}
			alone(t, cfg, 7)
		})
	}
}

// What somebody else wrote into the file is not followed.
func TestAStrangeRepairFileIsRefused(t *testing.T) {
	for _, text := range []string{``, `{`, `{"damaged":"../x"}`, `{"damaged":"journal"}`} {
		cfg := usedBox(t, t.TempDir())
		must(t, os.WriteFile(filepath.Join(string(cfg.DataDir), repairFile), []byte(text), 0o600))
		want(t, doctorOf(t, cfg).Repair(t.Context()), "repair", VerdictBad, "not what a repair wrote")
	}
}

// Without the new ledger the damaged one is not moved.
func TestARepairWithoutItsNewLedgerMovesNothing(t *testing.T) {
	cfg := usedBox(t, t.TempDir())
	must(t, os.WriteFile(filepath.Join(string(cfg.DataDir), repairFile), []byte(`{"damaged":"ledger.damaged-20261127T080000Z"}`), 0o600))
	want(t, doctorOf(t, cfg).Repair(t.Context()), "repair", VerdictBad, "ledger.new is missing")
	if !exists(ledgerDir(cfg)) {
		t.Error("the ledger was moved")
	}
}

func FuzzReadReplacing(f *testing.F) {
	f.Add([]byte(`{"damaged":"ledger.damaged-20261127T080000Z"}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, repairFile), text, 0o600))
		r, err := readReplacing(dir)
		if err != nil {
			return
		}
		if filepath.Base(r.Damaged) != r.Damaged || !strings.HasPrefix(r.Damaged, "ledger.damaged-") {
			t.Errorf("%s names %q", text, r.Damaged)
		}
		if _, err := json.Marshal(r); err != nil {
			t.Error(err)
		}
	})
}

// A newer program's ledger is no damage to be repaired.
func TestANewerLedgerIsLeft(t *testing.T) {
	cfg := usedBox(t, t.TempDir())
	db, err := badger.Open(badger.DefaultOptions(ledgerDir(cfg)).WithLogger(nil).WithCompression(0))
	must(t, err)
	must(t, errors.Join(db.Update(func(txn *badger.Txn) error { return txn.Set([]byte("v"), []byte{99}) }), db.Close()))
	d := doctorOf(t, cfg)
	want(t, d.Examine(t.Context()), "ledger", VerdictBad, "use the newer program")
	want(t, d.Repair(t.Context()), "repair", VerdictBad, "left as it is")
	if n, err := filepath.Glob(filepath.Join(string(cfg.DataDir), "ledger.damaged-*")); len(n) > 0 || err != nil {
		t.Errorf("moved aside: %v, %v", n, err)
	}
}

func TestSecretsThatOthersCanReadAreClosed(t *testing.T) {
	cfg := usedBox(t, t.TempDir())
	must(t, os.Chmod(cfg.Identity.Ref, 0o644))
	d := doctorOf(t, cfg)
	fs := d.Repair(t.Context())
	want(t, fs, "repair", VerdictOK, "from others")
	if info, err := os.Stat(cfg.Identity.Ref); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	want(t, d.Examine(t.Context()), "identity", VerdictOK, "")
	want(t, d.Repair(t.Context()), "repair", VerdictOK, "nothing had to be repaired")
}

func TestNothingIsRepairedWhereNothingIs(t *testing.T) {
	cfg := testSandbox(t, filepath.Join(t.TempDir(), "none"))
	want(t, doctorOf(t, cfg).Repair(t.Context()), "repair", VerdictOK, "nothing had to be repaired")
	if _, err := os.Stat(cfg.Home); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it made %s: %v", cfg.Home, err)
	}
}
