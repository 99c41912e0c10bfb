package store

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What a guard does not look up more often than.
const (
	recheckBytes = 1 << 20
	recheckTime  = time.Second
	filesTime    = 100 * time.Millisecond

	// The free space is not looked up again for so long while there is so much
	// beyond the reserve: no disk takes that much in the time.
	freeTime   = 20 * time.Millisecond
	plentyFree = 256 << 20

	// nearLimit is the part of the limit, one in so many, that stays free as
	// long as there is something to prune.
	nearLimit = 10

	// leastFiles is how many files the process must still be able to open:
	// badger's compaction leaves out a table that it could not create, and
	// then deletes what it was made from.
	leastFiles = 64
)

// A guard keeps the store from filling its disk.
type guard struct {
	dir     string
	reserve int64
	maxDisk int64 // 0: no limit
	free    func(dir string) (int64, error)
	holds   time.Duration       // how long plenty of free space is taken to last
	files   func() (int, error) // that the process may still open

	mu      sync.Mutex // guards what follows
	counted time.Time  // when files was last called
	plenty  time.Time  // when plentyFree was last there
	used    int64      // by the store when last looked
	looked  time.Time  // zero: never
	written int64      // since then
	owed    int64      // was pruned, and not given back yet as far as is known
}

func newGuard(dir string, opt Options) *guard {
	g := &guard{
		dir:     dir,
		reserve: max(cmp.Or(opt.Reserve, 512<<20), 4*memTable),
		maxDisk: opt.MaxDisk,
		free:    opt.free,
	}
	g.files = freeFiles
	if g.free == nil {
		g.free, g.holds = freeBytes, freeTime
	}
	return g
}

// checkRoom returns nil if there is space for what badger writes when it opens
// and closes.
func (g *guard) checkRoom(what string) error {
	free, err := g.free(g.dir)
	if err != nil {
		return err
	}
	if free < leastFree {
		return fmt.Errorf("%w: %s free, %s needed to %s; free some space on that file system and start again",
			ErrDiskFull, mib(free), mib(leastFree), what)
	}
	return nil
}

// check returns nil if a Commit may be written, or a step of pruning, which may
// pass the limit.
func (g *guard) check(prune bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if time.Since(g.plenty) >= g.holds {
		free, err := g.free(g.dir)
		if err != nil {
			return err
		}
		reserve := g.reserve
		if prune { // it gives back more than it takes
			reserve = max(reserve/2, 4*memTable)
		}
		if free < reserve {
			return fmt.Errorf("%s free on the disk of %s, %s are reserved", mib(free), g.dir, mib(reserve))
		}
		if free >= g.reserve+plentyFree {
			g.plenty = time.Now()
		}
	}
	if time.Since(g.counted) >= filesTime {
		n, err := g.files()
		if err != nil {
			return fmt.Errorf("count open files: %w", err)
		}
		if n < leastFiles {
			return fmt.Errorf("the process may open %d more files, %d are reserved; raise its limit (LimitNOFILE)", n, leastFiles)
		}
		g.counted = time.Now()
	}
	if g.maxDisk <= 0 || prune {
		return nil
	}
	if err := g.look(); err != nil {
		return err
	}
	if g.used >= g.maxDisk {
		return fmt.Errorf("ledger store takes %s, %s allowed", mib(g.used), mib(g.maxDisk))
	}
	return nil
}

// look finds out what the store takes, if that may have changed.
func (g *guard) look() error {
	full := g.used >= g.maxDisk
	if !g.looked.IsZero() && g.written < recheckBytes && (!full || time.Since(g.looked) < recheckTime) {
		return nil
	}
	used, err := g.occupied()
	if err != nil {
		return err
	}
	if g.used > used {
		g.owed = max(0, g.owed-(g.used-used))
	}
	g.used, g.looked, g.written = used, time.Now(), 0
	return nil
}

// excess returns by how much the store comes too near to its limit, not counting
// what was pruned and will be given back. At the limit that does not count:
// only what is written makes badger give anything back.
func (g *guard) excess() (int64, error) {
	if g.maxDisk <= 0 {
		return 0, nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.look(); err != nil {
		return 0, err
	}
	over := g.used - (g.maxDisk - max(g.maxDisk/nearLimit, 2*memTable))
	if g.used < g.maxDisk {
		over -= g.owed
	}
	return max(0, over), nil
}

// pruned tells how much a step of pruning has taken.
func (g *guard) pruned(bytes int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.owed += int64(bytes)
}

// wrote tells how much a Commit has added.
func (g *guard) wrote(bytes int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.written += int64(bytes)
}

// occupied returns the bytes on disk of the store's files; badger's are sparse,
// so their lengths say little.
func (g *guard) occupied() (sum int64, err error) {
	files, err := os.ReadDir(g.dir)
	if err != nil {
		return 0, fmt.Errorf("size of the ledger store: %w", err)
	}
	for _, f := range files {
		info, err := f.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // compacted away meanwhile
		} else if err != nil {
			return 0, fmt.Errorf("size of the ledger store: %w", err)
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			sum += st.Blocks * 512
		}
	}
	return sum, nil
}

// freeBytes returns what an ordinary process may still write at dir.
func freeBytes(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", dir, err)
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

func mib(n int64) string { return fmt.Sprintf("%d MiB", n>>20) }
