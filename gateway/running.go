package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
)

// runningFile names the file in which a gateway says where it is reached.
const runningFile = "api.json"

// running is the content of the file.
type running struct {
	Address string `json:"address"` // host:port of the API
	PID     int    `json:"pid"`     // as in the lock
}

// runningPath is the file's place: the sandbox's directory, or data_dir.
func (c *Config) runningPath() string {
	if c.Home != "" {
		return filepath.Join(c.Home, runningFile)
	}
	return filepath.Join(string(c.DataDir), runningFile)
}

// announce writes the file; it is only for those who ask, so it is not synced.
func announce(cfg *Config, address string) error {
	b, err := json.Marshal(running{reachable(address), os.Getpid()})
	if err != nil {
		return err
	}
	path := cfg.runningPath()
	tmp := path + ".new"
	if err := os.WriteFile(tmp, append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("announce the gateway: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("announce the gateway: %w", err)
	}
	return nil
}

// reachable turns the address of a listener on every address into one to
// connect to.
func reachable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() || host == "" {
		host = "127.0.0.1" // every address includes it, and it needs no resolver
	}
	return net.JoinHostPort(host, port)
}

// Running returns where the gateway with this configuration can be asked,
// and whether one runs. Whoever may not look into the data directory is told
// the address of the configuration.
func Running(cfg Config) (address string, ok bool) {
	pid, err := inUse(string(cfg.DataDir))
	if errors.Is(err, fs.ErrPermission) {
		return reachable(cfg.API.Listen), true
	}
	if err != nil || pid == 0 {
		return "", false
	}
	b, err := os.ReadFile(cfg.runningPath())
	if errors.Is(err, fs.ErrPermission) {
		return reachable(cfg.API.Listen), true
	}
	// Another number is that of a gateway that was killed: the lock is held by
	// its successor, which does not serve yet, or by a command.
	var r running
	if err != nil || json.Unmarshal(b, &r) != nil || r.PID != pid {
		return "", false
	}
	return r.Address, true
}
