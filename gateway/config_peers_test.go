package gateway

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const testWorker = "0x00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

func TestParsePeers(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		set        []string
		problem    string // the first, empty when there is none
	}{
		{"mesh", `peers: {listen: ":6222", routes: ["tls://10.0.0.8:6222", "tls://[fd00::8]:6222", "tls://barn:6222"], clients: "[::]:4222"}`, nil, ""},
		{"external", `peers: {mode: external, url: "tls://a.example:4222, nats://10.0.0.1, tls://[::1]"}`, nil, ""},
		{"external with files", `peers: {mode: external, url: "tls://a", credentials: file:x.creds, tls: {certificate: c, key: file:k}}`, nil, ""},
		{"own authority", `peers: {listen: ":1", tls: {certificate: c, key: credential:k, ca: a}}`, nil, ""},
		{"workers", `powfarm: {remote: {serve: true, use: true, workers: ["` + testWorker + `"]}}`, nil, ""},
		{"no worker, others asked", `powfarm: {workers: 0, remote: {use: true}}`, nil, ""},
		{"workers by override", ``, []string{"powfarm.remote.workers=" + testWorker}, ""},

		{"unknown mode", `peers: {mode: externl}`, nil, `f.yaml:1:15: peers.mode: "externl" is none of embedded, external; did you mean external?`},
		{"unknown key", `peers: {listn: ":1"}`, nil, `f.yaml:1:9: peers.listn: unknown key; did you mean peers.listen?`},
		{"insecure", `peers: {insecure: true}`, nil, `f.yaml:1:9: peers.insecure: unknown key`},
		{"url when embedded", `peers: {url: "tls://a:1"}`, nil, `f.yaml:1:14: peers.url: belongs to peers.mode: external; take it out, or change the mode`},
		{"credentials when embedded", `peers: {credentials: file:x}`, nil, `f.yaml:1:22: peers.credentials: belongs to peers.mode: external`},
		{"listen when external", `peers: {mode: external, url: "tls://a", listen: ":1"}`, nil, `f.yaml:1:49: peers.listen: belongs to peers.mode: embedded`},
		{"clients when external", `peers: {mode: external, url: "tls://a", clients: ":1"}`, nil, `peers.clients: belongs to peers.mode: embedded`},
		{"routes when external", `peers: {mode: external, url: "tls://a", routes: ["tls://b:1"]}`, nil, `peers.routes: belongs to peers.mode: embedded`},
		{"external without url", `peers: {mode: external}`, nil, `f.yaml: peers.url: is empty; mode external takes an address such as tls://`},
		{"routes without listen", `peers: {routes: ["tls://a:1"]}`, nil, `f.yaml:1:17: peers.routes: needs peers.listen`},
		{"route without scheme", `peers: {listen: ":1", routes: ["10.0.0.8:6222"]}`, nil, `f.yaml:1:32: peers.routes[0]: "10.0.0.8:6222" is not an address of a NATS server; did you mean tls://10.0.0.8:6222?`},
		{"plain route", `peers: {listen: ":1", routes: ["tls://a:1", "nats://a:6222"]}`, nil, `f.yaml:1:45: peers.routes[1]: "nats://a:6222" does not begin with tls://; did you mean tls://a:6222?`},
		{"route without port", `peers: {listen: ":1", routes: ["tls://a"]}`, nil, `peers.routes[0]: "tls://a" has no port`},
		{"route without host", `peers: {listen: ":1", routes: ["tls://:1"]}`, nil, `peers.routes[0]: "tls://:1" has no host`},
		{"route with path", `peers: {listen: ":1", routes: ["tls://a:1/x"]}`, nil, `peers.routes[0]: "tls://a:1/x" is not an address of a NATS server; write it as tls://`},
		{"route twice", `peers: {listen: ":1", routes: ["tls://a:1", "tls://a:1"]}`, nil, `peers.routes[1]: stands at peers.routes[0] already`},
		{"route by override", ``, []string{"peers.listen=:1", "peers.routes=a:1"}, `--set: peers.routes[0]: "a:1" is not an address`},
		{"listen is no address", `peers: {listen: "6222"}`, nil, `f.yaml:1:17: peers.listen: "6222" is not an address`},
		{"address taken", `peers: {listen: "127.0.0.1:14265"}`, nil, `peers.listen: 127.0.0.1:14265 stands at api.listen already`},
		{"clients and listen", `peers: {listen: ":1", clients: ":1"}`, nil, `peers.clients: :1 stands at peers.listen already`},
		{"http url", `peers: {mode: external, url: "http://a"}`, nil, `peers.url: "http://a" does not begin with tls:// or nats://; did you mean tls://a?`},
		{"url of bad port", `peers: {mode: external, url: "tls://a:99999"}`, nil, `peers.url: "a:99999" has no port from 0 to 65535`},
		{"one bad of two", `peers: {mode: external, url: "tls://a,b"}`, nil, `peers.url: "b" is not an address`},
		{"literal credentials", `peers: {mode: external, url: "tls://a", credentials: SUAHUNTER2}`, nil, `peers.credentials: a secret never stands in the configuration`},
		{"password in the url", `peers: {mode: external, url: "tls://user:hunter2@a"}`, nil, `peers.url: holds a user or password`},
		{"certificate without key", `peers: {listen: ":1", tls: {certificate: c, ca: a}}`, nil, `peers.tls.certificate: needs peers.tls.key`},
		{"key without certificate", `peers: {listen: ":1", tls: {key: file:k}}`, nil, `peers.tls.key: needs peers.tls.certificate`},
		{"no authority", `peers: {listen: ":1", tls: {certificate: c, key: file:k}}`, nil, `peers.tls.certificate: needs peers.tls.ca`},
		{"authority alone", `peers: {listen: ":1", tls: {ca: a}}`, nil, `peers.tls.ca: needs peers.tls.certificate and peers.tls.key`},
		{"literal key", `peers: {listen: ":1", tls: {key: k.pem}}`, nil, `peers.tls.key: a secret never stands`},
		{"worker is no key", `powfarm: {remote: {workers: ["0x12"]}}`, nil, `f.yaml:1:30: powfarm.remote.workers[0]: "0x12" is not a public key; write 0x and 64 hex digits`},
		{"worker twice", `powfarm: {remote: {workers: ["` + testWorker + `", "0x` + strings.ToUpper(testWorker[2:]) + `"]}}`, nil, `powfarm.remote.workers[1]: stands at powfarm.remote.workers[0] already`},
		{"nothing to lend", `powfarm: {workers: 0, remote: {serve: true}}`, nil, `f.yaml:1:39: powfarm.remote.serve: has no worker to lend: powfarm.workers is 0`},
		{"nothing to lend by override", `powfarm: {remote: {serve: true}}`, []string{"powfarm.workers=0"}, `powfarm.remote.serve: has no worker to lend`},
		{"empty identity", `identity: ""`, nil, `f.yaml:1:11: identity: is empty`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("f.yaml", []byte(tt.text), tt.set)
			switch {
			case tt.problem == "" && err != nil:
				t.Errorf("Parse(%s): %v", tt.text, err)
			case tt.problem != "" && (err == nil || !strings.Contains(err.Error(), tt.problem)):
				t.Errorf("Parse(%s) = %v, want %q", tt.text, err, tt.problem)
			case err != nil && strings.Contains(strings.ToLower(err.Error()), "hunter2"):
				t.Errorf("the error holds the secret: %v", err)
			}
		})
	}
}

