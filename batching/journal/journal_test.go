package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/batching/reading"
)

// open0 opens a journal that is checked and closed after the test.
func open0(t testing.TB, dir string, opt Options) *Journal {
	t.Helper()
	if opt.Reserve == 0 {
		opt.Reserve = 1
	}
	j, err := Open(dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { finish(t, j) })
	return j
}

func finish(t testing.TB, j *Journal) {
	t.Helper()
	j.mu.RLock()
	skip := j.closed || j.failed != nil
	j.mu.RUnlock()
	if !skip {
		if err := j.Check(context.Background()); err != nil {
			t.Errorf("check: %v", err)
		}
	}
	if err := j.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

// checkNow runs fsck in the middle of a test.
func checkNow(t testing.TB, j *Journal) {
	t.Helper()
	if err := j.Check(t.Context()); err != nil {
		t.Errorf("check: %v", err)
	}
}

func num(device, name string, v int64) reading.Reading {
	return reading.Reading{Device: device, Name: name, Value: reading.Int(v)}
}

func pack(rs ...reading.Reading) batching.Packet { return batching.Packet{Readings: rs} }

func keyOf(sender, message byte) batching.Key {
	return batching.Key{Sender: [16]byte{sender}, Message: [16]byte{message}}
}

func mustAppend(t testing.TB, j *Journal, received int64, packets ...batching.Packet) uint64 {
	t.Helper()
	first, err := j.Append(packets, batching.Stamp{Received: received})
	if err != nil {
		t.Fatalf("append at %d: %v", received, err)
	}
	return first
}

func mustRead(t testing.TB, j *Journal, from uint64, limit int) []reading.Reading {
	t.Helper()
	rs, err := j.Read(from, limit)
	if err != nil {
		t.Fatalf("read from %d: %v", from, err)
	}
	return rs
}

func seqs(rs []reading.Reading) []uint64 {
	ns := make([]uint64, len(rs))
	for i := range rs {
		ns[i] = rs[i].Seq
	}
	return ns
}

// killed returns a copy of what a process killed now would leave. A copy during
// which the store changed its files is no such thing: it is made again.
func killed(t testing.TB, dir string) string {
	t.Helper()
	for range 100 {
		to := t.TempDir()
		before, err := filepath.Glob(filepath.Join(dir, "*"))
		order := slices.Clone(before)
		// First the manifest: a table that it names by then is whole.
		slices.SortStableFunc(order, func(a, b string) int {
			return strings.Compare(filepath.Ext(a), filepath.Ext(b))
		})
		for _, name := range order {
			if err == nil {
				err = copySparse(name, filepath.Join(to, filepath.Base(name)))
			}
		}
		after, _ := filepath.Glob(filepath.Join(dir, "*"))
		if err == nil && slices.Equal(before, after) {
			return to
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	t.Fatal("the store never rests")
	return ""
}

func copySparse(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	buf, zero := make([]byte, 64<<10), make([]byte, 64<<10)
	var size int64
	for {
		n, err := io.ReadFull(in, buf)
		if !bytes.Equal(buf[:n], zero[:n]) {
			if _, err := out.WriteAt(buf[:n], size); err != nil {
				return err
			}
		}
		size += int64(n)
		if err != nil {
			return errors.Join(out.Truncate(size), out.Close())
		}
	}
}

func TestAppendGivesConsecutiveNumbersAndStampsReadings(t *testing.T) {
	j := open0(t, t.TempDir(), Options{})
	if got := j.Next(); got != 1 {
		t.Errorf("next of a new journal = %d, want 1", got)
	}
	first, err := j.Append([]batching.Packet{
		pack(num("a", "x", 1), num("a", "y", 2)), pack(num("b", "x", 3)),
	}, batching.Stamp{Received: 77, Clock: reading.ClockUnsure})
	if err != nil || first != 1 {
		t.Fatalf("append = %d, %v; want 1", first, err)
	}
	if first := mustAppend(t, j, 78, pack(num("a", "x", 4))); first != 4 {
		t.Errorf("second append = %d, want 4", first)
	}
	want := []reading.Reading{
		{Seq: 1, Device: "a", Name: "x", Value: reading.Int(1), Received: 77, Clock: reading.ClockUnsure},
		{Seq: 2, Device: "a", Name: "y", Value: reading.Int(2), Received: 77, Clock: reading.ClockUnsure},
		{Seq: 3, Device: "b", Name: "x", Value: reading.Int(3), Received: 77, Clock: reading.ClockUnsure},
		{Seq: 4, Device: "a", Name: "x", Value: reading.Int(4), Received: 78},
	}
	if got := mustRead(t, j, 0, 100); !slices.Equal(got, want) {
		t.Errorf("read = %+v, want %+v", got, want)
	}
	if got := mustRead(t, j, 2, 2); !slices.Equal(got, want[1:3]) {
		t.Errorf("read 2 from 2 = %+v, want %+v", got, want[1:3])
	}
	if got := mustRead(t, j, 5, 10); len(got) != 0 {
		t.Errorf("read behind the end = %+v", got)
	}
	checkNow(t, j)
}

func TestReopenedJournalGoesOnWhereItWasKilled(t *testing.T) {
	dir := t.TempDir()
	j := open0(t, dir, Options{})
	mustAppend(t, j, 10, batching.Packet{Readings: []reading.Reading{num("a", "x", 1)}, Key: keyOf(1, 1)})
	if err := j.flush(); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, j, 20, batching.Packet{Readings: []reading.Reading{num("a", "x", 2)}, Key: keyOf(1, 2)})
	k := open0(t, killed(t, dir), Options{})
	if k.Next() != 3 || k.Incarnation() != j.Incarnation() {
		t.Errorf("next = %d, incarnation %x; want 3, %x", k.Next(), k.Incarnation(), j.Incarnation())
	}
	for i := range 2 {
		seq, ok := k.Recall(keyOf(1, byte(i+1)), time.Hour, 25)
		if !ok || seq != uint64(i+1) {
			t.Errorf("recall %d = %d, %t", i+1, seq, ok)
		}
	}
	if got := seqs(mustRead(t, k, 1, 10)); !slices.Equal(got, []uint64{1, 2}) {
		t.Errorf("read = %d", got)
	}
	if first := mustAppend(t, k, 30, pack(num("a", "x", 3))); first != 3 {
		t.Errorf("append = %d, want 3", first)
	}
	checkNow(t, k)
}

// A kill between the parts of a flush leaves entries above the checkpoint.
func TestFlushThatWasCutOffIsRepeated(t *testing.T) {
	dir := t.TempDir()
	j := open0(t, dir, Options{})
	mustAppend(t, j, 10, batching.Packet{Readings: []reading.Reading{num("a", "x", 1), num("b", "x", 1)}, Key: keyOf(1, 1)})
	w := j.newWriter()
	if err := j.tail.index(func(k, v []byte) error { return w.set(k, v, 0) }); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.set(series{"a", "x"}.key(prefixLast), encodeLast(entry{1, 10}), 0), w.commit()); err != nil {
		t.Fatal(err)
	}
	k := open0(t, killed(t, dir), Options{})
	checkNow(t, k)
	mustAppend(t, k, 11, pack(num("a", "x", 2)))
	for range 2 {
		rs, next, err := k.History(Query{Device: "a"})
		if err != nil || next != "" || !slices.Equal(seqs(rs), []uint64{1, 3}) {
			t.Errorf("history = %d, %q, %v", seqs(rs), next, err)
		}
		if err := k.flush(); err != nil {
			t.Fatal(err)
		}
		checkNow(t, k)
	}
}

func TestRecall(t *testing.T) {
	j := open0(t, t.TempDir(), Options{})
	for i := range windowSize + 10 {
		mustAppend(t, j, int64(i), batching.Packet{
			Readings: []reading.Reading{num("a", "x", 1)},
			Key:      batching.Key{Sender: [16]byte{1}, Message: [16]byte{byte(i), byte(i >> 8)}},
		})
	}
	message := func(i int) batching.Key {
		return batching.Key{Sender: [16]byte{1}, Message: [16]byte{byte(i), byte(i >> 8)}}
	}
	now := int64(windowSize + 10)
	for _, tt := range []struct {
		name   string
		key    batching.Key
		within time.Duration
		now    int64
		want   uint64
	}{
		{"newest", message(521), time.Hour, now, 522},
		{"oldest of the window", message(10), time.Hour, now, 11},
		{"before the window", message(9), time.Hour, now, 0},
		{"other sender", keyOf(2, 20), time.Hour, now, 0},
		{"too old", message(100), 10 * time.Millisecond, now, 0},
		{"just not too old", message(100), 10 * time.Millisecond, 110, 101},
		{"clock went back", message(100), 10 * time.Millisecond, 0, 101},
		{"no key", batching.Key{}, time.Hour, now, 0},
	} {
		check := func(t *testing.T) {
			if got, ok := j.Recall(tt.key, tt.within, tt.now); got != tt.want || ok != (tt.want > 0) {
				t.Errorf("recall = %d, %t; want %d", got, ok, tt.want)
			}
		}
		t.Run(tt.name, check)
		if err := j.flush(); err != nil {
			t.Fatal(err)
		}
		t.Run(tt.name+" indexed", check)
		j.windows.mu.Lock() // forget all
		j.windows.keys += maxWindowKeys
		j.windows.evict(evictFew)
		j.windows.keys -= maxWindowKeys
		left := len(j.windows.senders)
		j.windows.mu.Unlock()
		if left != 0 {
			t.Fatalf("%d windows left", left)
		}
		t.Run(tt.name+" from the store", check)
	}
}

func TestSkipToLeavesAGapAndANewIncarnation(t *testing.T) {
	dir := t.TempDir()
	j := open0(t, dir, Options{})
	mustAppend(t, j, 10, pack(num("a", "x", 1)))
	was := j.Incarnation()
	for _, next := range []uint64{100, 200, 150} {
		if err := j.SkipTo(next); err != nil {
			t.Fatal(err)
		}
	}
	if j.Next() != 200 || j.Incarnation() == was {
		t.Errorf("next = %d, incarnation %x after %x", j.Next(), j.Incarnation(), was)
	}
	checkNow(t, j)
	k := open0(t, killed(t, dir), Options{})
	if k.Next() != 200 || k.Incarnation() != j.Incarnation() {
		t.Errorf("reopened: next = %d, incarnation %x, want 200, %x", k.Next(), k.Incarnation(), j.Incarnation())
	}
	if first := mustAppend(t, k, 11, pack(num("a", "x", 2))); first != 200 {
		t.Errorf("append = %d, want 200", first)
	}
	if got := seqs(mustRead(t, k, 1, 10)); !slices.Equal(got, []uint64{1, 200}) {
		t.Errorf("read = %d", got)
	}
	if got := seqs(mustRead(t, k, 2, 10)); !slices.Equal(got, []uint64{200}) {
		t.Errorf("read from inside the gap = %d", got)
	}
	if _, err := k.Get(100); !errors.Is(err, ErrNotFound) {
		t.Errorf("get from the gap: %v", err)
	}
	checkNow(t, k)
}

func TestOpenTellsVersionsAndDamage(t *testing.T) {
	for _, tt := range []struct {
		name, key string
		value     []byte
		want      error
	}{
		{"newer", metaVersion, []byte{0, 0, 0, Format + 1}, ErrNewer},
		{"no version", metaVersion, []byte{}, ErrCorrupt},
		{"checkpoint", metaCheckpoint, []byte{1}, ErrCorrupt},
		{"segment", string(seqKey(prefixSegment, 1)), []byte{1}, ErrCorrupt},
		{"head", metaHead, []byte{1}, ErrCorrupt},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			j := open0(t, dir, Options{})
			mustAppend(t, j, 1, pack(num("a", "x", 1)))
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
			change(t, dir, tt.key, tt.value)
			if j, err := Open(dir, Options{}); !errors.Is(err, tt.want) {
				t.Errorf("open = %v, %v; want %v", j, err, tt.want)
			}
		})
	}
}

