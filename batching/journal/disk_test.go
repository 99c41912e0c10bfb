package journal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hedgerow-iot/hedgerow/batching"
)

func TestLowDiskRefusesAppendAndRecovers(t *testing.T) {
	var free atomic.Int64
	free.Store(1 << 30)
	opt := Options{Reserve: 512 << 20, FreeSpace: func(string) (int64, error) { return free.Load(), nil }}
	dir := t.TempDir()
	j := open0(t, dir, opt)
	mustAppend(t, j, 1, pack(num("a", "x", 1)))
	try := func() error {
		j.disk.mu.Lock()
		j.disk.freeAt = j.disk.freeAt.Add(-freeEvery)
		j.disk.mu.Unlock()
		_, err := j.Append([]batching.Packet{pack(num("a", "x", 2))}, batching.Stamp{})
		return err
	}
	free.Store(512<<20 - 1)
	if err := try(); !errors.Is(err, batching.ErrBusy) || !errors.Is(j.Ready(), batching.ErrBusy) {
		t.Errorf("append below the reserve: %v; ready: %v", err, j.Ready())
	}
	if s := j.Stats(); s.Refused != 1 || s.Next != 2 {
		t.Errorf("stats = %+v", s)
	}
	if r, err := j.Last("a", "x"); err != nil || r.Seq != 1 {
		t.Errorf("last = %+v, %v", r, err)
	}
	free.Store(1 << 30)
	if err := try(); err != nil {
		t.Errorf("append after space came back: %v", err)
	}
	free.Store(lowMark - 1)
	if k, err := Open(t.TempDir(), opt); !errors.Is(err, ErrDiskFull) {
		t.Errorf("open below the second mark = %v, %v", k, err)
	}
}

func TestBytesSinceTheLastLookCountAgainstFreeSpace(t *testing.T) {
	looks := 0
	d := &disk{dir: t.TempDir(), maxDisk: 1 << 40, reserve: lowMark, look: func(string) (int64, error) {
		looks++
		return lowMark + 1<<20, nil
	}, files: freeFiles}
	if err := d.admit(1000); err != nil {
		t.Fatal(err)
	}
	d.wrote(512 << 10)
	if err := d.admit(1000); !errors.Is(err, batching.ErrBusy) {
		t.Errorf("admit = %v after %d looks", err, looks)
	}
}

// Without files to open, a compaction of badger loses readings: 228,000 of
// 708,000 when descriptors ran out and came back.
func TestAppendIsRefusedBeforeFilesRunOut(t *testing.T) {
	j := open0(t, t.TempDir(), Options{})
	mustAppend(t, j, 1, pack(num("a", "x", 1)))
	left := leastFiles - 1
	j.disk.mu.Lock()
	j.disk.files = func() (int, error) { return left, nil }
	j.disk.freeAt = time.Time{}
	j.disk.mu.Unlock()
	if _, err := j.Append([]batching.Packet{pack(num("a", "x", 2))}, batching.Stamp{}); !errors.Is(err, batching.ErrBusy) {
		t.Errorf("append with %d files left: %v, want ErrBusy", left, err)
	}
	j.disk.mu.Lock()
	left++
	j.disk.freeAt = time.Time{}
	j.disk.mu.Unlock()
	mustAppend(t, j, 1, pack(num("a", "x", 2)))
}

func TestFreeFilesAreCounted(t *testing.T) {
	before, err := freeFiles()
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
	}
	after, err := freeFiles()
	if err != nil || before-after < 40 || before-after > 60 {
		t.Errorf("%d files left, %d after 50 were opened, %v", before, after, err)
	}
}

func TestUsageCountsBlocksNotLengths(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(bytes.Repeat([]byte{1}, 64<<10), 1<<30)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
	if n, err := usage(dir); err != nil || n < 64<<10 || n > 1<<20 {
		t.Errorf("usage = %d, %v", n, err)
	}
}

// A real file system that fills up: nobody dies, nothing stored is lost.
func TestFullFileSystem(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=120m"); err != nil {
		skip(t, fmt.Sprintf("needs the right to mount a tmpfs: %v", err))
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	j, err := Open(filepath.Join(dir, "journal"), Options{Reserve: 1})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for err == nil {
		if _, err = j.Append(siteGroup(n, 2000), batching.Stamp{Received: int64(n)}); err == nil {
			n += 2000
		}
	}
	if !errors.Is(err, batching.ErrBusy) {
		t.Errorf("append on a full disk: %v", err)
	}
	// Others may use up all the rest: reads and Close need nothing of it.
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 16<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if rs := mustRead(t, j, 1, 1000); len(rs) != 1000 {
		t.Errorf("read %d readings", len(rs))
	}
	checkNow(t, j)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	free, err := freeSpace(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ballast, make([]byte, 16<<20+free-lowMark/2), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(filepath.Join(dir, "journal"), Options{}); !errors.Is(err, ErrDiskFull) {
		t.Errorf("open on a full disk: %v", err)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=400m"); err != nil {
		t.Fatal(err)
	}
	k, err := Open(filepath.Join(dir, "journal"), Options{Reserve: 1})
	if err != nil {
		t.Fatal(err)
	}
	if k.Next() != uint64(n)+1 {
		t.Errorf("next = %d, want %d", k.Next(), n+1)
	}
	mustAppend(t, k, 1, pack(num("a", "x", 1)))
	checkNow(t, k)
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestMemoryIsGivenBackOnceAfterABurst(t *testing.T) {
	var r rest
	now := time.Unix(0, 0)
	for _, step := range []struct {
		after    time.Duration
		appended uint64
		due      bool
	}{
		{0, 0, false},
		{time.Hour, restBytes - 1, false},
		{restAfter, restBytes - 1, false}, // not worth it
		{time.Second, restBytes, false},
		{restAfter - 1, restBytes, false},
		{1, restBytes, true},
		{time.Hour, restBytes, false}, // done already
		{time.Second, 3 * restBytes, false},
		{restAfter, 3 * restBytes, true},
	} {
		now = now.Add(step.after)
		if got := r.due(step.appended, now); got != step.due {
			t.Errorf("%d bytes at %v: due %t, want %t", step.appended, now.UTC(), got, step.due)
		}
	}
}
