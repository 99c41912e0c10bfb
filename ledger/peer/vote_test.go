package peer_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/peer"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// Votes beyond the rate are dropped before the ledger looks at them; other
// blocks of the same member are taken, and a vote that something refers to is
// fetched.
func TestAFloodOfVotesIsLimited(t *testing.T) {
	const n = 2000
	s := newSite(t, "a", "r")
	s.file.RoundInterval = network.Duration(10 * time.Second)
	s.file.DataRoundInterval = s.file.RoundInterval
	a, r := s.fresh("a"), s.rogue("r")
	votes := map[stardust.BlockID][]byte{}
	var last stardust.BlockID
	for i := range n {
		v := consensus.Vote{Claim: consensus.Claim{Gateway: 1, Round: 1, Seen: 2}, TimeMs: uint64(i)}
		raw, err := v.Block(s.keys["r"], s.file.GenesisHash(), []stardust.BlockID{stardust.GenesisID}).AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		last = stardust.IDOf(raw)
		votes[last] = raw
		r.publish(r.Frame(peer.Gossip, nil, "", peer.BlocksBody(raw)))
	}
	// NATS drops some itself when the machine is slow.
	eventually(t, "many are dropped", func() bool { return a.seen("r").Limited >= n/4 })
	if m := a.seen("r"); m.New+m.Held+m.Invalid+m.Duplicates > votesTaken || m.Standing < 1 {
		t.Errorf("of %d votes: %+v", n, m)
	}
	r.answer(func(request []byte) []byte {
		if peer.KindOf(request) != peer.Blocks || !bytes.Contains(request, last[:]) {
			return nil
		}
		return peer.BlocksBody(votes[last])
	})
	id, child := block(t, "a block above a vote that was dropped", last)
	eventually(t, "it is stored with its parent", func() bool {
		r.publish(r.Frame(peer.Gossip, nil, "", peer.BlocksBody(child)))
		time.Sleep(100 * time.Millisecond)
		ok, _ := a.Has(id)
		return ok
	})
}

// votesTaken is how many votes are taken at once, and a few for the time that a
// test takes.
const votesTaken = 32 + 8
