package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hedgerow-iot/hedgerow/batching"
)

const (
	// lowMark is the free space without which nothing is written: the store
	// maps files that it has not written yet, so that a full disk is no error
	// to it but a fault that kills the process. It is room for the memory
	// tables of both stores of a gateway and what they become.
	lowMark = 64 << 20
	// closeMark is what the memory tables take when they are written out, with
	// the last of the indexes.
	closeMark = lowMark / 2

	// leastFiles is how many files the process must still be able to open:
	// badger's compaction leaves out a table that it could not create, and
	// then deletes what it was made from.
	leastFiles = 64

	freeEvery  = 100 * time.Millisecond
	usedEvery  = 5 * time.Second
	writesMost = 8 << 20 // look again after so many bytes, whatever the time
	// writtenTimes is how many bytes reach the disk for a byte appended before
	// usage is looked at again: log, first table, indexes.
	writtenTimes = 3
)

// disk knows how much may still be written. Its figures are at most freeEvery
// and usedEvery old, and what was appended since is taken off.
type disk struct {
	dir              string
	maxDisk, reserve int64
	look             func(dir string) (free int64, err error)
	files            func() (free int, err error) // that the process may still open

	mu          sync.Mutex // guards everything below
	free, used  int64
	freeFiles   int // looked up with free
	freeAt      time.Time
	usedAt      time.Time
	freeWritten int64 // since freeAt
	usedWritten int64 // since usedAt
}

// admit returns nil when bytes more may be appended. The error wraps
// batching.ErrBusy and says what is full.
func (d *disk) admit(bytes int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.refresh(false); err != nil {
		return fmt.Errorf("%w: %v", batching.ErrBusy, err)
	}
	if d.freeFiles < leastFiles {
		return fmt.Errorf("%w: the process may open %d more files, %d are reserved for the journal; raise its limit (LimitNOFILE)",
			batching.ErrBusy, d.freeFiles, leastFiles)
	}
	free := d.free - writtenTimes*d.freeWritten
	if least := max(d.reserve, lowMark); free-bytes < least {
		return fmt.Errorf("%w: disk of %s has %d bytes free, reserve is %d", batching.ErrBusy, d.dir, free, least)
	}
	if used := d.used + writtenTimes*d.usedWritten; used+bytes > d.maxDisk {
		return fmt.Errorf("%w: journal uses %d bytes of %d, and drops only readings that are certified", batching.ErrBusy, used, d.maxDisk)
	}
	return nil
}

// wrote counts bytes that were appended.
func (d *disk) wrote(bytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.freeWritten += bytes
	d.usedWritten += bytes
}

// figures returns the free space and the journal's own usage, looked up anew
// when now is set.
func (d *disk) figures(now bool) (free, used int64, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	err = d.refresh(now)
	return d.free - writtenTimes*d.freeWritten, d.used + writtenTimes*d.usedWritten, err
}

func (d *disk) refresh(now bool) error {
	if now || d.freeWritten >= writesMost || time.Since(d.freeAt) >= freeEvery {
		free, err := d.look(d.dir)
		if err != nil {
			return fmt.Errorf("free space of %s: %w", d.dir, err)
		}
		if d.freeFiles, err = d.files(); err != nil {
			return fmt.Errorf("count open files: %w", err)
		}
		d.free, d.freeAt, d.freeWritten = free, time.Now(), 0
	}
	if now || d.usedWritten >= writesMost || time.Since(d.usedAt) >= usedEvery {
		used, err := usage(d.dir)
		if err != nil {
			return fmt.Errorf("usage of %s: %w", d.dir, err)
		}
		d.used, d.usedAt, d.usedWritten = used, time.Now(), 0
	}
	return nil
}

// freeSpace returns the bytes that an ordinary user may still write.
func freeSpace(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}

// freeFiles returns how many files the process may still open.
func freeFiles() (int, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, err
	}
	f, err := os.Open("/proc/self/fd")
	if errors.Is(err, fs.ErrNotExist) {
		return math.MaxInt, nil // not Linux
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	open, err := f.Readdirnames(-1)
	return int(min(limit.Cur, math.MaxInt32)) - len(open), err
}

// usage returns the bytes that the files of dir occupy: most of them are
// sparse and look much larger.
func usage(dir string) (int64, error) {
	var total int64
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return ignoreMissing(err)
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return ignoreMissing(err)
		}
		total += int64(st.Blocks) * 512
		return nil
	})
	return total, err
}

// ignoreMissing forgives that the store removed a file meanwhile.
func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
