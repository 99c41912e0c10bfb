package archive

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/hedgerow-iot/hedgerow/ledger/store"
)

func TestIndexesConform(t *testing.T) {
	t.Run("memory", func(t *testing.T) {
		conform(t, func(*testing.T) Index { return newMemoryIndex() })
	})
	t.Run("badger", func(t *testing.T) {
		conform(t, func(t *testing.T) Index { return shelf(t, t.TempDir()) })
	})
}

// shelf opens a store that is checked and closed when the test ends.
func shelf(t testing.TB, dir string) *store.Shelf {
	t.Helper()
	s, err := store.Open(dir, store.Options{Reserve: 1})
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
	// Neighbours on both sides must not show.
	for _, name := range []byte{'a' - 1, 'a' + 1} {
		if err := s.Shelf(name).Write([][]byte{{}, {'k'}, {0xff, 0xff}}, [][]byte{{1}, {1}, {1}}); err != nil {
			t.Fatal(err)
		}
	}
	return s.Shelf('a')
}

// conform checks what Index promises.
func conform(t *testing.T, newIndex func(*testing.T) Index) {
	t.Run("what is written is read back", func(t *testing.T) { conformWrite(t, newIndex(t)) })
	t.Run("scans are in order and within their prefix", func(t *testing.T) { conformScan(t, newIndex(t)) })
	t.Run("the largest write is one step", func(t *testing.T) { conformLargest(t, newIndex(t)) })
	t.Run("calls may come at the same time", func(t *testing.T) { conformConcurrent(t, newIndex(t)) })
}

func write(t *testing.T, ix Index, pairs ...string) {
	t.Helper()
	var keys, values [][]byte
	for _, p := range pairs {
		k, v, ok := strings.Cut(p, "=")
		keys = append(keys, []byte(k))
		if ok {
			values = append(values, []byte(v))
		} else {
			values = append(values, nil)
		}
	}
	if err := ix.Write(keys, values); err != nil {
		t.Fatal(err)
	}
}

// listed scans and writes what came as "key=value key=value".
func listed(t *testing.T, ix Index, prefix string, from []byte, reverse bool, most int) string {
	t.Helper()
	var got []string
	if err := ix.Scan([]byte(prefix), from, reverse, func(k, v []byte) bool {
		got = append(got, string(k)+"="+string(v))
		return len(got) < most
	}); err != nil {
		t.Fatal(err)
	}
	return strings.Join(got, " ")
}

func conformWrite(t *testing.T, ix Index) {
	if got := listed(t, ix, "", nil, false, 9); got != "" {
		t.Errorf("an empty index has %q", got)
	}
	write(t, ix, "a=1", "b=", "c=3")
	write(t, ix, "a=2", "c")
	for key, want := range map[string][]byte{"a": []byte("2"), "b": {}, "c": nil, "d": nil, "": nil} {
		got, err := ix.Get([]byte(key))
		if err != nil || !bytes.Equal(got, want) || (got == nil) != (want == nil) {
			t.Errorf("Get(%q) = %q (nil: %v), %v; want %q", key, got, got == nil, err, want)
		}
	}
	write(t, ix)
	if got := listed(t, ix, "", nil, false, 9); got != "a=2 b=" {
		t.Errorf("index has %q", got)
	}
}

func conformScan(t *testing.T, ix Index) {
	write(t, ix, "a=0", "b=1", "ba=2", "bc=3", "b\xff=4", "b\xff\xff=5", "c=6", "\xff=7", "\xff\xff=8")
	for _, tt := range []struct {
		prefix  string
		from    string // "-": nil
		reverse bool
		most    int
		want    string
	}{
		{"b", "-", false, 9, "b=1 ba=2 bc=3 b\xff=4 b\xff\xff=5"},
		{"b", "-", true, 9, "b\xff\xff=5 b\xff=4 bc=3 ba=2 b=1"},
		{"b", "bb", false, 9, "bc=3 b\xff=4 b\xff\xff=5"},
		{"b", "bb", true, 9, "ba=2 b=1"},
		{"b", "bc", true, 1, "bc=3"},
		{"b", "bc", false, 2, "bc=3 b\xff=4"},
		{"b", "a", false, 9, "b=1 ba=2 bc=3 b\xff=4 b\xff\xff=5"},
		{"b", "a", true, 9, ""},
		{"b", "c", false, 9, ""},
		{"b", "c", true, 9, "b\xff\xff=5 b\xff=4 bc=3 ba=2 b=1"},
		{"\xff", "-", true, 9, "\xff\xff=8 \xff=7"},
		{"\xff", "-", false, 9, "\xff=7 \xff\xff=8"},
		{"b\xff", "-", true, 9, "b\xff\xff=5 b\xff=4"},
		{"", "-", true, 2, "\xff\xff=8 \xff=7"},
		{"", "-", false, 2, "a=0 b=1"},
		{"d", "-", false, 9, ""},
		{"d", "-", true, 9, ""},
	} {
		var from []byte
		if tt.from != "-" {
			from = []byte(tt.from)
		}
		if got := listed(t, ix, tt.prefix, from, tt.reverse, tt.most); got != tt.want {
			t.Errorf("Scan(%q, %q, reverse %v) = %q, want %q", tt.prefix, tt.from, tt.reverse, got, tt.want)
		}
	}
	// yield may read.
	if err := ix.Scan([]byte("a"), nil, false, func(k, _ []byte) bool {
		v, err := ix.Get([]byte("c"))
		if string(v) != "6" || err != nil || listed(t, ix, "ba", nil, false, 1) != "ba=2" {
			t.Errorf("within a scan: %q, %v", v, err)
		}
		return true
	}); err != nil {
		t.Error(err)
	}
}

func conformLargest(t *testing.T, ix Index) {
	var keys, values [][]byte
	for i := range 8192 {
		keys, values = append(keys, fmt.Appendf(nil, "%08d", i)), append(values, make([]byte, 120))
	}
	if err := ix.Write(keys, values); err != nil {
		t.Fatal(err)
	}
	n := 0
	if err := ix.Scan(nil, nil, false, func(_, _ []byte) bool { n++; return true }); n != 8192 || err != nil {
		t.Errorf("%d keys, %v", n, err)
	}
	if err := ix.Write(append(keys, []byte("one more")), append(values, nil)); err == nil {
		t.Error("one key more is taken")
	}
	if err := ix.Write(keys[:1], [][]byte{make([]byte, 1<<20)}); err == nil {
		t.Error("more bytes are taken")
	}
	write(t, ix, "goes=on")
}

func conformConcurrent(t *testing.T, ix Index) {
	var wg sync.WaitGroup
	for n := range 4 {
		wg.Go(func() {
			for i := range 20 {
				key, value := fmt.Appendf(nil, "%d", n), fmt.Appendf(nil, "%d", i)
				if err := ix.Write([][]byte{key}, [][]byte{value}); err != nil {
					t.Error(err)
				}
				if got, err := ix.Get(key); string(got) != string(value) || err != nil {
					t.Errorf("Get(%s) = %s, %v; want %s", key, got, err, value)
				}
			}
		})
	}
	wg.Wait()
	if got := listed(t, ix, "", nil, false, 9); got != "0=19 1=19 2=19 3=19" {
		t.Errorf("index has %q", got)
	}
}
