package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/store"
)

// brisk has data confirmed as fast as value.
func brisk(n *network.File) { n.DataRoundInterval = network.Duration(100 * time.Millisecond) }

// However an older copy of a gateway comes back, it recovers by itself and votes
// again, in no round twice. What it had attached after the copy is not lost.
func TestARestoredGatewayRecovers(t *testing.T) {
	testOlderCopy(t, func(s *station) func() {
		file := filepath.Join(s.t.TempDir(), "west.backup")
		s.t.Log(hedgerow(s.t, "backup", "--config", s.config(), file)) // under load
		return func() {
			s.check(os.Rename(s.data(), s.data()+".lost"))
			s.t.Log(hedgerow(s.t, "restore", "--config", s.config(), file))
		}
	})
}

func TestACopiedDataDirectoryRecovers(t *testing.T) {
	if !long() {
		t.Skip("the restored backup goes the same road; HEDGEROW_LONG=1 runs this one, too")
	}
	testOlderCopy(t, func(s *station) func() {
		s.kill()
		older := filepath.Join(s.t.TempDir(), "data")
		s.check(os.CopyFS(older, os.DirFS(s.data())))
		s.start()
		return func() {
			s.check(os.Rename(s.data(), s.data()+".lost"))
			s.check(os.CopyFS(s.data(), os.DirFS(older)))
		}
	})
}

// A machine that was set back as a whole remembers nothing; the others do.
func TestAMachineThatWasSetBackRecovers(t *testing.T) {
	if !long() {
		t.Skip("the restored backup goes the same road; HEDGEROW_LONG=1 runs this one, too")
	}
	testOlderCopy(t, func(s *station) func() {
		s.kill()
		older := filepath.Join(s.t.TempDir(), "all")
		s.check(os.CopyFS(older, os.DirFS(s.dir)))
		s.start()
		return func() {
			s.check(os.Rename(s.data(), s.data()+".lost"))
			s.check(os.CopyFS(s.data(), os.DirFS(filepath.Join(older, "data"))))
			s.check(os.Remove(s.state()))
			s.check(os.Link(filepath.Join(older, "identity.state"), s.state()))
		}
	}, "journal")
}

func (s *station) data() string  { return filepath.Join(s.dir, "data") }
func (s *station) state() string { return filepath.Join(s.dir, "identity.state") }

