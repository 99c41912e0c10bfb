package peer

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// What is read is bounded and encodes back to what was read; a frame is its
// sender's only if nothing of it was changed.
func FuzzFrame(f *testing.F) {
	s := newSigner(testKey, [32]byte{1})
	id := stardust.IDOf(nil)
	signature := consensus.SignMilestone(testKey, 7, [32]byte{2})
	for _, body := range [][]byte{
		appendBlock(appendBlock(nil, []byte("block")), []byte("another")),
		frontier{position: 7, all: true, tips: []stardust.BlockID{id, id}}.append(nil),
		frontier{hears: 5, waiting: true, word: ledger.Word{Epoch: 1, Milestone: 3, Answers: true, Opened: 7, Highest: []uint32{7, 6}}}.append(nil),
		frontier{hears: 5, word: ledger.Word{Epoch: 1, Milestone: 3, Answers: true, Off: true, Opened: 7, Highest: []uint32{7, 6}}}.append(nil),
		page{last: place{at: 3}, end: true, rest: appendIDs(nil, []stardust.BlockID{id})}.append(nil),
		appendIDs(nil, []stardust.BlockID{id}),
		place{at: 7}.append(nil),
		span{3, 9}.append(nil),
		signature.AppendBinary(signature.AppendBinary(nil)),
	} {
		f.Add(s.seal(kindGossip, s.public, nil, body), uint16(3))
	}
	f.Fuzz(func(t *testing.T, b []byte, flip uint16) {
		fr, err := parseFrame(b)
		if err != nil {
			return
		}
		if s.signed(fr, s.public, nil) {
			c := bytes.Clone(b)
			c[int(flip)%len(c)] ^= 1
			if changed, err := parseFrame(c); err == nil && s.signed(changed, s.public, nil) {
				t.Errorf("changed at %d and still signed: %x", int(flip)%len(c), c)
			}
		}
		fuzzBodies(t, fr.body)
	})
}

func fuzzBodies(t *testing.T, b []byte) {
	if m, err := parseFrontier(b); err == nil && !bytes.Equal(m.append(nil), b) {
		t.Errorf("frontier %x is %x again", b, m.append(nil))
	}
	if m, err := parsePage(b); err == nil {
		if !bytes.Equal(m.append(nil), b) {
			t.Errorf("page %x is %x again", b, m.append(nil))
		}
		if ids, err := m.ids(); err == nil && (len(ids) > maxIDs || !bytes.Equal(appendIDs(nil, ids), m.rest)) {
			t.Errorf("%d ids of %x", len(ids), m.rest)
		}
	}
	if m, err := parsePlace(b); err == nil && !bytes.Equal(m.append(nil), b) {
		t.Errorf("place %x is %x again", b, m.append(nil))
	}
	if ids, err := parseAsked(b); err == nil && (len(ids) > maxAsked || !bytes.Equal(appendIDs(nil, ids), b)) {
		t.Errorf("%d ids asked for in %x", len(ids), b)
	}
	if m, err := parseSpan(b); err == nil && !bytes.Equal(m.append(nil), b) {
		t.Errorf("span %x is %x again", b, m.append(nil))
	}
	if all, err := parseSignatures(b, maxSignatures); err == nil {
		var again []byte
		for i := range all {
			again = all[i].AppendBinary(again)
		}
		if len(all) > maxSignatures || !bytes.Equal(again, b) {
			t.Errorf("signatures %x are %x again", b, again)
		}
	}
	if raws, err := parseBlocks(b); err == nil {
		var again []byte
		for _, raw := range raws {
			again = appendBlock(again, raw)
		}
		if !bytes.Equal(again, b) {
			t.Errorf("blocks %x are %x again", b, again)
		}
	}
}

func TestEverySizeFitsItsFrame(t *testing.T) {
	const carried = 1 << 20 // by NATS
	for what, n := range map[string]int{
		"gossip and streams": maxBytes + 2 + stardust.MaxBlockSize,
		"ids":                maxIDs * idSize,
		"asked":              maxAsked * idSize,
		"signatures":         maxSignatures * signatureSize,
		"frontier":           maxTips*idSize + 4*network.MaxGateways,
	} {
		if n+frameLeast+64 > carried {
			t.Errorf("%s take %d bytes", what, n)
		}
	}
}

