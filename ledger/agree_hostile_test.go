package ledger_test

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// vote returns a signed vote of gateway g that opens round 1 over the parents.
func (f *federation) vote(g int, change func(*consensus.Vote), parents ...stardust.BlockID) []byte {
	f.t.Helper()
	v := consensus.Vote{Claim: consensus.Claim{Gateway: uint8(g), Round: 1, Seen: 1 << g}}
	if change != nil {
		change(&v)
	}
	b := v.Block(f.keys[g], f.file.Hash(), stardust.SortParents(parents))
	raw, err := b.AppendBinary(nil)
	if err != nil {
		f.t.Fatal(err)
	}
	return raw
}

func TestVotesThatBreakARuleAreRefused(t *testing.T) {
	f := federate(t, 4, memories)
	for _, m := range f.all[1:] {
		m.stop()
	}
	l := f.all[0].ledger()
	ids := f.all[0].attach(1)
	forged := f.vote(3, nil, stardust.GenesisID)
	forged[len(forged)-9] ^= 1 // the signature is followed by the nonce
	withNonce := f.vote(3, nil, stardust.GenesisID)
	withNonce[len(withNonce)-1] = 1
	for name, raw := range map[string][]byte{
		"a forged signature": forged,
		"a nonce":            withNonce,
		"a round too high":   f.vote(3, func(v *consensus.Vote) { v.Round = 2 }, stardust.GenesisID),
		"a set too wide":     f.vote(3, func(v *consensus.Vote) { v.Seen = 0xf }, stardust.GenesisID),
		"merges of nothing":  f.vote(3, func(v *consensus.Vote) { v.Merges = 1 }, stardust.GenesisID),
		"no such gateway":    f.vote(3, func(v *consensus.Vote) { v.Gateway = 9 }, stardust.GenesisID),
		"a self parent that is no vote": f.vote(3, func(v *consensus.Vote) {
			v.HasSelf = true
		}, ids[0]),
	} {
		if err := receive(t, l, raw); !errors.Is(err, ledger.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
		if ok, err := l.Has(stardust.IDOf(raw)); ok || err != nil {
			t.Errorf("%s: it is stored: %v", name, err)
		}
	}
	future := f.vote(3, func(v *consensus.Vote) { v.Epoch = 1 }, stardust.GenesisID)
	if err := receive(t, l, future); err != nil || l.Stats().Parked != 1 {
		t.Errorf("a vote of the next epoch: %v, %d are parked", err, l.Stats().Parked)
	}
	good := f.vote(3, nil, stardust.GenesisID)
	if b, err := stardust.ParseBlock(good); err != nil {
		t.Fatal(err)
	} else if _, err := l.Attach(t.Context(), b, nil); !errors.Is(err, ledger.ErrInvalid) {
		t.Errorf("a vote is attached by hand: %v", err)
	}
	if err := receive(t, l, good); err != nil {
		t.Errorf("a vote that breaks no rule: %v", err)
	}
}

func TestAGatewayThatVotesTwiceIsNamedAndAgreementGoesOn(t *testing.T) {
	f := federate(t, 4, memories)
	f.all[3].stop()
	ids := f.all[0].attach(1)
	f.certified(ids, f.all[:3]...)
	twice := [][]byte{f.vote(3, nil, stardust.GenesisID), f.vote(3, nil, stardust.GenesisID, ids[0])}
	for i, m := range f.all[:3] {
		for j := range twice {
			if err := receive(t, m.ledger(), twice[(i+j)%2]); err != nil { // in different orders
				t.Fatal(err)
			}
		}
	}
	for _, m := range f.all[:3] {
		eventually(t, "the gateway is named", func() bool {
			got := m.ledger().Trouble().Equivocators
			return len(got) == 1 && got[0] == "g3"
		})
	}
	f.certified(f.all[1].attach(5), f.all[:3]...)
	f.agree(f.all[:3]...)

	f.all[0].stop()
	f.all[0].start()
	if got := f.all[0].ledger().Trouble().Equivocators; len(got) != 1 {
		t.Errorf("after a restart %v are named", got)
	}
	f.certified(f.all[1].attach(5), f.all[:3]...)
	f.agree(f.all[:3]...)

	next := f.file.Next()
	if err := next.Remove("g3"); err != nil {
		t.Fatal(err)
	}
	f.all[0].update(f.sign(next))
	for _, m := range f.all[:3] {
		eventually(t, "who is no member any more is not named", func() bool {
			return m.ledger().Agreed().Epoch == 1 && len(m.ledger().Trouble().Equivocators) == 0
		})
	}
}

// rival is a milestone of an index that nobody derives.
func rival(index uint32) *consensus.Essence {
	return &consensus.Essence{Index: index, Timestamp: 1, Parents: []stardust.BlockID{{1}}}
}

// contradict has a ledger hear that some have signed another milestone of an
// index.
func (f *federation) contradict(l *ledger.Ledger, index uint32, by ...int) {
	f.t.Helper()
	for _, g := range by {
		if err := l.Contradict(rival(index), consensus.SignMilestone(f.keys[g], index, rival(index).ID())); err != nil {
			f.t.Fatal(err)
		}
	}
}

// Whoever may publish can send old signatures again under the index of a
// milestone to come, or of one that stands.
func TestSignaturesSentAgainUnderAnotherIndexHaltNobody(t *testing.T) {
	f := federate(t, 4, memories)
	f.certified(f.all[0].attach(1), f.all...)
	old, err := f.all[0].ledger().Signatures(1, 1, 10)
	if err != nil || len(old) < 3 {
		t.Fatalf("%d signatures, %v", len(old), err)
	}
	for i := range 10 {
		for _, m := range f.all {
			last := m.ledger().Agreed().Milestone
			var again []consensus.Signature
			for index := max(last, 4) - 2; index < last+8; index++ {
				for _, s := range old {
					s.Index = index
					again = append(again, s)
				}
			}
			if err := m.ledger().Certify(again); err != nil {
				t.Fatal(err)
			}
		}
		f.certified(f.all[i%4].attach(1), f.all...)
	}
	for i, m := range f.all {
		if tr := m.ledger().Trouble(); tr.Conflict != 0 || m.ledger().Stats().Contradicted != 0 {
			t.Errorf("gateway %d: %+v", i, tr)
		}
		for _, d := range m.ledger().Doubts() {
			if d.Index > 1 && d.Milestone == old[0].Milestone && m.ledger().Agreed().Milestone > 1 {
				t.Errorf("gateway %d doubts what it has itself: %d", i, d.Index)
			}
		}
	}
}

func TestWhoIsContradictedByManyVotesNoMore(t *testing.T) {
	f := federate(t, 4, memories)
	l := f.all[0].ledger()
	f.certified(f.all[0].attach(1), f.all...)
	at := l.Agreed().Milestone
	bad := consensus.SignMilestone(f.keys[3], at, rival(at).ID())
	bad.Signature[0] ^= 1
	if err := l.Contradict(rival(at), bad); err != nil {
		t.Fatal(err)
	}
	f.contradict(l, at, 2)
	f.certified(f.all[0].attach(1), f.all...)
	if tr := l.Trouble(); tr.Conflict != 0 {
		t.Errorf("one gateway that may be Byzantine makes an alarm: %+v", tr)
	}
	if n := l.Stats().BadSignatures; n != 1 {
		t.Errorf("%d bad signatures are counted, want 1", n)
	}
	next := l.Agreed().Milestone
	f.contradict(l, next, 2, 3)
	eventually(t, "the contradiction is noticed", func() bool { return l.Trouble().Conflict == next })
	eventually(t, "it says so to the others, and answers", func() bool { w := l.Word(); return !w.Votes() && w.Answers })
	votes := l.Stats().Votes
	f.certified(f.all[1].attach(3), f.all[1:]...)
	if n := l.Stats().Votes; n != votes {
		t.Errorf("it votes %d times more", n-votes)
	}
}

// A certificate is not the last word: with two liars of four there may be another
// one for another milestone of the same index.
func TestWhoHearsOfAnotherCertificateVotesNoMore(t *testing.T) {
	for name, restart := range map[string]bool{"running": false, "restarted": true} {
		t.Run(name, func(t *testing.T) {
			f := federate(t, 4, func() ledger.Store { return open(t, t.TempDir()) })
			m := f.all[0]
			f.certified(m.attach(3), f.all...)
			if restart {
				m.stop()
				m.start()
			}
			l := m.ledger()
			at := l.Agreed().Certified
			one := consensus.SignMilestone(f.keys[2], at, rival(at).ID())
			if err := l.Certify([]consensus.Signature{one}); err != nil {
				t.Fatal(err)
			}
			var doubts map[network.PublicKey]consensus.Signature
			eventually(t, "it is doubted", func() bool { doubts = l.Doubts(); return len(doubts) > 0 })
			if len(doubts) != 1 || doubts[one.PublicKey] != one || l.Doubts() != nil {
				t.Errorf("doubts are %v, want the signature, once", doubts)
			}
			f.contradict(l, at, 2, 2) // the second says nothing new
			eventually(t, "the contradiction is counted", func() bool { return l.Stats().Contradicted == 1 })
			f.certified(m.attach(1), f.all...)
			if tr := l.Trouble(); tr.Conflict != 0 {
				t.Errorf("one gateway that may be Byzantine makes an alarm: %+v", tr)
			}
			other := consensus.SignMilestone(f.keys[3], at, rival(at).ID())
			if err := l.Certify([]consensus.Signature{other}); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the conflict is noticed", func() bool { return l.Trouble().Conflict == at })
			votes := l.Stats().Votes
			f.certified(f.all[1].attach(3), f.all[1:]...)
			if n := l.Stats(); n.Votes != votes || n.Contradicted != 2 {
				t.Errorf("it votes %d times more, and counts %d contradictions", n.Votes-votes, n.Contradicted)
			}
		})
	}
}

// What others have signed is not undone by a restart, nor by a disk that is full
// for a while.
func TestAHaltOutlivesARestart(t *testing.T) {
	f := federate(t, 4, func() ledger.Store { return &tired{Store: open(t, t.TempDir())} })
	m := f.all[0]
	f.certified(m.attach(3), f.all...)
	at := m.ledger().Agreed().Certified
	m.store.(*tired).busy.Store(true)
	f.contradict(m.ledger(), at, 2, 3)
	eventually(t, "the conflict is noticed", func() bool { return m.ledger().Trouble().Conflict == at })
	m.store.(*tired).busy.Store(false)
	eventually(t, "it is stored", func() bool {
		index, err := m.store.Conflict()
		return err == nil && index == at
	})
	for range 2 {
		m.stop()
		m.start()
		if tr := m.ledger().Trouble(); tr.Conflict != at {
			t.Errorf("after a restart trouble is %+v, want a conflict at %d", tr, at)
		}
		ids := f.all[1].attach(2)
		f.certified(append(ids, m.attach(1)...), f.all...) // it still takes in, and follows
		if n := m.ledger().Stats().Votes; n != 0 {
			t.Errorf("after a restart it votes %d times", n)
		}
		last, err := f.all[1].ledger().Milestone(f.all[1].ledger().Agreed().Certified)
		if err != nil {
			t.Fatal(err)
		}
		for _, sig := range last.Signatures {
			if string(sig.PublicKey[:]) == string(f.keys[0].Public().(ed25519.PublicKey)) {
				t.Error("after a restart it signs")
			}
		}
	}
	m.stop()
	if err := ledger.Trust(m.store); err != nil {
		t.Fatal(err)
	}
	m.start()
	eventually(t, "it votes again once somebody has decided", func() bool {
		f.certified(m.attach(1), f.all...)
		return m.ledger().Stats().Votes > 0
	})
	if tr := m.ledger().Trouble(); tr.Conflict != 0 {
		t.Errorf("trouble is %+v", tr)
	}
}

// A tired store has no room at times.
type tired struct {
	ledger.Store
	busy atomic.Bool
}

func (s *tired) Commit(c ledger.Change) error {
	if s.busy.Load() {
		return ledger.ErrBusy
	}
	return s.Store.Commit(c)
}

func TestCertifiedMilestonesThatContradictTheOwnOnesAreAConflict(t *testing.T) {
	for name, tt := range map[string]struct {
		ahead     uint32 // of the last one
		conflicts bool
	}{
		"another last one":         {0, true},
		"the next of another one":  {1, true},
		"a later one, after a gap": {2, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := federate(t, 1, memories)
			m := f.all[0]
			f.certified(m.attach(1), m)
			last := m.ledger().Agreed().Milestone
			step := &ledger.Import{Top: last + tt.ahead, Milestones: []ledger.Imported{{Essence: consensus.Essence{
				Index: last + tt.ahead, Previous: [32]byte{1}, NetworkHash: f.file.Hash(),
				InclusionRoot: stardust.MerkleRoot(nil), AppliedRoot: stardust.MerkleRoot(nil),
			}}}}
			if err := m.ledger().Import(t.Context(), step); !errors.Is(err, ledger.ErrForeign) {
				t.Errorf("Import = %v, want ErrForeign", err)
			}
			want := uint32(0)
			if tt.conflicts {
				want = last
			}
			stored, err := m.store.Conflict()
			if got := m.ledger().Trouble().Conflict; got != want || stored != want || err != nil {
				t.Errorf("the conflict is at %d, stored %d, %v, want %d", got, stored, err, want)
			}
		})
	}
}

