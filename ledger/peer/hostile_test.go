package peer_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/peer"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// A rogue is a member that runs code of its own.
type rogue struct {
	peer.Forger
	site *site
	conn *nats.Conn
	key  ed25519.PublicKey
}

func (s *site) rogue(name string) *rogue {
	key := s.keys[name]
	return &rogue{peer.NewForger(key, s.file.GenesisHash()), s, s.connect(), key.Public().(ed25519.PublicKey)}
}

// prefix is that of the network's subjects.
func (s *site) prefix() string { return network.SubjectPrefix(s.file.GenesisHash()) }

func (s *site) public(name string) ed25519.PublicKey {
	return s.keys[name].Public().(ed25519.PublicKey)
}

// publish sends a frame as gossip.
func (r *rogue) publish(frame []byte) {
	r.site.t.Helper()
	if err := r.conn.Publish(r.site.prefix()+".block", frame); err != nil {
		r.site.t.Fatal(err)
	}
}

// send sends a frame to one gateway.
func (r *rogue) send(to string, frame []byte) {
	r.site.t.Helper()
	subject := r.site.prefix() + ".peer." + network.PublicKey(r.site.public(to)).SubjectID()
	if err := r.conn.Publish(subject, frame); err != nil {
		r.site.t.Fatal(err)
	}
}

// answer answers requests with what f returns, if anything.
func (r *rogue) answer(f func(request []byte) []byte) {
	r.site.t.Helper()
	_, err := r.conn.Subscribe(r.site.prefix()+".peer."+network.PublicKey(r.key).SubjectID(), func(m *nats.Msg) {
		if m.Reply == "" {
			return
		}
		if body := f(m.Data); body != nil {
			_ = m.Respond(r.Reply(m.Data, body))
		}
	})
	if err != nil {
		r.site.t.Fatal(err)
	}
	if err := r.conn.Flush(); err != nil {
		r.site.t.Fatal(err)
	}
}

// seen returns what g counted of a member.
func (g *gateway) seen(name string) peer.Member {
	for _, m := range g.peers.Stats().Members {
		if m.Name == name {
			return m
		}
	}
	g.t.Fatalf("no member %s", name)
	return peer.Member{}
}

func block(t testing.TB, data string, parents ...stardust.BlockID) (stardust.BlockID, []byte) {
	t.Helper()
	b := &stardust.Block{
		Version: stardust.ProtocolVersion, Parents: stardust.SortParents(parents),
		Payload: &stardust.TaggedData{Data: []byte(data)},
	}
	raw, err := b.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	return stardust.IDOf(raw), raw
}

