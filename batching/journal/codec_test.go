package journal

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/batching/reading"
)

func TestGroupDecodesToWhatWasEncoded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newGroupWriter(rapid.Uint64Range(1, 1<<60).Draw(t, "first"), batching.Stamp{
			Received: rapid.Int64().Draw(t, "received"), Clock: reading.ClockBad,
		})
		for _, p := range rapid.SliceOfN(genPacket, 1, 20).Draw(t, "packets") {
			before := len(w.buf)
			w.add(&p)
			if n := len(w.buf) - before; n > p.Bytes() {
				t.Fatalf("packet took %d bytes, bound %d", n, p.Bytes())
			}
		}
		g, err := decodeGroup(w.g.first, w.value())
		if err != nil || !reflect.DeepEqual(*g, w.g) {
			t.Fatalf("decoded %+v, %v; want %+v", g, err, w.g)
		}
	})
}

// genGroups makes groups of a head that follow each other.
var genGroups = rapid.Custom(func(t *rapid.T) (groups []*group) {
	first := rapid.Uint64Range(1, 1<<60).Draw(t, "first")
	for range rapid.IntRange(1, 12).Draw(t, "groups") {
		w := newGroupWriter(first, batching.Stamp{
			Received: rapid.OneOf(rapid.Int64(), rapid.Int64Range(0, 3)).Draw(t, "received"),
			Clock:    reading.Clock(rapid.IntRange(0, int(reading.ClockBad)).Draw(t, "clock")),
		})
		for _, p := range rapid.SliceOfN(genPacket, 1, 30).Draw(t, "packets") {
			w.add(&p)
		}
		groups, first = append(groups, &w.g), w.g.next()
	}
	return groups
})

// merged returns the groups that merge makes, by where they begin.
func merged(groups []*group) (values map[uint64][]byte, order []uint64) {
	values = make(map[uint64][]byte)
	_ = merge(groups, func(first uint64, value []byte) error {
		values[first], order = value, append(order, first)
		return nil
	})
	return values, order
}

func TestMergedGroupsHoldTheSameReadings(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		groups := genGroups.Draw(t, "groups")
		var want, got []reading.Reading
		for _, g := range groups {
			want = append(want, g.readings...)
		}
		values, order := merged(groups)
		for _, first := range order {
			g, err := decodeGroup(first, values[first])
			if err != nil {
				t.Fatal(err)
			}
			if g.first != want[len(got)].Seq || g.at != (batching.Stamp{Received: g.readings[0].Received, Clock: g.readings[0].Clock}) || g.packets != nil {
				t.Fatalf("group %+v", g)
			}
			got = append(got, g.readings...)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("merged %+v\nwant   %+v", got, want)
		}
	})
}

// What a flush that was cut off has left is written over by the next one,
// which has at least the same groups.
func TestMergedGroupsBeginWhereThoseOfFewerGroupsDid(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		groups := genGroups.Draw(t, "groups")
		values, _ := merged(groups)
		fewer := rapid.IntRange(0, len(groups)).Draw(t, "fewer")
		_, order := merged(groups[:fewer])
		for i, first := range order {
			if values[first] == nil {
				t.Fatalf("group %d of %d groups begins at %d, where none of %d does", i, fewer, first, len(groups))
			}
		}
	})
}

func TestEveryBitOfAGroupIsProtected(t *testing.T) {
	w := newGroupWriter(7, batching.Stamp{Received: 1000})
	p := batching.Packet{Readings: []reading.Reading{num("a", "x", 1), num("a", "y", 2)}, Key: keyOf(1, 2)}
	w.add(&p)
	value := w.value()
	protected(t, value)
	values, _ := merged([]*group{&w.g})
	protected(t, values[7])
}

func protected(t *testing.T, value []byte) {
	t.Helper()
	if _, err := decodeGroup(8, value); !errors.Is(err, ErrCorrupt) {
		t.Errorf("under another key: %v", err)
	}
	for i := range 8 * len(value) {
		value[i/8] ^= 1 << (i % 8)
		if g, err := decodeGroup(7, value); !errors.Is(err, ErrCorrupt) {
			t.Errorf("bit %d flipped: %+v, %v", i, g, err)
		}
		value[i/8] ^= 1 << (i % 8)
	}
	for n := range value {
		if _, err := decodeGroup(7, value[:n]); !errors.Is(err, ErrCorrupt) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
}

func TestChunksNeverFallAndSpanAnHour(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var es []entry
		e := entry{seq: 1}
		for range rapid.IntRange(1, 60).Draw(t, "entries") {
			e.seq += rapid.Uint64Range(1, 300).Draw(t, "seq")
			e.received += rapid.Int64Range(-chunkSpan/4, chunkSpan).Draw(t, "later")
			es = append(es, e)
		}
		var got []entry
		chunks(es, func(part []entry) {
			value := encodeChunk(part)
			last, err := chunkEnd(part[0], value)
			if err != nil || last != part[len(part)-1] || last.received-part[0].received > chunkSpan {
				t.Fatalf("end = %v, %v; want %v", last, err, part[len(part)-1])
			}
			if err := decodeChunk(part[0], value, func(e entry) bool { got = append(got, e); return true }); err != nil {
				t.Fatal(err)
			}
			if !slices.IsSortedFunc(part, compareEntries) {
				t.Fatalf("chunk falls: %v", part)
			}
		})
		if !slices.Equal(got, es) {
			t.Fatalf("chunks hold %v, want %v", got, es)
		}
	})
}

