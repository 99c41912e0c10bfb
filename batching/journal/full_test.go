package journal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hedgerow-iot/hedgerow/batching"
)

const fullDir = "HEDGEROW_TEST_FULL_DIR"

// skip skips the test, or fails it where skips are forbidden.
func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("HEDGEROW_NO_SKIP") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// Somebody else fills the disk to the last byte while the journal works at
// full speed. That may kill the process, because badger writes to mapped
// files; it takes nothing that was acknowledged. No start is tried while the
// disk is full, and when there is room everything is there.
func TestDiskFilledToTheLastByteByOthersLosesNothing(t *testing.T) {
	if dir := os.Getenv(fullDir); dir != "" {
		appendWhileTheDiskFills(t, dir)
		return
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=300m"); err != nil {
		skip(t, "a small disk cannot be made: mount tmpfs: "+err.Error())
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	home := filepath.Join(dir, "journal")
	for round := range 3 {
		notes := filepath.Join(t.TempDir(), "acknowledged")
		cmd := exec.Command(os.Args[0], "-test.run=^TestDiskFilledToTheLastByteByOthersLosesNothing$")
		cmd.Env = append(os.Environ(), fullDir+"="+home, fullDir+"_NOTES="+notes)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case err := <-ended:
			t.Fatalf("round %d: ended before the disk was full: %v", round, err)
		case <-time.After(time.Duration(300+400*round) * time.Millisecond):
		}
		filler := filepath.Join(dir, "filler")
		fillDisk(t, filler)
		t.Logf("round %d: %v", round, <-ended)
		if _, err := Open(home, Options{Reserve: 1}); !errors.Is(err, ErrDiskFull) {
			t.Errorf("open on a full disk: %v, want ErrDiskFull", err)
		}
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(notes)
		if err != nil || len(b) < 8 {
			t.Fatalf("%d bytes of notes, %v", len(b), err)
		}
		acked, err := strconv.ParseUint(string(b[len(b)-10:len(b)-1]), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		j, err := Open(home, Options{Reserve: 1})
		if err != nil {
			t.Fatalf("open when there is room again: %v", err)
		}
		if j.Next() <= acked {
			t.Errorf("round %d: next is %d, %d was acknowledged", round, j.Next(), acked)
		}
		checkNow(t, j)
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// appendWhileTheDiskFills runs in a process of its own and notes the last
// number of every acknowledged group. It goes on for a while after the disk
// is full: what was appended is still indexed and compacted then.
func appendWhileTheDiskFills(t *testing.T, dir string) {
	j, err := Open(dir, Options{Reserve: 1})
	if err != nil {
		t.Fatal(err)
	}
	notes, err := os.Create(os.Getenv(fullDir + "_NOTES"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- j.Run(ctx) }()
	for n, busy := int(j.Next()), 0; busy < 100; {
		first, err := j.Append(siteGroup(n, 500), batching.Stamp{Received: int64(n)})
		switch {
		case errors.Is(err, batching.ErrBusy):
			busy++
			<-time.After(10 * time.Millisecond)
		case err != nil:
			t.Fatal(err)
		default:
			n = int(first) + 500
			// One write, of nine digits and a newline: whole or not there.
			if _, err := notes.WriteString(fmt.Sprintf("%09d\n", n-1)); err != nil {
				t.Fatal(err)
			}
			<-time.After(2 * time.Millisecond) // the others need the processor, too
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); !errors.Is(err, ErrDiskFull) {
		t.Fatalf("close on a full disk: %v, want ErrDiskFull", err)
	}
}

// fillDisk writes a file until nothing more fits.
func fillDisk(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for chunk := 8 << 20; chunk >= 4096; {
		if _, err := f.Write(make([]byte, chunk)); err != nil {
			chunk /= 2
		}
	}
}
