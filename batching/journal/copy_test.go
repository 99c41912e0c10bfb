package journal

import (
	"bytes"
	"io"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching"
)

type stored struct {
	key, value []byte
	expires    uint64
}

func storedIn(t *testing.T, s *Snapshot) (all []stored) {
	t.Helper()
	err := s.Each(func(key, value []byte, expires uint64) error {
		all = append(all, stored{bytes.Clone(key), bytes.Clone(value), expires})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func nextOf(all []stored) func() (key, value []byte, expires uint64, err error) {
	return func() (key, value []byte, expires uint64, err error) {
		if len(all) == 0 {
			return nil, nil, 0, io.EOF
		}
		s := all[0]
		all = all[1:]
		return s.key, s.value, s.expires, nil
	}
}

// What was appended before a snapshot is in it, indexed or not; readings, dedup
// keys and gaps are those of the original.
func TestAnImportedSnapshotIsTheJournalOfItsMoment(t *testing.T) {
	j := open0(t, t.TempDir(), Options{})
	now := time.Now().UnixMilli()
	for i := range 300 {
		mustAppend(t, j, now, batching.Packet{Readings: pack(num("probe", "count", int64(i))).Readings, Key: keyOf(1, byte(i))})
	}
	if err := j.SkipTo(1000); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, j, now, pack(num("probe", "count", 300)))
	s, err := j.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	want := mustRead(t, j, 1, 1000)
	mustAppend(t, j, now, pack(num("probe", "count", 301))) // is not in it
	dir := filepath.Join(t.TempDir(), "journal")
	all := storedIn(t, s)
	s.Close()
	if err := Import(dir, nextOf(all), Options{Reserve: 1}); err != nil {
		t.Fatal(err)
	}
	copied := open0(t, dir, Options{})
	checkNow(t, copied)
	if got := mustRead(t, copied, 1, 1000); !slices.Equal(seqs(got), seqs(want)) || copied.Next() != 1001 {
		t.Errorf("%d readings and next %d, want %d and 1001", len(got), copied.Next(), len(want))
	}
	if copied.Incarnation() != j.Incarnation() {
		t.Error("another incarnation")
	}
	if seq, ok := copied.Recall(keyOf(1, 200), time.Hour, now); !ok || seq != 201 {
		t.Errorf("the packet of reading 201 is recalled as %d, %v", seq, ok)
	}
	mustAppend(t, copied, now, pack(num("probe", "count", 5)))
	if err := Import(dir, nextOf(all), Options{}); err == nil {
		t.Error("imported into a journal that is there")
	}
}

func TestACloseWaitsForASnapshot(t *testing.T) {
	j := open0(t, t.TempDir(), Options{})
	mustAppend(t, j, 1, pack(num("probe", "count", 1)))
	s, err := j.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan error, 1)
	go func() { closed <- j.Close() }()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !isClosed(j) {
		<-tick.C
	}
	if len(storedIn(t, s)) == 0 {
		t.Error("nothing is in the snapshot")
	}
	s.Close()
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	if _, err := j.Snapshot(); err == nil {
		t.Error("a closed journal gave a snapshot")
	}
}

func isClosed(j *Journal) bool {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.closed
}