// Each of these is counted, stores nothing and leaves the gateway serving the
// honest member.
func TestFramesThatAreNotToBeHeeded(t *testing.T) {
	_, good := block(t, "good", stardust.GenesisID)
	for name, tt := range map[string]struct {
		send  func(s *site, r *rogue)
		count func(g *gateway) uint64
	}{
		"garbage": {
			func(_ *site, r *rogue) { r.publish([]byte("hello")) },
			func(g *gateway) uint64 { return g.peers.Stats().Strange },
		},
		"a key that is no member": {
			func(s *site, r *rogue) {
				_, key, _ := ed25519.GenerateKey(nil)
				r.publish(peer.NewForger(key, s.file.GenesisHash()).Frame(peer.Gossip, nil, "", peer.BlocksBody(good)))
			},
			func(g *gateway) uint64 { return g.peers.Stats().Strange },
		},
		"another network": {
			func(s *site, r *rogue) {
				r.publish(peer.NewForger(s.keys["r"], [32]byte{1}).Frame(peer.Gossip, nil, "", peer.BlocksBody(good)))
			},
			func(g *gateway) uint64 { return g.seen("r").Forged },
		},
		"another member's name": {
			func(s *site, r *rogue) {
				f := r.Frame(peer.Gossip, nil, "", peer.BlocksBody(good))
				copy(f[2:], s.public("b"))
				r.publish(f)
			},
			func(g *gateway) uint64 { return g.seen("b").Forged },
		},
		"a changed block": {
			func(_ *site, r *rogue) {
				f := r.Frame(peer.Gossip, nil, "", peer.BlocksBody(good))
				f[len(f)-70] ^= 1
				r.publish(f)
			},
			func(g *gateway) uint64 { return g.seen("r").Forged },
		},
		"a frame for another gateway": {
			func(s *site, r *rogue) {
				r.send("a", r.Frame(peer.Frontier, s.public("b"), "", peer.FrontierBody([8]byte{}, 1)))
			},
			func(g *gateway) uint64 { return g.seen("r").Forged },
		},
		"a body that ends early": {
			func(_ *site, r *rogue) { r.publish(r.Frame(peer.Gossip, nil, "", []byte{200, 0, 1})) },
			func(g *gateway) uint64 { return g.seen("r").Malformed },
		},
		"a frontier of too many tips": {
			func(s *site, r *rogue) {
				r.send("a", r.Frame(peer.Frontier, s.public("a"), "", append(peer.FrontierBody([8]byte{}, 1), 1, 2, 3)))
			},
			func(g *gateway) uint64 { return g.seen("r").Malformed },
		},
		"an invalid block": {
			func(_ *site, r *rogue) { r.publish(r.Frame(peer.Gossip, nil, "", peer.BlocksBody(good[:len(good)-1]))) },
			func(g *gateway) uint64 { return g.seen("r").Invalid },
		},
		"an orphan": {
			func(_ *site, r *rogue) {
				_, raw := block(t, "orphan", stardust.IDOf([]byte("nobody has it")))
				r.publish(r.Frame(peer.Gossip, nil, "", peer.BlocksBody(raw)))
			},
			func(g *gateway) uint64 { return g.seen("r").Held },
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, "a", "b", "r")
			a, b, r := s.fresh("a"), s.fresh("b"), s.rogue("r")
			tt.send(s, r)
			eventually(t, "it is counted", func() bool { return tt.count(a) > 0 })
			b.attach(3, "b")
			equal(t, 3, a, b)
		})
	}
}

func TestAFrameThatIsSentAgainIsIgnored(t *testing.T) {
	s := newSite(t, "a", "r")
	a, r := s.fresh("a"), s.rogue("r")
	_, one := block(t, "one", stardust.GenesisID)
	_, two := block(t, "two", stardust.GenesisID)
	first, second := r.Frame(peer.Gossip, nil, "", peer.BlocksBody(one)), r.Frame(peer.Gossip, nil, "", peer.BlocksBody(two))
	for _, f := range [][]byte{first, second, first, second} {
		r.publish(f)
	}
	eventually(t, "both are replayed", func() bool { m := a.seen("r"); return m.Replayed == 2 && m.New == 2 })
	if m := a.seen("r"); m.Duplicates != 0 {
		t.Errorf("%+v", m)
	}
}

// Who goes on sending what no honest gateway sends is not listened to, and
// then again.
func TestAMemberThatMisbehavesIsShunned(t *testing.T) {
	s := newSite(t, "a", "b", "r")
	a, b, r := s.fresh("a"), s.fresh("b"), s.rogue("r")
	for range 10 {
		r.publish(r.Frame(peer.Gossip, nil, "", []byte{1}))
	}
	eventually(t, "it is shunned", func() bool { return a.seen("r").Shunned > 0 && !a.seen("r").ShunnedUntil.IsZero() })
	if m := a.seen("r"); m.Malformed > 5 {
		t.Errorf("%d frames were read before it was shunned", m.Malformed)
	}
	b.attach(3, "b")
	equal(t, 3, a, b)
}

