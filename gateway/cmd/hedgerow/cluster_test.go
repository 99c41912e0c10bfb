package main_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

// The same federation as clients of a NATS server of the site's own, which is
// killed and comes back: intake goes on, and replicas become equal again.
func TestClientsOfAClusterShareOneTangle(t *testing.T) {
	slow(t)
	f := newFleet(t, nil, "north", "south", "east", "west")
	server := f.cluster()
	server.launch()
	f.start()

	acked := map[string]map[string]bool{}
	tr := f.publish("pre", 1, 20*time.Millisecond)
	pauseFor(2 * time.Second)
	tr.end(acked)
	f.awaitAttached()
	t.Logf("equal %v after the last block: %+v", f.awaitEqual("before the kill"), f.stations[0].replica())

	tr = f.publish("mid", 1, 20*time.Millisecond)
	server.kill()
	f.awaitEachGrows()
	pauseFor(2 * time.Second)
	server.launch()
	pauseFor(time.Second)
	tr.end(acked)
	f.awaitAttached()
	t.Logf("equal %v after the last block: %+v", f.awaitEqual("after the kill"), f.stations[0].replica())
	f.checkOnceEverywhere(acked)
	t.Logf("%d acknowledged readings", total(acked))
}

// cluster makes every gateway a client of a nats-server with the sample
// configuration, which it returns, and which does not run yet.
func (f *fleet) cluster(more ...string) (server *box) {
	f.t.Helper()
	dir, address := f.t.TempDir(), freePort(f.t, "tcp")
	serverCertificate(f.t, dir)
	text, err := os.ReadFile("../../../deploy/topologies/nats-server.conf")
	if err != nil {
		f.t.Fatal(err)
	}
	user := regexp.MustCompile(`(?s)    \{ # north\n.*?\n    \}\n`).FindString(string(text))
	key := regexp.MustCompile(`nkey: (U\w+)`).FindStringSubmatch(user)
	if key == nil {
		f.t.Fatal("the sample has no user north")
	}
	var users strings.Builder
	for _, s := range f.stations {
		users.WriteString(strings.NewReplacer(key[1], s.nkey(), "1111111111111111", s.member.PublicKey.SubjectID()).Replace(user))
	}
	conf := strings.NewReplacer("hedgerow.0123456789abcdef", network.SubjectPrefix(f.file.GenesisHash()), "0.0.0.0:4222", address, "/etc/nats/", dir+"/").
		Replace(strings.Replace(string(text), user, users.String(), 1))
	file := filepath.Join(dir, "nats-server.conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		f.t.Fatal(err)
	}
	for _, s := range f.stations {
		f.configure(s, append([]string{fmt.Sprintf("peers: {mode: external, url: %q, credentials: file:nats.seed, tls: {ca: %q}}",
			"tls://"+address, filepath.Join(dir, "server.pem"))}, more...)...)
	}
	server = &box{t: f.t, dir: dir, bin: filepath.Join(dir, "nats-server"), args: []string{"-c", file}}
	if out, err := exec.Command("go", "build", "-o", server.bin, "github.com/nats-io/nats-server/v2").CombinedOutput(); err != nil {
		f.t.Fatalf("build nats-server: %v\n%s", err, out)
	}
	server.keepLog("nats-server")
	return server
}

// nkey makes the station's user of the cluster, keeps its seed and returns its
// public half.
func (s *station) nkey() string {
	s.t.Helper()
	pair, err := nkeys.CreateUser()
	if err != nil {
		s.t.Fatal(err)
	}
	seed, _ := pair.Seed()
	public, _ := pair.PublicKey()
	if err := os.WriteFile(filepath.Join(s.dir, "nats.seed"), append(seed, '\n'), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return public
}

// serverCertificate makes server.pem and server.key: an authority's certificate
// that is the server's, too.
func serverCertificate(t *testing.T, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "nats"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Unix(0, 0), NotAfter: time.Now().AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"server.pem": {Type: "CERTIFICATE", Bytes: der}, "server.key": {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
