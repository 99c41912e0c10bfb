package peer

import (
	"bytes"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

// counters count what belongs to no member.
type counters struct {
	gossip  atomic.Uint64 // frames sent
	strange atomic.Uint64 // frames of nobody

	unsent, unread atomic.Uint64 // see Stats
}

// Stats are what the peers have done since the start, and are now.
type Stats struct {
	Members []Member // the others, in the order of the network file
	Sent    uint64   // frames of gossip
	Unsent  uint64   // blocks that found no room to wait for being sent
	Strange uint64   // frames, answers and signatures that are of no member
	Wanted  int      // missing parents that are asked for

	SignaturesUnsent uint64 // of milestones: own ones that found no room to wait for being sent
	SignaturesUnread uint64 // of others that the replica had no time for
}

// A Member is another gateway as this one sees it.
type Member struct {
	network.Gateway
	Up       bool      // it was heard of lately
	Heard    time.Time // when; zero: never since the start
	Position uint64    // of the last block in its own order, as it said
	Behind   uint64    // of those, how many may be missing here
	// Milestone is the index of its last one, as it said; Told is false while it
	// has said nothing.
	Milestone uint32
	Told      bool
	Votes     bool    // it takes part in the agreement, as it said
	Standing  float64 // 0 to 1; it is shunned when it has none
	MemberCounts

	ShunnedUntil time.Time // zero: it is not
}

// Stats returns the current figures.
func (p *Peers) Stats() Stats {
	s := Stats{Members: []Member{}, Sent: p.counted.gossip.Load(), Strange: p.counted.strange.Load()}
	s.SignaturesUnsent, s.SignaturesUnread = p.counted.unsent.Load(), p.counted.unread.Load()
	p.outbox.mu.Lock()
	s.Unsent = p.outbox.dropped
	p.outbox.mu.Unlock()
	p.wants.mu.Lock()
	s.Wanted = len(p.wants.all)
	p.wants.mu.Unlock()
	now := time.Now()
	r := p.roster.Load()
	for i, m := range r.others {
		up := m.isUp(now, len(r.others))
		m.mu.Lock()
		m.judge(now)
		v := Member{
			Gateway: r.says[i], Up: up, Heard: m.heard,
			Position: m.frontier.position, Standing: m.standing, MemberCounts: m.counts,
			Milestone: m.frontier.word.Milestone, Told: m.session != 0, Votes: m.frontier.word.Votes(),
		}
		switch {
		case !m.behind:
		case m.frontier.store != m.cursor.store:
			v.Behind = m.frontier.position
		case m.frontier.position > m.cursor.at:
			v.Behind = m.frontier.position - m.cursor.at
		}
		if now.Before(m.shunned) {
			v.ShunnedUntil = m.shunned
		}
		m.mu.Unlock()
		s.Members = append(s.Members, v)
	}
	return s
}

// Cursors are saved as: n times key 32 | store 8 | position u64 | id 32.
const savedSize = 32 + 8 + 8 + idSize

func (p *Peers) loadCursors() error {
	b, err := p.cursors.Load()
	if err != nil {
		return fmt.Errorf("load how far peers were followed: %w", err)
	}
	p.saved = b
	for ; len(b) >= savedSize; b = b[savedSize:] {
		if m := p.roster.Load().byKey[network.PublicKey(b[:32])]; m != nil {
			m.cursor.store = [8]byte(b[32:])
			m.cursor.place, _ = parsePlace(b[40:savedSize]) // it has that size
		}
	}
	return nil
}

// saveCursors saves the cursors if they have changed. What is not saved is
// walked once more after the next start.
func (p *Peers) saveCursors() {
	var b []byte
	for _, m := range p.others() {
		at := m.reached()
		b = append(b, m.PublicKey[:]...)
		b = append(b, at.store[:]...)
		b = at.place.append(b)
	}
	if bytes.Equal(b, p.saved) {
		return
	}
	if err := p.cursors.Save(b); err != nil {
		p.log.Warn("how far peers were followed is not saved", "err", err)
		return
	}
	p.saved = b
}
