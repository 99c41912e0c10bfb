package gateway

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching/reading"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

// doctorOf returns a doctor whose other process is this test program.
func doctorOf(t *testing.T, cfg Config) *Doctor {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return &Doctor{Config: cfg, Self: func(ctx context.Context, args ...string) *exec.Cmd {
		return exec.CommandContext(ctx, self, append([]string{"fsck"}, args...)...)
	}}
}

// found returns the findings of one check.
func found(all []Finding, check string) []Finding {
	return slices.DeleteFunc(slices.Clone(all), func(f Finding) bool { return f.Check != check })
}

// want reports a finding that has another verdict or does not contain text.
func want(t *testing.T, all []Finding, check string, v Verdict, text string) {
	t.Helper()
	fs := found(all, check)
	if len(fs) != 1 || fs[0].Verdict != v || !strings.Contains(fs[0].Found+" "+fs[0].Advice, text) {
		t.Errorf("%s: %+v, want %s with %q", check, fs, v, text)
	}
}

func TestAHealthyGatewayIsFoundSo(t *testing.T) {
	cfg := testSandbox(t, t.TempDir())
	d := doctorOf(t, cfg)
	before := d.Examine(t.Context())
	for _, check := range []string{"identity", "admin_token", "network", "journal", "ledger", "disk_speed"} {
		want(t, before, check, VerdictOK, "")
	}
	g := start(t, cfg)
	if err := g.publish("readings/probe-1/count", "1"); err != nil {
		t.Fatal(err)
	}
	g.readings(1)
	running := d.Examine(t.Context())
	for _, check := range []string{"journal", "ledger"} {
		want(t, running, check, VerdictOK, "the gateway read it whole")
	}
	if ls := found(running, "listener"); len(ls) != 3 || slices.ContainsFunc(ls, func(f Finding) bool { return f.Verdict != VerdictOK }) {
		t.Errorf("listeners while it runs: %+v", ls)
	}
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	after := d.Examine(t.Context())
	want(t, after, "journal", VerdictOK, "1 reading")
	want(t, after, "ledger", VerdictOK, "block") // and votes
	want(t, after, "identity", VerdictOK, "public key 0x")
	want(t, after, "network", VerdictOK, "1 gateway, quorum 1")
	want(t, after, "disk_speed", VerdictOK, "p99")
	for _, f := range after {
		if f.Verdict == VerdictBad || f.Found == "" {
			t.Errorf("after it ran: %+v", f)
		}
	}
	if exists(filepath.Join(string(cfg.DataDir), speedFile)) {
		t.Error("the file of the disk's speed is still there")
	}
	start(t, cfg) // nothing was done to it
}

