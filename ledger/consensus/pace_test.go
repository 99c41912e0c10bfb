package consensus

import (
	"slices"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// On a good network, at a pace of 100 ms, a block is confirmed soon after it was
// attached, and nothing is issued once all is confirmed.
func TestConfirmationIsQuick(t *testing.T) {
	for _, n := range []int{1, 2, 3, 4, 7, 15} {
		weights := make([]uint32, n)
		for i := range weights {
			weights[i] = 1
		}
		s := newSim(plan{seed: 5, weights: weights, loss: 0, slow: 20})
		s.genesis.DataRoundInterval = network.Duration(100 * time.Millisecond)
		s.after(0, func() { s.chaos = true })
		for _, node := range s.nodes { // the file has changed: begin again
			node.crash()
			node.disk = newDisk(s)
			node.boot()
		}
		attached := map[stardust.BlockID]int64{}
		var waits []int64
		s.check.onAttach = func(b *simBlock) { attached[b.ID] = s.now }
		s.check.onOrder = func(node *simNode, id stardust.BlockID) {
			if at, ok := attached[id]; ok && node.index == 0 {
				waits = append(waits, s.now-at)
			}
		}
		s.until(8_000)
		s.chaos = false
		s.until(28_000)
		if s.check.err != nil {
			t.Fatal(s.check.err)
		}
		slices.Sort(waits)
		p50, p95 := waits[len(waits)/2], waits[len(waits)*95/100]
		votes := s.check.count.votes
		t.Logf("n %d: %d blocks confirmed, p50 %d ms, p95 %d ms, %.1f votes a block, %+v", n, len(waits), p50, p95,
			float64(votes)/float64(len(waits)), s.check.count)
		if p50 > 350 || p95 > 700 {
			t.Errorf("n %d: p50 %d ms and p95 %d ms from attached to confirmed, want at most 350 and 700", n, p50, p95)
		}
		if len(waits) != len(attached) {
			t.Errorf("n %d: %d of %d blocks confirmed", n, len(waits), len(attached))
		}
		s.until(60_000)
		if s.check.count.votes != votes {
			t.Errorf("n %d: %d votes while nothing waits", n, s.check.count.votes-votes)
		}
	}
}
