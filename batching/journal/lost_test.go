package journal

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/dgraph-io/badger/v4"
)

// Badger begins anew where the manifest is missing and deletes the tables it
// finds. After an incomplete copy that would be every reading.
func TestTablesWithoutTheirManifestAreRefusedAndKept(t *testing.T) {
	dir := t.TempDir()
	j := open0(t, dir, Options{})
	mustAppend(t, j, 1, pack(num("a", "x", 1)))
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	manifest := filepath.Join(dir, badger.ManifestFilename)
	text, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(manifest); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{Reserve: 1}); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("Open = %v, want ErrCorrupt", err)
	}
	if err := os.WriteFile(manifest, text, 0o600); err != nil {
		t.Fatal(err)
	}
	k, err := Open(dir, Options{Reserve: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if r, err := k.Get(1); err != nil || r.Device != "a" {
		t.Errorf("get 1 with the manifest back = %+v, %v", r, err)
	}
}
