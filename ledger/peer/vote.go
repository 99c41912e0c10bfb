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