func TestAFloodIsLimited(t *testing.T) {
	s := newSite(t, "a", "b", "r")
	a, b, r := s.fresh("a"), s.fresh("b"), s.rogue("r")
	for i := range 5000 {
		_, raw := block(t, fmt.Sprint(i), stardust.IDOf(fmt.Append(nil, i)))
		r.publish(r.Frame(peer.Gossip, nil, "", peer.BlocksBody(raw)))
	}
	b.attach(20, "b")
	equal(t, 20, a, b)
	eventually(t, "some of the flood is held", func() bool { return a.seen("r").Held > 0 })
	if st := a.Stats(); st.Held > 4096 {
		t.Errorf("%d blocks are held", st.Held)
	}
	if n := a.peers.Stats().Wanted; n > 2*1024 { // of two senders
		t.Errorf("%d parents are asked for", n)
	}
}

// A member that promises blocks without end, or hands out others than it named,
// costs one request at a time and loses its standing; the honest one is
// followed meanwhile.
func TestPromisesWithoutBlocks(t *testing.T) {
	junk := make([]byte, 8192*32)
	for i := 0; i < len(junk); i += 8 {
		binary.LittleEndian.PutUint64(junk[i:], uint64(i)+1)
	}
	_, other := block(t, "another one", stardust.GenesisID)
	for name, answer := range map[string]func(request []byte) []byte{
		"ids without blocks": func(request []byte) []byte {
			switch peer.KindOf(request) {
			case peer.Order:
				return peer.PageBody([8]byte{9}, 3, false, junk[:96])
			case peer.Blocks:
				return []byte{}
			}
			return nil
		},
		"other blocks": func(request []byte) []byte {
			switch peer.KindOf(request) {
			case peer.Order:
				return peer.PageBody([8]byte{9}, 3, false, junk[:96])
			case peer.Blocks:
				return peer.BlocksBody(other)
			}
			return nil
		},
		"a page that does not go on": func([]byte) []byte { return peer.PageBody([8]byte{9}, 0, false, nil) },
		"a page of nothing":          func([]byte) []byte { return []byte{} },
		"a long page and no blocks": func(request []byte) []byte {
			if peer.KindOf(request) == peer.Order {
				return peer.PageBody([8]byte{9}, 1<<60, false, junk)
			}
			return peer.PageBody([8]byte{9}, 1<<61, false, nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, "a", "b", "r")
			a, b, r := s.fresh("a"), s.fresh("b"), s.rogue("r")
			r.answer(answer)
			tip := stardust.IDOf([]byte("a tip"))
			eventually(t, "it is shunned", func() bool {
				r.send("a", r.Frame(peer.Frontier, s.public("a"), "", peer.FrontierBody([8]byte{9}, 1<<40, tip)))
				return a.seen("r").ShunnedUntil.After(a.seen("r").Heard)
			})
			b.attach(30, "b")
			// The block that the rogue handed out may be on its way from a to b.
			eventually(t, "equal replicas of 30 blocks or one more", func() bool {
				x, errA := a.Digest()
				y, errB := b.Digest()
				return errA == nil && errB == nil && x == y && a.Stats().Blocks >= 30
			})
		})
	}
}

