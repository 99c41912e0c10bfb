package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

// quick makes data confirm as fast as transactions.
func quick(f *network.File) { f.DataRoundInterval = f.RoundInterval }

// draft has the command with these arguments write the next epoch, and those
// stations sign it. It returns the file.
func (f *fleet) draft(signers []*station, command string, args ...string) string {
	f.t.Helper()
	out := filepath.Join(f.t.TempDir(), "next.json")
	hedgerow(f.t, append([]string{"network", command, "--out", out, f.path}, args...)...)
	for _, s := range signers {
		hedgerow(f.t, "network", "sign", "--key", filepath.Join(s.dir, "identity.key"), "--previous", f.path, out)
	}
	return out
}

// An agreement is what status says of epoch and milestones.
type agreement struct {
	Epoch         uint32
	NetworkHash   string
	Quorum        struct{ Needed, Up, Members int }
	Backlog       struct{ Stored, Batched, Attached, Approved, Confirmed int }
	LastMilestone struct {
		Index int
		ID    string
	}
	Certified int
	Alarms    []struct{ Name, Text string }
}

func (s *station) agreement() (a agreement) {
	s.t.Helper()
	s.getJSON("/api/hedgerow/v1/status", &a)
	return a
}

// alarm returns the text of an alarm; "" if it is not raised.
func (a agreement) alarm(name string) string {
	for _, alarm := range a.Alarms {
		if alarm.Name == name {
			return alarm.Text
		}
	}
	return ""
}

// awaitEpoch waits until the epoch is in force at all of the stations, and
// returns how long that took.
func awaitEpoch(epoch uint32, stations ...*station) time.Duration {
	began := time.Now()
	for _, s := range stations {
		s.t.Helper()
		s.await(fmt.Sprintf("epoch %d at %s", epoch, s.member.Name), 30*time.Second, func() bool { return s.agreement().Epoch == epoch })
	}
	return time.Since(began)
}

// awaitAgreed waits until the stations have confirmed everything of theirs, and
// derived the same last milestone.
func awaitAgreed(stations ...*station) agreement {
	first := stations[0]
	first.t.Helper()
	var last agreement
	first.await("equal milestones with nothing left to confirm", time.Minute, func() bool {
		last = first.agreement()
		for _, s := range stations {
			a := s.agreement()
			if b := a.Backlog; a.LastMilestone != last.LastMilestone || a.NetworkHash != last.NetworkHash || b.Stored+b.Batched+b.Attached+b.Approved > 0 {
				return false
			}
		}
		return true
	})
	return last
}

// A fifth gateway is added while four run under load, and has waited for that
// since before; then weights change while one is off, which follows when it is
// back; then one is taken out. Nobody else is restarted, and nothing is lost.
func TestMembersChangeWhileAFleetRuns(t *testing.T) {
	slow(t)
	f := newFleet(t, quick, "north", "south", "east", "west")
	f.mesh(false)
	f.start()
	north, south, east, west := f.stations[0], f.stations[1], f.stations[2], f.stations[3]
	old := f.stations
	acked := map[string]map[string]bool{}
	tr := f.publish("a", 1, 20*time.Millisecond)

	// Added.
	fifth := f.add("fifth")
	f.path = f.draft([]*station{north, south, west}, "add", "fifth="+filepath.Join(fifth.dir, "identity.pub"))
	var routes []string
	for _, s := range old {
		routes = append(routes, "tls://"+s.routes)
	}
	f.configure(fifth, fmt.Sprintf("peers: {listen: %q, routes: %s}", fifth.routes, quoted(routes)))
	fifth.launch()
	fifth.awaitReady()
	if code, body := fifth.try("/api/hedgerow/v1/status"); code != 503 || !strings.Contains(string(body), "first file") {
		t.Errorf("the newcomer's status is %d %s", code, body)
	}
	more := publishAt([]*station{fifth}, "b", 1, 20*time.Millisecond) // it keeps what devices send
	if out := hedgerow(t, "join", "--config", south.config(), f.path); !strings.Contains(out, "attached as block") {
		t.Errorf("join printed %s", out)
	}
	took := awaitEpoch(1, old...)
	f.load()
	began := time.Now()
	fifth.await("epoch 1 at the newcomer", 30*time.Second, func() bool {
		code, _ := fifth.try("/api/hedgerow/v1/status")
		return code == 200 && fifth.agreement().Epoch == 1
	})
	t.Logf("epoch 1 in force after %v, the newcomer in it %v later", took, time.Since(began))
	pauseFor(500 * time.Millisecond)
	tr.end(acked)
	more.end(acked)
	last := awaitAgreed(f.stations...)
	if last.Quorum.Members != 5 || last.Quorum.Needed != 4 || last.Quorum.Up != 5 {
		t.Errorf("quorum is %+v", last.Quorum)
	}

	// Weighed anew, without one.
	west.kill()
	tr = publishAt([]*station{north, south, east, fifth}, "c", 1, 20*time.Millisecond)
	f.path = f.draft([]*station{north, south, east, fifth}, "set-weight", "north=2", "west=2")
	hedgerow(t, "join", "--config", fifth.config(), f.path)
	took = awaitEpoch(2, north, south, east, fifth)
	west.launch()
	west.awaitReady()
	t.Logf("epoch 2 in force after %v; the one that was off has it %v after its start", took, awaitEpoch(2, west))
	tr.end(acked)
	if last = awaitAgreed(f.stations...); last.Quorum.Needed != 5 || last.Quorum.Up != 7 {
		t.Errorf("quorum is %+v", last.Quorum)
	}

	// Taken out.
	stay := []*station{north, south, west, fifth}
	tr = publishAt(stay, "d", 1, 20*time.Millisecond)
	f.path = f.draft(stay, "remove", "east")
	hedgerow(t, "join", "--config", north.config(), f.path)
	took = awaitEpoch(3, f.stations...) // also the one that leaves
	tr.end(acked)
	last = awaitAgreed(stay...)
	t.Logf("epoch 3 in force after %v; milestone %d", took, last.LastMilestone.Index)
	if text := east.agreement().alarm("removed"); !strings.Contains(text, "no member") {
		t.Errorf("east has no alarm: %q", text)
	}
	served := publishAt([]*station{east}, "e", 1, 20*time.Millisecond)
	pauseFor(300 * time.Millisecond)
	served.end(map[string]map[string]bool{}) // acknowledged, and of no network
	east.kill()
	east.start() // serves its devices after a restart, too
	if text := east.agreement().alarm("removed"); text == "" {
		t.Error("no alarm after a restart")
	}

	for _, s := range stay {
		for _, of := range f.stations {
			s.checkOnceAfterIndex(f.file, of.member, acked[of.member.Name])
		}
	}
	t.Logf("%d acknowledged readings", total(acked))
	refusals := uint64(0)
	north.await("the one taken out is refused by name", 30*time.Second, func() bool {
		b := north.bus()
		refusals = b.Refused
		return strings.Contains(b.LastRefused.Why, "east")
	})
	if refusals == 0 {
		t.Error("and not counted")
	}
	for _, s := range stay {
		for _, epoch := range []string{"0", "1", "2"} {
			if _, err := os.Stat(filepath.Join(s.dir, "data", "epochs", epoch+".json")); err != nil {
				t.Errorf("%s: %v", s.member.Name, err)
			}
		}
	}
}