func TestAGatewayThatLostItsVotesRecovers(t *testing.T) {
	f := federate(t, 4, memories)
	f.certified(f.all[3].attach(3), f.all...)
	lost := f.all[3]
	lost.stop()
	lost.store = newMemory() // and no Begin: nobody knows what it has voted
	lost.start()
	ids := f.all[0].attach(2)
	f.certified(ids, f.all...)
	eventually(t, "it knows what it may open", func() bool { return lost.ledger().Word().Answers })
	before := lost.ledger().Stats().Votes
	eventually(t, "it votes again", func() bool { // the others can do without it
		f.certified(append(lost.attach(1), f.all[1].attach(1)...), f.all...)
		return lost.ledger().Stats().Votes > before
	})
	f.agree(f.all...)
	for _, m := range f.all {
		if tr := m.ledger().Trouble(); len(tr.Equivocators) > 0 || tr.Conflict != 0 || tr.Recovering {
			t.Errorf("%d saw %+v", m.index, tr)
		}
	}
}

// Nobody can tell one of two gateways what it voted.
func TestOneOfTwoThatLostItsVotesSaysSo(t *testing.T) {
	f := federate(t, 2, memories)
	f.certified(f.all[1].attach(1), f.all...)
	lost := f.all[1]
	lost.stop()
	lost.store = newMemory()
	lost.start()
	eventually(t, "it says so", func() bool { return lost.ledger().Trouble().Recovering })
	before := f.all[0].ledger().Agreed().Milestone
	f.all[0].attach(1)
	time.Sleep(300 * time.Millisecond)
	if tr := lost.ledger().Trouble(); !tr.Recovering || f.all[0].ledger().Agreed().Milestone != before {
		t.Errorf("it went on: %+v, %+v", tr, f.all[0].ledger().Agreed())
	}
}