func (s *station) check(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// testOlderCopy runs four gateways, has a copy made of one under load, and puts
// it back later.
func testOlderCopy(t *testing.T, copied func(*station) (back func()), expected ...string) {
	slow(t)
	f := newFleet(t, brisk, "north", "south", "east", "west")
	f.mesh(false)
	f.start()
	f.awaitRoutes()
	west, three := f.stations[3], f.stations[:3]
	acked := map[string]map[string]bool{}

	f.publishFor(time.Second, "a", acked)
	tr := publishAt(three, "load", 1, 20*time.Millisecond)
	pauseFor(time.Second)
	back := copied(west)
	f.publishFor(2*time.Second, "late", acked, west)
	tr.end(acked)
	f.awaitCertified()
	west.kill()
	before := west.own()
	f.publishFor(time.Second, "off", acked, three...)

	back()
	if own := west.own(); own.Opened >= before.Opened {
		t.Fatalf("the copy has opened round %d, want one before %d", own.Opened, before.Opened)
	}
	west.start()
	began := time.Now()
	f.publishFor(3*time.Second, "back", acked)
	f.awaitCertified()
	t.Logf("all is certified %v after the start", time.Since(began))
	for _, s := range three {
		for _, of := range f.stations {
			s.checkOnceAfterIndex(f.file, of.member, acked[of.member.Name], "certified")
		}
	}
	onTangle := west.tangle(f.file, west.member)
	for key := range acked["west"] {
		if onTangle[key] != 1 {
			t.Errorf("%s stands %d times on the Tangle at west", key, onTangle[key])
		}
	}
	t.Logf("%d acknowledged readings, %d milestones", total(acked), f.stations[0].agreement().LastMilestone.Index)
	f.checkAgreement(expected...)
	after := west.own()
	if after.Recovering || !after.Sticky || after.Opened <= before.Opened {
		t.Errorf("west has the record %+v of its votes, %+v before, want a later round after recovery", after, before)
	}
}

// own returns the record of its own votes of a gateway that is down.
func (s *station) own() consensus.Durable {
	s.t.Helper()
	st, err := store.Open(fmt.Sprintf("%s/data/ledger", s.dir), store.Options{Reserve: 1})
	s.check(err)
	defer st.Close()
	own, err := st.Own()
	s.check(err)
	if own == nil {
		s.t.Fatalf("%s has no record of own votes", s.member.Name)
	}
	return *own
}

// Two boxes with one key are seen by all others, which go on agreeing.
func TestAClonedGatewayIsSeenAndHarmsNobody(t *testing.T) {
	slow(t)
	f := newFleet(t, brisk, "north", "south", "east", "west")
	f.mesh(false)
	f.start()
	f.awaitRoutes()
	west, three := f.stations[3], f.stations[:3]
	acked := map[string]map[string]bool{}
	f.publishFor(time.Second, "one", acked)
	f.awaitCertified()

	west.kill()
	clone := f.clone(west)
	west.launch()
	clone.launch()
	tr := publishAt(three, "two", 1, 20*time.Millisecond)
	seen := func() bool {
		for _, s := range three {
			if !s.alarmed("equivocation") {
				return false
			}
		}
		return true
	}
	began := time.Now()
	three[0].await("the alarm of equivocation at all others", time.Minute, seen)
	t.Logf("all others have seen it after %v", time.Since(began))
	pauseFor(2 * time.Second)
	tr.end(acked)
	clone.kill()
	west.kill()
	delete(acked, "west")
	t.Logf("all is certified after %v", f.awaitCertified(three...))
	var chains [][]string
	for _, s := range three {
		for _, of := range three {
			s.checkOnceAfterIndex(f.file, of.member, acked[of.member.Name], "certified")
		}
	}
	for _, s := range three {
		s.kill()
		s.checkSound()
		chains = append(chains, s.milestones())
	}
	for i, c := range chains[1:] {
		if fmt.Sprint(c) != fmt.Sprint(chains[0]) {
			t.Errorf("%s has other milestones than north", three[i+1].member.Name)
		}
	}
	t.Logf("%d milestones", len(chains[0]))
}

func (s *station) alarmed(name string) bool {
	for _, a := range s.agreement().Alarms {
		if a.Name == name {
			return true
		}
	}
	return false
}

// milestones returns the ids of the milestones of a gateway that is down.
func (s *station) milestones() (ids []string) {
	s.t.Helper()
	st, err := store.Open(fmt.Sprintf("%s/data/ledger", s.dir), store.Options{Reserve: 1})
	s.check(err)
	defer st.Close()
	last, _ := st.Last()
	for index := uint32(1); index <= last; index++ {
		e, _, err := st.Milestone(index)
		s.check(err)
		ids = append(ids, fmt.Sprintf("%x", e.ID()))
	}
	return ids
}

// clone copies a gateway that is down, with its key, to a box with ports of its
// own. It is no station of the fleet.
func (f *fleet) clone(s *station) *station {
	f.t.Helper()
	stations := f.stations
	c := f.add(s.member.Name)
	f.stations = stations
	c.member, c.number = s.member, s.number
	for _, name := range []string{"data", "identity.fresh"} {
		c.check(os.RemoveAll(filepath.Join(c.dir, name)))
	}
	c.check(os.CopyFS(c.data(), os.DirFS(s.data())))
	for _, name := range []string{"identity.key", "identity.pub", "identity.state"} {
		text, err := os.ReadFile(filepath.Join(s.dir, name))
		c.check(err)
		c.check(os.WriteFile(filepath.Join(c.dir, name), text, 0o600))
	}
	var routes []string
	for _, other := range stations {
		if other != s {
			routes = append(routes, "tls://"+other.routes)
		}
	}
	f.configure(c, fmt.Sprintf("peers: {listen: %q, routes: %s}", c.routes, quoted(routes)))
	return c
}
