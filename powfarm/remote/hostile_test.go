package remote

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
)

// A puppet is a worker or gateway whose every message the test decides on.
type puppet struct {
	site  *site
	name  string
	conn  *nats.Conn
	stamp uint64
	sent  [][]byte // hellos
}

func (s *site) puppet(name string) *puppet {
	p := &puppet{site: s, name: name, conn: s.connect()}
	if _, err := p.conn.SubscribeSync(workerSubject(subjects, peer(name).Key)); err != nil {
		s.Fatal(err)
	}
	synctest.Wait()
	return p
}

func (p *puppet) publish(subject string, raw []byte) {
	p.site.Helper()
	if err := p.conn.Publish(subject, raw); err != nil {
		p.site.Fatal(err)
	}
	synctest.Wait()
}

func (p *puppet) hello(rate uint64) {
	p.stamp = max(p.stamp+1, uint64(time.Now().UnixNano()))
	raw := sign(key(p.name), genesis, Key{}, appendHello(peer(p.name).Key, &hello{
		session: 1, stamp: p.stamp, rate: rate, most: 30, slots: 16, name: p.name, kernel: "go",
	}))
	p.sent = append(p.sent, raw)
	if err := p.conn.Publish(helloSubject(subjects), raw); err != nil {
		p.site.Error(err)
	}
}

// helloes announces the worker every two seconds until stop.
func (p *puppet) helloes(rate uint64) (stop func()) {
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(helloEvery)
		defer tick.Stop()
		for {
			p.hello(rate)
			select {
			case <-tick.C:
			case <-end:
				return
			}
		}
	}()
	return func() { close(end); <-ended }
}

// listen returns the next message on a subject.
func (p *puppet) listen(subject string) func() *nats.Msg {
	p.site.Helper()
	sub, err := p.conn.SubscribeSync(subject)
	if err != nil {
		p.site.Fatal(err)
	}
	synctest.Wait()
	return func() *nats.Msg {
		p.site.Helper()
		ctx, cancel := context.WithTimeout(p.site.Context(), time.Minute)
		defer cancel()
		msg, err := sub.NextMsgWithContext(ctx) // NextMsg shares timers between bubbles
		if err != nil {
			p.site.Fatalf("nothing on %s: %v", subject, err)
		}
		return msg
	}
}

// stampOf returns the stamp of a worker's next hello.
func (p *puppet) stampOf(next func() *nats.Msg) uint64 {
	h, err := parseHello(next().Data)
	if err != nil {
		p.site.Fatal(err)
	}
	return h.stamp
}

func (p *puppet) request(r *request, as, to string, of [32]byte) []byte {
	return sign(key(as), of, peer(to).Key, appendRequest(peer(p.name).Key, r))
}

func TestOnlyMembersRequestsAreServed(t *testing.T) {
	inSite(t, func(t *testing.T, s *site) {
		h := &honest{}
		g, stranger := s.puppet("g"), s.puppet("x")
		hellos := g.listen(helloSubject(subjects))
		w := s.worker("w", h, 1e6, "g")
		subject := workerSubject(subjects, peer("w").Key)
		r := &request{id: requestID{1}, stamp: g.stampOf(hellos), zeros: few, millis: 1000}
		good := g.request(r, "g", "w", genesis)
		flipped := append([]byte{}, good...)
		flipped[headSize+idSize+10] ^= 1 // of the digest
		for name, raw := range map[string][]byte{
			"signed by somebody else":  g.request(r, "x", "w", genesis),
			"for another worker":       g.request(r, "g", "v", genesis),
			"of another network":       g.request(r, "g", "w", [32]byte{1}),
			"from a stranger":          stranger.request(r, "x", "w", genesis),
			"changed on its way":       flipped,
			"cut off":                  good[:len(good)-1],
			"too long":                 append(append([]byte{}, good...), 0),
			"of another version":       append([]byte{2}, good[1:]...),
			"of another kind":          append([]byte{1, kindAnswer}, good[2:]...),
			"nothing":                  {},
			"answering an older hello": g.request(&request{id: requestID{2}, stamp: r.stamp - 1, zeros: few, millis: 1000}, "g", "w", genesis),
		} {
			before := w.server.Stats().Invalid
			g.publish(subject, raw)
			if st := w.server.Stats(); h.searches.Load() != 0 || st.Requests != 0 || st.Invalid != before+1 {
				t.Errorf("%s: the worker counts %+v and %d searches", name, st, h.searches.Load())
			}
		}
		g.publish(subject, good)
		if st := w.server.Stats(); st.Found != 1 {
			t.Errorf("the good one: the worker counts %+v", st)
		}
	})
}

