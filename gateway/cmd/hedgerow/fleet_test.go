package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

// A fleet is the gateways of one network, each a process of its own with a
// directory of its own, made by the commands that an operator types.
type fleet struct {
	t        *testing.T
	file     *network.File
	path     string // of the network file
	stations []*station
}

// A station is a gateway of a fleet.
type station struct {
	*box
	member  network.Gateway
	number  int
	routes  string  // where it listens for the others' routes
	clients string  // where it listens for workers
	links   []*link // to the routes of each station; nil for itself, or when nothing is between them
}

// long reports whether the tests take as long as the promises say, rather than
// as long as one waits before a landing.
func long() bool { return os.Getenv("HEDGEROW_LONG") == "1" }

// slow is for tests of processes that the race detector does not look into.
func slow(t *testing.T) {
	if testing.Short() {
		t.Skip("several processes for half a minute")
	}
	t.Parallel()
}

// newFleet makes the gateways and their network file, which tune may change
// before anybody has joined. Nothing runs yet: mesh or cluster follow.
func newFleet(t *testing.T, tune func(*network.File), names ...string) *fleet {
	t.Helper()
	f := &fleet{t: t, path: filepath.Join(t.TempDir(), "farm.json")}
	create := []string{"network", "create", "--name", "farm", "--out", f.path}
	for _, name := range names {
		s := f.add(name)
		create = append(create, name+"="+filepath.Join(s.dir, "identity.pub"))
	}
	hedgerow(t, create...)
	f.load()
	if tune != nil {
		tune(f.file)
		f.save()
	}
	return f
}

// load reads the network file and who the stations are in it.
func (f *fleet) load() {
	f.t.Helper()
	var err error
	if f.file, err = network.Load(f.path); err != nil {
		f.t.Fatal(err)
	}
	for _, s := range f.stations {
		s.member = f.file.Gateways[s.number]
	}
}

func (f *fleet) save() {
	f.t.Helper()
	if err := f.file.Save(f.path); err != nil {
		f.t.Fatal(err)
	}
}

// add makes the directory, key and ports of one more gateway.
func (f *fleet) add(name string) *station {
	f.t.Helper()
	t := f.t
	s := &station{number: len(f.stations), routes: freePort(t, "tcp"), clients: freePort(t, "tcp")}
	s.box = &box{t: t, dir: t.TempDir(), mqtt: freePort(t, "tcp"), coap: freePort(t, "udp"), api: freePort(t, "tcp")}
	s.member.Name = name
	s.args = []string{"run", "--config", s.config()}
	s.keepLog(name)
	hedgerow(t, "init", "--non-interactive", "--dir", s.dir, "--name", name)
	f.stations = append(f.stations, s)
	return s
}

func (s *station) config() string { return filepath.Join(s.dir, "hedgerow.yaml") }

// configure adds to the configuration that init made, and joins the network.
func (f *fleet) configure(s *station, more ...string) {
	f.t.Helper()
	text, err := os.ReadFile(s.config())
	if err != nil {
		f.t.Fatal(err)
	}
	const api = "api: {token: file:admin.token}\n"
	lines := strings.Replace(string(text), api, fmt.Sprintf("api: {token: file:admin.token, listen: %q}\n", s.api), 1)
	lines += fmt.Sprintf("mqtt: {listen: [%q], anonymous: true}\ncoap: {listen: [%q], anonymous: true}\n", s.mqtt, s.coap)
	lines += "batching: {max_age: 200ms}\njournal: {reserve: 64MiB}\n" + strings.Join(more, "\n") + "\n"
	if err := os.WriteFile(s.config(), []byte(lines), 0o600); err != nil {
		f.t.Fatal(err)
	}
	hedgerow(f.t, "join", "--config", s.config(), f.path)
}

// mesh gives every gateway the routes of all others. With links there is one
// between any two, in each direction.
func (f *fleet) mesh(links bool, more ...string) {
	f.t.Helper()
	for _, s := range f.stations {
		var routes []string
		s.links = make([]*link, len(f.stations))
		for i, other := range f.stations {
			switch {
			case other == s:
			case links:
				s.links[i] = newLink(f.t, other.routes)
				routes = append(routes, "tls://"+s.links[i].addr())
			default:
				routes = append(routes, "tls://"+other.routes)
			}
		}
		f.configure(s, append([]string{fmt.Sprintf("peers: {listen: %q, routes: %s}", s.routes, quoted(routes))}, more...)...)
	}
}

// quoted is a list in YAML.
func quoted(all []string) string { return strings.ReplaceAll(fmt.Sprintf("%q", all), `" "`, `", "`) }

// start launches all and waits until each can acknowledge a reading.
func (f *fleet) start() {
	f.t.Helper()
	for _, s := range f.stations {
		s.launch()
	}
	for _, s := range f.stations {
		s.awaitReady()
	}
}

