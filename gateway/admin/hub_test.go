package admin

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func newOpenHub() *hub {
	h := newHub(map[string]func() uint64{eventBlock: func() uint64 { return 7 }})
	h.open()
	return h
}

// taken returns what a listener gets now, as names and data.
func taken(h *hub, l *listener) string {
	var all []string
	for {
		out, _, _ := h.take(l)
		if len(out) == 0 {
			return strings.Join(all, " ")
		}
		for _, d := range out {
			all = append(all, d.name+string(d.text))
		}
	}
}

func join(t *testing.T, h *hub, last string, kinds ...string) *listener {
	t.Helper()
	l, err := h.join(kinds, last)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestListenersGetTheKindsTheyChoseInOrder(t *testing.T) {
	h := newOpenHub()
	h.publish(eventPeer, 0) // before anybody listens
	a, b := join(t, h, "", eventPeer, eventAlarm), join(t, h, "", eventPeer)
	for i := range 3 {
		h.publish(eventPeer, i+1)
		h.publish(eventAlarm, i+1)
		h.publish(eventReading, i+1) // nobody chose it
	}
	if got, want := taken(h, a), "peer1 alarm1 peer2 alarm2 peer3 alarm3"; got != want {
		t.Errorf("peers and alarms: %s, want %s", got, want)
	}
	if got, want := taken(h, b), "peer1 peer2 peer3"; got != want {
		t.Errorf("peers: %s, want %s", got, want)
	}
	if len(h.events) != 6 {
		t.Errorf("%d events are kept, want those that somebody listens to", len(h.events))
	}
}

func TestASlowListenerIsToldHowManyItMissed(t *testing.T) {
	h := newOpenHub()
	slow := join(t, h, "", eventPeer)
	for i := range maxEvents + 10 {
		h.publish(eventPeer, i)
	}
	got := taken(h, slow)
	if !strings.HasPrefix(got, `missed{"events":10} peer10 peer11 `) || !strings.HasSuffix(got, fmt.Sprintf(" peer%d", maxEvents+9)) {
		t.Errorf("got %.80s…, want 10 missed and the others", got)
	}
	big := strings.Repeat("x", 100<<10)
	for range 100 {
		h.publish(eventPeer, big)
	}
	if h.bytes > maxEventBytes || len(h.events) != maxEventBytes/(len(big)+2) {
		t.Errorf("%d events of %d bytes are kept, at most %d bytes", len(h.events), h.bytes, maxEventBytes)
	}
	out, _, _ := h.take(slow)
	if out[0].name != eventMissed || len(out) > 1+eventPageBytes/len(big)+1 {
		t.Errorf("a page of %d events begins with %s", len(out), out[0].name)
	}
}

func TestAListenerThatComesBackGoesOnOrIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newOpenHub()
		l := join(t, h, "", eventPeer)
		h.publish(eventPeer, 1)
		out, _, _ := h.take(l)
		last := out[0].id
		h.leave(l)
		h.publish(eventPeer, 2)
		time.Sleep(listenerLinger / 2)
		h.publish(eventPeer, 3)
		l = join(t, h, last, eventPeer)
		if got, want := taken(h, l), "peer2 peer3"; got != want {
			t.Errorf("back soon: %s, want %s", got, want)
		}
		h.leave(l)
		time.Sleep(2 * listenerLinger)
		h.publish(eventPeer, 4) // not kept
		l = join(t, h, last, eventPeer)
		h.publish(eventPeer, 5)
		if got, want := taken(h, l), `peer2 peer3 missed{"types":["peer"]} peer5`; got != want {
			t.Errorf("back late: %s, want %s", got, want)
		}
		h.leave(l)
		for _, id := range []string{"abc-5", h.id(99), "nonsense", h.birth + "-x"} {
			l = join(t, h, id, eventPeer)
			h.publish(eventPeer, 6)
			if got, want := taken(h, l), `missed{"types":["peer"]} peer6`; got != want {
				t.Errorf("with id %s: %s, want %s", id, got, want)
			}
			h.leave(l)
		}
	})
}

func TestListenersAreBoundedAndEndWithTheHub(t *testing.T) {
	h := newHub(nil)
	if _, err := h.join(nil, ""); !errors.Is(err, errNoEvents) {
		t.Errorf("before Run: %v", err)
	}
	h.open()
	var all []*listener
	for range maxListeners {
		all = append(all, join(t, h, "", eventKinds()...))
	}
	if _, err := h.join(nil, ""); !errors.Is(err, errListeners) {
		t.Errorf("listener %d: %v", maxListeners+1, err)
	}
	h.leave(all[0])
	join(t, h, "", eventPeer)
	_, more, open := h.take(all[1])
	h.close()
	<-more
	if _, _, still := h.take(all[1]); !open || still {
		t.Errorf("open was %v and is %v after close", open, still)
	}
}

func TestASourceIsAwaitedUntilSomebodyListens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newOpenHub()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := h.await(ctx, eventBlock); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with nobody there: %v", err)
		}
		begins := make(chan uint64)
		go func() {
			begin, _ := h.await(t.Context(), eventBlock)
			begins <- begin
		}()
		synctest.Wait()
		join(t, h, "", eventBlock)
		if begin := <-begins; begin != 7 {
			t.Errorf("wanted from %d on, want the source's position 7", begin)
		}
	})
}
