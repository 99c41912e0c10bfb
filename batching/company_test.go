package batching

import (
	"testing"
	"time"
)

const testLinger = 5 * time.Millisecond

// stream plays groups of packets that come at even intervals, whether they are
// answered or not, and returns how many the last ones held on average.
func stream(c *company, interval, commit time.Duration, groups int) float64 {
	waiting, sum, counted := 0, 0, 0
	for i := range groups {
		enough, most := c.await(testLinger)
		var waited time.Duration
		if waiting == 0 {
			waiting, waited = 1, interval-commit%interval // since the last one
		}
		for spent := time.Duration(0); waiting < enough && spent+interval <= most; waiting++ {
			spent, waited = spent+interval, waited+interval
		}
		if waiting < enough && most > waited {
			waited = most
		}
		n := waiting
		waiting = int(commit / interval)
		c.came(n, waited+commit)
		if i >= groups/2 {
			sum, counted = sum+n, counted+1
		}
	}
	return float64(sum) / float64(counted)
}

// A thousand readings a second fill a linger of 5 ms with five, though a
// commit takes a tenth of the time between them.
func TestSteadyStreamSharesCommits(t *testing.T) {
	if n := stream(new(company), time.Millisecond, 100*time.Microsecond, 500); n < 4 || n > 6 {
		t.Errorf("%.1f packets a commit, want about 5", n)
	}
}

func TestRarePacketsWaitForNobody(t *testing.T) {
	var c company
	if n := stream(&c, 4*time.Millisecond, 100*time.Microsecond, 500); n > 1.05 {
		t.Errorf("%.1f packets a commit, want 1", n)
	}
	if enough, _ := c.await(testLinger); enough != 1 {
		t.Errorf("waits for %d packets", enough)
	}
}

// Ten clients that wait for their answers come again together. That an
// eleventh does not come is found out rarely and in a short time.
func TestClientsThatWaitAreNotKeptWaiting(t *testing.T) {
	var c company
	var lost, total time.Duration
	for range 1000 {
		enough, most := c.await(testLinger)
		round := 400 * time.Microsecond // the last of them has come
		if enough > 10 && most > round {
			lost, round = lost+most-round, most
		}
		c.came(10, round)
		total += round
	}
	if enough, _ := c.await(testLinger); enough < 10 || lost*50 > total {
		t.Errorf("waits for %d packets; %v of %v lost", enough, lost, total)
	}
}

func TestCompanyThatEndedIsForgotten(t *testing.T) {
	var c company
	stream(&c, time.Millisecond/2, 100*time.Microsecond, 500)
	c.came(1, testLinger) // only one of many came
	if enough, _ := c.await(testLinger); enough > 2 {
		t.Errorf("waits for %d packets", enough)
	}
	c.came(1, time.Hour)
	if enough, _ := c.await(testLinger); enough != 1 {
		t.Errorf("waits for %d packets after an hour", enough)
	}
}
