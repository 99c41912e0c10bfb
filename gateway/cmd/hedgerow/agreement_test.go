package main_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
	"github.com/hedgerow-iot/hedgerow/ledger/store"
)

// What is published at any gateway is confirmed and certified at all of them,
// by equal milestones; one of four may be off. With two the others go on
// attaching and confirm nothing. Once a quorum is back nothing was lost.
func TestFourGatewaysAgree(t *testing.T) {
	slow(t)
	f := newFleet(t, quick, "north", "south", "east", "west")
	f.mesh(false)
	f.start()
	f.awaitRoutes()
	acked := map[string]map[string]bool{}

	f.publishFor(2*time.Second, "4", acked)
	t.Logf("four: all is certified %v after the last block", f.awaitCertified())
	f.checkOnceEverywhere(acked, "certified")

	f.stations[3].kill()
	three := f.stations[:3]
	f.publishFor(2*time.Second, "3", acked, three...)
	t.Logf("three: all is certified %v after the last block", f.awaitCertified(three...))

	f.stations[2].kill()
	two := f.stations[:2]
	before := two[0].agreement()
	f.publishFor(3*time.Second, "2", acked, two...)
	f.awaitEqual("of two", two...)
	for _, s := range two {
		s.await("it says that there is no quorum", 20*time.Second, func() bool {
			now := s.agreement()
			return now.Quorum.Up == 2 && now.alarm("quorum") != ""
		})
	}
	for _, s := range two {
		if now := s.agreement(); now.LastMilestone.Index != before.LastMilestone.Index {
			t.Errorf("%s went from milestone %d to %d without a quorum", s.member.Name, before.LastMilestone.Index, now.LastMilestone.Index)
		}
		for _, r := range s.readings() {
			if strings.HasPrefix(r.Device, "2-") != (r.State == "attached") {
				t.Errorf("%s has %s of %s as %s while there is no quorum", s.member.Name, r.ID, r.Device, r.State)
			}
		}
	}

	for _, s := range f.stations[2:] {
		s.launch()
	}
	for _, s := range f.stations[2:] {
		s.awaitReady()
	}
	t.Logf("four again: all is certified after %v", f.awaitCertified())
	f.checkOnceEverywhere(acked, "certified")
	t.Logf("%d acknowledged readings, %d milestones", total(acked), f.stations[0].agreement().LastMilestone.Index)
	f.checkAgreement()
}

// publishFor has sensors publish at some stations, or all, for a while, adds
// what was acknowledged, and waits until that is attached.
func (f *fleet) publishFor(lasts time.Duration, prefix string, acked map[string]map[string]bool, some ...*station) {
	f.t.Helper()
	if len(some) == 0 {
		some = f.stations
	}
	tr := publishAt(some, prefix, 1, 20*time.Millisecond)
	pauseFor(lasts)
	tr.end(acked)
	for _, s := range some {
		s.awaitAttached(time.Minute)
	}
}

// awaitCertified waits until everything that the stations, or those named, have
// acknowledged is certified at each, by the same last milestone, and returns
// how long that took.
func (f *fleet) awaitCertified(some ...*station) time.Duration {
	f.t.Helper()
	if len(some) == 0 {
		some = f.stations
	}
	began := time.Now()
	var seen []agreement
	defer func() {
		if f.t.Failed() {
			f.t.Logf("the last states: %+v", seen)
		}
	}()
	some[0].await("equal milestones that certify everything", 90*time.Second, func() bool {
		seen = nil
		for _, s := range some {
			seen = append(seen, s.agreement())
		}
		for _, a := range seen {
			if a.Certified != a.LastMilestone.Index || a.LastMilestone != seen[0].LastMilestone || a.Backlog != seen[0].Backlog {
				return false
			}
		}
		b := seen[0].Backlog
		return b.Stored+b.Batched+b.Attached+b.Approved+b.Confirmed == 0
	})
	return time.Since(began)
}

// checkAgreement kills all gateways and compares their milestones, one by one.
// It looks for gateways that broke the rules, and into the stores. Expected are
// the names of alarms that are part of the test.
func (f *fleet) checkAgreement(expected ...string) {
	f.t.Helper()
	for _, s := range f.stations {
		for _, a := range s.agreement().Alarms {
			if a.Name != "anonymous_devices" && !slices.Contains(expected, a.Name) {
				f.t.Errorf("%s has the alarm %+v", s.member.Name, a)
			}
		}
		s.kill()
		for line := range strings.Lines(s.logText()) {
			if strings.Contains(line, "level=ERROR") && strings.Contains(line, "alarm=") {
				f.t.Errorf("%s: %s", s.member.Name, line)
			}
		}
		s.checkSound()
	}
	first := f.stations[0].chain()
	for _, s := range f.stations[1:] {
		ids := s.chain()
		if len(ids) != len(first) {
			f.t.Errorf("%s has %d milestones, %s %d", s.member.Name, len(ids), f.stations[0].member.Name, len(first))
		}
		for i := range min(len(ids), len(first)) {
			if ids[i] != first[i] {
				f.t.Fatalf("milestone %d is %v at %s, %v at %s", i+1, ids[i], s.member.Name, first[i], f.stations[0].member.Name)
			}
		}
	}
}

// chain returns the ids of the milestones in the store of a gateway that is
// down. Each must be certified and follow the one before.
func (s *station) chain() (ids []stardust.MilestoneID) {
	s.t.Helper()
	st, err := store.Open(fmt.Sprintf("%s/data/ledger", s.dir), store.Options{Reserve: 1})
	if err != nil {
		s.t.Fatal(err)
	}
	defer st.Close()
	last, certified := st.Last()
	if certified != last {
		s.t.Errorf("%s has %d milestones, %d of them certified", s.member.Name, last, certified)
	}
	if all, err := st.Equivocations(); err != nil || len(all) > 0 {
		s.t.Errorf("%s saw the equivocations %+v, %v", s.member.Name, all, err)
	}
	for index := uint32(1); index <= last; index++ {
		e, signatures, err := st.Milestone(index)
		if err != nil || e.Index != index || len(signatures) < 3 {
			s.t.Fatalf("milestone %d of %s is %+v with %d signatures, %v", index, s.member.Name, e, len(signatures), err)
		}
		if index > 1 && stardust.MilestoneID(e.Previous) != ids[index-2] {
			s.t.Fatalf("milestone %d of %s follows %x, not %v", index, s.member.Name, e.Previous, ids[index-2])
		}
		ids = append(ids, stardust.MilestoneID(e.ID()))
	}
	return ids
}
