package gateway

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/hedgerow-iot/hedgerow/gateway/bus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

// A federation is the network file and keys of some gateways.
type federation struct {
	t    *testing.T
	file *network.File
	keys map[string]ed25519.PrivateKey

	clients string // clients address of the bus that was opened last by openAs
}

func newFederation(t *testing.T, names ...string) *federation {
	f := &federation{t: t, keys: map[string]ed25519.PrivateKey{}}
	var gateways []network.Gateway
	for _, name := range names {
		_, f.keys[name], _ = ed25519.GenerateKey(nil)
		g := network.Gateway{Name: name, Weight: 1}
		copy(g.PublicKey[:], f.id(name))
		gateways = append(gateways, g)
	}
	f.file = network.Create("farm", gateways)
	return f
}

func (f *federation) id(name string) ed25519.PublicKey {
	return f.keys[name].Public().(ed25519.PublicKey)
}

// subject returns one below the network's prefix.
func (f *federation) subject(rest string) string { return subjects(f.file) + "." + rest }

// bus opens the bus of a sample configuration with overrides.
func (f *federation) bus(sample string, set ...string) *bus.Bus {
	f.t.Helper()
	cfg, err := Load(filepath.Join("../deploy/topologies", sample), set)
	if err != nil {
		f.t.Fatal(err)
	}
	b, err := openBus(&cfg, f.keys[cfg.Name], theMembers(f.file), testLog(f.t))
	if err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	f.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			f.t.Errorf("Run: %v", err)
		}
		b.Close()
	})
	return b
}

// The samples are valid as they are, but for the files that they name.
func TestTopologySamplesAreValid(t *testing.T) {
	files, err := filepath.Glob("../deploy/topologies/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		if _, err := Load(file, nil); err != nil {
			t.Errorf("%s:\n%v", file, err)
		}
	}
}

func TestSingleTopologyRuns(t *testing.T) {
	f := newFederation(t, "north")
	b := f.bus("single.yaml")
	if routes, clients := b.Addresses(); routes != nil || clients != nil || !b.Status().Connected {
		t.Errorf("listens on %v, %v; status %+v", routes, clients, b.Status())
	}
}

func TestMeshTopologyRuns(t *testing.T) {
	f := newFederation(t, "north", "south", "west")
	north := f.bus("mesh-a.yaml", "peers.listen=127.0.0.1:0", "peers.clients=127.0.0.1:0", "peers.routes=")
	routes, clients := north.Addresses()
	south := f.bus("mesh-b.yaml", "peers.listen=127.0.0.1:0", "peers.routes=tls://"+routes.String())
	west := f.bus("mesh-client.yaml", "peers.url=tls://"+clients.String())
	all := []*bus.Bus{north, south, west}
	for i, from := range all {
		for j, to := range all {
			if i != j {
				f.carries(from.Conn(), to.Conn(), f.subject("block"))
			}
		}
	}
	f.answers(west.Conn(), north.Conn(), "north")
	f.answers(north.Conn(), west.Conn(), "west")
	f.answers(south.Conn(), west.Conn(), "west")
}

// eventually polls until ok.
func (f *federation) eventually(what string, ok func() bool) {
	f.t.Helper()
	deadline := time.After(60 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			f.t.Fatalf("never: %s", what)
		}
	}
}

func (f *federation) subscribe(c *nats.Conn, subject string) *nats.Subscription {
	f.t.Helper()
	sub, err := c.SubscribeSync(subject)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = sub.Unsubscribe() })
	f.eventually("the subscription is made", func() bool { return c.FlushTimeout(time.Second) == nil })
	return sub
}

// carries checks that what one publishes the other hears.
func (f *federation) carries(from, to *nats.Conn, subject string) {
	f.t.Helper()
	sub := f.subscribe(to, subject)
	f.eventually(subject+" is heard", func() bool {
		_ = from.Publish(subject, []byte("x"))
		_, err := sub.NextMsg(100 * time.Millisecond)
		return err == nil
	})
}

// answers checks that a request to the gateway comes back.
func (f *federation) answers(asker, gateway *nats.Conn, name string) {
	f.t.Helper()
	subject := f.subject("peer." + bus.ID(f.id(name)))
	sub, err := gateway.Subscribe(subject, func(m *nats.Msg) { _ = m.Respond(m.Data) })
	if err != nil {
		f.t.Fatal(err)
	}
	f.eventually("an answer of "+name, func() bool {
		m, err := asker.Request(subject, []byte("x"), time.Second)
		return err == nil && string(m.Data) == "x"
	})
	_ = sub.Unsubscribe()
}