func TestARecordedRequestWorksOnce(t *testing.T) {
	inSite(t, func(t *testing.T, s *site) {
		h := &honest{}
		g := s.puppet("g")
		hellos := g.listen(helloSubject(subjects))
		w := s.worker("w", h, 1e6, "g")
		subject := workerSubject(subjects, peer("w").Key)
		raw := g.request(&request{id: requestID{1}, stamp: g.stampOf(hellos), zeros: few, millis: 1000}, "g", "w", genesis)
		for i := range 2 * stampsKept {
			g.publish(subject, raw)
			if n := h.searches.Load(); n != 1 {
				t.Fatalf("%d searches after message %d", n, i+1)
			}
			s.heard()
		}
		if n := len(w.server.gateways[peer("g").Key].seen); n != 0 {
			t.Errorf("%d requests are remembered for ever", n)
		}
	})
}

func TestForgedCancellationsAndAnswersDoNothing(t *testing.T) {
	inSite(t, func(t *testing.T, s *site) {
		st := &stuck{}
		x := s.puppet("x")
		asked := x.listen(workerSubject(subjects, peer("w").Key)) // x hears everything
		w := s.worker("w", st, 1e6, "g")
		g := s.gateway("g", 0, "w", "v")
		s.heard()
		p := g.prove(absent{}, 1, few)
		r := parseRequest(asked().Data)
		x.publish(workerSubject(subjects, peer("w").Key), sign(key("x"), genesis, peer("w").Key, appendCancel(peer("g").Key, r.id)))
		if w.server.Stats().Cancelled != 0 || st.searching() != 1 {
			t.Error("a cancellation that the gateway did not sign is obeyed")
		}
		answers := answerSubject(subjects, peer("g").Key, r.id)
		for name, raw := range map[string][]byte{
			"signed by somebody else":        sign(key("x"), genesis, peer("g").Key, appendAnswer(peer("w").Key, &answer{r.id, resultFound, 1})),
			"of a worker that was not asked": sign(key("v"), genesis, peer("g").Key, appendAnswer(peer("v").Key, &answer{r.id, resultFound, 1})),
			"for another gateway":            sign(key("w"), genesis, peer("x").Key, appendAnswer(peer("w").Key, &answer{r.id, resultFound, 1})),
			"of no known result":             sign(key("w"), genesis, peer("g").Key, appendAnswer(peer("w").Key, &answer{r.id, results, 1})),
			"garbage":                        []byte("garbage"),
		} {
			before := g.pool.Refused()
			x.publish(answers, raw)
			if l := g.seen("w"); l.Wrong != 0 || l.Open != 1 || g.pool.Refused() != before+1 {
				t.Errorf("%s: %+v, %d refused", name, l, g.pool.Refused()-before)
			}
		}
		p.wantOpen(t)
	})
}

