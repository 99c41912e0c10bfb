package gateway

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrLocked is wrapped by the error of New when another process uses the
// data directory.
var ErrLocked = errors.New("data directory in use")

// lockFile stands in the data directory and is never removed.
const lockFile = "lock"

// inUse returns the process that holds the lock of the data directory, 0 when
// none does.
func inUse(dir string) (pid int, err error) {
	f, err := os.Open(filepath.Join(dir, lockFile))
	if err != nil {
		return 0, err
	}
	defer f.Close() //nolint:errcheck // nothing was written
	err = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		pid, _ = strconv.Atoi(holder(f)) // it may not have written it yet
		return pid, nil
	}
	return 0, err
}

// holder returns what the last process that took the lock wrote: its number.
func holder(f *os.File) string {
	who := make([]byte, 16)
	n, _ := f.ReadAt(who, 0)
	return strings.TrimSpace(string(who[:n]))
}

// lockDir takes the data directory for this process until the returned file
// is closed. The kernel gives it back when the process dies, however it dies.
func lockDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, lockFile)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the data directory: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	for range 5 { // inUse may be looking
		if !errors.Is(err, unix.EWOULDBLOCK) {
			break
		}
		time.Sleep(20 * time.Millisecond)
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		who := holder(f)
		_ = f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		return nil, fmt.Errorf("%w: process %s runs on %s; stop it, or give this one another directory",
			ErrLocked, who, dir)
	}
	// The number tells a gateway from a command that reads its stores.
	_ = f.Truncate(0)
	_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return f, nil
}