func TestAMemberIsMetered(t *testing.T) {
	m := newMember(network.Gateway{Name: "m"})
	now := time.Now()
	admitted := func(k kind, n int) (got int) {
		for range n {
			if m.admit(frame{kind: k}, now) {
				got++
			}
		}
		return got
	}
	if got := admitted(kindGossip, 3*framesBurst); got != framesBurst {
		t.Errorf("%d frames of gossip at once", got)
	}
	if got := admitted(kindOrder, 3*asksBurst); got != asksBurst {
		t.Errorf("%d requests at once, after a flood of gossip", got)
	}
	if got := m.takes(3*blocksBurst, now); got != blocksBurst {
		t.Errorf("%d blocks at once", got)
	}
	m.served(1, 10*time.Second, now)
	if m.mayAsk(now) {
		t.Error("answers are looked up for it however much they take")
	}
	now = now.Add(time.Second)
	if got := admitted(kindGossip, 3*framesBurst); got != framesRate {
		t.Errorf("%d frames a second later", got)
	}
	if got := m.takes(3*blocksBurst, now); got != blocksRate {
		t.Errorf("%d blocks a second later", got)
	}
	if now = now.Add(20 * time.Second); !m.mayAsk(now) {
		t.Error("no answers are looked up for it any more")
	}
}

// Votes are told from other blocks, and those of one gateway are metered apart
// from those of others.
// Who hands out more votes of a gateway than there can be is not asked for a
// while, and nothing that it hands out is lost meanwhile.
func TestAMemberThatHandsOutVotesWithoutEndIsNotAsked(t *testing.T) {
	v := consensus.Vote{Claim: consensus.Claim{Gateway: 1, Round: 1, Seen: 2}}
	raw, err := v.Block(testKey, [32]byte{1}, []stardust.BlockID{stardust.GenesisID}).AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	rate := votesRate(network.NewOfOne("n", "g", testKey.Public().(ed25519.PublicKey)))
	m, now := newMember(network.Gateway{Name: "m"}), time.Now()
	for range handedBurst {
		m.handsOut(raw, rate, now)
	}
	if !m.mayWalk(now) {
		t.Error("what a gateway may make while votes are kept is too much")
	}
	m.handsOut(raw, rate, now)
	if m.mayWalk(now) || !m.handedEnough(now) {
		t.Error("it may go on")
	}
	later := now.Add(time.Second)
	if !m.mayWalk(later) || m.handedEnough(later) {
		t.Error("it is not asked again")
	}
}

