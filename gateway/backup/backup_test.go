package backup

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

type record struct {
	key, value string
	expires    uint64
}

// written returns a backup with two files and these records as ledger, and one
// record as journal.
func written(t testing.TB, records []record) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := NewWriter(&out, Header{
		Created: time.Unix(1_790_000_000, 0), Gateway: "barn-7", Files: []string{"network.json", "epochs/0.json"},
		Stores: map[string]int{"ledger": 2},
	})
	put := func(rs []record) func(func(k, v []byte, e uint64) error) error {
		return func(yield func(k, v []byte, e uint64) error) error {
			for _, r := range rs {
				if err := yield([]byte(r.key), []byte(r.value), r.expires); err != nil {
					return err
				}
			}
			return nil
		}
	}
	for _, step := range []func() error{
		func() error { return err },
		func() error { return w.File("network.json", []byte("{}")) },
		func() error { return w.File("epochs/0.json", []byte("{0}")) },
		func() error { return w.Store("ledger", put(records)) },
		func() error { return w.Store("journal", put([]record{{"j", "1", 9}})) },
		w.Close,
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	return out.Bytes()
}

func open(b []byte) (*File, error) { return Open(bytes.NewReader(b), int64(len(b)), nil) }

func recordsOf(next Next) (all []record, err error) {
	for {
		key, value, expires, err := next()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		all = append(all, record{string(key), string(value), expires})
	}
}

func TestABackupHasWhatWasWritten(t *testing.T) {
	large := strings.Repeat("x", 300<<10)
	for name, want := range map[string][]record{
		"nothing": nil, "one": {{"a", "", 7}},
		"many parts": {{"a", large, 0}, {"b", large, 0}, {"c", large, 0}, {"d", large, 0}, {"e", large + large + large + large, 0}, {"f", "", 1}},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := open(written(t, want))
			if err != nil {
				t.Fatal(err)
			}
			got, err := recordsOf(f.Store("ledger", nil))
			if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%d records, %v; want %d", len(got), err, len(want))
			}
			if got, err := recordsOf(f.Store("journal", nil)); err != nil || len(got) != 1 || got[0] != (record{"j", "1", 9}) {
				t.Errorf("journal has %v, %v", got, err)
			}
			if b, err := f.ReadFile("epochs/0.json"); err != nil || string(b) != "{0}" || f.Gateway != "barn-7" || f.Stores["ledger"] != 2 {
				t.Errorf("file %q, %v; header %+v", b, err, f.Header)
			}
			if _, err := f.ReadFile("identity.key"); !errors.Is(err, ErrDamaged) {
				t.Errorf("a file that is not there: %v", err)
			}
		})
	}
}

// Whatever is changed or cut off, it is found before anything is read.
func TestAChangedBackupIsRefused(t *testing.T) {
	whole := written(t, []record{{"a", "b", 0}})
	for at := 0; at < len(whole); at += 7 {
		b := bytes.Clone(whole)
		b[at] ^= 1
		if _, err := open(b); !errors.Is(err, ErrDamaged) {
			t.Fatalf("byte %d flipped: %v, want %v", at, err, ErrDamaged)
		}
		if _, err := open(whole[:at]); !errors.Is(err, ErrDamaged) {
			t.Fatalf("cut at %d: %v, want %v", at, err, ErrDamaged)
		}
	}
	newer := bytes.Replace(whole[:len(whole)-sumLine], []byte(`"hedgerowBackup": 1`), []byte(`"hedgerowBackup": 9`), 1)
	sum := sha256.Sum256(newer)
	newer = fmt.Appendf(newer, "%s%s\n", sumPrefix, hex.EncodeToString(sum[:]))
	if _, err := open(newer); !errors.Is(err, ErrNewer) {
		t.Errorf("format 9: %v, want %v", err, ErrNewer)
	}
}

// The small files are there for whoever has lost a configuration.
func TestTarExtractsTheFiles(t *testing.T) {
	if _, err := exec.LookPath("tar"); err != nil {
		t.Skip("no tar here")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "b"), written(t, nil), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("tar", "-C", dir, "-xf", filepath.Join(dir, "b"), "network.json").CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "network.json")); err != nil || string(b) != "{}" {
		t.Errorf("network.json is %q, %v", b, err)
	}
}

// With a checksum that fits, whatever stands before it is read or refused.
func FuzzOpen(f *testing.F) {
	whole := written(f, []record{{"a", "b", 0}})
	f.Add(whole[:len(whole)-sumLine])
	f.Fuzz(func(t *testing.T, in []byte) {
		sum := sha256.Sum256(in)
		b, err := open(fmt.Appendf(bytes.Clone(in), "%s%s\n", sumPrefix, hex.EncodeToString(sum[:])))
		if err != nil {
			return
		}
		for _, name := range []string{"ledger", "journal"} {
			rs, _ := recordsOf(b.Store(name, nil))
			if len(rs) > len(in) {
				t.Errorf("%d records of %d bytes", len(rs), len(in))
			}
		}
		_, _ = b.ReadFile("network.json")
	})
}
