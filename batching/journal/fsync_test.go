package journal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/hedgerow-iot/hedgerow/batching"
)

const failingDir = "HEDGEROW_TEST_FAILING_DIR"

// A write that fails is never retried, neither that of the head nor one of the
// store: the journal takes nothing more, and what was acknowledged before is
// there at the next start.
func TestFailedWriteLeavesTheJournalInDoubt(t *testing.T) {
	if dir := os.Getenv(failingDir); dir != "" {
		appendUntilFailure(t, dir)
		return
	}
	for _, call := range []string{"pwrite64", "msync"} {
		t.Run(call, func(t *testing.T) { failLater(t, call) })
	}
}

func failLater(t *testing.T, call string) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		skip(t, "needs strace to make writes fail")
	}
	dir := t.TempDir()
	cmd := exec.Command(strace, "-f", "-qq", "-o", os.DevNull, "-e", "trace="+call, "-e", "inject="+call+":error=EIO:when=20+",
		os.Args[0], "-test.run=^TestFailedWriteLeavesTheJournalInDoubt$", "-test.v")
	cmd.Env = append(os.Environ(), failingDir+"="+dir)
	out, err := cmd.CombinedOutput()
	if bytes.Contains(out, []byte("ptrace")) {
		skip(t, fmt.Sprintf("strace may not trace here: %s", out))
	}
	if err != nil || !bytes.Contains(out, []byte("in doubt as it must be")) {
		t.Fatalf("%v\n%s", err, out)
	}
	j := open0(t, dir, Options{})
	if rs := mustRead(t, j, 1, MaxLimit); len(rs) < acknowledged(t, dir) {
		t.Errorf("%d readings of %d acknowledged", len(rs), acknowledged(t, dir))
	}
	checkNow(t, j)
}

func acknowledged(t *testing.T, dir string) int {
	t.Helper()
	b, err := os.ReadFile(dir + ".acknowledged")
	if err != nil {
		t.Fatal(err)
	}
	return len(b)
}

// appendUntilFailure runs in a process of its own and notes a byte for every
// acknowledgement.
func appendUntilFailure(t *testing.T, dir string) {
	j, err := Open(dir, Options{Reserve: 1})
	if err != nil {
		t.Fatal(err)
	}
	var acks []byte
	for len(acks) < 5000 && err == nil {
		if _, err = j.Append([]batching.Packet{pack(num("a", "x", 1))}, batching.Stamp{}); err == nil {
			acks = append(acks, 1)
			if len(acks)%10 == 0 {
				err = j.flush()
			}
		}
	}
	if err := os.WriteFile(dir+".acknowledged", acks, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, again := j.Append([]batching.Packet{pack(num("a", "x", 1))}, batching.Stamp{}); !errors.Is(err, ErrInDoubt) || !errors.Is(again, ErrInDoubt) {
		t.Fatalf("append: %v, then %v", err, again)
	}
	t.Log("in doubt as it must be after", len(acks))
}