func TestKeysSortLikeWhatTheyStandFor(t *testing.T) {
	s := series{"dev", "x"}
	times := []int64{-1 << 63, -5, 0, 7, 1 << 40, 1<<63 - 1}
	for i := 1; i < len(times); i++ {
		a, b := chunkKey(s, entry{1, times[i-1]}), chunkKey(s, entry{1, times[i]})
		if slices.Compare(a, b) >= 0 {
			t.Errorf("key of %d is not below that of %d", times[i-1], times[i])
		}
		got, e, ok := parseChunkKey(b)
		if !ok || got != s || e != (entry{1, times[i]}) {
			t.Errorf("parsed %v, %v, %t", got, e, ok)
		}
	}
	if strings.HasPrefix(string(chunkPrefix(series{"dev", "xy"})), string(chunkPrefix(s))) {
		t.Error("a longer name falls under the prefix of a shorter one")
	}
}

func TestCursorIsGoodForItsQueryOnly(t *testing.T) {
	q := Query{Device: "a", From: 5}
	cursor := formatCursor(&q, entry{9, 7})
	for _, tt := range []struct {
		name string
		q    Query
		ok   bool
	}{
		{"same", Query{Device: "a", From: 5, Cursor: cursor}, true},
		{"other limit", Query{Device: "a", From: 5, Limit: 3, Cursor: cursor}, true},
		{"other device", Query{Device: "b", From: 5, Cursor: cursor}, false},
		{"other name", Query{Device: "a", Name: "x", From: 5, Cursor: cursor}, false},
		{"other time", Query{Device: "a", From: 6, Cursor: cursor}, false},
		{"cut", Query{Device: "a", From: 5, Cursor: cursor[1:]}, false},
		{"longer", Query{Device: "a", From: 5, Cursor: cursor + "A"}, false},
		{"not base64", Query{Device: "a", From: 5, Cursor: strings.Repeat("!", len(cursor))}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e, err := parseCursor(&tt.q)
			if tt.ok && (err != nil || e != entry{9, 7}) || !tt.ok && !errors.Is(err, ErrCursor) {
				t.Errorf("parsed %v, %v", e, err)
			}
		})
	}
}

// A group that parses is one that encodes to an equal group.
func FuzzParseGroup(f *testing.F) {
	w := newGroupWriter(7, batching.Stamp{Received: 1000})
	p := batching.Packet{Readings: []reading.Reading{num("a", "x", 1), num("a", "y", 2)}, Key: keyOf(1, 2)}
	w.add(&p)
	w.add(&batching.Packet{Readings: []reading.Reading{{Device: "a", Name: "z", Value: reading.Bytes([]byte{1}), Err: "bad", Time: 9}}})
	v := w.value()
	f.Add(v[:len(v)-4])
	values, _ := merged([]*group{&w.g})
	f.Add(values[7][:len(values[7])-4])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, body []byte) {
		g, err := parseGroup(7, body)
		if err != nil {
			return
		}
		values, order := merged([]*group{g})
		var stored []reading.Reading
		for _, first := range order {
			m, err := decodeGroup(first, values[first])
			if err != nil {
				t.Fatalf("%x\nparsed %+v\nmerged %v", body, g, err)
			}
			stored = append(stored, m.readings...)
		}
		if !slices.Equal(stored, g.readings) {
			t.Errorf("%x\nparsed %+v\nmerged %+v", body, g, stored)
		}
		if body[0] == inStore {
			return
		}
		w := newGroupWriter(7, g.at)
		n := 0
		for _, p := range g.packets {
			w.add(&batching.Packet{Readings: g.readings[n : n+p.n], Key: p.key})
			n += p.n
		}
		back, err := decodeGroup(7, w.value())
		if err != nil || !slices.Equal(back.readings, g.readings) || !slices.Equal(back.packets, g.packets) {
			t.Errorf("%x\nparsed %+v\nback %+v, %v", body, g, back, err)
		}
	})
}

func FuzzCursor(f *testing.F) {
	q := Query{Device: "a"}
	f.Add(formatCursor(&q, entry{1, 2}))
	f.Add("")
	f.Add("AVobcFUAAAAAAAAAAgAAA\nAAAAAg")
	f.Fuzz(func(t *testing.T, cursor string) {
		q := Query{Device: "a", Cursor: cursor}
		e, err := parseCursor(&q)
		if err != nil {
			if !errors.Is(err, ErrCursor) {
				t.Errorf("%q: %v", cursor, err)
			}
			return
		}
		if cursor != "" && formatCursor(&q, e) != cursor {
			t.Errorf("%q is not what %v makes", cursor, e)
		}
	})
}

func FuzzIndexValues(f *testing.F) {
	f.Add(encodeChunk([]entry{{1, 1}, {5, 9}}))
	f.Add(encodeWindow(1, []keyed{{[16]byte{1}, 1, 1}, {[16]byte{2}, 3, 4}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		err := decodeChunk(entry{1, 1}, b, func(entry) bool { n++; return true })
		if err != nil && !errors.Is(err, ErrCorrupt) || n > maxChunk {
			t.Errorf("chunk %x: %d entries, %v", b, n, err)
		}
		if ks, err := decodeWindow(windowKey([16]byte{}, 1), b); err != nil && !errors.Is(err, ErrCorrupt) || len(ks) > len(b) {
			t.Errorf("window %x: %v", b, err)
		}
		_, _ = decodeSegment(seqKey(prefixSegment, 1), b)
		_, _ = decodeCheckpoint(b)
		_, _, _ = parseChunkKey(b)
	})
}