// An answer counts for its request only, and only from whom it was asked.
func TestForgedAnswersAreIgnored(t *testing.T) {
	s := newSite(t, "a", "b", "r")
	a, r := s.fresh("a"), s.rogue("r")
	// r listens to what is sent to b, and answers in b's place.
	_, err := r.conn.Subscribe(s.prefix()+".peer."+network.PublicKey(s.public("b")).SubjectID(), func(m *nats.Msg) {
		if m.Reply != "" {
			f := r.Reply(m.Data, peer.PageBody([8]byte{}, 0, true, nil))
			copy(f[2:], s.public("b"))
			_ = m.Respond(f)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	_ = r.conn.Flush()
	honest := peer.NewForger(s.keys["b"], s.file.GenesisHash())
	tip := stardust.IDOf([]byte("a tip"))
	r.send("a", honest.Frame(peer.Frontier, s.public("a"), "", peer.FrontierBody([8]byte{9}, 5, tip)))
	eventually(t, "it is counted", func() bool { return a.peers.Stats().Strange > 0 && a.seen("b").Unanswered > 0 })
	if m := a.seen("b"); m.Standing < 1 {
		t.Errorf("b has to answer for it: %+v", m)
	}
}

// A request is served to who signed it only, and only into an inbox.
func TestRequestsOfOthersAreNotServed(t *testing.T) {
	s := newSite(t, "a", "b", "r")
	a, r := s.fresh("a"), s.rogue("r")
	a.attach(3, "a")
	subject := s.prefix() + ".peer." + network.PublicKey(s.public("a")).SubjectID()
	inbox := s.prefix() + ".inbox.r.1"
	ask := func(reply string, frame []byte) {
		t.Helper()
		if err := r.conn.PublishRequest(subject, reply, frame); err != nil {
			t.Fatal(err)
		}
	}
	answers, err := r.conn.SubscribeSync(">")
	if err != nil {
		t.Fatal(err)
	}
	ask(inbox+".other", r.Frame(peer.Order, s.public("a"), inbox, peer.Beginning())) // signed for another inbox
	eventually(t, "it is refused", func() bool { return a.seen("r").Forged == 1 })
	ask("commands.valve", r.Frame(peer.Order, s.public("a"), "commands.valve", peer.Beginning()))
	eventually(t, "it is refused", func() bool { return a.peers.Stats().Strange == 1 })
	ask(inbox, r.Frame(peer.Order, s.public("a"), inbox, peer.Beginning()))
	eventually(t, "it is served", func() bool { return a.seen("r").Served > 0 })
	for {
		m, err := answers.NextMsg(10 * time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if m.Subject == "commands.valve" || m.Subject == inbox+".other" {
			t.Errorf("answered on %s", m.Subject)
		}
		if m.Subject == inbox {
			break
		}
	}
}

// A missing parent is asked for by its id, from who sent its child, and when
// that one has lost it from the others.
func TestAMissingParentIsFetched(t *testing.T) {
	parentID, parent := block(t, "parent", stardust.GenesisID)
	_, child := block(t, "child", parentID)
	for name, handsOut := range map[string][]byte{"from the sender": peer.BlocksBody(parent), "from another": {}} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, "a", "b", "r")
			a, b, r := s.fresh("a"), s.fresh("b"), s.rogue("r")
			var asked atomic.Bool
			r.answer(func(request []byte) []byte {
				if peer.KindOf(request) != peer.Blocks || !bytes.Contains(request, parentID[:]) {
					return nil
				}
				asked.Store(true)
				return handsOut
			})
			r.publish(r.Frame(peer.Gossip, nil, "", peer.BlocksBody(child)))
			eventually(t, "the sender is asked", asked.Load)
			if len(handsOut) == 0 {
				if _, err := b.Receive(t.Context(), []ledger.Incoming{{From: "test", Raw: parent}}); err != nil {
					t.Fatal(err)
				}
			}
			equal(t, 2, a, b)
		})
	}
}

// A member that names parents and does not answer for them delays no parents of
// others.
func TestASilentMemberHoldsUpNobody(t *testing.T) {
	s := newSite(t, "a", "q", "r")
	a, q, r := s.fresh("a"), s.rogue("q"), s.rogue("r")
	parentID, parent := block(t, "parent", stardust.GenesisID)
	childID, child := block(t, "child", parentID)
	var silent atomic.Int64
	r.answer(func(request []byte) []byte {
		if peer.KindOf(request) == peer.Blocks {
			silent.Add(1)
		}
		return nil
	})
	q.answer(func(request []byte) []byte {
		if peer.KindOf(request) == peer.Blocks && bytes.Contains(request, parentID[:]) {
			return peer.BlocksBody(parent)
		}
		return nil
	})
	_, orphan := block(t, "orphan", stardust.IDOf([]byte("nobody has it")))
	r.publish(r.Frame(peer.Gossip, nil, "", peer.BlocksBody(orphan)))
	eventually(t, "r is asked", func() bool { return silent.Load() > 0 })
	q.publish(q.Frame(peer.Gossip, nil, "", peer.BlocksBody(child)))
	began := time.Now()
	eventually(t, "the child is stored", func() bool { ok, _ := a.Has(childID); return ok })
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
}

