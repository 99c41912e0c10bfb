package store

import (
	"errors"
	"sync"
	"testing"

	"github.com/dgraph-io/badger/v4"

	"github.com/hedgerow-iot/hedgerow/ledger"
)

// What a shelf promises its owner is tested where the interface stands, in
// batching/archive.

func put(s *Shelf, key, value string) error {
	return s.Write([][]byte{[]byte(key)}, [][]byte{[]byte(value)})
}

func wantValue(t *testing.T, s *Store, want string) {
	t.Helper()
	if got, err := s.Shelf('a').Get([]byte("key")); string(got) != want || err != nil {
		t.Errorf("Get = %q, %v; want %q", got, err, want)
	}
}

func TestAShelfSurvivesACrashBesideTheBlocks(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	var g grower
	for _, value := range []string{"one", "two"} {
		g.commit(t, s, 3, 200)
		if err := put(s.Shelf('a'), "key", value); err != nil {
			t.Fatal(err)
		}
		again := open(t, copyDir(t, dir))
		wantValue(t, again, value)
		if n, _, _, err := again.Count(); n != uint64(len(g.ids)-1) || err != nil {
			t.Errorf("Count = %d, %v; want %d", n, err, len(g.ids)-1)
		}
	}
}

func TestCommitAndShelvesWriteAtTheSameTime(t *testing.T) {
	s := open(t, t.TempDir())
	var g grower
	groups := make([][]ledger.Entry, 20)
	for i := range groups {
		groups[i] = g.grow(t, 3, 100)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for _, entries := range groups {
			if err := s.Commit(ledger.Change{Entries: entries}); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Go(func() {
		for i := range groups {
			if err := put(s.Shelf('a'), "key", string(rune('a'+i))); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	wantValue(t, s, "t")
	if n, _, _, err := s.Count(); n != 60 || err != nil {
		t.Errorf("%d blocks, %v", n, err)
	}
}

// A write that failed on either side stops both: what is on the disk is known
// after the next start.
func TestAFailedWriteOfAShelfLeavesTheStoreInDoubt(t *testing.T) {
	s := open(t, t.TempDir())
	var g grower
	g.commit(t, s, 1, 100)
	broken := errors.New("sync: input/output error")
	s.commit = func(*badger.Txn) error { return broken }
	err := put(s.Shelf('a'), "key", "value")
	if !errors.Is(err, broken) || errors.Is(err, ledger.ErrBusy) {
		t.Errorf("Write = %v, want the cause and not ErrBusy", err)
	}
	defer s.failed.Store(nil) // so that it is closed
	s.commit = (*badger.Txn).Commit
	if err := s.Commit(ledger.Change{Entries: g.grow(t, 1, 100)}); !errors.Is(err, broken) {
		t.Errorf("Commit = %v, want it refused because of the shelf", err)
	}
	if err := put(s.Shelf('a'), "key", "value"); !errors.Is(err, broken) || errors.Is(err, ledger.ErrBusy) {
		t.Errorf("next Write = %v, want it refused because of the first", err)
	}
}

func TestAShelfIsBusyBelowTheReserve(t *testing.T) {
	free := int64(1 << 30)
	s, err := Open(t.TempDir(), Options{Reserve: 100 << 20, free: func(string) (int64, error) { return free, nil }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	free = 100<<20 - 1
	if err := put(s.Shelf('a'), "key", "value"); !errors.Is(err, ledger.ErrBusy) {
		t.Errorf("Write = %v, want ErrBusy", err)
	}
	wantValue(t, s, "")
	free = 100 << 20
	if err := put(s.Shelf('a'), "key", "value"); err != nil {
		t.Errorf("Write with space again: %v", err)
	}
	wantValue(t, s, "value")
}

// What badger cannot take in one transaction is a mistake of the caller and no
// reason to distrust the store.
func TestATooLargeWriteChangesNothing(t *testing.T) {
	s := open(t, t.TempDir())
	for _, values := range [][][]byte{{make([]byte, MaxShelfBytes)}, {nil, nil}} {
		if err := s.Shelf('a').Write([][]byte{[]byte("key")}, values); err == nil {
			t.Errorf("%d values are taken", len(values))
		}
	}
	if err := s.Ready(); err != nil {
		t.Errorf("Ready = %v", err)
	}
	wantValue(t, s, "")
}