// change writes a key behind the journal's back.
func change(t *testing.T, dir, key string, value []byte) {
	t.Helper()
	db, err := openStore(dir, Options{Log: slog.New(slog.DiscardHandler)}, new(atomic.Pointer[error]))
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(txn *badger.Txn) error { return txn.Set([]byte(key), value) })
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestCheckFindsWhatIsChanged(t *testing.T) {
	for _, tt := range []struct {
		name, key string
		value     []byte
	}{
		{"chunk", string(chunkKey(series{"a", "x"}, entry{1, 1})), encodeChunk([]entry{{1, 1}, {2, 2}})},
		{"extra chunk", string(chunkKey(series{"a", "z"}, entry{1, 1})), encodeChunk([]entry{{1, 1}})},
		{"last", string(series{"a", "x"}.key(prefixLast)), encodeLast(entry{1, 1})},
		{"segment", string(seqKey(prefixSegment, 1)), encodeSegment(&segment{1, 4, 10, 1, 1})},
		{"group", string(seqKey(prefixGroup, 1)), make([]byte, 40)},
		{"checkpoint", metaCheckpoint, encodeCheckpoint(checkpoint{next: 9})},
		{"window", string(windowKey([16]byte{1}, 1)), []byte{1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			j := open0(t, dir, Options{})
			mustAppend(t, j, 1, pack(num("a", "x", 1), num("a", "x", 2), num("a", "y", 3)))
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
			change(t, dir, tt.key, tt.value)
			k, err := Open(dir, Options{Reserve: 1})
			if err != nil {
				t.Fatal(err)
			}
			defer k.Close()
			if err := k.Check(t.Context()); !errors.Is(err, ErrCorrupt) {
				t.Errorf("check = %v, want %v", err, ErrCorrupt)
			}
		})
	}
}

