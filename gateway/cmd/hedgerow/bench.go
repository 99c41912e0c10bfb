package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math/bits"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

type benchCmd struct {
	Disk    benchDiskCmd    `cmd:"" help:"Measure how fast and how evenly a disk syncs."`
	Ingest  benchIngestCmd  `cmd:"" help:"Measure a whole gateway in this process, with clients over loopback."`
	Pow     benchPowCmd     `cmd:"" help:"Measure the proof-of-work kernels of this machine."`
	Attach  benchAttachCmd  `cmd:"" help:"Measure batches sealed, proven and attached, and the ledger alone."`
	Confirm benchConfirmCmd `cmd:"" help:"Measure how long a network of gateways takes to confirm and certify batches."`
}

// benchFlags are common to all benchmarks.
type benchFlags struct {
	Duration time.Duration `default:"10s" help:"How long to measure."`
	JSON     bool          `name:"json" help:"Print JSON."`
}

func (f *benchFlags) check() error {
	if f.Duration < 100*time.Millisecond || f.Duration > time.Hour {
		return usagef("--duration takes 100ms to 1h")
	}
	return nil
}

// print writes the result as JSON or as its own text.
func (f *benchFlags) print(w io.Writer, result interface{ text(io.Writer) }) error {
	if f.JSON {
		return json.NewEncoder(w).Encode(result)
	}
	result.text(w)
	return nil
}

// latencies is a histogram of durations in steps of 3 %, from 1 µs on.
type latencies struct {
	mu     sync.Mutex // guards what follows
	counts [64 * 32]uint64
	n      uint64
	max    time.Duration
}

func (l *latencies) add(d time.Duration) {
	us := uint64(max(d.Microseconds(), 1))
	shift := max(bits.Len64(us)-6, 0)
	i := min(shift*32+int(us>>shift), len(l.counts)-1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts[i]++
	l.n++
	l.max = max(l.max, d)
}

// quantile returns the latency that a share q of all does not exceed, in
// milliseconds.
func (l *latencies) quantile(q float64) float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	left := uint64(q * float64(l.n))
	for i, c := range l.counts {
		if c > left {
			shift := max(i/32-1, 0)
			return float64(uint64(i-shift*32)<<shift) / 1000
		}
		left -= c
	}
	return float64(l.max.Microseconds()) / 1000
}

func (l *latencies) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.counts[:])
	l.n, l.max = 0, 0
}

func (l *latencies) count() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.n
}

// usage is what this process has used so far.
type usage struct {
	cpu     time.Duration
	written int64 // bytes sent to the disk; 0 where the kernel does not count
}

func readUsage() usage {
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
		return usage{}
	}
	u := usage{cpu: time.Duration(ru.Utime.Nano() + ru.Stime.Nano())}
	b, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return u
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "write_bytes: "); ok {
			u.written, _ = strconv.ParseInt(strings.TrimSpace(v), 10, 64)
		}
	}
	return u
}

// residentBytes is this process's memory, 0 where the kernel does not say.
func residentBytes() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize())
}

// scratch makes a directory for a benchmark below dir, or below the system's
// temporary directory; remove it with the returned function.
func scratch(dir string) (path string, remove func(), err error) {
	if dir != "" {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return "", nil, err
		}
	}
	path, err = os.MkdirTemp(dir, "hedgerow-bench-")
	if err != nil {
		return "", nil, fmt.Errorf("make a directory for the benchmark: %w", err)
	}
	return path, func() { _ = os.RemoveAll(path) }, nil
}

// per divides and keeps one decimal.
func per(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return float64(int64(a/b*10+0.5)) / 10
}