func TestReplayedAndForgedHellosDoNothing(t *testing.T) {
	inSite(t, func(t *testing.T, s *site) {
		g := s.gateway("g", 0, "w")
		w := s.puppet("w")
		for i := range uint64(3) {
			w.hello(i + 1)
			time.Sleep(time.Second)
		}
		seen := g.seen("w")
		if seen.TriesPerSecond != 3 || !seen.Alive {
			t.Fatalf("the worker is shown as %+v", seen)
		}
		subject := helloSubject(subjects)
		forged := appendHello(peer("w").Key, &hello{session: 9, stamp: w.stamp + 1, rate: 99, most: 9, slots: 9, name: "w", kernel: "go"})
		unnamed := appendHello(peer("w").Key, &hello{session: 9, stamp: w.stamp + 1, rate: 99, most: 9, slots: 9, name: "w", kernel: "go"})
		unnamed[len(unnamed)-maxName-1-maxKernel] = '\n' // in the name
		for name, raw := range map[string][]byte{
			"first again":        w.sent[0],
			"last again":         w.sent[2],
			"forged":             sign(key("x"), genesis, Key{}, forged),
			"of another network": sign(key("w"), [32]byte{1}, Key{}, forged),
			"with a line break":  sign(key("w"), genesis, Key{}, unnamed),
			"of a stranger":      sign(key("x"), genesis, Key{}, appendHello(peer("x").Key, &hello{stamp: 1, name: "x", kernel: "go"})),
		} {
			w.publish(subject, raw)
			if got := g.seen("w"); got != seen || len(g.pool.Workers()) != 1 {
				t.Errorf("%s: the worker is shown as %+v, want %+v", name, got, seen)
			}
		}
		// A dead worker is not alive because somebody recorded it.
		time.Sleep(aliveFor + lookEvery)
		for _, raw := range w.sent {
			w.publish(subject, raw)
		}
		if got := g.seen("w"); got.Alive {
			t.Errorf("a recorded hello raised the dead: %+v", got)
		}
	})
}

func TestAWorkerWhoseClockWasSetBackIsFoundAgain(t *testing.T) {
	inSite(t, func(t *testing.T, s *site) {
		g := s.gateway("g", 0, "w")
		before := s.puppet("w")
		before.stamp = 1 << 62 // far ahead
		before.hello(1)
		synctest.Wait()
		before.conn.Close()
		time.Sleep(aliveFor + lookEvery)
		s.worker("w", &honest{}, 1e6, "g")
		if got := g.seen("w"); !got.Alive {
			t.Errorf("the worker is shown as %+v", got)
		}
		g.prove(absent{}, 1, few).wantFound(t)
	})
}

func TestAFloodOfOneGatewayIsBoundedAndLeavesOthersTheirTurn(t *testing.T) {
	inSite(t, func(t *testing.T, s *site) {
		st := &stuck{}
		flooder := s.puppet("f")
		hellos := flooder.listen(helloSubject(subjects))
		w := s.worker("w", st, 1e6, "f", "g")
		stamp := flooder.stampOf(hellos)
		subject := workerSubject(subjects, peer("w").Key)
		for i := range 2 * requestRate {
			r := &request{id: requestID{byte(i), byte(i >> 8)}, stamp: stamp, digest: [32]byte{0xff}, zeros: 18, priority: 255, millis: 1 << 31}
			flooder.publish(subject, flooder.request(r, "f", "w", genesis))
		}
		if got := w.server.Stats(); got.Queued != perGateway || got.Requests != perGateway || got.Busy != requestRate-perGateway || got.Invalid != requestRate {
			t.Errorf("the worker counts %+v", got)
		}
		g := s.gateway("g", 0, "w")
		s.heard()
		p := g.prove(absent{}, 1, 18)
		for range 10 {
			time.Sleep(time.Second)
		}
		p.wantOpen(t)
		p.cancel()
		<-p.done
		synctest.Wait()
		st.mu.Lock()
		mine, theirs := st.spent[1], st.spent[0xff]
		st.mu.Unlock()
		if mine < 4900*time.Millisecond || mine > 5100*time.Millisecond {
			t.Errorf("of ten seconds one gateway had %v, the flooding one %v since its flood", mine, theirs)
		}
		// However long it asked for, nothing is held for ever.
		time.Sleep(maxRequest)
		if got := w.server.Stats(); got.Queued != 0 || got.Expired == 0 {
			t.Errorf("after %v the worker counts %+v", maxRequest, got)
		}
	})
}

