package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

type benchDiskCmd struct {
	benchFlags
	Dir     string `default:"." help:"Directory on the disk to measure."`
	Threads int    `default:"1" help:"Writers at once, each with its own file."`
}

// diskResult holds one row per size of write.
type diskResult struct {
	Dir     string    `json:"dir"`
	Threads int       `json:"threads"`
	Rows    []diskRow `json:"rows"`
}

type diskRow struct {
	Bytes       int     `json:"bytes"` // appended before each sync
	SyncsPerSec float64 `json:"syncsPerSecond"`
	MBPerSec    float64 `json:"megabytesPerSecond"`
	P50         float64 `json:"p50Milliseconds"`
	P99         float64 `json:"p99Milliseconds"`
}

// Run appends and syncs groups of the sizes that intake writes: one reading, a
// few, and full groups.
func (c *benchDiskCmd) Run(e *env) error {
	if err := c.check(); err != nil {
		return err
	}
	if c.Threads < 1 || c.Threads > 64 {
		return usagef("--threads takes 1 to 64")
	}
	dir, remove, err := scratch(c.Dir)
	if err != nil {
		return err
	}
	defer remove()
	sizes := []int{512, 4 << 10, 64 << 10, 512 << 10}
	result := &diskResult{Dir: c.Dir, Threads: c.Threads}
	for _, size := range sizes {
		row, err := c.measure(e, dir, size, c.Duration/time.Duration(len(sizes)))
		if err != nil {
			return fmt.Errorf("measure the disk: %w", err)
		}
		result.Rows = append(result.Rows, row)
	}
	return c.print(e.stdout, result)
}

func (c *benchDiskCmd) measure(e *env, dir string, size int, d time.Duration) (diskRow, error) {
	var (
		l       latencies
		g       errgroup.Group
		started = time.Now()
	)
	for i := range c.Threads {
		g.Go(func() error {
			f, err := os.Create(filepath.Join(dir, strconv.Itoa(size)+"-"+strconv.Itoa(i)))
			if err != nil {
				return err
			}
			defer f.Close() //nolint:errcheck // removed afterwards
			chunk := make([]byte, size)
			for n := 0; time.Since(started) < d && e.ctx.Err() == nil; n++ {
				at := time.Now()
				if _, err := f.Write(chunk); err != nil {
					return err
				}
				if err := unix.Fdatasync(int(f.Fd())); err != nil {
					return err
				}
				l.add(time.Since(at))
				if n*size > 256<<20 { // measures the disk, does not fill it
					if _, err := f.Seek(0, io.SeekStart); err != nil {
						return err
					}
					n = 0
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return diskRow{}, err
	}
	seconds := time.Since(started).Seconds()
	rate := float64(l.count()) / seconds
	return diskRow{size, per(rate, 1), per(rate*float64(size), 1e6), l.quantile(0.5), l.quantile(0.99)}, nil
}

func (r *diskResult) text(w io.Writer) {
	fmt.Fprintf(w, "disk of %s, append and fdatasync, %d at once\n\n", r.Dir, r.Threads)
	fmt.Fprintln(w, "   bytes   syncs/s      MB/s    p50 ms    p99 ms")
	for _, row := range r.Rows {
		fmt.Fprintf(w, "%8d %9.0f %9.1f %9.2f %9.2f\n", row.Bytes, row.SyncsPerSec, row.MBPerSec, row.P50, row.P99)
	}
}