// Check names what is wrong with the files of the section, which no start
// makes.
func TestCheckLooksAtThePeersFiles(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f.yaml")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	base := "data_dir: data\nidentity: file:identity.key\n"
	c := newCluster(newFederation(t, "north", "south"))
	seed, err := os.ReadFile(c.seeds["north"])
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := os.ReadFile(filepath.Join(c.dir, "server.pem"))
	key, _ := os.ReadFile(filepath.Join(c.dir, "server.key"))
	write("good.seed", string(seed))
	write("bad.seed", "hunter2")
	write("cert.pem", string(cert))
	write("key.pem", string(key))
	for _, tt := range []struct{ text, problem string }{
		{`{mode: external, url: "tls://a", credentials: file:good.seed, tls: {certificate: cert.pem, key: file:key.pem, ca: cert.pem}}`, ""},
		{`{mode: external, url: "tls://a", credentials: file:none.seed}`, "peers.credentials: open"},
		{`{mode: external, url: "tls://a", credentials: file:bad.seed}`, "peers.credentials: the credentials are neither"},
		{`{mode: external, url: "tls://a", tls: {ca: none.pem}}`, "peers.tls.ca: open"},
		{`{mode: external, url: "tls://a", tls: {ca: key.pem}}`, "key.pem: no certificate in it; want PEM blocks CERTIFICATE"},
		{`{listen: ":1", tls: {certificate: none.pem, key: file:key.pem, ca: cert.pem}}`, "peers.tls.certificate: open"},
		{`{listen: ":1", tls: {certificate: cert.pem, key: file:bad.seed, ca: cert.pem}}`, "peers.tls.key: "},
	} {
		write("f.yaml", base+"peers: "+tt.text+"\n")
		err := Check(file, nil)
		switch {
		case tt.problem == "" && err != nil:
			t.Errorf("Check of %s: %v", tt.text, err)
		case tt.problem != "" && (err == nil || !strings.Contains(err.Error(), tt.problem)):
			t.Errorf("Check of %s = %v, want %q", tt.text, err, tt.problem)
		case err != nil && strings.Contains(err.Error(), "hunter2"):
			t.Errorf("the error holds the secret: %v", err)
		}
	}
}

// Only an unencrypted connection that leaves the machine is worth a warning;
// routes and clients always have TLS.
func TestPlainNATSIsAWarning(t *testing.T) {
	for text, want := range map[string]bool{
		`{listen: ":6222", clients: ":4222"}`:                         false,
		`{mode: external, url: "tls://10.0.0.1:4222"}`:                false,
		`{mode: external, url: "nats://127.0.0.1:4222,nats://[::1]"}`: false,
		`{mode: external, url: "nats://localhost"}`:                   false,
		`{mode: external, url: "tls://a:4222, nats://10.0.0.1:4222"}`: true,
		`{mode: external, url: "nats://nats.example.org"}`:            true,
	} {
		c, err := Parse("f.yaml", []byte("peers: "+text), nil)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, w := range warnings(&c) {
			names = append(names, w.Name)
		}
		if got := len(names) > 0; got != want || want && names[0] != "plain_nats" {
			t.Errorf("%s: warnings %v, want one: %v", text, names, want)
		}
	}
}