func TestAGatewayThatDoesNotAnswerIsBad(t *testing.T) {
	cfg := testSandbox(t, t.TempDir())
	g := start(t, cfg)
	if err := g.publish("readings/probe-1/count", "1"); err != nil { // it serves
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := errors.Join(l.Close(), announce(&cfg, address)); err != nil {
		t.Fatal(err)
	}
	all := doctorOf(t, cfg).Examine(t.Context())
	want(t, all, "gateway", VerdictBad, "does not answer")
	want(t, all, "journal", VerdictWarn, "not checked")
}

func TestAGatewayThatRunsWithAnotherTokenIsBad(t *testing.T) {
	cfg := testSandbox(t, t.TempDir())
	g := start(t, cfg)
	if err := g.publish("readings/probe-1/count", "1"); err != nil { // it serves
		t.Fatal(err)
	}
	path := cfg.API.Token.Ref
	if err := os.WriteFile(path, []byte("another-token-of-32-characters-x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	all := doctorOf(t, cfg).Examine(t.Context())
	want(t, all, "gateway", VerdictBad, "the token was changed after the start")
	want(t, all, "journal", VerdictWarn, "not checked")
	if fs := found(all, "ready"); len(fs) > 0 {
		t.Errorf("a gateway that was not asked is found %+v", fs)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	all = doctorOf(t, cfg).Examine(t.Context())
	want(t, all, "gateway", VerdictBad, "cannot be asked without the admin token")
	want(t, all, "admin_token", VerdictBad, "is missing")
}

// A directory that a command holds is left alone.
func TestADirectoryInUseIsNotOpened(t *testing.T) {
	cfg := usedBox(t, t.TempDir())
	lock, err := lockDir(string(cfg.DataDir))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	d := doctorOf(t, cfg)
	want(t, d.Examine(t.Context()), "ledger", VerdictWarn, "holds the data directory")
	want(t, d.Repair(t.Context()), "repair", VerdictBad, "data directory in use")
}

func TestIdentityTokenAndNetworkAreLookedAt(t *testing.T) {
	home := t.TempDir()
	cfg := usedBox(t, home)
	d := doctorOf(t, cfg)
	for _, tt := range []struct {
		name   string
		change func() error
		check  string
		text   string
	}{
		{"network file of others", func() error {
			f := network.NewOfOne("n", "other", slices.Repeat([]byte{1}, 32))
			return f.Save(cfg.networkPath())
		}, "network", "has no gateway sandbox"},
		{"no network file", func() error { return os.Remove(cfg.networkPath()) }, "network", "put the network file back"},
		{"short token", func() error { return os.WriteFile(cfg.API.Token.Ref, []byte("x"), 0o600) }, "admin_token", "at least 16"},
		{"open identity", func() error { return os.Chmod(cfg.Identity.Ref, 0o644) }, "identity", "doctor --repair"},
		{"no identity", func() error { return os.Remove(cfg.Identity.Ref) }, "identity", "put the key back"},
	} {
		if err := tt.change(); err != nil {
			t.Fatal(err)
		}
		t.Log(tt.name)
		want(t, d.Examine(t.Context()), tt.check, VerdictBad, tt.text)
	}
}

func TestFewGatewaysAreToldOfTheirClocks(t *testing.T) {
	for n, told := range map[int]bool{2: true, 3: true, 4: false} {
		cfg := testSandbox(t, t.TempDir())
		f, _, _ := networkWith(t, cfg, "site")
		for i := len(f.Gateways); i < n; i++ {
			g := network.Gateway{Name: fmt.Sprint("g", i), Weight: 1}
			g.PublicKey[0] = byte(i)
			f.Gateways = append(f.Gateways, g)
		}
		f = network.Create("site", f.Gateways)
		if err := errors.Join(makeDir(string(cfg.DataDir)), f.Save(cfg.networkPath())); err != nil {
			t.Fatal(err)
		}
		fs := found(doctorOf(t, cfg).Examine(t.Context()), "network")
		if len(fs) != 1 || fs[0].Verdict != VerdictOK || strings.Contains(fs[0].Advice, "one wrong clock") != told {
			t.Errorf("%d gateways: %+v", n, fs)
		}
	}
}

func TestListenersAreTried(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	cfg := testSandbox(t, t.TempDir(), "mqtt.listen="+tcp.Addr().String(), "coap.listen="+udp.LocalAddr().String())
	ls := found(doctorOf(t, cfg).Examine(t.Context()), "listener")
	var verdicts []Verdict
	for _, l := range ls {
		verdicts = append(verdicts, l.Verdict)
	}
	if !slices.Equal(verdicts, []Verdict{VerdictBad, VerdictBad, VerdictOK}) {
		t.Errorf("taken, taken, free: %+v", ls)
	}
}

// The verdicts of what a test cannot arrange on this machine.
func TestVerdicts(t *testing.T) {
	now := time.Date(2026, 11, 27, 0, 0, 0, 0, time.UTC)
	const reserve = 512 << 20
	ms := func(n int) []time.Duration {
		return []time.Duration{0, time.Duration(n) * time.Millisecond, time.Second}
	}
	for _, tt := range []struct {
		name string
		f    Finding
		want Verdict
	}{
		{"synchronised", clockFinding(now, reading.ClockGood), VerdictOK},
		{"not synchronised", clockFinding(now, reading.ClockUnsure), VerdictWarn},
		{"1970", clockFinding(time.Unix(0, 0), reading.ClockBad), VerdictBad},
		{"2101", clockFinding(now.AddDate(175, 0, 0), reading.ClockGood), VerdictBad},
		{"fast disk", speedFinding(ms(20)), VerdictOK},
		{"slow disk", speedFinding(ms(21)), VerdictWarn},
		{"one slow sync", speedFinding([]time.Duration{time.Second}), VerdictWarn},
		{"roomy", spaceFinding(diskState{free: 2 * reserve}, reserve), VerdictOK},
		{"nearly full", spaceFinding(diskState{free: 2*reserve - 1}, reserve), VerdictWarn},
		{"full", spaceFinding(diskState{free: reserve - 1}, reserve), VerdictBad},
		{"no fixed inodes", inodeFinding(diskState{}), VerdictOK},
		{"many inodes", inodeFinding(diskState{freeInodes: 10000, allInodes: 20000}), VerdictOK},
		{"few inodes", inodeFinding(diskState{freeInodes: 9999, allInodes: 20000}), VerdictWarn},
		{"no inodes", inodeFinding(diskState{freeInodes: 9, allInodes: 20000}), VerdictBad},
		{"ext4", fileSystemFinding("/d", diskState{kind: "ext4"}), VerdictOK},
		{"unknown", fileSystemFinding("/d", diskState{}), VerdictOK},
		{"tmpfs", fileSystemFinding("/d", diskState{kind: "tmpfs"}), VerdictWarn},
		{"overlay", fileSystemFinding("/d", diskState{kind: "overlay"}), VerdictWarn},
		{"nfs", fileSystemFinding("/d", diskState{kind: "nfs"}), VerdictWarn},
		{"vfat", fileSystemFinding("/d", diskState{kind: "vfat"}), VerdictWarn},
		{"read-only", fileSystemFinding("/d", diskState{kind: "ext4", readOnly: true}), VerdictBad},
		{"no memory limit", memoryFinding(0, ""), VerdictOK},
		{"1 GiB", memoryFinding(1<<30, "machine"), VerdictOK},
		{"128 MiB", memoryFinding(128<<20, "machine"), VerdictWarn},
		{"64 MiB", memoryFinding(64<<20, "machine"), VerdictBad},
		{"files", filesFinding(4096, 1000), VerdictOK},
		{"few files", filesFinding(1024, 1000), VerdictWarn},
		{"no files", filesFinding(256, 1000), VerdictBad},
	} {
		if tt.f.Verdict != tt.want || tt.f.Found == "" || (tt.f.Advice == "") != (tt.want == VerdictOK) {
			t.Errorf("%s: %+v, want %s", tt.name, tt.f, tt.want)
		}
	}
}

// makeCertificate writes a certificate that ends then, and its key.
func makeCertificate(t *testing.T, dir, name string, end time.Time) (certificate, key Path) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: end.AddDate(-1, 0, 0), NotAfter: end}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	der8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	certificate, key = Path(filepath.Join(dir, name+".pem")), Path(filepath.Join(dir, name+".key"))
	err = errors.Join(
		os.WriteFile(string(certificate), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(string(key), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der8}), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	return certificate, key
}

// Keys that name certificates are found wherever they stand.
func TestCertificatesAreLookedAt(t *testing.T) {
	now := time.Date(2026, 11, 27, 0, 0, 0, 0, time.UTC)
	dir := t.TempDir()
	good, goodKey := makeCertificate(t, dir, "good", now.AddDate(0, 6, 0))
	soon, _ := makeCertificate(t, dir, "soon", now.AddDate(0, 0, 10))
	old, oldKey := makeCertificate(t, dir, "old", now.AddDate(0, 0, -1))
	type section struct {
		Certificate Path `yaml:"certificate"`
		Key         Path `yaml:"key"`
		CA          Path `yaml:"ca"`
	}
	for _, tt := range []struct {
		name string
		tls  section
		want []Verdict
	}{
		{"none", section{}, nil},
		{"good", section{good, goodKey, good}, []Verdict{VerdictOK, VerdictOK}},
		{"ends soon", section{Certificate: soon}, []Verdict{VerdictWarn}},
		{"has ended", section{Certificate: old, Key: oldKey}, []Verdict{VerdictBad}},
		{"key of another", section{Certificate: good, Key: oldKey}, []Verdict{VerdictBad}},
		{"a key", section{CA: goodKey}, []Verdict{VerdictBad}},
		{"missing", section{CA: "/nowhere"}, []Verdict{VerdictBad}},
	} {
		cfg := struct {
			Peers struct {
				TLS section `yaml:"tls"`
			} `yaml:"peers"`
		}{}
		cfg.Peers.TLS = tt.tls
		var got []Verdict
		fs := certificatesOf(reflect.ValueOf(cfg), now)
		for _, f := range fs {
			got = append(got, f.Verdict)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %+v, want %v", tt.name, fs, tt.want)
		}
	}
}

// Neither a process that is killed nor one that cannot start says anything of
// a store, and one that dies of it does.
func TestWhatTheOtherProcessSaysOfAStore(t *testing.T) {
	lock, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	for _, tt := range []struct {
		script string
		store  bool // the store is to blame
		text   string
	}{
		{`echo 'panic: index out of range' >&2; exit 2`, true, "panic: index out of range"},
		{`echo 'something'; echo 'fatal error: fault' >&2; exit 2`, true, "fatal error: fault"},
		{`echo '{"result":"damaged","text":"block 3"}'`, true, "block 3"},
		{`echo '{"result":"newer","text":"format 9"}'`, true, "format 9"},
		{`echo '{"result":"failed","text":"disk too full"}'`, false, "disk too full"},
		{`echo 'fatal error: out of memory' >&2; exit 2`, false, "out of memory"},
		{`kill -9 $$`, false, "killed"},
	} {
		d := &Doctor{Self: func(ctx context.Context, _ ...string) *exec.Cmd {
			return exec.CommandContext(ctx, "sh", "-c", tt.script)
		}}
		_, err := d.fsck(t.Context(), lock, jobLedger, "x")
		if err == nil || errors.Is(err, ErrStore) != tt.store || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: %v, want the store to blame: %v, and %q", tt.script, err, tt.store, tt.text)
		}
	}
	d := &Doctor{Self: func(ctx context.Context, _ ...string) *exec.Cmd { return exec.CommandContext(ctx, "/nowhere") }}
	if _, err := d.fsck(t.Context(), lock, jobLedger, "x"); err == nil || errors.Is(err, ErrStore) {
		t.Errorf("a program that is missing: %v", err)
	}
}

func TestFsckWantsItsArguments(t *testing.T) {
	for _, args := range [][]string{nil, {"journal"}, {"ledger", "a", "b"}, {"journal", "a", "b"}, {"x", "a"}} {
		if err := Fsck(t.Context(), args, os.Stdout); err == nil {
			t.Errorf("Fsck(%q) = nil", args)
		}
	}
}