// A cluster is a nats-server with the sample's configuration.
type cluster struct {
	*federation
	server *natsserver.Server
	dir    string
	ca     string // file
	worker ed25519.PrivateKey
	seeds  map[string]string // file by user
}

// newCluster starts the sample with the keys of f in place of its own.
func newCluster(f *federation) *cluster {
	f.t.Helper()
	c := &cluster{federation: f, dir: f.t.TempDir(), seeds: map[string]string{}}
	_, c.worker, _ = ed25519.GenerateKey(nil)
	c.ca = c.serverCertificate()
	text, err := os.ReadFile("../deploy/topologies/nats-server.conf")
	if err != nil {
		f.t.Fatal(err)
	}
	conf := strings.NewReplacer(
		"hedgerow.0123456789abcdef", subjects(f.file),
		"1111111111111111", bus.ID(f.id("north")), "2222222222222222", bus.ID(f.id("south")),
		"3333333333333333", bus.ID(c.worker.Public().(ed25519.PublicKey)),
		"UCNDHZKH5JIK2GQBGOQ7RSHSFMOAX5SY6JVYZX2AXVJK7P6G74XC347Y", c.user("north"),
		"UAOMWVUAMP5SAVVELAFORAYAUPJLMCZLAO7RWJURDLDW6NMLV7X5JGNM", c.user("south"),
		"UBWMG3LRMQ3SIZ3F7D7ZIQLK5SDRY5PVQ6ILLIEHDQOIOGWYXNAQOTVS", c.user("worker"),
		"0.0.0.0:4222", "127.0.0.1:-1", "/etc/nats/", c.dir+"/",
	).Replace(string(text))
	file := filepath.Join(c.dir, "nats-server.conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		f.t.Fatal(err)
	}
	opts, err := natsserver.ProcessConfigFile(file)
	if err != nil {
		f.t.Fatal(err)
	}
	opts.NoLog, opts.NoSigs = true, true
	c.start(opts)
	return c
}

func (c *cluster) start(opts *natsserver.Options) {
	c.t.Helper()
	var err error
	if c.server, err = natsserver.NewServer(opts); err != nil {
		c.t.Fatal(err)
	}
	c.server.Start()
	c.t.Cleanup(c.server.Shutdown)
	if !c.server.ReadyForConnections(10 * time.Second) {
		c.t.Fatal("nats-server does not start")
	}
}

