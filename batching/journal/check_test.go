package journal

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/hedgerow-iot/hedgerow/batching"
)

// A bit that flipped in a table is found though badger reads over it.
func TestCheckFindsAFlippedBit(t *testing.T) {
	dir := t.TempDir()
	j := open0(t, dir, Options{})
	for i := range byte(40) {
		p := pack(num("a", "x", int64(i)))
		p.Key = keyOf(1, i)
		mustAppend(t, j, int64(i), p)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatalf("no tables: %v", err)
	}
	for _, table := range tables {
		text, err := os.ReadFile(table)
		if err != nil {
			t.Fatal(err)
		}
		for at := 40; at < len(text)/2; at += 43 { // among the entries
			to := killed(t, dir)
			flipped := append([]byte(nil), text...)
			flipped[at] ^= 0x10
			if err := os.WriteFile(filepath.Join(to, filepath.Base(table)), flipped, 0o600); err != nil {
				t.Fatal(err)
			}
			k, err := Open(to, Options{Reserve: 1})
			if errors.Is(err, ErrCorrupt) {
				continue
			} else if err != nil {
				t.Fatal(err)
			}
			if err := k.Check(t.Context()); !errors.Is(err, ErrCorrupt) {
				t.Errorf("bit of byte %d of %s: check = %v, want ErrCorrupt", at, filepath.Base(table), err)
			}
			if err := k.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// While a check reads, readings that come in fill the head, which nobody can
// index then: the check gives way before they have to wait.
func TestCheckGivesWayToReadings(t *testing.T) {
	j := open0(t, t.TempDir(), Options{})
	mustAppend(t, j, 1, pack(num("a", "x", 1)))
	c, err := j.startCheck(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	stopped := 0
	for i := 0; c.stopped() == nil && i < headBytes/headBlock; i++ {
		mustAppend(t, j, 1, pack(num("a", "x", 1)))
		stopped = i + 1
	}
	err = c.stopped()
	j.indexMu.Unlock()
	if !errors.Is(err, batching.ErrBusy) || errors.Is(err, ErrCorrupt) {
		t.Errorf("after %d readings: %v, want ErrBusy", stopped, err)
	}
	if used := j.head.used(); used > headBytes/8*7 {
		t.Errorf("the head is full to %d of %d", used, headBytes)
	}
	checkNow(t, j)
}

func TestCheckOfAClosedJournal(t *testing.T) {
	j := open0(t, t.TempDir(), Options{})
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if err := j.Check(t.Context()); !errors.Is(err, batching.ErrClosed) {
		t.Errorf("check = %v, want ErrClosed", err)
	}
}