// hedgerow runs a command of the built binary that must succeed.
func hedgerow(t *testing.T, args ...string) string {
	t.Helper()
	bin, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(bin, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("hedgerow %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// A replica is what status says of the Tangle at a gateway.
type replica struct {
	Blocks uint64
	Digest string
	Held   int
}

func (s *station) replica() replica {
	s.t.Helper()
	var status struct{ Replica replica }
	s.getJSON("/api/hedgerow/v1/status", &status)
	return status.Replica
}

// awaitEqual waits until all of the stations, or of those named, have the same
// blocks and returns how long that took.
func (f *fleet) awaitEqual(what string, some ...*station) time.Duration {
	f.t.Helper()
	if len(some) == 0 {
		some = f.stations
	}
	began := time.Now()
	some[0].await("equal replicas "+what, 90*time.Second, func() bool {
		first := some[0].replica()
		for _, s := range some[1:] {
			if s.replica() != first {
				return false
			}
		}
		return first.Held == 0
	})
	return time.Since(began)
}

// awaitAttached waits until nothing that was acknowledged waits for its block.
func (f *fleet) awaitAttached() {
	f.t.Helper()
	for _, s := range f.stations {
		s.awaitAttached(2 * time.Minute)
	}
}

// checkOnceEverywhere looks at every gateway for what each of them, by name,
// has acknowledged: it stands once in the API, in one of the states given or in
// any from attached on, and once on the Tangle.
func (f *fleet) checkOnceEverywhere(acked map[string]map[string]bool, states ...string) {
	f.t.Helper()
	for _, s := range f.stations {
		for _, of := range f.stations {
			s.checkOnceAfterIndex(f.file, of.member, acked[of.member.Name], states...)
		}
	}
}

// checkOnceAfterIndex is checkOnceOf once the index, which follows the blocks, has
// as many readings of the member as were acknowledged.
func (s *station) checkOnceAfterIndex(file *network.File, of network.Gateway, acked map[string]bool, states ...string) {
	s.t.Helper()
	s.await("the index of "+of.Name, time.Minute, func() bool { return len(s.readingsOf(of.Name)) >= len(acked) })
	s.checkOnceOf(file, of, acked, states...)
}

// awaitRoutes waits until every gateway is connected with every other one.
func (f *fleet) awaitRoutes() {
	f.t.Helper()
	for _, s := range f.stations {
		s.await("routes to all others", time.Minute, func() bool { return len(s.bus().routes()) == len(f.stations)-1 })
	}
}

// A bus is what the API says of a gateway's connection with others.
type bus struct {
	Refused     uint64
	LastRefused struct{ Why string }
	Routes      []struct{ Name string }
}

func (s *station) bus() bus {
	s.t.Helper()
	var peers struct{ Bus bus }
	s.getJSON("/api/hedgerow/v1/peers", &peers)
	return peers.Bus
}

// routes returns the names of the gateways that have a route here.
func (b bus) routes() (names []string) {
	for _, r := range b.Routes {
		names = append(names, r.Name)
	}
	return names
}

func (b *box) logText() string {
	b.t.Helper()
	text, err := os.ReadFile(b.log.Name())
	if err != nil {
		b.t.Fatal(err)
	}
	return string(text)
}

// maxTraffic is when sensors give up.
const maxTraffic = 15 * time.Minute

// Traffic is sensors of both protocols at every gateway of a fleet. Each
// publishes 1, 2, 3 … until the end.
type traffic struct {
	at      []*station
	stop    chan struct{}
	running sync.WaitGroup
	errs    chan error // one of each sensor, and room for another one's
	mqtt    map[*station][]*mqttSensor
	coap    map[*station][]*coapSensor
}

// publish starts so many sensors of each protocol at each gateway, with names
// that begin with prefix. A CoAP device's has at most 12 letters.
func (f *fleet) publish(prefix string, each int, pause time.Duration) *traffic {
	return publishAt(f.stations, prefix, each, pause)
}

func publishAt(stations []*station, prefix string, each int, pause time.Duration) *traffic {
	tr := &traffic{
		at: stations, stop: make(chan struct{}), errs: make(chan error, 2*each*len(stations)+1),
		mqtt: map[*station][]*mqttSensor{}, coap: map[*station][]*coapSensor{},
	}
	limit := time.Now().Add(maxTraffic)
	for _, s := range stations {
		for i := range each {
			name := fmt.Sprintf("%s-%s-%d", prefix, s.member.Name, i)
			m := &mqttSensor{addr: s.mqtt, id: name + "-mqtt", topic: "readings/" + name + "-mqtt/count", window: 20, pause: pause}
			tr.mqtt[s] = append(tr.mqtt[s], m)
			tr.running.Go(func() { tr.errs <- m.run(tr.stop, limit) })
			c := &coapSensor{addr: s.coap, device: name, name: "count", pause: pause}
			tr.coap[s] = append(tr.coap[s], c)
			tr.running.Go(func() { tr.errs <- c.run(tr.stop, limit) })
		}
	}
	return tr
}

// end stops the sensors once everything they sent is acknowledged, and adds
// that to acked, by gateway.
func (tr *traffic) end(acked map[string]map[string]bool) {
	t := tr.at[0].t
	t.Helper()
	close(tr.stop)
	ended := make(chan struct{})
	go func() { tr.running.Wait(); close(ended) }()
	for _, s := range tr.at {
		s.await("every reading acknowledged", 2*time.Minute, func() bool {
			select {
			case <-ended:
				return true
			default:
				return false
			}
		})
	}
	close(tr.errs)
	for err := range tr.errs {
		if err != nil {
			t.Error(err)
		}
	}
	for _, s := range tr.at {
		name, n := s.member.Name, 0
		if acked[name] == nil {
			acked[name] = map[string]bool{}
		}
		add := func(device string, values []int) {
			for _, v := range values {
				acked[name][fmt.Sprintf("%s=%d", device, v)] = true
			}
			n += len(values)
		}
		for _, m := range tr.mqtt[s] {
			add(m.id, m.acked)
		}
		for _, c := range tr.coap[s] {
			add(c.device, c.acked)
		}
		if n == 0 {
			t.Errorf("%s acknowledged nothing", name)
		}
	}
}

// total returns how many readings all gateways have acknowledged.
func total(acked map[string]map[string]bool) (n int) {
	for _, readings := range acked {
		n += len(readings)
	}
	return n
}