// user makes an nkey and a file with its seed, and returns its public half.
func (c *cluster) user(name string) string {
	c.t.Helper()
	pair, err := nkeys.CreateUser()
	if err != nil {
		c.t.Fatal(err)
	}
	seed, _ := pair.Seed()
	public, _ := pair.PublicKey()
	c.seeds[name] = filepath.Join(c.dir, name+".seed")
	if err := os.WriteFile(c.seeds[name], append(seed, '\n'), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return public
}

// serverCertificate makes an authority's certificate that is the server's,
// too, and returns its file.
func (c *cluster) serverCertificate() string {
	c.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "nats"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Unix(0, 0), NotAfter: time.Now().AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		c.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		c.t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"server.pem": {Type: "CERTIFICATE", Bytes: der}, "server.key": {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(filepath.Join(c.dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			c.t.Fatal(err)
		}
	}
	return filepath.Join(c.dir, "server.pem")
}

func (c *cluster) url() string { return "tls://" + c.server.Addr().String() }

func (c *cluster) gateway(name string) *bus.Bus {
	return c.bus("external.yaml", "name="+name, "peers.url="+c.url(), "peers.tls.ca="+c.ca, "peers.credentials=file:"+c.seeds[name])
}

func (c *cluster) dialWorker() *nats.Conn {
	c.t.Helper()
	seed, err := os.ReadFile(c.seeds["worker"])
	if err != nil {
		c.t.Fatal(err)
	}
	tls, err := peersTLS(PeersTLS{CA: Path(c.ca)})
	if err != nil {
		c.t.Fatal(err)
	}
	conn, err := bus.Dial(bus.Client{
		URL: c.url(), Name: "worker", Key: c.worker, Network: subjects(c.file), TLS: tls, Credentials: seed, Log: testLog(c.t),
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(conn.Close)
	return conn
}

// The permissions of nats-server.conf suffice for what gateways and workers do,
// and for nothing else.
func TestExternalTopologyRuns(t *testing.T) {
	c := newCluster(newFederation(t, "north", "south"))
	north, south, worker := c.gateway("north").Conn(), c.gateway("south").Conn(), c.dialWorker()

	c.carries(north, south, c.subject("block"))
	c.carries(south, north, c.subject("block"))
	c.answers(north, south, "south")
	c.answers(south, north, "north")
	asked := c.subject("pow." + bus.ID(c.worker.Public().(ed25519.PublicKey)))
	c.carries(worker, north, c.subject("pow.hello"))
	if _, err := worker.Subscribe(asked, func(m *nats.Msg) { _ = m.Respond(m.Data) }); err != nil {
		t.Fatal(err)
	}
	c.eventually("an answer of the worker", func() bool {
		m, err := north.Request(asked, []byte("x"), time.Second)
		return err == nil && string(m.Data) == "x"
	})

	idOf := func(name string) string { return bus.ID(c.id(name)) }
	for _, tt := range []struct {
		who     *nats.Conn
		subject string
	}{
		{north, c.subject("inbox." + idOf("south") + ".>")}, {north, c.subject("peer." + idOf("south"))},
		{north, c.subject(">")}, {north, ">"}, {north, "hedgerow.ffffffffffffffff.block"}, {north, "$SYS.>"},
		{worker, c.subject("block")}, {worker, c.subject("peer.*")}, {worker, c.subject("inbox.>")}, {worker, ">"},
		{worker, c.subject("pow.hello")}, {worker, c.subject("pow." + idOf("north"))},
	} {
		c.mayNotSubscribe(tt.who, tt.subject)
	}
	for _, tt := range []struct {
		who     *nats.Conn
		subject string
	}{
		{north, "hedgerow.ffffffffffffffff.block"}, {north, c.subject("other")},
		{worker, c.subject("block")}, {worker, c.subject("peer." + idOf("north"))}, {worker, c.subject("inbox." + idOf("north") + ".x")},
		{worker, asked}, {worker, c.subject("pow." + idOf("north"))},
	} {
		c.mayNotPublish(tt.who, tt.subject)
	}
}

// mayNotSubscribe checks that the server refuses a subscription.
func (f *federation) mayNotSubscribe(c *nats.Conn, subject string) {
	f.t.Helper()
	refused := refusals(c)
	sub, err := c.SubscribeSync(subject)
	if err != nil {
		f.t.Fatal(err)
	}
	defer sub.Unsubscribe() //nolint:errcheck // the server does not have it
	if err := c.FlushTimeout(10 * time.Second); err != nil {
		f.t.Fatal(err)
	}
	refused(f.t, "subscribe", subject)
}

// mayNotPublish checks that the server refuses a message.
func (f *federation) mayNotPublish(c *nats.Conn, subject string) {
	f.t.Helper()
	refused := refusals(c)
	if err := c.Publish(subject, []byte("x")); err != nil {
		f.t.Fatal(err)
	}
	if err := c.FlushTimeout(10 * time.Second); err != nil {
		f.t.Fatal(err)
	}
	refused(f.t, "publish", subject)
}

// refusals returns a function that fails the test unless the server has
// refused something about the subject since. The server answers in order:
// what a flush has waited behind is in the connection's last error.
func refusals(c *nats.Conn) func(t *testing.T, what, subject string) {
	return func(t *testing.T, what, subject string) {
		t.Helper()
		if err := c.LastError(); err == nil || !strings.Contains(strings.ToLower(err.Error()), "permissions violation") ||
			!strings.Contains(err.Error(), `"`+subject+`"`) {
			t.Errorf("%s on %s: last error %v, want a refusal", what, subject, err)
		}
	}
}

// A gateway starts when the cluster is down, and is connected when it is up,
// and again after it was away.
func TestExternalGatewayWaitsForItsCluster(t *testing.T) {
	c := newCluster(newFederation(t, "north", "south"))
	opts, err := natsserver.ProcessConfigFile(filepath.Join(c.dir, "nats-server.conf"))
	if err != nil {
		t.Fatal(err)
	}
	opts.NoLog, opts.NoSigs = true, true
	opts.Port = c.server.Addr().(*net.TCPAddr).Port
	north := c.gateway("north")
	c.eventually("connected", func() bool { return north.Status().Connected })
	sub := c.subscribe(north.Conn(), c.subject("block"))

	url := c.url()
	c.server.Shutdown()
	c.eventually("disconnected", func() bool { return !north.Status().Connected })
	south := c.bus("external.yaml", "name=south", "peers.url="+url, "peers.tls.ca="+c.ca, "peers.credentials=file:"+c.seeds["south"])
	if south.Status().Connected {
		t.Error("connected to a server that is down")
	}
	c.start(opts)
	c.eventually("both connected", func() bool { return north.Status().Connected && south.Status().Connected })
	c.eventually("heard", func() bool {
		_ = south.Conn().Publish(c.subject("block"), []byte("x"))
		_, err := sub.NextMsg(100 * time.Millisecond)
		return err == nil
	})
}
