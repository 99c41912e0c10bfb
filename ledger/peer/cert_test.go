package peer_test

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/peer"
)

// derive has the gateway derive, sign and publish milestones up to last.
func (s *site) derive(g *gateway, last uint32) {
	for _, signature := range s.view(g.name).derive(last, s.keys[g.name]) {
		g.peers.Certified(signature)
	}
}

// certified publishes bytes as signatures.
func (r *rogue) certified(message []byte) {
	r.site.t.Helper()
	if err := r.conn.Publish(r.site.prefix()+".cert", message); err != nil {
		r.site.t.Fatal(err)
	}
}

func TestSignaturesReachAll(t *testing.T) {
	s := newSite(t, "a", "b", "c", "d")
	var all []*gateway
	for name := range s.keys {
		s.view(name)
		all = append(all, s.fresh(name))
	}
	for _, g := range all {
		s.derive(g, 300)
	}
	for _, g := range all {
		eventually(t, "all is certified", func() bool { return s.view(g.name).certified() == 300 })
	}
}

// Whoever was away, or lost messages, asks for what it lacks: of one that has it
// all, or of one that has its own, and for more than one answer takes.
func TestLostSignaturesAreAskedFor(t *testing.T) {
	const n = 1500
	for name, signers := range map[string][]string{"of one that has all": {"b", "c"}, "of one that has its own": {"b"}} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, "a", "b", "c") // a quorum is two
			var keys []ed25519.PrivateKey
			for _, signer := range signers {
				keys = append(keys, s.keys[signer])
			}
			a, b := s.view("a"), s.view("b")
			a.derive(n, s.keys["a"])
			b.derive(n, keys...)
			s.fresh("b")
			began := time.Now()
			s.fresh("a")
			eventually(t, "all is certified", func() bool { return a.certified() == n })
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// None of these is certified, or keeps what is right from being so.
func TestPublishedSignaturesThatAreNotToBeHeeded(t *testing.T) {
	sign := func(key ed25519.PrivateKey, index uint32) []byte {
		signature := consensus.SignMilestone(key, index, milestone(index))
		return signature.AppendBinary(nil)
	}
	_, stranger, _ := ed25519.GenerateKey(nil)
	for name, tt := range map[string]struct {
		message func(s *site) []byte
		count   func(g *gateway) uint64 // nil: the replica counts it
	}{
		"nothing": {
			func(*site) []byte { return nil },
			func(g *gateway) uint64 { return g.peers.Stats().Strange },
		},
		"one that ends early": {
			func(s *site) []byte { return sign(s.keys["b"], 1)[:132] },
			func(g *gateway) uint64 { return g.peers.Stats().Strange },
		},
		"of another version": {
			func(s *site) []byte { m := sign(s.keys["b"], 1); m[0] = 2; return m },
			func(g *gateway) uint64 { return g.peers.Stats().Strange },
		},
		"too many": {
			func(s *site) []byte { return bytes.Repeat(sign(s.keys["b"], 1), 65) },
			func(g *gateway) uint64 { return g.peers.Stats().Strange },
		},
		"as long as NATS carries": {
			func(*site) []byte { return make([]byte, 1<<20) },
			func(g *gateway) uint64 { return g.peers.Stats().Strange },
		},
		"of a key that is no member": {
			func(*site) []byte { return sign(stranger, 1) },
			func(g *gateway) uint64 { return g.peers.Stats().Strange },
		},
		"in another's name": {
			func(s *site) []byte { m := sign(s.keys["r"], 1); copy(m[37:], s.public("b")); return m },
			nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, "a", "b", "r")
			v, r := s.view("a"), s.rogue("r")
			a := s.fresh("a")
			v.derive(1, s.keys["a"])
			r.certified(tt.message(s))
			if tt.count == nil {
				tt.count = func(*gateway) uint64 { return v.refused() }
			}
			eventually(t, "it is counted", func() bool { return tt.count(a) > 0 })
			if v.certified() > 0 {
				t.Error("it is certified")
			}
			r.certified(sign(s.keys["b"], 1))
			eventually(t, "the right one is taken", func() bool { return v.certified() == 1 })
		})
	}
}

