package consensus

import (
	"crypto/ed25519"
	"fmt"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// Paces of §6. They are matters of liveness alone.
const (
	thirdInterval  = 2 * time.Second // rounds for the blocks of third parties alone
	silentAfter    = 3 * time.Second // a leader unheard of for so long is not waited for
	longestBackoff = 5 * time.Second
	patience       = 10 // leader timeouts until the depth of votes is overlooked
)

// A Durable is what a gateway must not forget of its own votes: it is written
// together with each of them, in one synced write, before the vote is published
// (§6). The zero value is that of a gateway that has never voted.
type Durable struct {
	Epoch  uint32
	Opened uint32           // the highest round opened in the epoch
	Head   stardust.BlockID // the last own vote of the epoch; zero: none
	// Recovering: what was opened is not known. Set it for an empty database
	// without a first-start marker, a marker that does not match, a restored
	// backup, or by command (§7).
	Recovering bool
	// Sticky: memory was lost once, so recovery is repeated in later epochs.
	Sticky bool
}

// An Issuer decides when its gateway votes, and on what (§6). It is used by
// the goroutine that uses the State.
type Issuer struct {
	state *State
	key   network.PublicKey
	d     Durable

	lastOpen, lastIssue time.Time
	blocked             time.Time // since when no round can be opened, although something waits
	backoff             time.Duration
	assist              uint32
	halted              bool

	checked  bool             // enough of reported, once in this process
	reported uint64           // who confirmed at this start that they know no higher opener of mine
	answers  map[uint8]uint32 // what others opened, while recovering
	target   uint32           // the round to reach; 0: not known yet
}

// NewIssuer returns the issuer of the gateway with this key, whose own record
// is d. It opens no round before others have reported; see [Issuer.Report].
func NewIssuer(s *State, key network.PublicKey, d Durable) *Issuer {
	return &Issuer{state: s, key: key, d: d, answers: map[uint8]uint32{}}
}

// A Draft is a vote to be signed, stored and published.
type Draft struct {
	Vote    Vote // without time and signature
	Parents []stardust.BlockID
	Opens   bool // a round, rather than widening one
}

// Sign returns the block of the vote. timeMs is the wall clock in Unix
// milliseconds, or 0 while it is not known to be good (§5).
func (d *Draft) Sign(key ed25519.PrivateKey, genesisHash [32]byte, timeMs uint64) *stardust.Block {
	v := d.Vote
	v.TimeMs = timeMs
	return v.Block(key, genesisHash, d.Parents)
}

// A Step is what to do next: issue the draft, or look again at the latest at
// Wake (zero: when a block was added or something was heard).
type Step struct {
	Draft *Draft
	Wake  time.Time
}

// Try decides whether to vote now (§6 tryVote). It changes nothing that is
// durable: call [Issuer.Issued] for a draft that was signed. An error is the
// View's.
func (i *Issuer) Try(now time.Time) (Step, error) {
	s := i.state
	g, ok := i.enter()
	if !ok || i.halted || s.faulty&bit(g) != 0 {
		return Step{}, nil
	}
	if i.d.Recovering {
		return i.tryRecover(g), nil
	}
	if !i.checked || !s.Waiting() && i.assist <= i.d.Opened {
		i.blocked, s.lenient = time.Time{}, false
		return Step{}, nil
	}
	until := i.blocked.Add(patience * i.leaderTimeout())
	s.lenient = !i.blocked.IsZero() && !until.After(now)
	self, err := s.own(i.d.Head)
	if err != nil {
		return Step{}, fmt.Errorf("look up own vote %v: %w", i.d.Head, err)
	}
	if self != nil && !s.usable(self) {
		self = nil // its cone reaches too far back after a long absence
	}
	c := s.choose(g, self)
	switch {
	case c.round > i.d.Opened:
		i.blocked = time.Time{}
		if at := i.openAt(c, now); at.After(now) {
			return Step{Wake: at}, nil
		}
		return Step{Draft: i.draft(g, c)}, nil
	case i.blocked.IsZero():
		i.blocked = now
	}
	step := Step{}
	if self != nil && c.round == i.d.Opened { // without self parent only a new round may be opened
		step = i.tryMerge(g, c, now)
	}
	if step.Draft == nil && !s.lenient {
		if until = i.blocked.Add(patience * i.leaderTimeout()); step.Wake.IsZero() || until.Before(step.Wake) {
			step.Wake = until
		}
	}
	return step, nil
}

// tryMerge decides on a vote in a round that is open: to see more when eight
// parents cannot carry a quorum, or to cover tips.
func (i *Issuer) tryMerge(g uint8, c *choice, now time.Time) Step {
	s := i.state
	var at time.Time
	switch widens := c.seen&^c.self.claim.Seen != 0; {
	case widens && s.cur.n > stardust.MaxParents:
		at = i.lastIssue.Add(i.interval() / 4)
	case len(s.usableTips(g)) > 0 && (widens || c.self.claim.Merges < MaxMerges):
		at = i.lastIssue.Add(max(i.backoff, 2*i.interval()))
	default:
		return Step{}
	}
	if at.After(now) {
		return Step{Wake: at}
	}
	return Step{Draft: i.draft(g, c)}
}

func (i *Issuer) draft(g uint8, c *choice) *Draft {
	d := &Draft{Opens: c.round > i.d.Opened}
	var selfClaim *Claim
	ids, at := sortParents(c.parents, c.self)
	if c.self != nil {
		d.Vote.HasSelf, d.Vote.SelfIndex, selfClaim = true, uint8(at), &c.self.claim
	}
	d.Parents = ids
	d.Vote.Claim = Claim{
		Epoch: i.state.cur.number, Gateway: g, Round: c.round, Seen: c.seen, Merges: merges(c.round, c.seen, selfClaim),
	}
	return d
}

// Issued takes note of a draft that was signed as the block id, and returns
// the record to be written with that block in one synced write. Only then may
// the block be added and published.
func (i *Issuer) Issued(d *Draft, id stardust.BlockID, now time.Time) Durable {
	i.lastIssue, i.d.Head = now, id
	i.backoff = min(longestBackoff, max(i.backoff, 2*i.interval())*3/2)
	if d.Opens {
		i.lastOpen, i.backoff = now, 0
		i.d.Opened = d.Vote.Round
		if i.d.Recovering {
			i.d.Recovering, i.d.Sticky = false, true
		}
	}
	return i.d
}

// Durable returns the record as it stands. It is to be written also when
// recovering mode was entered.
func (i *Issuer) Durable() Durable { return i.d }

// Halt stops issuing for good: more than B of the weight signed another
// milestone than this replica derived (§5).
func (i *Issuer) Halt() { i.halted = true }

// enter follows the State into a new epoch and returns the gateway's number in
// it; ok is false if it has none or if the record is of a later epoch.
func (i *Issuer) enter() (g uint8, ok bool) {
	s := i.state
	if i.d.Epoch > s.cur.number {
		return 0, false // the ledger is behind our own votes: sync first
	}
	if i.d.Epoch < s.cur.number {
		i.d = Durable{Epoch: s.cur.number, Recovering: i.d.Recovering || i.d.Sticky, Sticky: i.d.Sticky || i.d.Recovering}
		i.lastOpen, i.lastIssue, i.backoff, i.assist = time.Time{}, time.Time{}, 0, 0
		i.answers, i.target = map[uint8]uint32{}, 0
		i.reported = 0
	}
	at, ok := s.cur.file.Index(i.key[:])
	if !ok {
		return 0, false
	}
	g = uint8(at)
	i.checked = i.checked || i.confirmed(g)
	// A vote of ours that we do not remember: the record is older than the
	// key's last vote, or somebody else has the key (§7).
	if h := s.heads[g]; h != nil && h.claim.Round > i.d.Opened && !i.d.Recovering {
		i.d.Recovering, i.d.Sticky = true, true
	}
	return g, true
}

// Waiting reports whether a payload block is unordered: without one there is
// nothing to vote for (§6, quiescence). What lies too deep does not wait: who
// does not know it would not vote, and the others would in vain.
func (s *State) Waiting() bool {
	payload := s.unordered[KindData] + s.unordered[KindTransaction] + s.unordered[KindUpdate]
	for _, n := range s.suspects {
		if payload > 0 && n.kind != KindVote && n.ms == 0 && !s.usable(n) {
			payload--
		}
	}
	return payload > 0
}

// own returns the node of the own head, also if it was ordered long ago; nil if
// there is none.
func (s *State) own(head stardust.BlockID) (*node, error) {
	if n := s.nodes[head]; n != nil {
		return n, nil
	}
	o, found, err := s.view.Ordered(head)
	if err != nil || !found || !o.Vote || o.Claim.Epoch != s.cur.number {
		return nil, err
	}
	return &node{id: head, kind: KindVote, vote: true, claim: o.Claim, ms: o.Milestone}, nil
}

// interval is the pace in force (§1).
func (i *Issuer) interval() time.Duration {
	s := i.state
	f := s.cur.file
	d := time.Duration(f.DataRoundInterval)
	payload := s.unordered[KindData] + s.unordered[KindTransaction] + s.unordered[KindUpdate]
	if s.unordered[KindTransaction]+s.unordered[KindUpdate] > 0 {
		d = time.Duration(f.RoundInterval)
	}
	if payload > 0 && payload == s.thirds {
		d = max(d, thirdInterval)
	}
	return d
}

// leaderTimeout is how long an opener waits for the leaders before it.
func (i *Issuer) leaderTimeout() time.Duration {
	d := i.interval() * 5 / 2
	if i.d.Opened < i.state.pos.NextSlot {
		return d
	}
	for lag, n := i.d.Opened-i.state.pos.NextSlot, uint32(12); n <= 96 && lag > n; n *= 2 {
		d *= 2
	}
	return d
}

// openAt returns when to open the round of the choice: at once if somebody has
// (else phases drift apart), if nothing more is to be expected from it.
func (i *Issuer) openAt(c *choice, now time.Time) time.Time {
	s := i.state
	if r := s.rounds[c.round]; r == nil || r.opened == 0 {
		if before := s.rounds[c.round-1]; before != nil && !before.first.IsZero() {
			if at := before.first.Add(i.interval()); at.After(now) {
				return at
			}
		}
	}
	if i.lastOpen.IsZero() {
		return now
	}
	until := i.lastOpen.Add(i.leaderTimeout())
	if !until.After(now) {
		return now
	}
	if at := i.leaderAwaited(c, now); at.After(now) {
		return minTime(at, until)
	}
	if i.supportAwaited(c) {
		return until
	}
	return now
}

// leaderAwaited returns until when the proposal of the slot before the round
// of the choice is worth waiting for.
func (i *Issuer) leaderAwaited(c *choice, now time.Time) time.Time {
	s := i.state
	slot := c.round - 1
	if slot < s.pos.NextSlot {
		return now
	}
	leader := s.cur.leader(slot)
	_, known := onlyProposal(c.sup, slot)
	if known > 0 || s.faulty&bit(uint8(leader)) != 0 || s.cur.file.Gateways[leader].PublicKey == i.key {
		return now
	}
	if h := s.heads[leader]; h == nil || h.claim.Round > slot {
		return now // silent in this epoch, or past the slot without a proposal
	}
	return s.heard[leader].Add(max(silentAfter, 2*i.interval()))
}

// supportAwaited reports whether the proposal two slots before the round of the
// choice can still win a quorum of supporters and has not yet.
func (i *Issuer) supportAwaited(c *choice) bool {
	s := i.state
	if c.round < 3 || c.round-2 < s.pos.NextSlot {
		return false
	}
	r := s.rounds[c.round-2]
	if r == nil || len(r.props) != 1 || s.cur.isQuorum(supporters(c.sup, r.props[0])) {
		return false
	}
	var against uint64
	for _, b := range r.ballots {
		if b.proposal != r.props[0] {
			against |= bit(b.gateway)
		}
	}
	return s.cur.total-s.cur.weight(against) >= s.cur.quorum
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
