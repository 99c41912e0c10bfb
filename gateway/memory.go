package gateway

import (
	"bufio"
	"bytes"
	"log/slog"
	"math"
	"os"
	"path"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
)

// limitMemory tells Go's collector how much memory there is: nine tenths of
// the control group's limit or half of the machine's. GOMEMLIMIT and GOGC of
// the environment win. A gateway beside other programs on a small box is
// better off collecting more often than being killed.
func limitMemory(log *slog.Logger) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	limit, source := memoryLimit(os.ReadFile)
	if limit == 0 {
		return
	}
	debug.SetMemoryLimit(limit)
	log.Debug("memory limit set", "bytes", limit, "from", source)
}

// memoryLimit returns what the process should stay below and where that was
// found; 0 when nothing says.
func memoryLimit(read func(string) ([]byte, error)) (limit int64, source string) {
	if b, err := read("/proc/meminfo"); err == nil {
		if total := meminfoTotal(b); total > 0 {
			limit, source = total/2, "machine"
		}
	}
	group := "/"
	if b, err := read("/proc/self/cgroup"); err == nil {
		group = cgroupPath(b)
	}
	for dir := path.Join("/sys/fs/cgroup", group); strings.HasPrefix(dir, "/sys/fs/cgroup"); dir = path.Dir(dir) {
		b, err := read(filepath.Join(dir, "memory.max"))
		if err != nil {
			continue
		}
		n, err := strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 64)
		if err == nil && n > 0 && (limit == 0 || n/10*9 < limit) {
			limit, source = n/10*9, "control group"
		}
	}
	if b, err := read("/sys/fs/cgroup/memory/memory.limit_in_bytes"); err == nil { // version 1
		n, err := strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 64)
		if err == nil && n > 0 && n < math.MaxInt64/2 && (limit == 0 || n/10*9 < limit) {
			limit, source = n/10*9, "control group"
		}
	}
	return limit, source
}

// cgroupPath returns the process's group in the unified hierarchy.
func cgroupPath(b []byte) string {
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		if p, ok := strings.CutPrefix(s.Text(), "0::"); ok {
			return p
		}
	}
	return "/"
}

// meminfoTotal returns MemTotal in bytes.
func meminfoTotal(b []byte) int64 {
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) >= 2 && fields[0] == "MemTotal:" {
			kb, _ := strconv.ParseInt(fields[1], 10, 64)
			return kb << 10
		}
	}
	return 0
}
