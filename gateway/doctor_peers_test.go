package gateway

import (
	"crypto/ed25519"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hedgerow-iot/hedgerow/gateway/bus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

// doctorOfNorth returns a doctor of a gateway north, which does not run, in the
// network file of f; f gets its key.
func doctorOfNorth(t *testing.T, f *federation, set ...string) *Doctor {
	t.Helper()
	dir := t.TempDir()
	key, _, err := MakeIdentity(filepath.Join(dir, "identity.key"))
	if err != nil {
		t.Fatal(err)
	}
	f.keys["north"] = key
	for i, g := range f.file.Gateways {
		if g.Name == "north" {
			f.file.Gateways[i].PublicKey = network.PublicKey(key.Public().(ed25519.PublicKey))
		}
	}
	if err := f.file.Save(filepath.Join(dir, "network.json")); err != nil {
		t.Fatal(err)
	}
	cfg, err := Override(Default(), append([]string{
		"name=north", "data_dir=" + dir + "/data", "identity=file:" + dir + "/identity.key", "network=" + dir + "/network.json",
		"api.token=file:" + dir + "/admin.token",
	}, set...))
	if err != nil {
		t.Fatal(err)
	}
	return &Doctor{Config: cfg}
}

// openAs opens the bus of a member, as the network file says, or of a stranger.
func (f *federation) openAs(name string) (address string) {
	f.t.Helper()
	if f.keys[name] == nil {
		_, f.keys[name], _ = ed25519.GenerateKey(nil)
	}
	b, err := bus.Open(bus.Config{
		Mode: bus.Embedded, Gateway: name, Key: f.keys[name], Network: subjects(f.file),
		Members: func() []bus.Member { return members(f.file.Gateways) }, Listen: "127.0.0.1:0", Clients: "127.0.0.1:0", Log: testLog(f.t),
	})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(b.Close)
	routes, clients := b.Addresses()
	f.clients = "tls://" + clients.String()
	return "tls://" + routes.String()
}

func TestRoutesAreDialledAndNamed(t *testing.T) {
	f, old := newFederation(t, "north", "south"), newFederation(t, "north", "south")
	d := doctorOfNorth(t, f)
	old.keys["south"] = f.keys["south"]
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	south, stranger, own, without, plain := f.openAs("south"), f.openAs("thief"), f.openAs("north"), old.openAs("south"), "tls://"+l.Addr().String()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("220 mail\r\n"))
			_ = c.Close()
		}
	}()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "tls://" + closed.Addr().String()
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	d.Config.Peers.Listen = "127.0.0.1:0"
	d.Config.Peers.Routes = []string{south, stranger, own, without, plain, nobody}
	all := d.peers(t.Context(), &box{})
	if len(all) != 6 {
		t.Fatalf("findings: %+v", all)
	}
	for i, tt := range []struct {
		verdict Verdict
		text    string
	}{
		{VerdictOK, south + " is south, in "},
		{VerdictBad, stranger + " shows the key 0x"},
		{VerdictWarn, own + " is this gateway itself"},
		{VerdictBad, without + " is south, which refuses this gateway's key"},
		{VerdictWarn, plain + " is not reached: tls: first record"},
		{VerdictWarn, nobody + " is not reached: dial tcp"},
	} {
		if f := all[i]; f.Check != "peers" || f.Verdict != tt.verdict || !strings.HasPrefix(f.Found, tt.text) || (f.Advice == "") != (tt.verdict == VerdictOK) {
			t.Errorf("found %+v, want %s %q", f, tt.verdict, tt.text)
		}
	}
}

func TestPeersThatCannotBeReachedByConfiguration(t *testing.T) {
	alone := newFederation(t, "north")
	want(t, doctorOfNorth(t, alone).peers(t.Context(), &box{}), "peers", VerdictOK, "a network of one")
	want(t, doctorOfNorth(t, alone, "peers.listen=:0", "peers.routes=tls://127.0.0.1:6222").peers(t.Context(), &box{}), "peers", VerdictWarn, "join")
	two := newFederation(t, "north", "south")
	want(t, doctorOfNorth(t, two).peers(t.Context(), &box{}), "peers", VerdictBad, "set peers.listen and peers.routes")
	want(t, doctorOfNorth(t, two, "peers.listen=:0").peers(t.Context(), &box{}), "peers", VerdictOK, "waits for")
}

func TestTheExternalClusterIsTried(t *testing.T) {
	f := newFederation(t, "north", "south")
	d := doctorOfNorth(t, f)
	f.openAs("south")
	d.Config.Peers.Mode, d.Config.Peers.URL = string(bus.External), f.clients
	want(t, d.peers(t.Context(), &box{}), "peers", VerdictOK, ", which is south")
	old := newFederation(t, "north", "south") // has another key for north
	old.keys["south"] = f.keys["south"]
	old.openAs("south")
	d.Config.Peers.URL = old.clients
	want(t, d.peers(t.Context(), &box{}), "peers", VerdictBad, "no server of peers.url lets this gateway in")
}