func TestRestartsChangeNothing(t *testing.T) {
	f := federate(t, 4, func() ledger.Store { return open(t, t.TempDir()) })
	var ids []stardust.BlockID
	for round := range 6 {
		m := f.all[round%4]
		ids = append(ids, m.attach(3)...)
		m.stop()
		time.Sleep(30 * time.Millisecond)
		m.start()
	}
	f.certified(ids, f.all...)
	f.agree(f.all...)
	for _, m := range f.all {
		if tr := m.ledger().Trouble(); len(tr.Equivocators) > 0 || tr.Conflict != 0 {
			t.Errorf("%d saw %+v", m.index, tr)
		}
	}
}

func TestANetworkFileInABlockBeginsAnEpoch(t *testing.T) {
	f := federate(t, 4, memories)
	f.certified(f.all[0].attach(2), f.all...)
	next := f.file.Next()
	if err := next.Remove("g3"); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		next.Sign(f.keys[i])
	}
	text, err := json.Marshal(next)
	if err != nil {
		t.Fatal(err)
	}
	l := f.all[1].ledger()
	update := newBlock(consensus.TagUpdate, string(text), l.Tips()...)
	id, err := l.Attach(t.Context(), update, nil)
	if err != nil {
		t.Fatal(err)
	}
	f.certified([]stardust.BlockID{id}, f.all...)
	for _, m := range f.all {
		eventually(t, "the epoch begins", func() bool { return m.ledger().Agreed().Epoch == 1 })
		if got := m.ledger().Network(next.Hash()); got == nil || len(got.Gateways) != 3 {
			t.Errorf("%d knows %v", m.index, got)
		}
	}
	f.all[3].stop() // it is no member any more
	f.certified(f.all[0].attach(3), f.all[:3]...)
	f.all[2].stop()
	f.certified(f.all[1].attach(3), f.all[:2]...) // two of three
	f.all[2].start()
	f.all[3].start()
	f.certified(f.all[1].attach(3), f.all...)
	f.agree(f.all...)
}

// A gateway that says that it has pruned what nobody has does not keep a milestone
// from getting its certificate, which the next ones do not replace.
func TestWhoClaimsToHavePrunedTakesNobodyItsCertificates(t *testing.T) {
	f := federate(t, 4, memories)
	f.lost.Store(5)
	liar := network.PublicKey(f.keys[3].Public().(ed25519.PublicKey))
	for f.all[0].ledger().Agreed().Milestone < 8 {
		for _, m := range f.all {
			m.ledger().Hear(liar, ledger.Word{Whole: 1<<32 - 1})
		}
		f.certified(f.all[0].attach(1), f.all...)
	}
	for i, m := range f.all {
		eventually(t, fmt.Sprintf("gateway %d has the certificate of milestone 5", i), func() bool {
			got, err := m.ledger().Milestone(5)
			return err == nil && len(got.Signatures) >= 3
		})
	}
}
