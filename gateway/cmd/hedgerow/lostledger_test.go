package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A gateway that lost its ledger, with what it voted, gets the Tangle back from
// the others, votes in no round twice, and takes part again; kills meanwhile do
// not matter.
func TestAGatewayWithoutItsLedgerVotesAgain(t *testing.T) {
	slow(t)
	f := newFleet(t, quick, "north", "south", "east", "west")
	f.mesh(false)
	f.start()
	f.awaitRoutes()
	acked := map[string]map[string]bool{}
	rounds := 1
	if long() {
		rounds = 10
	}
	for i := range rounds {
		tr := f.publish(fmt.Sprint("l", i), 1, 20*time.Millisecond)
		lost := f.stations[i%len(f.stations)]
		pauseFor(2 * time.Second)
		lost.kill()
		if err := os.RemoveAll(filepath.Join(lost.dir, "data", "ledger")); err != nil {
			t.Fatal(err)
		}
		lost.launch()
		lost.awaitReady()
		f.killSome() // it, too, perhaps: what it does not know outlives that
		pauseFor(2 * time.Second)
		tr.end(acked)
		f.awaitAttached()
		t.Logf("all is certified %v after the last block", f.awaitCertified())
		// It is needed: without its votes there is no quorum now.
		off := f.stations[(i+1)%len(f.stations)]
		off.kill()
		var three []*station
		for _, s := range f.stations {
			if s != off {
				three = append(three, s)
			}
		}
		f.publishFor(time.Second, fmt.Sprint("n", i), acked, three...)
		t.Logf("with its votes all is certified %v after the last block", f.awaitCertified(three...))
		off.launch()
		off.awaitReady()
	}
	f.awaitCertified()
	f.checkOnceEverywhere(acked, "certified")
	f.checkAgreement()
}