// A member that goes on for ever, bringing nothing, has its turn and no more.
func TestAnEndlessOrderDoesNotKeepFromOthers(t *testing.T) {
	s := newSite(t, "a", "b", "r")
	r := s.rogue("r")
	goodID, good := block(t, "good", stardust.GenesisID)
	var bogus []byte
	for i := range 8192 {
		id := stardust.IDOf(fmt.Append(nil, i))
		bogus = append(bogus, id[:]...)
	}
	var streams atomic.Int64
	r.answer(func(request []byte) []byte {
		at := binary.LittleEndian.Uint64(request[50:])
		switch peer.KindOf(request) {
		case peer.Order:
			return peer.PageAfter([8]byte{1}, at, at+8192, bogus)
		case peer.Stream:
			streams.Add(1)
			return peer.PageAfter([8]byte{1}, at, at+1, peer.BlocksBody(good))
		}
		return nil
	})
	a := s.fresh("a")
	r.publish(r.Frame(peer.Gossip, nil, "", peer.BlocksBody(good)))
	eventually(t, "good is there", func() bool { ok, _ := a.Has(goodID); return ok })
	tip := stardust.IDOf([]byte("a tip"))
	eventually(t, "it streams", func() bool {
		r.send("a", r.Frame(peer.Frontier, s.public("a"), "", peer.FrontierBody([8]byte{1}, 1<<40, tip)))
		return streams.Load() > 0
	})
	b := s.fresh("b")
	fill(t, b, 50) // not gossiped
	eventually(t, "a has what b has", func() bool {
		r.send("a", r.Frame(peer.Frontier, s.public("a"), "", peer.FrontierBody([8]byte{1}, 1<<40, tip)))
		return a.Position() == 51
	})
}

// What an honest member signed for somebody, sent where it does not belong,
// counts for nothing against it.
func TestAFrameInTheWrongPlaceIsNoFault(t *testing.T) {
	s := newSite(t, "a", "b")
	a, b := s.fresh("a"), s.rogue("b")
	subject := s.prefix() + ".peer." + s.file.Gateways[0].PublicKey.SubjectID()
	for i, frame := range [][]byte{
		b.Frame(peer.Answer, s.public("a"), "a signature", []byte{0}),
		b.Frame(peer.Gossip, nil, "a signature", []byte{1}),
		b.Frame(peer.Order, s.public("a"), "a signature", peer.Beginning()), // its reply is no inbox
	} {
		if err := b.conn.PublishRequest(subject, "a signature", frame); err == nil {
			t.Error("a subject with a space is published")
		}
		if err := b.conn.PublishRequest(subject, "elsewhere", frame); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is counted", func() bool { return a.peers.Stats().Strange == uint64(i+1) })
	}
	b.publish(b.Frame(peer.Frontier, nil, "", peer.FrontierBody([8]byte{}, 0)))
	eventually(t, "it is counted", func() bool { return a.peers.Stats().Strange == 4 })
	if m := a.seen("b"); m.Standing < 1 || m.Malformed+m.Forged > 0 {
		t.Errorf("%+v", m)
	}
}

// A member of a newer version sends what this one cannot read: that is not its
// fault, and the rest of what it sends is taken.
func TestAMemberOfANewerVersionKeepsItsStanding(t *testing.T) {
	s := newSite(t, "a", "b")
	a, b := s.fresh("a"), s.rogue("b")
	_, newer := block(t, "new kind", stardust.GenesisID)
	newer[2+32+4] = 77 // payload type, after version, parents and length
	plainID, plain := block(t, "old kind", stardust.GenesisID)
	for range 8 {
		b.publish(b.Frame(peer.Gossip, nil, "", peer.BlocksBody(newer)))
	}
	b.publish(b.Frame(peer.Gossip, nil, "", peer.BlocksBody(plain)))
	eventually(t, "the other block is taken", func() bool { ok, _ := a.Has(plainID); return ok })
	if m := a.seen("b"); m.Standing < 1 || m.Unsupported == 0 || m.Invalid > 0 {
		t.Errorf("%+v", m)
	}
}
