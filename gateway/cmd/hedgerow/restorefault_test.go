package main_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// Whichever sync of a restore fails, once or from then on, it says so, and leaves
// no data directory that a gateway starts on; the next one goes through. (A table
// of badger's is no exception: it is written anew, to another file.)
func TestARestoreWhoseSyncFailsLeavesNothingThatCountsAsWhole(t *testing.T) {
	slow(t)
	need(t, "strace")
	b := newBox(t, t.TempDir())
	b.start()
	s := &mqttSensor{addr: b.mqtt, id: "probe", topic: "readings/probe/count", window: 1}
	stop := make(chan struct{})
	time.AfterFunc(time.Second, func() { close(stop) })
	b.check(s.run(stop, time.Now().Add(time.Minute)))
	file := filepath.Join(t.TempDir(), "box.backup")
	hedgerow(t, "backup", "--data", b.dir, file)
	b.kill()
	b.check(os.RemoveAll(filepath.Join(b.dir, "data")))

	whole := func() bool {
		return b.has("journal") && b.has("ledger") && !b.has("unpacking")
	}
	for _, call := range []string{"fsync", "msync"} {
		failed := 0
		for n, before := 1, -1; n < 200 && failed > before; n += 1 + n/4 {
			before = failed
			for _, then := range []string{"", "+"} {
				out, hit, err := b.restoreFailing(file, call, fmt.Sprint(n, then))
				switch {
				case hit && err == nil && bytes.Contains(out, []byte("error while creating table")):
					// written anew
				case hit && (err == nil || whole()):
					t.Errorf("%s %d%s fails: %v, the data directory counts as whole: %v\n%s", call, n, then, err, whole(), out)
				case !hit && (err != nil || !whole()):
					t.Errorf("no %s fails: %v\n%s", call, err, out)
				case hit:
					failed++
				}
				if !whole() {
					continue
				}
				b.check(os.RemoveAll(filepath.Join(b.dir, "data")))
			}
		}
		t.Logf("%d times a failed %s", failed, call)
	}
	hedgerow(t, "restore", "--data", b.dir, file)
	b.start()
	if n := len(b.readings()); n == 0 {
		t.Error("nothing is restored")
	}
}

func (b *box) has(name string) bool {
	_, err := os.Stat(filepath.Join(b.dir, "data", name))
	return err == nil
}

func (b *box) check(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// restoreFailing restores a backup while system calls fail, as strace counts them
// in each thread, and reports whether one did.
func (b *box) restoreFailing(file, call, when string) (out []byte, hit bool, err error) {
	b.t.Helper()
	bin, err := buildOnce()
	b.check(err)
	trace := filepath.Join(b.t.TempDir(), "trace")
	ctx, cancel := context.WithTimeout(b.t.Context(), 20*time.Second) // badger tries some writes for ever
	defer cancel()
	cmd := exec.CommandContext(ctx, "strace", "-f", "-y", "-qq", "-o", trace, "-e", "trace="+call, "-e", "inject="+call+":error=EIO:when="+when,
		bin, "restore", "--data", b.dir, file)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	out, err = cmd.CombinedOutput()
	if bytes.Contains(out, []byte("ptrace")) {
		skip(b.t, "strace may not trace here: "+string(out))
	}
	text, unread := os.ReadFile(trace)
	b.check(unread)
	for line := range bytes.Lines(text) {
		// The memory beside the key may fail: what fits goes on to fit.
		hit = hit || bytes.Contains(line, []byte("INJECTED")) && !bytes.Contains(line, []byte("identity.state"))
	}
	return out, hit, err
}
