package peer

import (
	"sync"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

// What a member may cost in a second, and at once after a pause.
const (
	framesRate, framesBurst = 500, 1000    // gossip and frontiers that are verified
	asksRate, asksBurst     = 200, 400     // requests that are verified
	blocksRate, blocksBurst = 4000, 16_000 // blocks of gossip that are looked at
	workRate, workBurst     = 0.5, 2       // seconds of looking up answers
)

// Standing is 1 at most. It grows by itself; at 0 the member is shunned: it is
// neither listened to nor asked for a while, twice as long each time.
const (
	standingPerSecond = 0.01
	shunFirst         = time.Minute
	shunLongest       = time.Hour

	forMalformed   = 0.25 // a signed frame that cannot be read
	forInvalid     = 0.25 // a block that breaks a rule
	forUndelivered = 0.1  // something named and not handed out
)

// newerPause is how long the order of a member is left alone whose blocks are of
// a newer version; what it gossips is taken.
const newerPause = 10 * time.Minute

// A member that has been quiet for longer than its turn with this gateway takes
// while nothing happens is asked for a word, twice, and counts as down after
// downAfter such whiles. Where there are many others it is asked sooner than that,
// so that a gateway sends a few such questions a second.
const (
	quietSlack  = 600 * time.Millisecond
	quietMost   = 8 * time.Second
	quietOthers = 8 // in a network of more others, longer in proportion
	downAfter   = 2
)

func quietFor(others int) time.Duration {
	turn := time.Duration(others)*(tellIdle+tellLeast) + quietSlack
	return min(turn, quietMost*time.Duration(max(others, quietOthers))/quietOthers)
}

// A member is another gateway of the network.
type member struct {
	Name      string
	PublicKey network.PublicKey

	mu         sync.Mutex // guards what follows
	recent     [3]recent  // of gossip, frontiers and requests, which overtake each other
	frames     bucket
	asks       bucket
	blocks     bucket
	work       bucket
	signatures bucket                      // of milestones, whoever sent them
	votes      [network.MaxGateways]bucket // of gossip, by the gateway that they are of
	handed     [network.MaxGateways]bucket // votes of answers, likewise
	standing   float64
	judged     time.Time // when standing was computed
	shunned    time.Time // until then; zero: never was
	shuns      int

	heard    time.Time // last frame that it signed
	frontier frontier
	session  uint64    // in which it sent that
	spoke    bool      // it sent one since it heard of this gateway's session
	asked    time.Time // for a word, since it is quiet
	answered time.Time // the last time that a frontier of its was answered by ours
	behind   bool      // the frontier names tips that were unknown
	cursor   cursor
	walked   time.Time // the last time
	newer    time.Time // until then its order is left alone

	counts MemberCounts
}

// A cursor says up to which place in a store's order this replica has
// everything.
type cursor struct {
	store [8]byte
	place
}

// MemberCounts say what has come from a member since the start.
type MemberCounts struct {
	New         uint64 // blocks that this replica lacked
	Duplicates  uint64 // blocks that were known
	Held        uint64 // blocks that missed a parent when they came, or were of an epoch to come
	Useless     uint64 // votes of equivocators that tell nothing
	Invalid     uint64 // blocks that the ledger refused
	Unsupported uint64 // blocks of a newer version
	Malformed   uint64 // frames that could not be read
	Replayed    uint64 // frames that had come before
	Forged      uint64 // frames in its name with a wrong signature
	Limited     uint64 // frames, requests, blocks, votes and signatures over its rate
	Shunned     uint64 // frames that were not listened to
	Unanswered  uint64 // requests to it without an answer
	Served      uint64 // bytes of answers to it
}

func newMember(g network.Gateway) *member {
	now := time.Now()
	return &member{
		Name: g.Name, PublicKey: g.PublicKey, standing: 1, judged: now,
		frames: bucket{rate: framesRate, burst: framesBurst}, asks: bucket{rate: asksRate, burst: asksBurst},
		blocks: bucket{rate: blocksRate, burst: blocksBurst}, work: bucket{rate: workRate, burst: workBurst},
	}
}

// admit reports whether a frame in the member's name is worth verifying.
func (m *member) admit(f frame, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	meter := &m.frames
	if f.kind.class() == classRequest {
		meter = &m.asks
	}
	switch {
	case now.Before(m.shunned):
		m.counts.Shunned++
	case !meter.take(1, now):
		m.counts.Limited++
	default:
		return true
	}
	return false
}

// accept reports whether a frame, which the member signed, is new.
func (m *member) accept(f frame, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.recent[f.kind.class()].fresh(f) {
		m.counts.Replayed++
		return false
	}
	m.heard = now
	return true
}

// takes reports how many of n blocks of gossip are within the member's rate.
func (m *member) takes(n int, now time.Time) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	taken := m.blocks.most(n, now)
	m.counts.Limited += uint64(n - taken)
	return taken
}

