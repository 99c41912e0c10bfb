package store

import (
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// loaded returns the directory of a closed store with n small blocks, each
// with one mark.
func loaded(t testing.TB, n int) string {
	t.Helper()
	dir := t.TempDir()
	s, err := Open(dir, Options{Reserve: 1})
	if err != nil {
		t.Fatal(err)
	}
	var g grower
	for n > 0 {
		g.commit(t, s, min(n, 250), 195)
		n -= 250
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestASmallBlockTakesAtMost340BytesOnDisk(t *testing.T) {
	const n = 30_000
	dir := loaded(t, n)
	s := open(t, dir)
	if blocks, _, _, err := s.Count(); blocks != n || err != nil {
		t.Errorf("%d blocks, %v, want %d", blocks, err, n)
	}
	var used int64
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		var err error
		if used, err = s.DiskBytes(); err != nil {
			t.Fatal(err)
		}
		if used/n <= 340 || time.Now().After(end) { // compaction may be going on
			break
		}
	}
	t.Logf("%d bytes on disk for each of %d blocks of 195 bytes", used/n, n)
	if used/n > 340 {
		t.Errorf("a block takes %d bytes on disk, want at most 340", used/n)
	}
}

func BenchmarkOpen200k(b *testing.B) {
	dir := loaded(b, 200_000)
	for b.Loop() {
		s, err := Open(dir, Options{Reserve: 1})
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMarks200k(b *testing.B) {
	s := open(b, loaded(b, 200_000))
	for b.Loop() {
		n := 0
		if err := s.Marks(0, func([2]uint64, stardust.BlockID) bool { n++; return true }); err != nil || n != 200_000 {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkIDs200k(b *testing.B) {
	s := open(b, loaded(b, 200_000))
	for b.Loop() {
		if err := s.IDs(func(stardust.BlockID) bool { return true }); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLoad(b *testing.B) {
	dir := b.TempDir()
	s := open(b, dir)
	var g grower
	for range 100 {
		g.commit(b, s, 250, 195)
	}
	i := 0
	for b.Loop() {
		i = (i + 7919) % (len(g.ids) - 1)
		if _, err := s.Load(g.ids[1+i]); err != nil {
			b.Fatal(err)
		}
	}
}
