package journal

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/batching/reading"
)

func TestJournalConforms(t *testing.T) {
	testConformance(t, func(t *testing.T, dir string) (batching.Journal, func()) {
		j, err := Open(dir, Options{Reserve: 1})
		if err != nil {
			t.Fatal(err)
		}
		return j, func() { finish(t, j) }
	})
}

// testConformance holds a journal against what [batching.Journal] promises.
// open opens the journal that is kept under dir and returns how to close it.
func testConformance(t *testing.T, open func(t *testing.T, dir string) (batching.Journal, func())) {
	dir := filepath.Join(t.TempDir(), "journal")
	j, closeIt := open(t, dir)
	if err := j.Ready(); err != nil || j.Next() != 1 {
		t.Fatalf("new journal: ready %v, next %d", err, j.Next())
	}
	var want []reading.Reading
	for i := range 50 {
		at := batching.Stamp{Received: int64(1000 * i), Clock: reading.ClockUnsure}
		packets := []batching.Packet{
			{Readings: []reading.Reading{num("a", "x", int64(i)), num("b", fmt.Sprint(i), 1)}, Key: keyOf(1, byte(i))},
			{Readings: []reading.Reading{num("a", "y", int64(i))}, Key: keyOf(2, byte(i))},
		}
		first, err := j.Append(packets, at)
		if err != nil || first != uint64(len(want))+1 {
			t.Fatalf("append = %d, %v; want %d", first, err, len(want)+1)
		}
		for _, p := range packets {
			for _, r := range p.Readings {
				if r.Seq != 0 || r.Received != 0 {
					t.Fatalf("append changed its argument: %+v", r)
				}
				r.Seq, r.Received, r.Clock = uint64(len(want))+1, at.Received, at.Clock
				want = append(want, r)
			}
		}
	}
	incarnation := j.Incarnation()
	for _, when := range []string{"open", "reopened"} {
		if when == "reopened" {
			closeIt()
			j, closeIt = open(t, dir)
		}
		if j.Next() != uint64(len(want))+1 || j.Incarnation() != incarnation {
			t.Errorf("%s: next %d, incarnation %x", when, j.Next(), j.Incarnation())
		}
		var got []reading.Reading
		for {
			rs, err := j.Read(uint64(len(got))+1, 7)
			if err != nil || len(rs) > 7 {
				t.Fatalf("%s: read %d readings, %v", when, len(rs), err)
			}
			if len(rs) == 0 {
				break
			}
			got = append(got, rs...)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: read %+v\nwant %+v", when, got, want)
		}
		for i := range 50 {
			first, ok := j.Recall(keyOf(2, byte(i)), 20*time.Second, 49_000)
			if young := 49-i <= 20; ok != young || ok && first != uint64(3*i+3) {
				t.Errorf("%s: recall of packet %d = %d, %t", when, i, first, ok)
			}
		}
		if err := j.Trim(10); err != nil {
			t.Errorf("%s: trim: %v", when, err)
		}
	}
	if err := j.SkipTo(1000); err != nil || j.Next() != 1000 || j.Incarnation() == incarnation {
		t.Errorf("skip: %v, next %d", err, j.Next())
	}
	incarnation = j.Incarnation()
	closeIt()
	j, closeIt = open(t, dir)
	defer closeIt()
	if j.Next() != 1000 || j.Incarnation() != incarnation {
		t.Errorf("after skip and reopen: next %d, incarnation %x, want 1000, %x", j.Next(), j.Incarnation(), incarnation)
	}
	if rs, err := j.Read(151, 10); err != nil || len(rs) != 0 {
		t.Errorf("read from the gap: %+v, %v", rs, err)
	}
}
