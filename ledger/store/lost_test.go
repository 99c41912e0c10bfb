package store

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/dgraph-io/badger/v4"
)

// Badger begins anew where the manifest is missing and deletes the tables it
// finds.
func TestTablesWithoutTheirManifestAreRefusedAndKept(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, Options{Reserve: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatalf("tables %v, %v; the test wants one", tables, err)
	}
	if err := os.Remove(filepath.Join(dir, badger.ManifestFilename)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{Reserve: 1}); !errors.Is(err, ErrDamaged) {
		t.Fatalf("Open = %v, want ErrDamaged", err)
	}
	if _, err := os.Stat(tables[0]); err != nil {
		t.Errorf("a table was not kept: %v", err)
	}
}
