package peer_test

import (
	"bytes"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/peer"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// Three of four certify a milestone, and the fourth says that it has another one:
// it is asked for what it has, which is believed if more signed it than may lie.
func TestWhoContradictsIsAskedForItsCertificate(t *testing.T) {
	for name, signers := range map[string][]string{"one that has a certificate": {"b", "c", "r"}, "a liar": {"r"}} {
		t.Run(name, func(t *testing.T) {
			s := newVotingSite(t, "a", "b", "c", "r")
			a := s.fresh("a")
			s.fresh("b")
			s.fresh("c")
			certifiedAt(t, a, a.grow(3)...)
			at := a.Agreed().Certified
			rival := &consensus.Essence{Index: at, Timestamp: 1, Parents: []stardust.BlockID{{1}}}
			var other, own []byte
			for _, signer := range signers {
				sig := consensus.SignMilestone(s.keys[signer], at, rival.ID())
				if other = sig.AppendBinary(other); signer == "r" {
					own = sig.AppendBinary(nil)
				}
			}
			r := s.rogue("r")
			var asked atomic.Int64
			r.answer(func(request []byte) []byte {
				switch peer.KindOf(request) {
				case peer.Essences:
					return rival.AppendBinary(nil)
				case peer.Signatures:
					asked.Add(1)
					return other
				}
				return nil
			})
			eventually(t, "it is asked", func() bool {
				r.send("a", r.Frame(peer.Frontier, s.public("a"), "", peer.WordBody(ledger.Word{Milestone: at, Certified: at}, 0, false)))
				r.certified(own)
				return asked.Load() > 0
			})
			if len(signers) > 1 {
				eventually(t, "the conflict is noticed", func() bool { return a.Trouble().Conflict == at })
				return
			}
			eventually(t, "the contradiction is counted", func() bool { return a.Stats().Contradicted > 0 })
			certifiedAt(t, a, a.attachOne("on it goes"))
			if tr, n := a.Trouble(), a.Stats().Contradicted; tr.Conflict != 0 || n != 1 {
				t.Errorf("%+v after %d contradictions", tr, n)
			}
		})
	}
}

// Whoever contradicts all the time is asked now and then, about one milestone,
// and not listened to when it answers with more than members can sign.
func TestALiarIsAskedNowAndThen(t *testing.T) {
	s := newSite(t, "a", "b", "r")
	v, r := s.view("a"), s.rogue("r")
	v.derive(100, s.keys["a"], s.keys["b"])
	var asked atomic.Int64
	rival := &consensus.Essence{Index: 7, Timestamp: 1, Parents: []stardust.BlockID{{1}}}
	flood := consensus.SignMilestone(s.keys["r"], 7, rival.ID())
	r.answer(func(request []byte) []byte {
		switch peer.KindOf(request) {
		case peer.Essences:
			return rival.AppendBinary(nil)
		case peer.Signatures:
			asked.Add(1)
			return bytes.Repeat(flood.AppendBinary(nil), network.MaxGateways+1)
		}
		return nil
	})
	a := s.fresh("a")
	key, began := network.PublicKey(s.public("r")), time.Now()
	eventually(t, "it is blamed", func() bool {
		r.send("a", r.Frame(peer.Frontier, s.public("a"), "", peer.WordBody(ledger.Word{}, 0, false)))
		v.mu.Lock()
		v.doubts = map[network.PublicKey]consensus.Signature{key: flood}
		v.mu.Unlock()
		return a.seen("r").Standing < 1
	})
	if n, took := asked.Load(), time.Since(began); n == 0 || n > 1+int64(took/time.Second) {
		t.Errorf("it was asked %d times in %v", n, took)
	}
}
