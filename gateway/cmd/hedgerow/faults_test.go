package main_test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// need skips the test when an outside program is missing, or fails it where
// skips are forbidden.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			skip(t, p+" is not installed")
		}
	}
}

func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("HEDGEROW_NO_SKIP") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// A terminal that is closed stops the gateway like Ctrl-C does; one that was
// started to outlive its terminal stays.
func TestHangupStopsInOrder(t *testing.T) {
	for _, tt := range []struct {
		name  string
		wrap  []string
		stays bool
	}{
		{"plain", nil, false},
		{"nohup", []string{"nohup"}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			need(t, tt.wrap...)
			b := newBox(t, t.TempDir())
			b.wrap = tt.wrap
			b.start()
			hangup := func() {
				if err := b.cmd.Process.Signal(syscall.SIGHUP); err != nil {
					t.Fatal(err)
				}
			}
			hangup()
			if tt.stays {
				b.get("/ready")
				return
			}
			<-b.exited
			text, err := os.ReadFile(b.log.Name())
			if code := b.cmd.ProcessState.ExitCode(); err != nil || code != 0 || !strings.Contains(string(text), "gateway stopped") {
				t.Errorf("exit code %d after a hangup, want 0 and an orderly stop; %v", code, err)
			}
		})
	}
}

// A failed sync leaves the store in doubt: the process ends, acknowledges
// nothing more, and the next start has everything that was acknowledged.
func TestFailedSyncEndsTheProcessAndLosesNothing(t *testing.T) {
	need(t, "strace")
	b := newBox(t, t.TempDir())
	b.start() // makes the stores: their first syncs shall not fail
	b.kill()

	trace := filepath.Join(t.TempDir(), "trace")
	b.wrap = []string{"strace", "-f", "-qq", "-o", trace, "-e", "trace=fsync,fdatasync,msync,pwrite64",
		"-e", "inject=fsync,fdatasync,msync,pwrite64:error=EIO:when=60+"}
	b.launch()
	b.await("a listener", 20*time.Second, func() bool {
		c, err := net.Dial("tcp", b.mqtt)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	s := &mqttSensor{addr: b.mqtt, id: "probe", topic: "readings/probe/count", window: 1}
	stop := make(chan struct{})
	done := make(chan error, 1)
	go func() { done <- s.run(stop, time.Now().Add(time.Minute)) }()
	select {
	case <-b.exited:
	case <-time.After(30 * time.Second):
		t.Fatal("the gateway goes on although syncs fail")
	}
	if code := b.cmd.ProcessState.ExitCode(); code != 1 && code != 3 {
		t.Errorf("exit code %d, want 1 or 3", code)
	}
	if text, _ := os.ReadFile(b.log.Name()); !strings.Contains(string(text), "input/output error") {
		t.Errorf("the log does not name the failed sync")
	}

	b.wrap = nil
	b.start()
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
	b.awaitAttached(time.Minute)
	acked := map[string]bool{}
	for _, v := range s.acked {
		acked[fmt.Sprintf("probe=%d", v)] = true
	}
	t.Logf("%d acknowledged readings", len(acked))
	b.checkOnce(acked)
}

// On a full disk every protocol refuses in its own words, reads go on, and
// intake resumes by itself when there is room again.
func TestFullDiskRefusesAndRecovers(t *testing.T) {
	need(t, "mosquitto_pub")
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=400m"); err != nil {
		skip(t, fmt.Sprintf("a small disk cannot be made: mount tmpfs: %v", err))
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	b := newBox(t, filepath.Join(dir, "home"), "journal.reserve=150MiB")
	b.start()
	publishes := func() error {
		return exec.Command("mosquitto_pub", "-V", "mqttv5", "-h", "127.0.0.1", "-p", port(b.mqtt), "-q", "1",
			"-t", "readings/probe/level", "-m", "1").Run()
	}
	if err := publishes(); err != nil {
		t.Fatalf("publish while there is room: %v", err)
	}

	filler := filepath.Join(dir, "filler")
	fill(t, dir, filler, 100<<20) // leaves less than the reserve
	b.await("not ready", 20*time.Second, func() bool { code, _ := b.try("/ready"); return code == 503 })
	before := len(b.readings())
	if got := answerV5(t, b.mqtt); got != 0x97 {
		t.Errorf("MQTT 5 reason %#x on a full disk, want 0x97", got)
	}
	if acked := publishV3(t, b.mqtt); acked {
		t.Error("MQTT 3.1.1 publish acknowledged on a full disk")
	}
	if got := answerCoAP(t, b.coap); got != 0xa3 {
		t.Errorf("CoAP answer %d.%02d on a full disk, want 5.03", got>>5, got&31)
	}
	if after := len(b.readings()); after != before {
		t.Errorf("%d readings after refused publishes, %d before", after, before)
	}

	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	b.await("ready again", 20*time.Second, func() bool { code, _ := b.try("/ready"); return code == 200 })
	if err := publishes(); err != nil {
		t.Errorf("publish after space returned: %v", err)
	}
	b.awaitAttached(30 * time.Second)

	// A start on a full disk says so and does not loop.
	b.kill()
	fill(t, dir, filler, 1<<20)
	b.launch()
	select {
	case <-b.exited:
	case <-time.After(20 * time.Second):
		t.Fatal("the gateway starts on a full disk")
	}
	if code := b.cmd.ProcessState.ExitCode(); code != 1 {
		t.Errorf("exit code %d on a full disk, want 1", code)
	}
	if text, _ := os.ReadFile(b.log.Name()); !strings.Contains(string(text), "free") {
		t.Error("the log does not say that space is missing")
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	b.start()
	if got := len(b.readings()); got != before+1 {
		t.Errorf("%d readings after the restart, want %d", got, before+1)
	}
}

// fill writes a file until only left bytes are free in dir.
func fill(t *testing.T, dir, name string, left uint64) {
	t.Helper()
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, int64(fs.Bavail*uint64(fs.Bsize)-left)); err != nil {
		t.Fatal(err)
	}
}

func port(addr string) string {
	_, p, _ := net.SplitHostPort(addr)
	return p
}

// answerV5 publishes one QoS 1 message as MQTT 5 and returns the reason code
// of its PUBACK.
func answerV5(t *testing.T, addr string) byte {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	conn.Write([]byte("\x10\x10\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x03one"))
	r := bufio.NewReader(conn)
	if head, _ := readPacket(t, r); head != 0x20 {
		t.Fatalf("packet %#x instead of CONNACK", head)
	}
	topic := "readings/probe/level"
	body := append([]byte{0, byte(len(topic))}, topic...)
	body = append(body, 0, 1, 0, '7') // packet id 1, no properties
	conn.Write(append([]byte{0x32, byte(len(body))}, body...))
	head, ack := readPacket(t, r)
	if head != 0x40 || len(ack) < 3 {
		t.Fatalf("packet %#x % x instead of a PUBACK with a reason", head, ack)
	}
	return ack[2]
}

func readPacket(t *testing.T, r *bufio.Reader) (head byte, body []byte) {
	t.Helper()
	head, err := r.ReadByte()
	if err != nil {
		t.Fatal(err)
	}
	n, err := r.ReadByte() // these answers are shorter than 128 bytes
	if err != nil {
		t.Fatal(err)
	}
	body = make([]byte, n)
	for i := range body {
		if body[i], err = r.ReadByte(); err != nil {
			t.Fatal(err)
		}
	}
	return head, body
}

// publishV3 publishes one QoS 1 message as MQTT 3.1.1 and reports whether it
// was acknowledged before the gateway closed the connection.
func publishV3(t *testing.T, addr string) bool {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	r := bufio.NewReader(conn)
	s := &mqttSensor{id: "old", topic: "readings/probe/level"}
	if err := s.connect(conn, r); err != nil {
		t.Fatal(err)
	}
	conn.Write(s.encode(mqttPublish{packet: 1, value: 7}, false))
	head, err := r.ReadByte()
	return err == nil && head == 0x40
}

// answerCoAP PUTs one reading and returns the code of the answer.
func answerCoAP(t *testing.T, addr string) byte {
	t.Helper()
	conn, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	s := &coapSensor{device: "probe", name: "level"}
	conn.Write(s.encode(1, 7))
	answer := make([]byte, 1500)
	n, err := conn.Read(answer)
	if err != nil || n < 4 {
		t.Fatalf("no answer: %v", err)
	}
	return answer[1]
}