func TestASlowSearcherLeavesARequestInLine(t *testing.T) {
	inSite(t, func(t *testing.T, s *site) {
		w := s.worker("w", busy{}, 1e6, "g")
		g := s.gateway("g", 0, "w")
		s.heard()
		p := g.prove(absent{}, 1, few)
		time.Sleep(time.Second)
		p.wantOpen(t)
		p.cancel()
		<-p.done
		synctest.Wait()
		if st := w.server.Stats(); st.Queued != 0 || st.Cancelled != 1 {
			t.Errorf("the worker counts %+v", st)
		}
	})
}

func TestRequestsAreRefusedInWords(t *testing.T) {
	inSite(t, func(t *testing.T, s *site) {
		s.worker("w", absent{}, 1e6, "g") // it cannot search after all
		g := s.gateway("g", 0, "w")
		s.heard()
		p := g.prove(absent{}, 1, few)
		<-p.done
		if l := g.seen("w"); p.err == nil || l.Refused != 1 || l.Open != 0 || l.LeftAloneUntil.After(time.Now()) {
			t.Errorf("Prove: %v; the worker is shown as %+v", p.err, l)
		}
	})
}

// Whoever has not heard a worker's session cannot keep its hellos from being
// looked at.
func TestForgedHellosLeaveRoomForTheRealOnes(t *testing.T) {
	inSite(t, func(t *testing.T, s *site) {
		g, w, x := s.gateway("g", 0, "w"), s.puppet("w"), s.puppet("x")
		for i := range uint64(10) {
			for j := range uint64(10 * helloRate) {
				forged := appendHello(peer("w").Key, &hello{session: 9, stamp: w.stamp + 1 + j, rate: 99, most: 9, slots: 9, name: "w", kernel: "go"})
				if i > 0 { // there is a session
					x.publish(helloSubject(subjects), sign(key("x"), genesis, Key{}, forged))
				}
			}
			w.hello(i + 1)
			synctest.Wait()
			if got := g.seen("w"); !got.Alive || got.TriesPerSecond != i+1 {
				t.Fatalf("after hello %d the worker is shown as %+v", i+1, got)
			}
			time.Sleep(helloEvery)
		}
	})
}

// The same for a gateway's requests, and what it takes back.
func TestForgedRequestsLeaveRoomForTheRealOnes(t *testing.T) {
	inSite(t, func(t *testing.T, s *site) {
		x := s.puppet("x")
		hellos := x.listen(helloSubject(subjects))
		st := &stuck{}
		w := s.worker("w", st, 1e6, "g")
		stamp := x.stampOf(hellos)
		g := s.gateway("g", 0, "w")
		s.heard()
		stamp = max(stamp, x.stampOf(hellos))
		g.prove(absent{}, 1, few).wantOpen(t)
		for i := range 2 * requestRate {
			r := &request{id: newRequestID([8]byte{1}, uint64(i)), stamp: stamp, zeros: few, millis: 1000}
			raw := sign(key("x"), genesis, peer("w").Key, appendRequest(peer("g").Key, r))
			x.publish(workerSubject(subjects, peer("w").Key), raw)
		}
		p := g.prove(absent{}, 2, few)
		if got := w.server.Stats(); got.Requests != 2 || got.Invalid != 2*requestRate {
			t.Errorf("the worker counts %+v", got)
		}
		p.cancel()
		<-p.done
		synctest.Wait()
		if got := w.server.Stats(); got.Cancelled != 1 {
			t.Errorf("the worker counts %+v after a search was taken back", got)
		}
	})
}
