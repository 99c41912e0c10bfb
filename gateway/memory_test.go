package gateway

import (
	"io/fs"
	"testing"
)

func TestMemoryLimitIsTheSmallestThatApplies(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  int64
	}{
		{"nothing known", nil, 0},
		{"half the machine", map[string]string{"/proc/meminfo": "MemTotal:  1000 kB\nMemFree: 1 kB\n"}, 512000},
		{"group of the process", map[string]string{
			"/proc/meminfo": "MemTotal: 1000000 kB\n", "/proc/self/cgroup": "0::/a/b\n",
			"/sys/fs/cgroup/a/b/memory.max": "max\n", "/sys/fs/cgroup/a/memory.max": "100000\n",
		}, 90000},
		{"root of a container", map[string]string{"/sys/fs/cgroup/memory.max": "64000\n"}, 57600},
		{"version 1", map[string]string{"/sys/fs/cgroup/memory/memory.limit_in_bytes": "1000\n"}, 900},
		{"version 1 without limit", map[string]string{"/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, 0},
		{"group above the machine", map[string]string{"/proc/meminfo": "MemTotal: 10 kB\n", "/sys/fs/cgroup/memory.max": "64000\n"}, 5120},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, _ := memoryLimit(func(name string) ([]byte, error) {
				if s, ok := tt.files[name]; ok {
					return []byte(s), nil
				}
				return nil, fs.ErrNotExist
			})
			if got != tt.want {
				t.Errorf("memoryLimit = %d, want %d", got, tt.want)
			}
		})
	}
}
