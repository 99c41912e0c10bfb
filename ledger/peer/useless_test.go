package peer_test

import (
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/peer"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// openers returns n votes that open round 1 of an epoch, by the gateway with a name.
func (s *site) openers(name string, epoch uint32, n int) (raws [][]byte) {
	s.t.Helper()
	public := s.public(name)
	g, ok := s.file.Index(public)
	if !ok {
		s.t.Fatalf("%s is no member", name)
	}
	for i := range n {
		v := consensus.Vote{Claim: consensus.Claim{Epoch: epoch, Gateway: uint8(g), Round: 1, Seen: 1 << g}, TimeMs: uint64(i + 1)}
		raw, err := v.Block(s.keys[name], s.file.Hash(), []stardust.BlockID{stardust.GenesisID}).AppendBinary(nil)
		if err != nil {
			s.t.Fatal(err)
		}
		raws = append(raws, raw)
	}
	return raws
}

// A member that names votes of an equivocator which this replica has no use for
// is not at fault, and is not asked for them each time.
func TestNamingUselessVotesIsNoFault(t *testing.T) {
	s := newSite(t, "a", "b", "r", "x")
	a, r := s.fresh("a"), s.rogue("r")
	flood := s.openers("x", 0, 40)
	if _, err := a.Receive(t.Context(), []ledger.Incoming{{From: "x", Raw: flood[0]}, {From: "x", Raw: flood[1]}}); err != nil {
		t.Fatal(err)
	}
	var rest []ledger.Incoming
	for _, raw := range flood[2:] {
		rest = append(rest, ledger.Incoming{From: "x", Raw: raw})
	}
	if _, err := a.Receive(t.Context(), rest); err != nil { // what they tell is known: they are forgotten
		t.Fatal(err)
	}
	useless := flood[len(flood)-1]
	eventually(t, "the vote is deleted", func() bool {
		ok, err := a.Has(stardust.IDOf(useless))
		_, other := block(t, "so that another one is the last", stardust.GenesisID)
		if _, err := a.Receive(t.Context(), []ledger.Incoming{{From: "x", Raw: other}}); err != nil {
			t.Fatal(err)
		}
		return !ok && err == nil
	})
	var asked atomic.Int32
	id := stardust.IDOf(useless)
	r.answer(func(request []byte) []byte {
		switch peer.KindOf(request) {
		case peer.Order:
			return peer.PageBody([8]byte{9}, 1, true, id[:])
		case peer.Blocks:
			asked.Add(1)
			return peer.BlocksBody(useless)
		}
		return nil
	})
	sent := 0
	eventually(t, "forty frontiers that name it are heard", func() bool {
		r.send("a", r.Frame(peer.Frontier, s.public("a"), "", peer.FrontierBody([8]byte{9}, 1, id)))
		sent++
		return sent > 40 && a.seen("r").Useless > 0
	})
	if m := a.seen("r"); m.Standing < 1 || !m.ShunnedUntil.IsZero() {
		t.Errorf("its standing is %v, %+v", m.Standing, m.MemberCounts)
	}
	if n := asked.Load(); n > 2 {
		t.Errorf("it was asked for the vote %d times", n)
	}
}

// Neither is one that is an epoch ahead.
func TestNamingVotesOfALaterEpochIsNoFault(t *testing.T) {
	s := newSite(t, "a", "b", "r", "x")
	a, r := s.fresh("a"), s.rogue("r")
	ahead := slices.Concat(s.openers("x", 1, 3), s.openers("x", 2, 3))
	var ids []stardust.BlockID
	for _, raw := range ahead {
		ids = append(ids, stardust.IDOf(raw))
	}
	var walks atomic.Int32
	r.answer(func(request []byte) []byte {
		switch peer.KindOf(request) {
		case peer.Order:
			walks.Add(1)
			return peer.PageBody([8]byte{9}, uint64(len(ids)), true, peer.IDs(ids...))
		case peer.Blocks:
			return peer.BlocksBody(ahead...)
		}
		return nil
	})
	eventually(t, "it is walked a few times", func() bool {
		r.send("a", r.Frame(peer.Frontier, s.public("a"), "", peer.FrontierBody([8]byte{9}, 6, ids[5])))
		return walks.Load() >= 3
	})
	if m := a.seen("r"); m.Standing < 1 {
		t.Errorf("its standing is %v, %+v", m.Standing, m.MemberCounts)
	}
	if n := a.Stats().Parked; n != 3 {
		t.Errorf("%d votes are parked, want those of the next epoch, once each", n)
	}
}

// Whoever has come as far as a block that was deleted goes on from there, and not
// from the beginning.
func TestAWalkGoesOnBehindADeletedBlock(t *testing.T) {
	s := newSite(t, "a", "b", "r", "x")
	a, r := s.fresh("a"), s.rogue("r")
	fill(t, a, 200)
	flood := s.openers("x", 0, 6)
	for _, raw := range flood {
		if _, err := a.Receive(t.Context(), []ledger.Incoming{{From: "x", Raw: raw}}); err != nil {
			t.Fatal(err)
		}
	}
	at, gone := a.Position()-1, stardust.IDOf(flood[4])
	if id, err := a.At(at); id != gone || err != nil {
		t.Fatalf("block at %d is %v, %v", at, id, err)
	}
	eventually(t, "the vote is deleted", func() bool {
		ok, err := a.Has(gone)
		return !ok && err == nil
	})
	inbox := s.prefix() + ".inbox.r.1"
	answers, err := r.conn.SubscribeSync(inbox)
	if err != nil {
		t.Fatal(err)
	}
	subject := s.prefix() + ".peer." + network.PublicKey(s.public("a")).SubjectID()
	for name, tt := range map[string]struct {
		id    stardust.BlockID
		at    uint64
		whole bool
	}{
		"a deleted block":      {gone, at, false},
		"another block":        {gone, at - 10, true},
		"a place not yet come": {gone, at + 100, true},
	} {
		if err := r.conn.PublishRequest(subject, inbox, r.Frame(peer.Order, s.public("a"), inbox, peer.PlaceOf(tt.at, tt.id))); err != nil {
			t.Fatal(err)
		}
		m, err := answers.NextMsg(10 * time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if size := peer.BodySize(m.Data); (size > 100*32) != tt.whole {
			t.Errorf("behind %s: %d bytes", name, size)
		}
	}
}
