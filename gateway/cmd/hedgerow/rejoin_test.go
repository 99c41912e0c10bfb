package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// newcomer makes one more gateway, which has joined the file at f.path, and runs
// it: until its epoch has begun it waits.
func (f *fleet) newcomer(s *station, routes ...*station) {
	f.t.Helper()
	var all []string
	for _, to := range routes {
		all = append(all, "tls://"+to.routes)
	}
	f.configure(s, fmt.Sprintf("peers: {listen: %q, routes: %s}", s.routes, quoted(all)))
	s.launch()
}

// Two gateways become three, two and three again: who was out attaches what its
// devices send, and all of it is confirmed once it is back, without a restart.
// Then one gets another key, and votes with it.
func TestWhoLeavesComesBackWithItsReadings(t *testing.T) {
	slow(t)
	f := newFleet(t, quick, "north", "south")
	f.mesh(false)
	f.start()
	north, south := f.stations[0], f.stations[1]
	both := []*station{north, south}
	acked := map[string]map[string]bool{}
	publish := func(prefix string, at ...*station) {
		t.Helper()
		tr := publishAt(at, prefix, 1, 20*time.Millisecond)
		pauseFor(300 * time.Millisecond)
		tr.end(acked)
	}
	publish("a", both...)

	west := f.add("west")
	key := "west=" + filepath.Join(west.dir, "identity.pub")
	f.path = f.draft(both, "add", key)
	f.newcomer(west, both...)
	hedgerow(t, "join", "--config", north.config(), f.path)
	awaitEpoch(1, both...)
	f.load()
	west.await("epoch 1 at the newcomer", 30*time.Second, func() bool {
		code, _ := west.try("/api/hedgerow/v1/status")
		return code == 200 && west.agreement().Epoch == 1
	})
	publish("b", f.stations...)

	f.path = f.draft(both, "remove", "west")
	hedgerow(t, "join", "--config", west.config(), f.path) // any member will do
	awaitEpoch(2, f.stations...)
	publish("c", f.stations...)
	if got := awaitAgreed(both...); got.Quorum.Members != 2 || got.Quorum.Up != 2 {
		t.Errorf("quorum is %+v", got.Quorum)
	}
	if got := west.agreement(); got.Quorum.Up > 2 || got.alarm("removed") == "" || got.Backlog.Attached == 0 {
		t.Errorf("west, which is out: %+v", got)
	}

	began := time.Now()
	f.path = f.draft(both, "add", key)
	hedgerow(t, "join", "--config", south.config(), f.path)
	awaitEpoch(3, f.stations...)
	got := awaitAgreed(f.stations...)
	t.Logf("back, and all confirmed, %v after the file was joined; milestone %d", time.Since(began), got.LastMilestone.Index)
	if text := west.agreement().alarm("removed"); text != "" {
		t.Errorf("west is back and has the alarm %q", text)
	}
	f.checkOnceEverywhere(acked)

	// Another key: the box is stopped, the others agree, it joins again.
	south.kill()
	fresh := t.TempDir()
	hedgerow(t, "init", "--non-interactive", "--dir", fresh, "--name", "south")
	f.path = f.draft([]*station{north, west}, "set-key", "south="+filepath.Join(fresh, "identity.pub"))
	for _, name := range []string{"identity.key", "identity.pub", "identity.fresh"} {
		if err := os.Rename(filepath.Join(fresh, name), filepath.Join(south.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	hedgerow(t, "join", "--config", north.config(), f.path)
	awaitEpoch(4, north, west)
	if out := hedgerow(t, "join", "--config", south.config(), f.path); !strings.Contains(out, "is a member of") {
		t.Errorf("join printed %s", out)
	}
	south.launch()
	south.awaitReady()
	awaitEpoch(4, south)
	south.await("it has heard the others", 20*time.Second, func() bool { return south.agreement().Quorum.Up == 3 })
	west.kill()
	publish("d", both...)
	awaitAgreed(both...) // which only the new key's votes can bring about
	t.Logf("%d acknowledged readings", total(acked))
}
