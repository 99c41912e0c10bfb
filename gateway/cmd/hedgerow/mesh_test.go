package main_test

import (
	"strings"
	"testing"
	"time"
)

// What is published at any gateway of a mesh is attached at all of them. Two
// that are cut off, each alone, go on, and have everything soon after the
// network heals, as everybody has from them.
func TestMeshSharesOneTangleAndHeals(t *testing.T) {
	slow(t)
	f := newFleet(t, nil, "north", "south", "east", "west")
	f.mesh(true)
	f.start()
	f.awaitRoutes()

	acked := map[string]map[string]bool{}
	tr := f.publish("pre", 1, 20*time.Millisecond)
	pauseFor(2 * time.Second)
	tr.end(acked)
	f.awaitAttached()
	t.Logf("equal %v after the last block: %+v", f.awaitEqual("before the cut"), f.stations[0].replica())
	f.checkOnceEverywhere(acked)

	east, west := f.stations[2], f.stations[3]
	together := f.stations[:2]
	f.isolate(east, west)
	lasts := 15 * time.Second
	if long() {
		lasts = time.Minute
	}
	cut := time.Now()
	tr = f.publish("cut", 1, 20*time.Millisecond)
	pauseFor(3 * time.Second)
	f.awaitEachGrows()
	pauseFor(lasts - time.Since(cut))
	tr.end(acked)
	f.awaitAttached()
	f.awaitEqual("of those that are not cut off", together...)
	f.checkCutOff(east, west)

	f.heal()
	healed := time.Now()
	f.awaitEqual("after the cut")
	t.Logf("cut for %v; equal %v after healing: %+v", healed.Sub(cut).Round(time.Second), time.Since(healed), east.replica())
	f.checkOnceEverywhere(acked)
	t.Logf("%d acknowledged readings", total(acked))
}

// isolate cuts every link from and to these stations.
func (f *fleet) isolate(some ...*station) {
	for _, s := range some {
		for _, other := range f.stations {
			if other != s {
				s.links[other.number].cut()
				other.links[s.number].cut()
			}
		}
	}
}

// heal makes every link whole.
func (f *fleet) heal() {
	for _, s := range f.stations {
		for _, l := range s.links {
			if l != nil {
				l.heal()
			}
		}
	}
}

// awaitEachGrows waits until every gateway has more blocks than now.
func (f *fleet) awaitEachGrows() {
	f.t.Helper()
	for _, s := range f.stations {
		now := s.replica().Blocks
		s.await("more blocks", time.Minute, func() bool { return s.replica().Blocks > now })
	}
}

// checkCutOff looks whether the cut was one: nothing that was published during
// it has got out of one of these stations, or into it.
func (f *fleet) checkCutOff(some ...*station) {
	f.t.Helper()
	for _, s := range some {
		for _, other := range f.stations {
			if other == s {
				continue
			}
			f.checkIgnorant(other, s)
			f.checkIgnorant(s, other)
		}
	}
}

func (f *fleet) checkIgnorant(s, of *station) {
	f.t.Helper()
	for _, r := range s.readingsOf(of.member.Name) {
		if strings.HasPrefix(r.Device, "cut-") {
			f.t.Fatalf("%s has heard of %s, which %s attached behind the cut", s.member.Name, r.ID, of.member.Name)
		}
	}
}