// Of one key a limited number is verified, whoever sends it; those of others are
// not held up.
func TestAFloodOfSignaturesIsLimited(t *testing.T) {
	s := newSite(t, "a", "b", "r", "q") // a quorum is three
	v, r := s.view("a"), s.rogue("r")
	a, b := s.fresh("a"), s.fresh("b")
	v.derive(20, s.keys["a"], s.keys["q"])
	flood := consensus.SignMilestone(s.keys["r"], 1, [32]byte{1})
	for range 200 {
		r.certified(bytes.Repeat(flood.AppendBinary(nil), 64))
	}
	s.view("b")
	for i := range uint32(20) {
		b.peers.Certified(consensus.SignMilestone(s.keys["b"], i+1, milestone(i+1)))
	}
	eventually(t, "those of b are taken", func() bool { return v.certified() == 20 })
	eventually(t, "the flood is limited", func() bool { return a.seen("r").Limited > 200*64-1000 })
}

// A gateway publishes into the void as long as it likes.
func TestSignaturesDoNotBlock(t *testing.T) {
	s := newSite(t, "a", "b")
	p, err := peer.New(peer.Config{Network: s.file, Key: s.keys["a"], Conn: s.connect(), Cursors: &shelf{}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 3000 {
		p.Certified(consensus.Signature{})
	}
	if n := p.Stats().SignaturesUnsent; n != 3000-1024 {
		t.Errorf("%d signatures found no room", n)
	}
}

// A member that answers with what was not asked for, or is wrong, loses its
// standing; the honest one is asked as well.
func TestAnswersThatAreNoSignatures(t *testing.T) {
	sign := func(s *site, index uint32) []byte {
		signature := consensus.SignMilestone(s.keys["r"], index, milestone(index))
		return signature.AppendBinary(nil)
	}
	for name, answer := range map[string]func(s *site) []byte{
		"junk":          func(*site) []byte { return []byte("junk") },
		"too many":      func(s *site) []byte { return bytes.Repeat(sign(s, 1), 2049) },
		"others":        func(s *site) []byte { return sign(s, 9) },
		"in no order":   func(s *site) []byte { return append(sign(s, 2), sign(s, 1)...) },
		"a wrong one":   func(s *site) []byte { m := sign(s, 1); m[132] ^= 1; return m },
		"none, forever": func(*site) []byte { return []byte{} },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, "a", "b", "r")
			v, r := s.view("a"), s.rogue("r")
			v.derive(2, s.keys["a"])
			s.view("b").derive(2, s.keys["b"], s.keys["r"])
			var asked atomic.Int64
			r.answer(func(request []byte) []byte {
				if peer.KindOf(request) != peer.Signatures {
					return nil
				}
				asked.Add(1)
				return answer(s)
			})
			a := s.fresh("a")
			eventually(t, "it is asked", func() bool {
				w := ledger.Word{Milestone: 100, Certified: 100}
				r.send("a", r.Frame(peer.Frontier, s.public("a"), "", peer.WordBody(w, 0, false)))
				return asked.Load() > 0
			})
			if m := a.seen("r"); name != "none, forever" && name != "a wrong one" { // the replica verifies later
				eventually(t, "it is blamed", func() bool { m = a.seen("r"); return m.Standing < 1 })
			}
			s.fresh("b")
			eventually(t, "all is certified", func() bool { return v.certified() == 2 })
		})
	}
}

func TestRequestsForSignatures(t *testing.T) {
	s := newSite(t, "a", "r")
	s.view("a").derive(3000, s.keys["a"])
	a, r := s.fresh("a"), s.rogue("r")
	for i, tt := range []struct {
		body []byte
		size int // of the answer's body; 0: it is malformed
	}{
		{peer.Span(2, 4), 3 * 133},
		{peer.Span(1, 1<<32-1), 2048 * 133},
		{peer.Span(2, 4)[:7], 0},
		{peer.Span(0, 4), 0},
		{peer.Span(4, 2), 0},
	} {
		inbox := fmt.Sprint(s.prefix(), ".inbox.r.", i)
		answers, err := r.conn.SubscribeSync(inbox)
		if err != nil {
			t.Fatal(err)
		}
		before := a.seen("r").Malformed
		subject := s.prefix() + ".peer." + s.file.Gateways[0].PublicKey.SubjectID()
		if err := r.conn.PublishRequest(subject, inbox, r.Frame(peer.Signatures, s.public("a"), inbox, tt.body)); err != nil {
			t.Fatal(err)
		}
		if tt.size == 0 {
			eventually(t, "it is malformed", func() bool { return a.seen("r").Malformed == before+1 })
			continue
		}
		m, err := answers.NextMsg(10 * time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if got := peer.BodySize(m.Data); got != tt.size {
			t.Errorf("%x: answered with %d bytes, want %d", tt.body, got, tt.size)
		}
	}
}