func TestVotesOfOneGatewayAreMetered(t *testing.T) {
	vote := func(gateway uint8) []byte {
		v := consensus.Vote{Claim: consensus.Claim{Gateway: gateway, Round: 1, Seen: 1 << gateway}}
		raw, err := v.Block(testKey, [32]byte{1}, []stardust.BlockID{stardust.GenesisID}).AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	for g := range uint8(3) {
		if got, ok := voteOf(vote(g)); !ok || got != g {
			t.Errorf("vote of %d is one of %d, %v", g, got, ok)
		}
	}
	plain := &stardust.Block{
		Version: stardust.ProtocolVersion, Parents: []stardust.BlockID{stardust.GenesisID},
		Payload: &stardust.TaggedData{Tag: []byte("tag"), Data: []byte(consensus.TagVote)},
	}
	raw, err := plain.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := voteOf(raw); ok {
		t.Error("data that names the tag is a vote")
	}
	if _, ok := voteOf(vote(1)[:100]); ok {
		t.Error("a part of a vote is one")
	}

	file := network.NewOfOne("n", "g", testKey.Public().(ed25519.PublicKey))
	m, now, rate := newMember(network.Gateway{Name: "m"}), time.Now(), votesRate(file)
	admitted := func(gateway uint8) (n int) {
		for range 100 {
			if m.takesVote(gateway, rate, now) {
				n++
			}
		}
		return n
	}
	if n := admitted(1); n != votesBurst {
		t.Errorf("%d votes at once", n)
	}
	if n := admitted(2); n != votesBurst {
		t.Errorf("%d votes of another gateway", n)
	}
	now = now.Add(time.Duration(file.RoundInterval))
	if n := admitted(1); n != votesPerInterval {
		t.Errorf("%d votes an interval later", n)
	}
}

func TestALagIsAskedAboutAfterASecondAndThenLessOften(t *testing.T) {
	now, began := time.Now(), time.Time{}
	var l lag
	var asked []time.Duration
	own := ledger.Word{Milestone: 5, Certified: 5}
	for range 400 {
		if l.due(own, now) {
			asked = append(asked, now.Sub(began))
		}
		if now = now.Add(100 * time.Millisecond); began.IsZero() {
			began, own.Milestone = now, 6
		}
	}
	want := []time.Duration{1, 3, 7, 15, 25, 35}
	for i := range want {
		want[i] *= time.Second
	}
	for i := range asked {
		asked[i] = asked[i].Round(time.Second)
	}
	if !slices.Equal(asked, want) {
		t.Errorf("asked after %v, want %v", asked, want)
	}
	own.Certified = 6
	if l.due(own, now.Add(time.Hour)) {
		t.Error("asked although nothing lacks")
	}
	if own.Milestone = 7; l.due(own, now.Add(time.Hour)) || !l.due(own, now.Add(time.Hour+lagFirst)) {
		t.Error("a new lag is not asked about after a second")
	}
}

// Whoever waits for a vote waits for all of its hops; whoever sends many wants
// few frames.
func TestWhatComesAloneGoesAtOnce(t *testing.T) {
	now := time.Now()
	for _, tt := range []struct {
		every, most time.Duration // between two; to be waited in all
		n           int
	}{
		{25 * time.Millisecond, 0, 100},
		{time.Millisecond, 4 * gatherShort, 5},
		{time.Millisecond, 2 * time.Second, 1000},
	} {
		p, waited := newPace(), time.Duration(0)
		next := now
		frames := 0
		for range tt.n {
			if next = next.Add(tt.every); next.Before(p.last) {
				continue // it is gathered
			}
			d := p.pause(next)
			waited += d
			frames++
		}
		if waited > tt.most {
			t.Errorf("%d every %v waited for %v, want %v at most", tt.n, tt.every, waited, tt.most)
		}
		if most := 1 + int(tt.every*time.Duration(tt.n)/gatherLong) + promptBurst + promptRate; tt.n == 1000 && frames > most {
			t.Errorf("%d every %v went as %d, want %d at most", tt.n, tt.every, frames, most)
		}
	}
}

func TestStandingGrowsAndShunningDoubles(t *testing.T) {
	m := newMember(network.Gateway{Name: "m"})
	now := m.judged
	for i, want := range []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute} {
		for n := 0; !m.blame(0.3, now); n++ {
			if n > 3 {
				t.Fatalf("round %d: blamed %d times", i, n)
			}
		}
		if got := m.shunned.Sub(now); got != want {
			t.Errorf("round %d: shunned for %v, want %v", i, got, want)
		}
		if m.admit(frame{kind: kindGossip}, now.Add(want-1)) || !m.admit(frame{kind: kindGossip}, now.Add(want)) {
			t.Errorf("round %d: shunned shorter or longer", i)
		}
		now = now.Add(want + time.Hour)
	}
	if m.judge(now); m.standing != 1 {
		t.Errorf("standing %v after an hour of peace", m.standing)
	}
}

