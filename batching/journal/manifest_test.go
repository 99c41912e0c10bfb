package journal

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/table"

	"github.com/hedgerow-iot/hedgerow/batching"
)

// tables returns the directory of a closed journal of 6 readings and the ids
// of its tables.
func tables(t *testing.T) (dir string, ids []uint64) {
	t.Helper()
	dir = t.TempDir()
	for i := range 3 {
		j, err := Open(dir, Options{Reserve: 1})
		if err != nil {
			t.Fatal(err)
		}
		mustAppend(t, j, int64(i), pack(num("a", "x", int64(2*i+1))), pack(num("b", "x", int64(2*i+2))))
		ids = nil
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, badger.ManifestFilename))
	if err != nil {
		t.Fatal(err)
	}
	for id := range tablesOf(parseManifest(b[manifestHeader:])) {
		ids = append(ids, id)
	}
	if len(ids) == 0 {
		t.Fatal("no tables")
	}
	return dir, ids
}

// addChange appends what badger writes for a compaction.
func addChange(t *testing.T, dir string, created uint64, deleted ...uint64) {
	t.Helper()
	message := func(id uint64, op, level byte) []byte {
		m := append(binary.AppendUvarint([]byte{0x08}, id), 0x10, op, 0x18, level)
		return append([]byte{0x0a, byte(len(m))}, m...)
	}
	body := message(created, 0, 6)
	for _, id := range deleted {
		body = append(body, message(id, 1, 0)...)
	}
	head := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
	head = binary.BigEndian.AppendUint32(head, crc32.Checksum(body, castagnoli))
	f, err := os.OpenFile(filepath.Join(dir, badger.ManifestFilename), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(append(head, body...))
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// When the sync behind a compaction fails, badger deletes what it made and
// leaves the manifest saying otherwise: the next start undoes that.
func TestFailedSyncOfTheManifestIsUndoneAtTheNextStart(t *testing.T) {
	dir, ids := tables(t)
	addChange(t, dir, 9000, ids...)
	j := open0(t, dir, Options{})
	if got := seqs(mustRead(t, j, 1, 10)); !slices.Equal(got, []uint64{1, 2, 3, 4, 5, 6}) {
		t.Errorf("read = %d", got)
	}
	mustAppend(t, j, 9, pack(num("a", "x", 7)))
	checkNow(t, j)
}

func TestMissingAndCutOffTablesAreDamage(t *testing.T) {
	for name, damage := range map[string]func(path string) error{
		"missing": os.Remove,
		"empty":   func(path string) error { return os.Truncate(path, 0) },
		"zeros": func(path string) error {
			return errors.Join(os.Truncate(path, 0), os.Truncate(path, 4096))
		},
		"cut off": func(path string) error { return os.Truncate(path, 200) },
	} {
		t.Run(name, func(t *testing.T) {
			dir, ids := tables(t)
			// The oldest table: the one that its successors were merged into.
			if err := damage(table.NewFilename(slices.Min(ids), dir)); err != nil {
				t.Fatal(err)
			}
			j, err := Open(dir, Options{Reserve: 1})
			if err == nil {
				t.Errorf("opened, next is %d", j.Next())
				j.Close()
			} else if !errors.Is(err, ErrCorrupt) {
				t.Errorf("open: %v, want ErrCorrupt", err)
			}
		})
	}
}

// Badger only logs that it could not write in the background.
func TestFailureInTheBackgroundEndsTheJournal(t *testing.T) {
	j := open0(t, t.TempDir(), Options{})
	mustAppend(t, j, 1, pack(num("a", "x", 1)))
	log := storeLog{j.log, j.background}
	log.Warningf("nothing to do with the disk: %v", errors.New("fine"))
	mustAppend(t, j, 1, pack(num("a", "x", 2)))
	log.Warningf("[Compactor: %d] LOG Compact FAILED with error: %+v", 1, &os.PathError{Op: "sync", Path: "MANIFEST", Err: syscall.EIO})
	if _, err := j.Append([]batching.Packet{pack(num("a", "x", 3))}, batching.Stamp{}); !errors.Is(err, ErrInDoubt) || !errors.Is(err, syscall.EIO) {
		t.Errorf("append: %v, want ErrInDoubt and EIO", err)
	}
	if err := j.Run(context.Background()); !errors.Is(err, ErrInDoubt) {
		t.Errorf("run: %v, want ErrInDoubt", err)
	}
	if err := j.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

// Our reading of the manifest is badger's.
func TestManifestIsReadAsBadgerDoes(t *testing.T) {
	dir := t.TempDir()
	j := open0(t, dir, Options{})
	for n := 0; n < 400_000; n += 2000 {
		mustAppend(t, j, int64(n), siteGroup(n, 2000)...)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(dir, badger.ManifestFilename))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want, size, err := badger.ReplayManifestFile(f, 0, badger.DefaultOptions(dir))
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	changes := parseManifest(b[manifestHeader:])
	got, bytes := tablesOf(changes), manifestHeader
	for _, c := range changes {
		bytes += len(c.raw)
	}
	for id := range want.Tables {
		if _, ok := got[id]; !ok {
			t.Errorf("table %d not found", id)
		}
	}
	if len(got) != len(want.Tables) || len(got) < 2 || int64(bytes) != size {
		t.Errorf("%d tables in %d bytes, want %d in %d", len(got), bytes, len(want.Tables), size)
	}
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte{0, 0, 0, 2, 0, 0, 0, 0, 0x0a, 0})
	f.Add(fmt.Append(nil, "\x0a\x06\x08\x01\x10\x00\x18\x06"))
	f.Fuzz(func(t *testing.T, in []byte) {
		n := 0
		changes := parseManifest(in)
		for _, c := range changes {
			n += len(c.raw)
		}
		if n > len(in) || len(tablesOf(changes)) > len(in) {
			t.Errorf("%d bytes of %d", n, len(in))
		}
		var c tableChange
		c.parse(in) // what a checksum lets through
	})
}