func TestDamagedGroupIsReportedAndOthersAreRead(t *testing.T) {
	dir := t.TempDir()
	j := open0(t, dir, Options{})
	const each = mergeReadings // so that no two become one group
	for i := range 3 {
		rs := make([]reading.Reading, each)
		for n := range rs {
			rs[n] = num("a", fmt.Sprint(i), int64(n))
		}
		mustAppend(t, j, int64(i), pack(rs...))
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	change(t, dir, string(seqKey(prefixGroup, each+1)), []byte("flipped"))
	k, err := Open(dir, Options{Reserve: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if _, err := k.Get(each + 2); !errors.Is(err, ErrCorrupt) {
		t.Errorf("get from the damaged group: %v", err)
	}
	if r, err := k.Get(2*each + 1); err != nil || r.Name != "2" {
		t.Errorf("get behind it = %+v, %v", r, err)
	}
	if _, err := k.Read(each, 10); !errors.Is(err, ErrCorrupt) {
		t.Errorf("read: %v", err)
	}
}

func TestFailedCommitEndsTheJournal(t *testing.T) {
	j := open0(t, t.TempDir(), Options{})
	mustAppend(t, j, 1, pack(num("a", "x", 1)))
	if err := j.head.f.Close(); err != nil { // the next write fails
		t.Fatal(err)
	}
	for range 2 {
		_, err := j.Append([]batching.Packet{pack(num("a", "x", 1))}, batching.Stamp{})
		if !errors.Is(err, ErrInDoubt) || errors.Is(err, batching.ErrBusy) {
			t.Errorf("append: %v", err)
		}
	}
	if err := j.Ready(); !errors.Is(err, ErrInDoubt) {
		t.Errorf("ready: %v", err)
	}
	if err := j.flush(); !errors.Is(err, ErrInDoubt) {
		t.Errorf("flush: %v", err)
	}
}

func TestLargePacketsAreSplitBetweenGroupsOrRefused(t *testing.T) {
	j := open0(t, t.TempDir(), Options{})
	raw := func(n int) (p batching.Packet) { // of n readings with 20 KiB each
		for range n {
			p.Readings = append(p.Readings, reading.Reading{
				Device: "a", Name: "x", Value: reading.Bytes(make([]byte, 20<<10)), Err: "too long"})
		}
		return p
	}
	first := mustAppend(t, j, 1, raw(15), raw(15), raw(45), raw(1))
	if first != 1 || j.Next() != 77 || j.Stats().Groups != 4 {
		t.Errorf("append = %d, next %d, %d groups", first, j.Next(), j.Stats().Groups)
	}
	_, err := j.Append([]batching.Packet{raw(1), raw(48)}, batching.Stamp{})
	if !errors.Is(err, reading.ErrLimit) || j.Next() != 77 {
		t.Errorf("append of too much = %v, next %d", err, j.Next())
	}
	mustAppend(t, j, 1, raw(1))
	checkNow(t, j)
}

// A journal of format 2 has groups of the head in the store.
func TestTheFormatBeforeIsReadAndBecomesThisOne(t *testing.T) {
	dir := t.TempDir()
	j := open0(t, dir, Options{})
	p := pack(num("a", "x", 1), num("b", "y", 2))
	p.Key = keyOf(1, 2)
	mustAppend(t, j, 5, p)
	want := mustRead(t, j, 1, 10)
	w := newGroupWriter(1, batching.Stamp{Received: 5})
	w.add(&p)
	value := w.value()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	change(t, dir, string(seqKey(prefixGroup, 1)), value)
	change(t, dir, string(seqKey(prefixSegment, 1)), encodeSegment(&segment{1, 3, int64(len(value)), 5, 5}))
	change(t, dir, metaVersion, []byte{0, 0, 0, oldestFormat})
	for range 2 {
		k := open0(t, dir, Options{})
		if rs := mustRead(t, k, 1, 10); !slices.Equal(rs, want) {
			t.Errorf("read %+v, want %+v", rs, want)
		}
		if _, ok := k.Recall(p.Key, time.Hour, 6); !ok {
			t.Error("the packet is forgotten")
		}
		checkNow(t, k)
		err := k.view(func(txn *badger.Txn) error {
			item, err := txn.Get([]byte(metaVersion))
			if err != nil {
				return err
			}
			return item.Value(func(v []byte) error {
				if v[3] != Format {
					t.Errorf("format %x", v)
				}
				return nil
			})
		})
		if err := errors.Join(err, k.Close()); err != nil {
			t.Fatal(err)
		}
	}
}
