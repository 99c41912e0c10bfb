package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	"go.uber.org/goleak"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// Badger leaves these two behind when it does not open.
		goleak.IgnoreTopFunction("github.com/dgraph-io/badger/v4.(*DB).monitorCache"),
		goleak.IgnoreTopFunction("github.com/dgraph-io/ristretto/v2/z.(*AllocatorPool).freeupAllocators"))
}

// open opens a store that is checked and closed when the test ends.
func open(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir, Options{Reserve: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Check(context.Background()); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// A grower extends a DAG in which every block approves the two before it.
type grower struct {
	ids []stardust.BlockID
	seq uint64 // of the next reading
}

// grow returns n further entries of size bytes, each with one mark. size is
// at least 88 for two parents.
func (g *grower) grow(t testing.TB, n, size int) (entries []ledger.Entry) {
	t.Helper()
	if len(g.ids) == 0 {
		g.ids = []stardust.BlockID{stardust.GenesisID}
	}
	for range n {
		parents := stardust.SortParents(slices.Clone(g.ids[max(0, len(g.ids)-2):]))
		b := &stardust.Block{Version: stardust.ProtocolVersion, Parents: parents}
		data := binary.BigEndian.AppendUint64(nil, g.seq)
		p := &stardust.TaggedData{Tag: []byte("hedgerow/barn-7"), Data: data}
		b.Payload = p
		p.Data = append(p.Data, make([]byte, max(0, size-b.Size()))...)
		raw, err := b.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		id := stardust.IDOf(raw)
		entries = append(entries, ledger.Entry{
			ID: id, Block: b, Raw: raw, Attached: time.UnixMilli(1_790_000_000_000),
			Runs: [][2]uint64{{g.seq, g.seq + 9}},
		})
		g.ids = append(g.ids, id)
		g.seq += 10
	}
	return entries
}

func (g *grower) commit(t testing.TB, s *Store, n, size int) {
	t.Helper()
	entries := g.grow(t, n, size)
	if err := s.Commit(ledger.Change{Entries: entries}); err != nil {
		t.Fatal(err)
	}
}

// copyDir copies a store's files while it is open, which is what a killed
// process leaves behind.
func copyDir(t *testing.T, from string) string {
	t.Helper()
	to := t.TempDir()
	files, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		data, err := os.ReadFile(filepath.Join(from, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, f.Name()), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

func TestWhatCommitStoredSurvivesACrash(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	var g grower
	for round := range 3 {
		g.commit(t, s, 5+round, 200)
		s := open(t, copyDir(t, dir))
		n, _, last, err := s.Count()
		if want := uint64(len(g.ids) - 1); n != want || last.UnixMilli() != 1_790_000_000_000 || err != nil {
			t.Errorf("Count = %d, %v, %v; want %d", n, last, err, want)
		}
		for _, id := range g.ids[1:] {
			rec, err := s.Load(id)
			if err != nil || stardust.IDOf(rec.Raw) != id {
				t.Errorf("Load(%v): %x, %v", id, rec.Raw, err)
			}
		}
		more := grower{ids: slices.Clone(g.ids), seq: 1000}
		more.commit(t, s, 4, 200) // and it goes on from there
	}
}

func TestAFailedCommitLeavesTheStoreInDoubt(t *testing.T) {
	s := open(t, t.TempDir())
	var g grower
	g.commit(t, s, 1, 100)
	broken := errors.New("sync: input/output error")
	s.commit = func(*badger.Txn) error { return broken }
	entries := g.grow(t, 1, 100)
	err := s.Commit(ledger.Change{Entries: entries})
	if !errors.Is(err, broken) || errors.Is(err, ledger.ErrBusy) {
		t.Errorf("Commit = %v, want the cause and not ErrBusy", err)
	}
	defer s.failed.Store(nil) // so that it is closed
	s.commit = (*badger.Txn).Commit
	if err := s.Ready(); !errors.Is(err, broken) {
		t.Errorf("Ready = %v, want the cause", err)
	}
	if err := s.Commit(ledger.Change{Entries: entries}); !errors.Is(err, broken) {
		t.Errorf("next Commit = %v, want it refused because of the first", err)
	}
}

// Badger only logs that it could not write in the background.
func TestAFailureInTheBackgroundLeavesTheStoreInDoubt(t *testing.T) {
	s := open(t, t.TempDir())
	var g grower
	l := logger{slog.New(slog.DiscardHandler), &s.failed}
	l.Warningf("compaction: %v", errors.New("nothing to do with the disk"))
	g.commit(t, s, 1, 100)
	l.Warningf("[Compactor: %d] LOG Compact FAILED with error: %+v", 1, &fs.PathError{Op: "sync", Path: "MANIFEST", Err: syscall.EIO})
	defer s.failed.Store(nil) // so that it is closed
	if err := s.Commit(ledger.Change{Entries: g.grow(t, 1, 100)}); !errors.Is(err, syscall.EIO) || errors.Is(err, ledger.ErrBusy) {
		t.Errorf("Commit = %v, want EIO and not ErrBusy", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
}

func TestAMissingTableIsDamage(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ledger")
	s, err := Open(dir, Options{Reserve: 1})
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v; want only the owner to enter", info.Mode(), err)
	}
	var g grower
	g.commit(t, s, 5, 100)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	if err := os.Remove(files[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{Reserve: 1}); !errors.Is(err, ErrDamaged) {
		t.Errorf("Open = %v, want ErrDamaged", err)
	}
}

// The ledger commits at most 256 blocks of 512 KiB with 8192 index entries at
// a time, or one block with 10,000 runs. Far-apart parents make the most
// entries.
func TestTheLargestGroupFitsOneTransaction(t *testing.T) {
	s := open(t, t.TempDir())
	var g grower
	for range 4 {
		g.commit(t, s, 250, 100)
	}
	var entries []ledger.Entry
	for i := range 256 {
		b := &stardust.Block{Version: stardust.ProtocolVersion}
		for j := range 8 {
			b.Parents = append(b.Parents, g.ids[(i+j*100)%1000])
		}
		b.Parents = stardust.SortParents(b.Parents)
		b.Payload = &stardust.TaggedData{Tag: make([]byte, 64), Data: make([]byte, 512<<10/256-400)}
		raw, err := b.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		e := ledger.Entry{ID: stardust.IDOf(raw), Block: b, Raw: raw, Attached: time.UnixMilli(1)}
		for r := range uint64(24) {
			e.Runs = append(e.Runs, [2]uint64{1<<60 + uint64(i)*1000 + r*10, 1<<60 + uint64(i)*1000 + r*10 + 5})
		}
		entries = append(entries, e)
	}
	if err := s.Commit(ledger.Change{Entries: entries}); err != nil {
		t.Error(err)
	}
	g.ids = []stardust.BlockID{entries[255].ID}
	one := g.grow(t, 1, stardust.MaxBlockSize)
	one[0].Runs = nil
	for r := range uint64(ledger.MaxRuns) {
		one[0].Runs = append(one[0].Runs, [2]uint64{1<<62 + 2*r, 1<<62 + 2*r})
	}
	if err := s.Commit(ledger.Change{Entries: one}); err != nil {
		t.Error(err)
	}
}

func TestANewerFormatIsRefused(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, Options{Reserve: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.db.Update(func(txn *badger.Txn) error {
		return txn.Set([]byte{prefixFormat}, binary.AppendUvarint(nil, Format+1))
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{}); !errors.Is(err, ErrNewer) {
		t.Errorf("Open = %v, want ErrNewer", err)
	}
}

func TestTwoProcessesCannotOpenOneStore(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	if _, err := Open(dir, Options{Reserve: 1}); err == nil {
		t.Error("opened twice")
	}
}

func TestCommitIsBusyBeforeFilesRunOut(t *testing.T) {
	s := open(t, t.TempDir())
	var g grower
	g.commit(t, s, 1, 100)
	entries := g.grow(t, 1, 100)
	left := leastFiles - 1
	s.guard.files, s.guard.counted = func() (int, error) { return left, nil }, time.Time{}
	if err := s.Commit(ledger.Change{Entries: entries}); !errors.Is(err, ledger.ErrBusy) {
		t.Errorf("Commit with %d files left = %v, want ErrBusy", left, err)
	}
	left++
	if err := s.Commit(ledger.Change{Entries: entries}); err != nil {
		t.Errorf("Commit with %d files left = %v", left, err)
	}
	if n, err := freeFiles(); n < 1 || err != nil {
		t.Errorf("freeFiles = %d, %v", n, err)
	}
}

func TestBelowTheReserveCommitIsBusyUntilSpaceReturns(t *testing.T) {
	free := int64(1 << 30)
	s, err := Open(t.TempDir(), Options{Reserve: 100 << 20, free: func(string) (int64, error) { return free, nil }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var g grower
	g.commit(t, s, 1, 100)
	entries := g.grow(t, 1, 100)
	free = 100<<20 - 1
	if err := s.Commit(ledger.Change{Entries: entries}); !errors.Is(err, ledger.ErrBusy) || !strings.Contains(err.Error(), "99 MiB free") {
		t.Errorf("Commit = %v, want ErrBusy with the free space", err)
	}
	if err := s.Ready(); !errors.Is(err, ledger.ErrBusy) {
		t.Errorf("Ready = %v, want ErrBusy", err)
	}
	if ok, err := s.Has(entries[0].ID); ok || err != nil {
		t.Errorf("refused block is there: %v, %v", ok, err)
	}
	free = 100 << 20
	if err := s.Commit(ledger.Change{Entries: entries}); err != nil {
		t.Errorf("Commit with space again: %v", err)
	}
}

func TestTheReserveIsNeverBelowWhatBadgerNeeds(t *testing.T) {
	if g := newGuard("", Options{Reserve: 1}); g.reserve != 32<<20 {
		t.Errorf("reserve is %d", g.reserve)
	}
}

func TestAFullDiskIsNotOpened(t *testing.T) {
	_, err := Open(t.TempDir(), Options{free: func(string) (int64, error) { return 5 << 20, nil }})
	if !errors.Is(err, ErrDiskFull) || !strings.Contains(err.Error(), "5 MiB free, 24 MiB needed") {
		t.Errorf("Open = %v, want ErrDiskFull with both figures", err)
	}
}

func TestAFullDiskIsNotWrittenByClose(t *testing.T) {
	free := int64(1 << 40)
	s, err := Open(t.TempDir(), Options{free: func(string) (int64, error) { return free, nil }})
	if err != nil {
		t.Fatal(err)
	}
	free = 0
	if err := s.Close(); !errors.Is(err, ErrDiskFull) {
		t.Errorf("Close = %v, want ErrDiskFull", err)
	}
	free = 1 << 40
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestAtItsLimitTheStoreIsBusy(t *testing.T) {
	s, err := Open(t.TempDir(), Options{Reserve: 1, MaxDisk: 3 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var g grower
	for i := 0; ; i++ {
		entries := g.grow(t, 16, 30_000)
		err := s.Commit(ledger.Change{Entries: entries})
		if errors.Is(err, ledger.ErrBusy) {
			if used, err := s.DiskBytes(); used < 3<<20 || used > 8<<20 || err != nil {
				t.Errorf("busy at %d bytes, %v", used, err)
			}
			return
		}
		if err != nil || i == 40 {
			t.Fatalf("after %d commits: %v", i, err)
		}
	}
}

func TestCheckFindsDamage(t *testing.T) {
	var g grower
	entries := g.grow(t, 100, 150)
	key := func(k []byte) func(*badger.Txn) error { return func(txn *badger.Txn) error { return txn.Delete(k) } }
	put := func(k, v []byte) func(*badger.Txn) error { return func(txn *badger.Txn) error { return txn.Set(k, v) } }
	tag := []byte("hedgerow/barn-7")
	for name, damage := range map[string]func(*badger.Txn) error{
		"a block is missing":           key(blockKey(50)),
		"the last block is missing":    key(blockKey(100)),
		"an id is missing":             key(idKey(g.ids[7])),
		"an id has another number":     put(idKey(g.ids[7]), []byte{8}),
		"an id of no block":            put(idKey(stardust.IDOf(nil)), []byte{8}),
		"a child is missing":           key(childKey(0, 3)),
		"a child too many":             put(childKey(0, 90), []byte{1}),
		"a child of no block":          put(childKey(0, 101), []byte{1}),
		"a tag is missing":             key(tagKey(tag, 9)),
		"a tag too many":               put(tagKey([]byte("x"), 9), nil),
		"a mark of no block":           put(markKey(5000), []byte{0, 101}),
		"marks overlap":                put(markKey(1004), []byte{5, 3}),
		"a key that means nothing":     put([]byte("zz"), nil),
		"a number written in two ways": put([]byte{prefixBlock, 2, 0, 7}, nil),
		"a block with another byte": func(txn *badger.Txn) error {
			v, err := get(txn, blockKey(20))
			if err != nil {
				return err
			}
			v[len(v)-1] ^= 1
			return txn.Set(blockKey(20), v)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Open(t.TempDir(), Options{Reserve: 1})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if err := s.Commit(ledger.Change{Entries: entries}); err != nil {
				t.Fatal(err)
			}
			if err := s.Check(t.Context()); err != nil {
				t.Fatalf("before: %v", err)
			}
			if err := s.db.Update(damage); err != nil {
				t.Fatal(err)
			}
			if err := s.Check(t.Context()); !errors.Is(err, ErrDamaged) {
				t.Errorf("Check = %v, want ErrDamaged", err)
			}
		})
	}
}

func TestCheckEndsWithItsContext(t *testing.T) {
	s := open(t, t.TempDir())
	var g grower
	for range 5 {
		g.commit(t, s, 250, 100)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Check(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Check = %v, want context.Canceled", err)
	}
}

func TestNumbersSortAsBytes(t *testing.T) {
	var before []byte
	for _, n := range []uint64{0, 1, 2, 255, 256, 257, 65535, 65536, 1 << 24, 1 << 32, 1<<63 - 1, 1 << 63, 1<<64 - 1} {
		b := appendNumber(nil, n)
		if before != nil && string(before) >= string(b) {
			t.Errorf("%d is %x, not above %x", n, b, before)
		}
		got, rest, err := cutNumber(append(b, 7))
		if got != n || len(rest) != 1 || err != nil {
			t.Errorf("cutNumber(%x) = %d, %x, %v; want %d", b, got, rest, err, n)
		}
		before = b
	}
}

// Whatever stands on the disk is decoded or refused, and what is decoded
// encodes to the same bytes.
func FuzzDecode(f *testing.F) {
	b := block{number: 300, attached: 5, version: 2, parents: []uint64{0, 299}, rest: []byte("rest")}
	f.Add(uint64(300), b.encode())
	f.Add(uint64(1), []byte{})
	f.Fuzz(func(t *testing.T, n uint64, v []byte) {
		if b, err := decodeBlock(n, v); err == nil {
			again, err := decodeBlock(n, b.encode())
			if err != nil || fmt.Sprint(again) != fmt.Sprint(b) {
				t.Errorf("%x decodes to %v and then to %v, %v", v, b, again, err)
			}
		}
		if run, _, err := decodeMark(markKey(n), v); err == nil && run[0] > run[1] {
			t.Errorf("mark %x is %v", v, run)
		}
		if got, rest, err := cutNumber(v); err == nil && string(append(appendNumber(nil, got), rest...)) != string(v) {
			t.Errorf("%x is number %d and %x", v, got, rest)
		}
	})
}
