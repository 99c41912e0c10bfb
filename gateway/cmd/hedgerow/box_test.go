package main_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A box is the built binary running as a sandbox, seen only from outside.
type box struct {
	t               *testing.T
	dir             string // sandbox home
	mqtt, coap, api string // addresses, the same over every restart
	args            []string
	wrap            []string // a command that runs the binary, as strace does
	cmd             *exec.Cmd
	exited          chan struct{} // closed when the process is gone
	log             *os.File
}

var buildOnce = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "hedgerow-test-")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "hedgerow")
	out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build: %v\n%s", err, out)
	}
	return bin, nil
})

// newBox prepares a sandbox in dir with fixed free ports; nothing runs yet.
func newBox(t *testing.T, dir string, set ...string) *box {
	t.Helper()
	b := &box{t: t, dir: dir, mqtt: freePort(t, "tcp"), coap: freePort(t, "udp"), api: freePort(t, "tcp")}
	for _, s := range append([]string{"mqtt.listen=" + b.mqtt, "coap.listen=" + b.coap, "api.listen=" + b.api}, set...) {
		b.args = append(b.args, "--set", s)
	}
	var err error
	if b.log, err = os.Create(filepath.Join(t.TempDir(), "log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.kill()
		if t.Failed() {
			text, _ := os.ReadFile(b.log.Name())
			t.Logf("log of the gateway:\n%s", text[max(0, len(text)-8000):])
		}
	})
	return b
}

func freePort(t *testing.T, network string) string {
	t.Helper()
	if network == "udp" {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.LocalAddr().String()
	}
	l, err := net.Listen(network, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// launch starts the process and does not wait for it to serve.
func (b *box) launch() {
	b.t.Helper()
	bin, err := buildOnce()
	if err != nil {
		b.t.Fatal(err)
	}
	line := append(append([]string{}, b.wrap...), bin, "run", "--sandbox", "--data", b.dir)
	line = append(line, b.args...)
	b.cmd = exec.Command(line[0], line[1:]...)
	b.cmd.Stdout, b.cmd.Stderr = b.log, b.log
	// A group of its own, so that a wrapper dies with the binary.
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := b.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) {
		cmd.Wait()
		close(exited)
	}(b.cmd, b.exited)
}

// start launches the process and waits until it can acknowledge a reading.
func (b *box) start() {
	b.t.Helper()
	b.launch()
	b.await("ready", 20*time.Second, func() bool {
		code, _ := b.try("/ready")
		return code == http.StatusOK
	})
}

// kill ends the process as a pulled plug does and waits until it is gone.
func (b *box) kill() {
	if b.cmd == nil {
		return
	}
	syscall.Kill(-b.cmd.Process.Pid, syscall.SIGKILL)
	<-b.exited
	b.cmd = nil
}

// alive reports whether the process still runs.
func (b *box) alive() bool {
	select {
	case <-b.exited:
		return false
	default:
		return true
	}
}

// await polls until ok holds; the process ending before that is a failure.
func (b *box) await(what string, limit time.Duration, ok func() bool) {
	b.t.Helper()
	deadline := time.Now().Add(limit)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if !b.alive() {
			b.t.Fatalf("waiting for %s: the gateway has ended: %v", what, b.cmd.ProcessState)
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("waiting for %s: not within %v", what, limit)
		}
		<-tick.C
	}
}

// try asks the API for path and returns the status code and the body; code 0
// when nobody answers.
func (b *box) try(path string) (code int, body []byte) {
	req, _ := http.NewRequest("GET", "http://"+b.api+path, nil)
	if token, err := os.ReadFile(filepath.Join(b.dir, "admin.token")); err == nil {
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	if strings.HasPrefix(path, "/api/core/v2/blocks/") {
		req.Header.Set("Accept", "application/vnd.iota.serializer-v1")
	}
	resp, err := (&http.Client{Timeout: 10 * time.Second}).Do(req)
	if err != nil {
		return 0, nil
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil
	}
	return resp.StatusCode, body
}

// get asks the API for path and fails the test unless it is answered with 200.
func (b *box) get(path string) []byte {
	b.t.Helper()
	code, body := b.try(path)
	if code != http.StatusOK {
		b.t.Fatalf("GET %s: %d %s", path, code, body)
	}
	return body
}

func (b *box) getJSON(path string, into any) {
	b.t.Helper()
	if err := json.Unmarshal(b.get(path), into); err != nil {
		b.t.Fatalf("GET %s: %v", path, err)
	}
}

// An item is a reading as the admin API shows it.
type item struct {
	ID      string `json:"id"`
	Device  string `json:"device"`
	Name    string `json:"name"`
	Value   any    `json:"value"`
	State   string `json:"state"`
	BlockID string `json:"blockId"`
}

// readings returns everything that the gateway says it has.
func (b *box) readings() []item {
	b.t.Helper()
	var all []item
	for cursor := ""; ; {
		var page struct {
			Items  []item `json:"items"`
			Cursor string `json:"cursor"`
		}
		b.getJSON("/api/hedgerow/v1/readings?limit=1000&cursor="+cursor, &page)
		all = append(all, page.Items...)
		if cursor = page.Cursor; cursor == "" {
			return all
		}
	}
}
