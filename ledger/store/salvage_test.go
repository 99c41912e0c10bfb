package store

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/dgraph-io/badger/v4"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

var silent = slog.New(slog.DiscardHandler)

// closedStore makes a store of 60 blocks in one table and returns its
// directory, the table, and the runs that it marks.
func closedStore(t *testing.T) (dir, table string, runs [][2]uint64) {
	t.Helper()
	dir = t.TempDir()
	s, err := Open(dir, Options{Reserve: 1})
	if err != nil {
		t.Fatal(err)
	}
	var g grower
	for range 3 {
		from := g.seq
		g.commit(t, s, 20, 400)
		runs = append(runs, [2]uint64{from, g.seq - 1})
		g.seq += 7 // that are in no block
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(tables) != 1 {
		t.Fatalf("tables %v, %v; the test wants one", tables, err)
	}
	return dir, tables[0], runs
}

func TestRunsAreReadAndMakeANewStore(t *testing.T) {
	dir, _, want := closedStore(t)
	got, err := ReadRuns(dir, silent)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("ReadRuns = %v, %v; want %v", got, err, want)
	}
	next := filepath.Join(t.TempDir(), "next")
	if err := CreateWithRuns(next, got, false, silent); err != nil {
		t.Fatal(err)
	}
	if err := CreateWithRuns(next, got, false, silent); err == nil {
		t.Error("a store was made over another")
	}
	if again, err := ReadRuns(next, silent); err != nil || !reflect.DeepEqual(again, want) {
		t.Errorf("ReadRuns of the new store = %v, %v; want %v", again, err, want)
	}
	s := open(t, next)
	if n, _, _, err := s.Count(); n != 0 || err != nil {
		t.Errorf("the new store has %d blocks, %v", n, err)
	}
	if err := s.Marks(0, func(_ [2]uint64, id stardust.BlockID) bool {
		if id != stardust.GenesisID {
			t.Errorf("a mark names %v", id)
		}
		return true
	}); err != nil {
		t.Error(err)
	}
}

// More runs than one transaction takes.
func TestManyRunsMakeANewStore(t *testing.T) {
	var want [][2]uint64
	for i := range uint64(10_000) {
		want = append(want, [2]uint64{10 * i, 10*i + 5})
	}
	dir := filepath.Join(t.TempDir(), "next")
	if err := CreateWithRuns(dir, want, false, silent); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadRuns(dir, silent); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("ReadRuns = %d runs, %v; want %d", len(got), err, len(want))
	}
}

// What a killed process had not put in a table yet counts too.
func TestRunsAreReadAfterACrash(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	var g grower
	g.commit(t, s, 5, 200)
	if got, err := ReadRuns(copyDir(t, dir), silent); err != nil || !reflect.DeepEqual(got, [][2]uint64{{0, 49}}) {
		t.Errorf("ReadRuns = %v, %v", got, err)
	}
}

// A flipped bit anywhere in a table is found by Check or Open, and never makes
// another run of the marks.
func TestAFlippedBitNeverMakesAnotherMark(t *testing.T) {
	dir, table, want := closedStore(t)
	text, err := os.ReadFile(table)
	if err != nil {
		t.Fatal(err)
	}
	read, refused := 0, 0
	for at := 0; at < len(text); at += 37 {
		flipped := append([]byte(nil), text...)
		flipped[at] ^= 0x10
		if checkTable(flipped, prefixFormat) != nil {
			continue // index or last block: badger ends the process, where nobody can recover it
		}
		err := checkTable(flipped, prefixMark)
		if err == nil {
			read++
		} else if refused++; !errors.Is(err, ErrDamaged) {
			t.Errorf("bit of byte %d: %v, want ErrDamaged", at, err)
		}
		if err == nil && read%40 != 1 { // opening takes long
			continue
		}
		to := copyDir(t, dir)
		if err := os.WriteFile(filepath.Join(to, filepath.Base(table)), flipped, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, e := ReadRuns(to, silent); err == nil && !reflect.DeepEqual(got, want) || errors.Is(e, ErrDamaged) != (err != nil) {
			t.Errorf("bit of byte %d: ReadRuns = %v, %v; want %v", at, got, e, want)
		}
		s, err := Open(to, Options{Reserve: 1, Still: true})
		if errors.Is(err, ErrDamaged) {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		if err := s.Check(t.Context()); !errors.Is(err, ErrDamaged) {
			t.Errorf("bit of byte %d: Check = %v, want ErrDamaged", at, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if read == 0 || refused == 0 {
		t.Errorf("marks were readable at %d places and refused at %d; the test wants both", read, refused)
	}
}

func TestMarksOfALostTableAreRefused(t *testing.T) {
	for _, lost := range []string{"table", badger.ManifestFilename} {
		dir, table, _ := closedStore(t)
		name := table
		if lost != "table" {
			name = filepath.Join(dir, lost)
		}
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadRuns(dir, silent); !errors.Is(err, ErrDamaged) {
			t.Errorf("without its %s: %v, %v; want ErrDamaged", lost, got, err)
		}
	}
}

func TestOverlappingMarksAreRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	s, err := Open(dir, Options{Reserve: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(ledger.Change{Entries: []ledger.Entry{{ID: stardust.GenesisID, Runs: [][2]uint64{{1, 9}, {5, 12}}}}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadRuns(dir, silent); !errors.Is(err, ErrDamaged) {
		t.Errorf("ReadRuns = %v, %v; want ErrDamaged", got, err)
	}
}

// Whatever a file holds, checkTable returns.
func FuzzCheckTable(f *testing.F) {
	f.Add([]byte{})
	for _, n := range []int{4, 8, 64} {
		f.Add(make([]byte, n))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := checkTable(b, prefixMark); err != nil && !errors.Is(err, ErrDamaged) {
			t.Errorf("checkTable(%x) = %v", b, err)
		}
	})
}
