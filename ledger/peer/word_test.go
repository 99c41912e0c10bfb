package peer_test

import (
	"reflect"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/peer"
)

// frontiers passes what is sent to r to f, and returns once it is listened to.
func (r *rogue) frontiers(f func(frame []byte)) {
	r.site.t.Helper()
	_, err := r.conn.Subscribe(r.site.prefix()+".peer."+network.PublicKey(r.key).SubjectID(), func(m *nats.Msg) {
		if peer.KindOf(m.Data) == peer.Frontier {
			f(m.Data)
		}
	})
	if err != nil {
		r.site.t.Fatal(err)
	}
	if err := r.conn.Flush(); err != nil {
		r.site.t.Fatal(err)
	}
}

// A gateway that starts hears what the others know within about a second,
// however idle they are.
func TestAGatewayThatStartsHearsTheOthersSoon(t *testing.T) {
	s := newSite(t, "a", "b", "c", "d")
	words := map[string]ledger.Word{}
	for i, name := range []string{"b", "c", "d"} {
		words[name] = ledger.Word{
			Epoch: 3, Milestone: 40, Certified: uint32(30 + i), Answers: true, Opened: 7, Highest: []uint32{7, 8, 9, uint32(i)},
		}
		s.view(name).say(words[name])
		s.fresh(name)
	}
	for _, name := range []string{"b", "c", "d"} {
		eventually(t, "the others have met", func() bool { return len(s.view(name).all()) == 2 })
	}
	v := s.view("a")
	v.say(ledger.Word{Epoch: 3, Target: 12, Highest: []uint32{0, 8, 9, 0}})
	s.fresh("a")
	began := time.Now()
	eventually(t, "all are heard", func() bool { return len(v.all()) == 3 })
	for name, want := range words {
		if got, _ := v.from(s.public(name)); !reflect.DeepEqual(got, want) {
			t.Errorf("heard of %s: %+v, want %+v", name, got, want)
		}
		eventually(t, "the target is heard", func() bool {
			got, _ := s.view(name).from(s.public("a"))
			return got.Target == 12
		})
	}
	if took := time.Since(began); took > 1500*time.Millisecond {
		t.Errorf("it took %v", took)
	}
}

// What was said before this gateway's start, or of nobody's start, does not
// count: it may have been recorded.
func TestAWordOfBeforeTheStartIsNotHeard(t *testing.T) {
	s := newSite(t, "a", "r")
	r, v := s.rogue("r"), s.view("a")
	var session atomic.Uint64
	r.frontiers(func(frame []byte) { session.Store(peer.SessionOf(frame)) })
	s.fresh("a")
	eventually(t, "a speaks", func() bool { return session.Load() != 0 })
	send := func(opened uint32, session uint64) {
		w := ledger.Word{Answers: true, Opened: opened}
		r.send("a", r.Frame(peer.Frontier, s.public("a"), "", peer.WordBody(w, session, false)))
	}
	send(1, 0)
	send(2, session.Load()+1)
	send(3, session.Load())
	eventually(t, "one is heard", func() bool { _, n := v.from(r.key); return n > 0 })
	if w, n := v.from(r.key); n != 1 || w.Opened != 3 {
		t.Errorf("heard %d words, the last is %+v", n, w)
	}
}

// While it waits for a quorum it tells again; once it has heard one it is idle
// like the others, and answers who waits.
func TestAGatewayCallsUntilAQuorumSpoke(t *testing.T) {
	s := newSite(t, "a", "q", "r") // a quorum is two
	q, r := s.rogue("q"), s.rogue("r")
	var session, heard, answers atomic.Uint64
	q.frontiers(func([]byte) { heard.Add(1) })
	r.frontiers(func(frame []byte) {
		session.Store(peer.SessionOf(frame))
		if _, hears, _ := peer.WordOf(frame); hears == r.Session() {
			answers.Add(1)
		}
	})
	s.fresh("a")
	eventually(t, "it calls again", func() bool { return heard.Load() >= 3 })
	speak := func(waiting bool) {
		r.send("a", r.Frame(peer.Frontier, s.public("a"), "", peer.WordBody(ledger.Word{}, session.Load(), waiting)))
	}
	speak(false)
	eventually(t, "it is heard", func() bool { return answers.Load() > 0 })
	began := time.Now()
	before := answers.Load()
	for range 100 {
		speak(true) // a flood of calls
	}
	eventually(t, "the caller is answered", func() bool { return answers.Load() > before })
	if took := time.Since(began); took > 300*time.Millisecond {
		t.Errorf("answered after %v", took)
	}
	if n := answers.Load() - before; n > 5 {
		t.Errorf("%d answers to 100 calls", n)
	}
}

// A gateway that says that it is recovering, or votes no more, is up and does not
// vote.
func TestWhoSaysThatItDoesNotVote(t *testing.T) {
	s := newSite(t, "a", "r")
	r := s.rogue("r")
	a := s.fresh("a")
	for _, tt := range []struct {
		word  ledger.Word
		votes bool
	}{
		{ledger.Word{Milestone: 1}, false},
		{ledger.Word{Milestone: 2, Answers: true}, true},
		{ledger.Word{Milestone: 3, Answers: true, Off: true}, false},
	} {
		r.send("a", r.Frame(peer.Frontier, s.public("a"), "", peer.WordBody(tt.word, 0, false)))
		eventually(t, "the word is heard", func() bool { return a.seen("r").Milestone == tt.word.Milestone })
		if m := a.seen("r"); !m.Up || m.Votes != tt.votes {
			t.Errorf("%+v: up is %v, votes is %v", tt.word, m.Up, m.Votes)
		}
	}
}

// However idle the gateways are, one that is there stays up, and one that died is
// down within seconds.
func TestADeadMemberIsSoonDown(t *testing.T) {
	s := newSite(t, "a", "b", "r") // a quorum is two: nobody waits for words
	r := s.rogue("r")
	var asked, dead atomic.Bool
	r.frontiers(func(frame []byte) {
		if !peer.AsksForAWord(frame) || dead.Load() {
			return
		}
		asked.Store(true)
		r.send("a", r.Frame(peer.Frontier, s.public("a"), "", peer.WordBody(ledger.Word{}, 0, false)))
	})
	a, b := s.fresh("a"), s.fresh("b")
	eventually(t, "all are up", func() bool { return a.seen("r").Up && a.seen("b").Up && b.seen("a").Up })
	asked.Store(false)
	eventually(t, "who is quiet is asked", func() bool {
		if !a.seen("r").Up || !a.seen("b").Up || !b.seen("a").Up {
			t.Fatal("who answers is down")
		}
		return asked.Load()
	})
	dead.Store(true)
	began := time.Now()
	eventually(t, "who is dead is down", func() bool { return !a.seen("r").Up })
	if took := time.Since(began); took > 12*time.Second {
		t.Errorf("it took %v", took)
	}
	if !a.seen("b").Up || !b.seen("a").Up {
		t.Error("who lives is down")
	}
}