// mayAsk reports whether answers may be looked up for the member now.
func (m *member) mayAsk(now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.work.refill(now); m.work.spent >= m.work.burst {
		m.counts.Limited++
		return false
	}
	return true
}

// served notes what an answer to the member was.
func (m *member) served(bytes int, took time.Duration, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.work.refill(now)
	m.work.spent += took.Seconds()
	m.counts.Served += uint64(bytes)
}

// blame lowers the member's standing and returns whether it is shunned now.
func (m *member) blame(by float64, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.judge(now)
	if m.standing -= by; m.standing > 0 {
		return false
	}
	m.shunned = now.Add(min(shunFirst<<min(m.shuns, 10), shunLongest))
	m.shuns++
	m.standing = 0.5
	return true
}

// judge brings the standing up to now. The caller holds mu.
func (m *member) judge(now time.Time) {
	m.standing = min(1, m.standing+standingPerSecond*now.Sub(m.judged).Seconds())
	m.judged = now
}

// count changes the member's counts.
func (m *member) count(f func(*MemberCounts)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(&m.counts)
}

// mayWalk reports whether the member's order is worth walking.
func (m *member) mayWalk(now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !now.Before(m.shunned) && !now.Before(m.newer) && !m.isLavish(now)
}

func (m *member) isShunned(now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return now.Before(m.shunned)
}

// isUp reports whether the member was heard of lately in a network of so many
// others.
func (m *member) isUp(now time.Time, others int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.heardWithin(downAfter*quietFor(others), now)
}

// heardWithin reports whether the member was heard of so lately. The caller holds
// mu.
func (m *member) heardWithin(d time.Duration, now time.Time) bool {
	return !m.heard.IsZero() && now.Sub(m.heard) < d
}

// wantsAsking reports whether the member, of so many others, is to be asked for a
// word now: it is up, and quiet.
func (m *member) wantsAsking(now time.Time, others int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	quiet := quietFor(others)
	if m.heardWithin(quiet, now) || !m.heardWithin(downAfter*quiet, now) || now.Sub(m.asked) < quiet/2 {
		return false
	}
	m.asked = now
	return true
}

// hasSpoken reports whether a word of the member was heard since the start.
func (m *member) hasSpoken() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.spoke
}

// lastSession returns that of the member's last frontier; 0: there was none.
func (m *member) lastSession() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.session
}

// lastWord returns the word of the member's last frontier.
func (m *member) lastWord() ledger.Word {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.frontier.word
}

// has notes that this replica has everything up to the cursor.
func (m *member) has(c cursor) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cursor = c
}

// reached returns the cursor.
func (m *member) reached() cursor {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cursor
}

// A bucket meters a rate.
type bucket struct {
	rate, burst float64 // per second; at once
	spent       float64
	at          time.Time
}

func (b *bucket) refill(now time.Time) {
	b.spent = max(0, b.spent-b.rate*now.Sub(b.at).Seconds())
	b.at = now
}

// take takes n, unless that is too much now.
func (b *bucket) take(n float64, now time.Time) bool {
	if b.refill(now); b.spent+n > b.burst {
		return false
	}
	b.spent += n
	return true
}

// most takes up to n and returns how many.
func (b *bucket) most(n int, now time.Time) int {
	b.refill(now)
	n = min(n, int(b.burst-b.spent))
	b.spent += float64(n)
	return n
}
