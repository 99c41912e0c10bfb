package main_test

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
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

// A box is the built binary running as a sandbox, or as the configuration of a
// fleet says, seen only from outside.
type box struct {
	t               *testing.T
	dir             string   // sandbox home, or where configuration and token are
	mqtt, coap, api string   // addresses, the same over every restart
	bin             string   // empty: the built one
	args            []string // of the binary
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
	b.args = []string{"run", "--sandbox", "--data", dir}
	for _, s := range append([]string{"mqtt.listen=" + b.mqtt, "coap.listen=" + b.coap, "api.listen=" + b.api}, set...) {
		b.args = append(b.args, "--set", s)
	}
	b.keepLog("the gateway")
	return b
}

// keepLog gives the process a log, which a failed test shows, and sees to it
// that it ends with the test.
func (b *box) keepLog(who string) {
	b.t.Helper()
	var err error
	if b.log, err = os.Create(filepath.Join(b.t.TempDir(), "log")); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		b.kill()
		if b.t.Failed() {
			text, _ := os.ReadFile(b.log.Name())
			b.t.Logf("log of %s:\n%s", who, text[max(0, len(text)-8000):])
		}
		b.log.Close()
	})
}

// handedOut are the ports that freePort has returned.
var handedOut sync.Map

// freePort returns a loopback address that nobody listens on, each but once. It
// is below the ports that systems give to who dials, so that it stays free
// while the gateway that has it is down.
func freePort(t *testing.T, network string) string {
	t.Helper()
	for range 1000 {
		addr := fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(22_000))
		if _, twice := handedOut.LoadOrStore(addr, true); twice {
			continue
		}
		var c io.Closer
		var err error
		if network == "udp" {
			c, err = net.ListenPacket(network, addr)
		} else {
			c, err = net.Listen(network, addr)
		}
		if err == nil {
			c.Close()
			return addr
		}
	}
	t.Fatal("no free port")
	return ""
}

// launch starts the process and does not wait for it to serve.
func (b *box) launch() {
	b.t.Helper()
	bin := b.bin
	if bin == "" {
		var err error
		if bin, err = buildOnce(); err != nil {
			b.t.Fatal(err)
		}
	}
	line := append(append(append([]string{}, b.wrap...), bin), b.args...)
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
	b.awaitReady()
}

func (b *box) awaitReady() {
	b.t.Helper()
	b.await("ready", time.Minute, func() bool {
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
	if code == 0 && !b.alive() {
		b.t.Fatalf("GET %s: the gateway has ended: %v", path, b.cmd.ProcessState)
	}
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

// readings returns everything that the gateway says it has of its own.
func (b *box) readings() []item {
	b.t.Helper()
	return b.readingsOf("")
}

// readingsOf returns everything that the gateway says it has of another one;
// of itself when there is no name.
func (b *box) readingsOf(gateway string) []item {
	b.t.Helper()
	query := "limit=1000"
	if gateway != "" {
		query += "&gateway=" + gateway
	}
	var all []item
	for cursor := ""; ; {
		var page struct {
			Items  []item `json:"items"`
			Cursor string `json:"cursor"`
		}
		b.getJSON("/api/hedgerow/v1/readings?"+query+"&cursor="+cursor, &page)
		all = append(all, page.Items...)
		if cursor = page.Cursor; cursor == "" {
			return all
		}
	}
}