func TestASessionRemembersItsLastFrame(t *testing.T) {
	var r recent
	for i, tt := range []struct {
		session, count uint64
		fresh          bool
	}{
		{1, 5, true}, {1, 5, false}, {1, 4, false}, {1, 9, true}, {2, 1, true}, {1, 8, false}, {2, 1, false}, {1, 10, true},
	} {
		if got := r.fresh(frame{session: tt.session, count: tt.count}); got != tt.fresh {
			t.Errorf("step %d: session %d count %d fresh: %v", i, tt.session, tt.count, got)
		}
	}
	for s := range uint64(40) { // as many as are remembered, and more
		if !r.fresh(frame{session: 100 + s, count: 1}) || r.fresh(frame{session: 100 + s, count: 1}) {
			t.Errorf("session %d", 100+s)
		}
	}
}

// A member that falls silent is asked a few times before it counts as down, and
// then no more.
func TestWhenASilentMemberIsDown(t *testing.T) {
	for _, tt := range []struct {
		others int
		down   time.Duration
	}{{1, 5600 * time.Millisecond}, {3, 14400 * time.Millisecond}, {8, 16 * time.Second}, {16, 32 * time.Second}, {49, 98 * time.Second}} {
		m, start := newMember(network.Gateway{}), time.Now()
		if m.isUp(start, tt.others) || m.wantsAsking(start, tt.others) {
			t.Errorf("%d others: one that was never heard is up, or is asked", tt.others)
		}
		m.heard = start
		asked := 0
		for at := time.Duration(0); at < 2*tt.down; at += 250 * time.Millisecond {
			if up := m.isUp(start.Add(at), tt.others); up != (at < tt.down) {
				t.Errorf("%d others: after %v up is %v", tt.others, at, up)
			}
			if m.wantsAsking(start.Add(at), tt.others) {
				if asked++; at < tt.down/downAfter {
					t.Errorf("%d others: asked after %v", tt.others, at)
				}
			}
		}
		if asked != 2 {
			t.Errorf("%d others: asked %d times", tt.others, asked)
		}
	}
}

// Milestones are taken over from whoever says that it keeps payloads of the most,
// unless a state sync with it has failed: a liar has to hand out what it promises.
func TestWhoKeepsTheMostPayloadsIsTheSource(t *testing.T) {
	key := func(i byte) network.PublicKey { return network.PublicKey{i} }
	file := network.Create("n", []network.Gateway{{Name: "own", PublicKey: key(1), Weight: 1}, {Name: "a", PublicKey: key(2), Weight: 1},
		{Name: "b", PublicKey: key(3), Weight: 1}, {Name: "c", PublicKey: key(4), Weight: 1}})
	p, now := &Peers{}, time.Now()
	p.roster.Store(newRoster(file, key(1), &roster{}))
	members := map[string]*member{}
	for _, m := range p.others() {
		m.heard = now
		members[m.Name] = m
	}
	a, b, c := members["a"], members["b"], members["c"]
	a.frontier.word.Payloads, b.frontier.word.Payloads, c.frontier.word.Payloads = 9, 0, 5
	for i, want := range []*member{b, c, a, b} {
		if got := p.source(a, now); got != want {
			t.Fatalf("attempt %d is with %s, want %s", i, got.Name, want.Name)
		}
		if i < 2 {
			if p.progress.failed == nil {
				p.progress.failed = map[*member]time.Time{}
			}
			p.progress.failed[want] = now.Add(otherSource)
		} else {
			now = now.Add(otherSource)
			for _, m := range p.others() {
				m.heard = now
			}
		}
	}
	c.heard = time.Time{}
	b.heard = time.Time{}
	if got := p.source(a, now); got != a {
		t.Errorf("who is down is asked: %s", got.Name)
	}

	bare := ledger.Listed{}
	vote := ledger.Listed{}
	vote.Vote = true
	for i, c := range []struct {
		index, keeps uint32
		of           ledger.Listed
		ok           bool
	}{{5, 5, bare, true}, {6, 5, bare, false}, {6, 5, vote, true}, {6, 5, ledger.Listed{Raw: []byte{1}}, true}} {
		pt := part{index: c.index, blocks: []ledger.Listed{c.of}}
		if err := pt.has(c.keeps); (err == nil) != c.ok || err != nil && !errors.Is(err, errShort) {
			t.Errorf("%d: milestone %d when payloads are kept above %d: %v", i, c.index, c.keeps, err)
		}
	}
}
