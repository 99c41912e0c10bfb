package archive

import (
	"fmt"
	"testing"

	"github.com/dgraph-io/badger/v4"

	"github.com/hedgerow-iot/hedgerow/batching/envelope"
	"github.com/hedgerow-iot/hedgerow/batching/reading"
	"github.com/hedgerow-iot/hedgerow/ledger/store"
)

// fleet returns batches of 100 readings of devices that report in turn, each so
// many values.
func fleet(t testing.TB, batches, devices, names int) (blocks [][]byte) {
	t.Helper()
	s := newSigner("barn-7", 1)
	seq, at := uint64(0), int64(1764000000000)
	for range batches {
		var rs []reading.Reading
		for range 100 {
			n := int(seq)
			seq, at = seq+1, at+100
			rs = append(rs, one(seq, at, fmt.Sprintf("probe-%d", n/names%devices), fmt.Sprintf("value-%d", n%names), int64(n%50)))
		}
		blocks = append(blocks, s.block(t, rs...))
	}
	return blocks
}

func TestTheIndexTakesFewBytes(t *testing.T) {
	const batches = 300
	for _, tt := range []struct {
		devices, names int
		most           int // bytes on disk for each batch
	}{
		{10, 1, 130},
		{10, 3, 160},
		{100, 1, 400},
	} {
		t.Run(fmt.Sprintf("%d devices with %d names", tt.devices, tt.names), func(t *testing.T) {
			s := newMemoryStream()
			s.put(fleet(t, batches, tt.devices, tt.names)...)
			dir := t.TempDir()
			st, err := store.Open(dir, store.Options{Reserve: 1})
			if err != nil {
				t.Fatal(err)
			}
			a := open(t, s, st.Shelf('a'), newSigner("barn-7", 1))
			index(t, a)
			if n := a.Stats().Readings; n != batches*100 {
				t.Fatalf("%d readings indexed", n)
			}
			if err := st.Close(); err != nil {
				t.Fatal(err)
			}
			size := flattened(t, dir)
			t.Logf("%d bytes a batch, %.2f a reading", size/batches, float64(size)/batches/100)
			if size/batches > int64(tt.most) {
				t.Errorf("%d bytes a batch, want at most %d", size/batches, tt.most)
			}
		})
	}
}

// flattened returns the bytes of the tables in dir after compaction.
func flattened(t testing.TB, dir string) (size int64) {
	t.Helper()
	db, err := badger.Open(badger.DefaultOptions(dir).WithLogger(nil).WithCompression(0).WithNumVersionsToKeep(1))
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Flatten(2); err != nil {
		t.Fatal(err)
	}
	for _, table := range db.Tables() {
		size += int64(table.OnDiskSize)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return size
}

// What a batch of 100 readings costs when its block comes: without the write,
// and the opening of its envelope alone.
func BenchmarkIndexing(b *testing.B) {
	blocks := fleet(b, 200, 100, 1)
	for b.Loop() {
		s := newMemoryStream()
		s.put(blocks...)
		g := &group{delta: newDelta()}
		if err := open(b, s, emptyIndex{}, newSigner("barn-7", 1)).collect(b.Context(), g); err != nil || g.batches != 200 {
			b.Fatal(g.batches, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/200, "µs/batch")
}

func BenchmarkOpening(b *testing.B) {
	_, data, _ := tagged(fleet(b, 1, 100, 1)[0])
	for b.Loop() {
		if _, err := envelope.Open(data, envelope.Expect{Genesis: genesis}); err != nil {
			b.Fatal(err)
		}
	}
}

// emptyIndex finds nothing.
type emptyIndex struct{ Index }

func (emptyIndex) Get([]byte) ([]byte, error)                               { return nil, nil }
func (emptyIndex) Scan(_, _ []byte, _ bool, _ func(_, _ []byte) bool) error { return nil }
