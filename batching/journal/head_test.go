package journal

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/batching/reading"
)

// newHead returns a head of its own, as a new journal makes it.
func newHead(t testing.TB) (h *head, dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := createHead(dir); err != nil {
		t.Fatal(err)
	}
	return headIn(t, dir), dir
}

func headIn(t testing.TB, dir string) *head {
	t.Helper()
	h, err := openHead(dir, [headID]byte{1, 2, 3})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.close() })
	return h
}

// groupOf returns an encoded group of one reading with so many bytes.
func groupOf(first uint64, size int) (next uint64, value []byte) {
	w := newGroupWriter(first, batching.Stamp{Received: 1})
	p := pack(reading.Reading{Device: "a", Name: "x", Value: reading.Bytes(make([]byte, size)), Err: "?"})
	w.add(&p)
	return w.g.next(), w.value()
}

// Whatever was appended and not released is found in the file after every
// step, however often it went round.
func TestHeadKeepsWhatIsNotReleased(t *testing.T) {
	h, _ := newHead(t)
	random := rand.New(rand.NewPCG(1, 2))
	var kept [][]byte
	first, next, full, rounds := uint64(1), uint64(1), 0, 0
	for step := range 1000 {
		if random.IntN(4) > 0 {
			after, value := groupOf(next, random.IntN(1<<(8+random.IntN(12))))
			switch err := h.append(next, after, value); {
			case errors.Is(err, errHeadFull):
				full++
				if h.used() < headBytes/4 {
					t.Fatalf("full with %d bytes used", h.used())
				}
			case err != nil:
				t.Fatal(err)
			default:
				if len(h.live) > 1 && h.end < h.live[0].at {
					rounds++
				}
				kept, next = append(kept, value), after
			}
		} else if n := random.IntN(min(len(kept)+1, 4)); n > 0 {
			kept, first = kept[n:], first+uint64(n)
			h.release(first)
		}
		if step%10 > 0 {
			continue
		}
		found, err := h.read(first)
		if err != nil || len(found) != len(kept) {
			t.Fatalf("%d groups from %d on, %v; want %d", len(found), first, err, len(kept))
		}
		for i := range found {
			if !bytes.Equal(found[i].value, kept[i]) {
				t.Fatalf("group %d differs", found[i].first)
			}
		}
	}
	if full == 0 || rounds == 0 {
		t.Errorf("full %d times, %d records after going round: want both", full, rounds)
	}
}

func TestHeadGoesOnBehindWhatItFound(t *testing.T) {
	h, dir := newHead(t)
	for seq := range uint64(3) {
		next, value := groupOf(seq+1, 10)
		if err := h.append(seq+1, next, value); err != nil {
			t.Fatal(err)
		}
	}
	k := headIn(t, dir)
	if _, err := k.load(2); err != nil {
		t.Fatal(err)
	}
	next, value := groupOf(4, 10)
	if err := k.append(4, next, value); err != nil {
		t.Fatal(err)
	}
	if found, err := headIn(t, dir).load(2); err != nil || len(found) != 3 {
		t.Errorf("%d groups, %v; want 3", len(found), err)
	}
}

// A crash can only spoil the last record.
func TestDamagedHead(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(t *testing.T, file string)
		next  uint64
		want  error
	}{
		{"last cut off", flip(2*headBlock + 40), 3, nil},
		{"last not begun", flip(2 * headBlock), 3, nil},
		{"first", flip(40), 0, ErrCorrupt},
		{"middle", flip(headBlock + 40), 0, ErrCorrupt},
		{"missing", func(t *testing.T, file string) { check(t, os.Remove(file)) }, 0, ErrCorrupt},
		{"cut off", func(t *testing.T, file string) { check(t, os.Truncate(file, headBytes-1)) }, 0, ErrCorrupt},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			j := open0(t, dir, Options{})
			for i := range 3 {
				mustAppend(t, j, int64(i), pack(num("a", "x", int64(i))))
			}
			copied := killed(t, dir)
			tt.spoil(t, filepath.Join(copied, headName))
			k, err := Open(copied, Options{Reserve: 1})
			if !errors.Is(err, tt.want) {
				t.Fatalf("open = %v, want %v", err, tt.want)
			}
			if err != nil {
				return
			}
			defer k.Close()
			if k.Next() != tt.next {
				t.Errorf("next is %d, want %d", k.Next(), tt.next)
			}
			mustAppend(t, k, 9, pack(num("a", "x", 9)))
			checkNow(t, k)
		})
	}
}

