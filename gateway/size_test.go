package gateway

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/protocols"
	"github.com/hedgerow-iot/hedgerow/protocols/payload"
)

// A site of 200 sensors whose readings come one by one, in batches of 100: what
// a reading takes on the disk, once the stores have merged their tables.
func TestAReadingTakesFewBytes(t *testing.T) {
	const (
		readings, sensors, batch = 6000, 200, 100
		mostStored, mostBlock    = 150, 30
	)
	home := t.TempDir()
	g := start(t, testSandbox(t, home, fmt.Sprintf("batching.max_readings=%d", batch), "batching.max_age=1h", "batching.target=32KiB", "shutdown.drain=1m"))
	random := rand.New(rand.NewPCG(1, 2))
	var value [sensors]int // in tenths
	for n := 0; n < readings; {
		for _, sensor := range random.Perm(sensors) {
			value[sensor] += random.IntN(5) - 2
			device := fmt.Sprintf("probe-%03d", sensor)
			text := fmt.Appendf(nil, `{"v":%.1f,"u":"Cel"}`, 20+float64(value[sensor])/10)
			rs, err := payload.Decode(payload.JSON, text, payload.Hints{Device: device, Name: "temperature", Now: time.Now()})
			if err != nil {
				t.Fatal(err)
			}
			n++
			key := batching.Key{Sender: protocols.Digest([]byte(device)), Message: protocols.Digest(text, fmt.Append(nil, n))}
			r, err := g.Submit(batching.Submission{Packet: batching.Packet{Readings: rs, Key: key}})
			if err != nil {
				t.Fatal(err)
			}
			if <-r.Done(); r.Err() != nil {
				t.Fatal(r.Err())
			}
		}
	}
	if err := g.stop(); err != nil { // it attaches what waits
		t.Fatal(err)
	}
	if n := g.Stats().Attached; n != readings {
		t.Fatalf("%d readings attached", n)
	}
	block := float64(g.Stats().LastSize) / batch
	journal, ledger := tables(t, filepath.Join(home, "data", "journal")), tables(t, filepath.Join(home, "data", "ledger"))
	t.Logf("bytes of a reading: %.1f in the journal, %.1f in the ledger, %.1f of a block", journal/readings, ledger/readings, block)
	if all := (journal + ledger) / readings; all > mostStored {
		t.Errorf("a reading takes %.0f bytes in the stores, want at most %d", all, mostStored)
	}
	if block > mostBlock {
		t.Errorf("a reading takes %.1f bytes of a block, want at most %d", block, mostBlock)
	}
}

// tables merges a store's tables and returns their bytes.
func tables(t *testing.T, dir string) (bytes float64) {
	t.Helper()
	db, err := badger.Open(badger.DefaultOptions(dir).WithLogger(nil).WithCompression(0))
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Flatten(1); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no tables in %s: %v", dir, err)
	}
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		bytes += float64(info.Size())
	}
	return bytes
}
