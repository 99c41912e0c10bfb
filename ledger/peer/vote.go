package peer

import (
	"bytes"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// How many votes of one gateway are taken from one member's gossip, before
// their signatures are checked (consensus.md §7). What is more is fetched if
// anything refers to it.
const (
	votesPerInterval = 8
	votesBurst       = 32
)

// How many votes of one gateway a member may hand out when it is asked: at once
// more than any gateway makes while votes are kept, and from then on twice as
// many as a gateway may make. A member that has handed out more is not asked for
// a while; nothing is lost by that, as what honest gateways have comes slower.
const (
	handedFactor = 2
	handedBurst  = 1 << 20
)

// votesRate returns the votes per second that one gateway may cost.
func votesRate(file *network.File) float64 {
	return votesPerInterval / time.Duration(min(file.RoundInterval, file.DataRoundInterval)).Seconds()
}

// voteOf returns the number of the gateway that a block claims to be a vote of;
// ok is false if it is none, or malformed.
func voteOf(raw []byte) (gateway uint8, ok bool) {
	if !bytes.Contains(raw, []byte(consensus.TagVote)) {
		return 0, false // most blocks need not be parsed for that
	}
	b, err := stardust.ParseBlock(raw)
	if err != nil || !consensus.IsVote(b.Payload) {
		return 0, false
	}
	v, err := consensus.ParseVote(b.Payload.(*stardust.TaggedData).Data)
	return v.Gateway, err == nil
}

// takesVote reports whether a vote of a gateway in the member's gossip is within
// the rate per second.
func (m *member) takesVote(gateway uint8, rate float64, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := &m.votes[gateway%network.MaxGateways]
	b.rate, b.burst = rate, votesBurst
	if b.take(1, now) {
		return true
	}
	m.counts.Limited++
	return false
}

// handsOut notes a block that a member was asked for, if it is a vote.
func (m *member) handsOut(raw []byte, rate float64, now time.Time) {
	gateway, ok := voteOf(raw)
	if !ok {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	b := &m.handed[gateway%network.MaxGateways]
	b.rate, b.burst = handedFactor*rate, handedBurst
	b.refill(now)
	b.spent++
}

// handedEnough is isLavish for a caller that does not hold mu.
func (m *member) handedEnough(now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.isLavish(now)
}

// isLavish reports whether a member has handed out too many votes of a gateway
// to be asked for more now. The caller holds mu.
func (m *member) isLavish(now time.Time) bool {
	for g := range m.handed {
		if b := &m.handed[g]; b.spent > handedBurst {
			if b.refill(now); b.spent > handedBurst {
				return true
			}
		}
	}
	return false
}