// What the store knows of its head is in a memory table's log at first. When
// that is lost, the journal is damaged and not new.
func TestHeadBesideAnEmptyStoreIsKept(t *testing.T) {
	dir := t.TempDir()
	j := open0(t, dir, Options{})
	for i := range 3 {
		mustAppend(t, j, int64(i), pack(num("a", "x", int64(i))))
	}
	for _, tt := range []struct {
		name  string
		spoil func(t *testing.T, file string)
		files string
	}{
		{"log missing", func(t *testing.T, file string) { check(t, os.Remove(file)) }, "*.mem"},
		{"log damaged", flip(30), "*.mem"},
		{"alone", func(t *testing.T, file string) { check(t, os.Remove(file)) }, "[^h]*"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			copied := killed(t, dir)
			files, err := filepath.Glob(filepath.Join(copied, tt.files))
			if check(t, err); len(files) == 0 {
				t.Fatal("nothing to spoil")
			}
			for _, file := range files {
				tt.spoil(t, file)
			}
			for range 2 { // the first try must not make the second succeed
				if _, err := Open(copied, Options{Reserve: 1}); !errors.Is(err, ErrCorrupt) {
					t.Fatalf("open = %v, want ErrCorrupt", err)
				}
			}
			left := headIn(t, copied)
			left.id = j.head.id
			if found, err := left.read(1); err != nil || len(found) != 3 {
				t.Errorf("%d groups left, %v", len(found), err)
			}
		})
	}
}

func TestDamagedLengthIsNoLength(t *testing.T) {
	for _, length := range []byte{0x80, 0x7f} { // the first is negative in 32 bits
		h, dir := newHead(t)
		next, value := groupOf(1, 10)
		check(t, h.append(1, next, value))
		f, err := os.OpenFile(filepath.Join(dir, headName), os.O_RDWR, 0)
		check(t, err)
		_, err = f.WriteAt([]byte{length, 0xff, 0xff, 0xff}, headID+8)
		check(t, errors.Join(err, f.Close()))
		if found, err := headIn(t, dir).load(1); err != nil || len(found) != 0 {
			t.Errorf("%d groups, %v", len(found), err)
		}
	}
}

func flip(at int64) func(t *testing.T, file string) {
	return func(t *testing.T, file string) {
		f, err := os.OpenFile(file, os.O_RDWR, 0)
		check(t, err)
		b := make([]byte, 1)
		_, err = f.ReadAt(b, at)
		check(t, err)
		b[0] ^= 0x80
		_, err = f.WriteAt(b, at)
		check(t, errors.Join(err, f.Close()))
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Damage that a running journal does not notice is found by Check.
func TestCheckReadsTheHead(t *testing.T) {
	dir := t.TempDir()
	j := open0(t, dir, Options{})
	for i := range 3 {
		mustAppend(t, j, int64(i), pack(num("a", "x", int64(i))))
	}
	checkNow(t, j)
	flip(2*headBlock+40)(t, filepath.Join(dir, headName))
	if err := j.Check(t.Context()); !errors.Is(err, ErrCorrupt) {
		t.Errorf("check = %v, want ErrCorrupt", err)
	}
	flip(2*headBlock+40)(t, filepath.Join(dir, headName)) // it is checked once more in the end
}

// Not every file system takes writes past the page cache.
func TestHeadFallsBackToThePageCache(t *testing.T) {
	h, dir := newHead(t)
	if !h.direct {
		t.Skip("this file system takes no direct writes anyway")
	}
	h.space = make([]byte, 4*headBlock+1)[1:] // which no direct write can come from
	next, value := groupOf(1, 10)
	if err := h.append(1, next, value); err != nil {
		t.Fatal(err)
	}
	if h.direct {
		t.Error("a refused direct write went unnoticed")
	}
	if found, err := headIn(t, dir).load(1); err != nil || len(found) != 1 {
		t.Errorf("%d groups, %v", len(found), err)
	}
}

// A journal whose Run is late indexes by itself when its head is full.
func TestFullHeadIsFlushed(t *testing.T) {
	j := open0(t, t.TempDir(), Options{})
	for i := range headBytes/headBlock + 10 {
		mustAppend(t, j, int64(i), pack(num("a", "x", int64(i))))
	}
	if s := j.Stats(); s.Unindexed > 20 || s.Readings != headBytes/headBlock+10 {
		t.Errorf("%d readings, %d of them not indexed", s.Readings, s.Unindexed)
	}
	checkNow(t, j)
}

// A padded is a head's file that holds these bytes and zeros behind them.
type padded []byte

func (p padded) ReadAt(b []byte, at int64) (int, error) {
	clear(b)
	if at < int64(len(p)) {
		copy(b, p[at:])
	}
	return len(b), nil
}

func FuzzHead(f *testing.F) {
	h, dir := newHead(f)
	for _, size := range []int{10, 5000} {
		next, value := groupOf(1, size)
		if err := h.append(1, next, value); err != nil {
			f.Fatal(err)
		}
	}
	seed, err := os.ReadFile(filepath.Join(dir, headName))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed[:4*headBlock], uint64(1))
	f.Add(seed[:headBlock], uint64(1))
	f.Fuzz(func(t *testing.T, b []byte, from uint64) {
		found, err := h.readFrom(padded(b), from)
		if err != nil {
			return
		}
		for i := range found {
			x := &found[i]
			if x.first != from || x.next <= from || x.at%headBlock != 0 || x.end > headBytes {
				t.Fatalf("group %d to %d at %d to %d, where %d belongs", x.first, x.next, x.at, x.end, from)
			}
			from = x.next
		}
	})
}
