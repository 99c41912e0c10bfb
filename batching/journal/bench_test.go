package journal

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/batching/reading"
)

// siteGroup makes groups like those of a site: 50 devices of 4 names each, one
// reading a packet, every packet with a key.
func siteGroup(seq, n int) []batching.Packet {
	packets := make([]batching.Packet, n)
	for i := range packets {
		k := seq + i
		v, _ := reading.Float(20 + float64(k%100)/10)
		packets[i] = batching.Packet{
			Readings: []reading.Reading{{
				Device: "probe-" + strconv.Itoa(k%50), Name: [...]string{"temperature", "humidity", "co2", "battery"}[k/50%4],
				Value: v, Unit: "Cel", Time: 1_700_000_000_000 + int64(k),
			}},
			Key: batching.Key{Sender: [16]byte{byte(k % 50)}, Message: [16]byte{byte(k), byte(k >> 8), byte(k >> 16), byte(k >> 24)}},
		}
	}
	return packets
}

func fill(b *testing.B, j *Journal, readings, group int) {
	b.Helper()
	for n := 0; n < readings; n += group {
		if _, err := j.Append(siteGroup(n, group), batching.Stamp{Received: 1_700_000_000_000 + int64(n)}); err != nil {
			b.Fatal(err)
		}
	}
}

// written returns the bytes that this process sent to the disk.
func written() int64 {
	b, _ := os.ReadFile("/proc/self/io")
	var n int64
	for line := range strings.Lines(string(b)) {
		_, _ = fmt.Sscanf(line, "write_bytes: %d", &n)
	}
	return n
}

func BenchmarkAppend(b *testing.B) {
	for _, group := range []int{1, 100, 1000} {
		b.Run(strconv.Itoa(group), func(b *testing.B) {
			j := open0(b, b.TempDir(), Options{})
			n, before := 0, written()
			for b.Loop() {
				if _, err := j.Append(siteGroup(n, group), batching.Stamp{Received: int64(n)}); err != nil {
					b.Fatal(err)
				}
				n += group
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "readings/s")
			b.ReportMetric(float64(written()-before)/float64(n), "written-B/reading")
			b.ReportMetric(float64(j.Stats().Bytes)/float64(n), "encoded-B/reading")
		})
	}
}

func BenchmarkRead1000(b *testing.B) {
	for _, where := range []string{"newest", "oldest"} {
		b.Run(where, func(b *testing.B) {
			j := open0(b, b.TempDir(), Options{})
			fill(b, j, 100_000, 100)
			from := uint64(1)
			if where == "newest" {
				from = j.Next() - 1000
			}
			for b.Loop() {
				if rs, err := j.Read(from, 1000); err != nil || len(rs) != 1000 {
					b.Fatalf("%d readings, %v", len(rs), err)
				}
			}
		})
	}
}

func BenchmarkHistory1000(b *testing.B) {
	for _, q := range []Query{{Device: "probe-7", Name: "co2"}, {Device: "probe-7"}, {}, {From: 1_700_000_050_000}} {
		b.Run(fmt.Sprintf("device=%s,name=%s,from=%d", q.Device, q.Name, q.From), func(b *testing.B) {
			j := open0(b, b.TempDir(), Options{})
			fill(b, j, 200_000, 100)
			for b.Loop() {
				if rs, _, err := j.History(q); err != nil || len(rs) != 1000 {
					b.Fatalf("%d readings, %v", len(rs), err)
				}
			}
		})
	}
}

// BenchmarkReopenMillion measures Open after a kill, with a million readings.
func BenchmarkReopenMillion(b *testing.B) {
	dir := b.TempDir()
	j := open0(b, dir, Options{})
	fill(b, j, 1_000_000, 200)
	b.ReportMetric(float64(j.Stats().DiskBytes)/1e6, "disk-B/reading")
	var took time.Duration
	for b.Loop() {
		copied := killed(b, dir)
		start := time.Now()
		k, err := Open(copied, Options{Reserve: 1})
		took += time.Since(start)
		if err != nil || k.Next() != 1_000_001 {
			b.Fatal(k, err)
		}
		if err := k.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(took.Seconds()*1000/float64(b.N), "reopen-ms")
	runtime.KeepAlive(j)
}
