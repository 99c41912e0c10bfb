package main_test

import (
	"crypto/ed25519"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/gateway"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/powfarm/remote"
)

// A gateway without workers of its own attaches its readings with one on
// another box. That one's death in the middle of a search delays and is shown,
// but loses nothing.
func TestRemoteWorkersDeathOnlyDelays(t *testing.T) {
	slow(t)
	const score = 1500 // a search takes the plain kernel a second or more
	f := newFleet(t, func(n *network.File) { n.MinPoWScore = score }, "barn")
	barn := f.stations[0]
	dir := t.TempDir()
	key, _, err := gateway.MakeIdentity(filepath.Join(dir, "worker.key"))
	if err != nil {
		t.Fatal(err)
	}
	f.configure(barn, fmt.Sprintf("peers: {clients: %q}\npowfarm: {workers: 0, remote: {use: true, workers: [%q]}}",
		barn.clients, remote.Key(key.Public().(ed25519.PublicKey))))
	worker := &box{t: t, dir: dir, args: []string{
		"worker", "--nats", "tls://" + barn.clients, "--network", f.path, "--identity", filepath.Join(dir, "worker.key"),
		"--name", "shed", "--kernel", "go", "--threads", "1",
	}}
	worker.keepLog("the worker")
	f.start()
	worker.launch()

	tr := f.publish("w", 1, time.Second)
	barn.await("a reading attached", 3*time.Minute, func() bool { return barn.remote().Found > 0 })
	barn.killInSearch(worker)
	acked := map[string]map[string]bool{}
	tr.end(acked)
	if n := barn.waiting(); n == 0 {
		t.Error("no reading waits for the worker")
	}
	worker.launch()
	barn.awaitAttached(5 * time.Minute)
	barn.checkOnceOf(f.file, barn.member, acked["barn"])
	t.Logf("%d acknowledged readings, worker %+v", total(acked), barn.remote())
}

// killInSearch kills the worker while it searches, and waits until the gateway
// shows that.
func (s *station) killInSearch(worker *box) {
	s.t.Helper()
	for range 5 { // it may find the nonce a moment before
		s.await("a search", time.Minute, func() bool { return s.remote().Open > 0 })
		worker.kill()
		s.await("the worker shown as silent", time.Minute, func() bool { return !s.remote().Alive })
		if s.remote().Lost > 0 {
			return
		}
		worker.launch()
	}
	s.t.Fatalf("the worker was killed in no search: %+v", s.remote())
}

// A remoteWorker is what the API says of a worker on another box.
type remoteWorker struct {
	Alive                                                         bool
	Open, Given, Found, Lost, Expired, Cancelled, TimedOut, Wrong uint64
}

// remote returns the state of the one worker on another box.
func (s *station) remote() (w remoteWorker) {
	s.t.Helper()
	var list struct{ Items []remoteWorker }
	s.getJSON("/api/hedgerow/v1/workers", &list)
	if len(list.Items) != 1 {
		s.t.Fatalf("%d workers, want 1", len(list.Items))
	}
	return list.Items[0]
}

// waiting returns how many readings are in no block yet.
func (s *station) waiting() uint64 {
	s.t.Helper()
	var status struct {
		Backlog struct{ Stored, Batched uint64 }
	}
	s.getJSON("/api/hedgerow/v1/status", &status)
	return status.Backlog.Stored + status.Backlog.Batched
}
