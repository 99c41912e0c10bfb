//go:build !linux

package gateway

import (
	"errors"

	"golang.org/x/sys/unix"
)

var errOnlyLinux = errors.New("only Linux tells")

func statDisk(string) (diskState, error) { return diskState{}, errOnlyLinux }

// fileLimit returns how many files this process may have open.
func fileLimit(int) (uint64, error) {
	var limit unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
	return uint64(limit.Cur), err
}
