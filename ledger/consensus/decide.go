package consensus

import (
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// An Outcome is how a slot ends.
type Outcome uint8

// The outcomes of a slot.
const (
	Undecided Outcome = iota
	Commit
	Skip
)

// A Decision is the outcome of one slot (§4).
type Decision struct {
	Epoch, Slot uint32
	Outcome     Outcome
	Proposal    stardust.BlockID // of Commit
	Direct      bool             // by the openers of the next two rounds, not through a later slot
}

type verdict struct {
	outcome  Outcome
	proposal *node
	direct   bool
}

// direct decides a slot by the openers of the two rounds after it.
func (s *State) direct(slot uint32) verdict {
	r := s.rounds[slot]
	if r == nil {
		return verdict{}
	}
	for _, p := range r.props {
		if s.cur.isQuorum(p.certs) {
			return verdict{Commit, p, true}
		}
	}
	// Skip: a quorum supports none of the proposals known. One that comes
	// later is unknown to the quorum as well, since it is in none of the cones.
	against := func(p *node) (set uint64) {
		for _, b := range r.ballots {
			if p == nil || b.proposal != p {
				set |= bit(b.gateway)
			}
		}
		return set
	}
	if len(r.props) == 0 && !s.cur.isQuorum(against(nil)) {
		return verdict{}
	}
	for _, p := range r.props {
		if !s.cur.isQuorum(against(p)) {
			return verdict{}
		}
	}
	return verdict{Skip, nil, true}
}

// indirect decides a slot by what the committed anchor of a slot at least three
// later knows of it.
func (s *State) indirect(slot uint32, anchor *node) verdict {
	for _, p := range s.round(slot).props {
		if s.cur.isQuorum(supporters(anchor.sup, p)) {
			return verdict{outcome: Commit, proposal: p}
		}
	}
	return verdict{outcome: Skip}
}

// verdicts returns the outcomes of the slots from nextSlot to maxRound. They
// are computed from the highest down, because a slot may depend on the first
// one at least three later that is not skipped.
func (s *State) verdicts() []verdict {
	next := s.pos.NextSlot
	if s.maxRound < next {
		return nil
	}
	d := make([]verdict, s.maxRound-next+1)
	anchor := len(d) // the first slot >= i+3 that is not skipped
	for i := len(d) - 1; i >= 0; i-- {
		if i+3 < len(d) && d[i+3].outcome != Skip {
			anchor = i + 3
		}
		d[i] = s.direct(next + uint32(i))
		if d[i].outcome == Undecided && anchor < len(d) && d[anchor].outcome == Commit {
			d[i] = s.indirect(next+uint32(i), d[anchor].proposal)
		}
	}
	return d
}

// decide lets the slots that are decided become visible, in their order.
func (s *State) decide(res *Result) error {
	for _, v := range s.verdicts() {
		if v.outcome == Undecided {
			break
		}
		d := Decision{Epoch: s.cur.number, Slot: s.pos.NextSlot, Outcome: v.outcome, Direct: v.direct}
		if v.outcome == Commit {
			d.Proposal = v.proposal.id
			m, err := s.order(v.proposal)
			if err != nil {
				return err
			}
			res.Milestones = append(res.Milestones, *m)
			if m.Next != nil {
				res.Decisions, res.NewEpoch = append(res.Decisions, d), true
				s.enterEpoch(m.Next)
				return nil
			}
		}
		res.Decisions = append(res.Decisions, d)
		s.pos.NextSlot++
		s.forget()
	}
	return nil
}

// forget drops what only decided slots needed (§8).
func (s *State) forget() {
	next := s.pos.NextSlot
	if r := s.rounds[next-1]; r != nil {
		r.props, r.ballots = nil, nil
	}
	if next > keepRounds {
		delete(s.rounds, next-keepRounds-1)
	}
	keep := s.late[:0]
	for _, n := range s.late {
		if n.vote && n.claim.Round+1 >= next {
			keep = append(keep, n)
			continue
		}
		n.up = nil
		delete(s.nodes, n.id)
	}
	clear(s.late[len(keep):])
	s.late = keep
}
