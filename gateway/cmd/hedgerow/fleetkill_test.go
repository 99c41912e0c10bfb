package main_test

import (
	"encoding/json"
	"math/rand/v2"
	"os/exec"
	"testing"
	"time"
)

// Gateways of a mesh that are killed at random under load, sometimes several at
// once, start again unattended, lose and double nothing that they
// acknowledged, and end with equal replicas, equal milestones that certify all
// of it, and sound stores. None votes twice.
func TestKillsInAMeshLoseAndDoubleNothing(t *testing.T) {
	slow(t)
	f := newFleet(t, quick, "north", "south", "east", "west")
	f.mesh(false)
	f.start()

	lasts := 15 * time.Second
	if long() {
		lasts = 10 * time.Minute
	}
	tr := f.publish("k", 2, 20*time.Millisecond)
	end, n := time.Now().Add(lasts), 0
	for time.Now().Before(end) {
		alive := 700 * time.Millisecond
		if rand.IntN(3) == 0 {
			alive = 3 * time.Second // time for the mesh to form
		}
		pauseFor(50*time.Millisecond + rand.N(alive))
		n += f.killSome()
	}
	acked := map[string]map[string]bool{}
	tr.end(acked)
	f.awaitAttached()
	certified := f.awaitCertified()
	equal := f.awaitEqual("after the kills")
	t.Logf("%d kills; certified %v, equal %v after the last block: %+v, %d milestones", n, certified, equal,
		f.stations[0].replica(), f.stations[0].agreement().LastMilestone.Index)
	f.checkOnceEverywhere(acked, "certified")
	t.Logf("%d acknowledged readings", total(acked))
	f.checkAgreement()
}

// killSome kills one gateway or more and starts them again.
func (f *fleet) killSome() (n int) {
	f.t.Helper()
	which := rand.IntN(1<<len(f.stations)-1) + 1
	if rand.IntN(2) == 0 {
		which = 1 << rand.IntN(len(f.stations))
	}
	var killed []*station
	for i, s := range f.stations {
		if which>>i&1 == 1 {
			s.kill()
			killed = append(killed, s)
		}
	}
	for _, s := range killed {
		s.launch()
	}
	for _, s := range killed {
		s.awaitReady()
	}
	return len(killed)
}

// checkSound has the doctor look into the stores of a gateway that is down.
func (s *station) checkSound() {
	s.t.Helper()
	bin, err := buildOnce()
	if err != nil {
		s.t.Fatal(err)
	}
	out, _ := exec.Command(bin, "doctor", "--config", s.config(), "--json").Output() // other checks may be bad
	var findings []struct{ Check, Verdict, Found string }
	if err := json.Unmarshal(out, &findings); err != nil {
		s.t.Fatalf("doctor printed %s: %v", out, err)
	}
	sound := 0
	for _, found := range findings {
		if found.Check != "journal" && found.Check != "ledger" {
			continue
		}
		if found.Verdict == "ok" {
			sound++
		} else {
			s.t.Errorf("%s: %s is %s: %s", s.member.Name, found.Check, found.Verdict, found.Found)
		}
	}
	if sound != 2 {
		s.t.Errorf("%s: the doctor finds %d of 2 stores sound", s.member.Name, sound)
	}
}