func TestAGatewayThatRunsIsAskedForItsPeers(t *testing.T) {
	d := doctorOfNorth(t, newFederation(t, "north", "south"), "peers.listen=127.0.0.1:0")
	for _, tt := range []struct {
		peer    string // as the gateway tells of it
		verdict Verdict
		text    string
		others  int // findings of its configuration
	}{
		{`{"name":"south","up":true,"votes":true,"blocks":1,"lastSeen":"2026-11-22T10:15:04Z"}`, VerdictOK, "south is up, with 1 block", 0},
		{`{"name":"south","up":true,"votes":true,"blocks":70000,"lag":60000}`, VerdictWarn, "up to 60000 blocks of it are missing here", 0},
		{`{"name":"south","up":true,"votes":false,"blocks":1}`, VerdictWarn, "south is up and does not vote", 0},
		{`{"name":"south","up":false,"lastSeen":null}`, VerdictWarn, "south was not heard of since this gateway started", 1},
		{`{"name":"south","up":false,"lastSeen":"2026-11-22T10:15:04Z"}`, VerdictWarn, "last heard of at 2026-11-22T10:15:04Z", 1},
		{`{"name":"south","up":true,"shunnedUntil":"2026-11-22T10:15:04Z"}`, VerdictBad, "not listened to until 2026-11-22T10:15:04Z", 0},
	} {
		refused := json.RawMessage(`{"lastRefused":{"time":"2026-11-22T10:15:04Z","why":"the key 0xab is not one of the network"}}`)
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/api/hedgerow/v1/peers" {
				t.Errorf("asked for %s", r.URL)
			}
			_ = json.NewEncoder(w).Encode(map[string]any{"bus": refused, "items": []any{json.RawMessage(tt.peer)}})
		}))
		all := d.peers(t.Context(), &box{address: s.Listener.Addr().String(), status: &runningStatus{}})
		s.Close()
		if len(all) != 1+2*tt.others {
			t.Fatalf("%s: findings %+v", tt.peer, all)
		}
		if tt.others > 0 && (!strings.Contains(all[1].Found, "0xab is not one of the network") || !strings.Contains(all[1].Advice, "its epoch has begun")) {
			t.Errorf("a refused key is found %+v", all[1])
		}
		if f := all[0]; f.Verdict != tt.verdict || !strings.Contains(f.Found, tt.text) || (f.Advice == "") != (tt.verdict == VerdictOK) {
			t.Errorf("%s is found %+v, want %s %q", tt.peer, f, tt.verdict, tt.text)
		}
	}
}

func TestAQuorumThatIsNotUpIsBad(t *testing.T) {
	d := &Doctor{}
	for _, tt := range []struct {
		needed, up uint64
		verdict    Verdict
		text       string
	}{
		{1, 1, VerdictOK, "gateways of weight 1 are up, 1 is needed"},
		{3, 3, VerdictOK, "gateways of weight 3 are up, 3 is needed"},
		{3, 2, VerdictBad, "gateways of weight 2 are up, 3 is needed"},
	} {
		s := &runningStatus{}
		s.Quorum.Needed, s.Quorum.Up = tt.needed, tt.up
		want(t, d.quorum(t.Context(), &box{status: s}), "quorum", tt.verdict, tt.text)
	}
	if all := d.quorum(t.Context(), &box{}); all != nil {
		t.Errorf("of a gateway that does not run: %+v", all)
	}
}

func TestAGatewayThatCannotMeetOthersSaysSo(t *testing.T) {
	cfg := testSandbox(t, t.TempDir(), "peers.listen=127.0.0.1:0", "powfarm.workers=0", "shutdown.drain=0s")
	d := doctorOf(t, cfg)
	if texts := Cautions(cfg); len(texts) != 2 || !strings.Contains(texts[0], "no network file yet") || texts[1] != noProver {
		t.Errorf("before the first start: %q", texts)
	}
	want(t, d.proofOfWork(t.Context(), &box{}), "proof_of_work", VerdictBad, "stored and wait")
	g := start(t, cfg)
	if err := g.publish("readings/probe-1/count", "1"); err != nil {
		t.Fatal(err)
	}
	if texts := Cautions(cfg); len(texts) != 2 || !strings.Contains(texts[0], "has this one alone") {
		t.Errorf("afterwards: %q", texts)
	}
	if all := metNobody(&cfg, g.home.network); len(all) != 1 || all[0].Name != "network_of_one" {
		t.Errorf("alarms %+v", all)
	}
	all := d.Examine(t.Context())
	want(t, all, "peers", VerdictWarn, "hedgerow network create")
	want(t, all, "proof_of_work", VerdictBad, "no worker searches, here or on another box: 1 reading in no block")

	cfg = testSandbox(t, t.TempDir())
	if texts := Cautions(cfg); len(texts) > 0 {
		t.Errorf("a sandbox: %q", texts)
	}
	f := newFederation(t, "north", "south")
	d = doctorOfNorth(t, f, "peers.listen=127.0.0.1:0", "powfarm.workers=0")
	want(t, d.proofOfWork(t.Context(), &box{}), "proof_of_work", VerdictBad, "")
	d = doctorOfNorth(t, f, "peers.listen=127.0.0.1:0", "powfarm.workers=0", "powfarm.remote.use=true")
	want(t, d.proofOfWork(t.Context(), &box{}), "proof_of_work", VerdictOK, "other boxes")
}
