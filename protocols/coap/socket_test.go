package coap

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/batching/reading"
)

// inBubble runs f with a wire whose answers are sent, in a bubble of fake time.
func inBubble(t *testing.T, m *memory, f func(t *testing.T, w *wire)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t, m)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			w.answerAll(nil)
		}()
		f(t, w)
		m.release()
		w.queue.leave()
		<-ended
		if pending, endpoints := w.s.flight.size(); pending != 0 || endpoints != 0 {
			t.Errorf("%d requests of %d endpoints are left", pending, endpoints)
		}
	})
}

// one waits until everything is quiet and returns the only message sent.
func (w *wire) one(t *testing.T) message.Message {
	t.Helper()
	synctest.Wait()
	sent := w.take()
	if len(sent) != 1 {
		t.Fatalf("sent %d messages %v, want 1", len(sent), sent)
	}
	return sent[0]
}

func (w *wire) nothing(t *testing.T) {
	t.Helper()
	synctest.Wait()
	if sent := w.take(); len(sent) != 0 {
		t.Fatalf("sent %v, want nothing", sent)
	}
}

var temp = []string{"readings", "probe-3", "temp"}

func TestReadingIsAnsweredWhenItIsDurable(t *testing.T) {
	m := &memory{hold: true}
	inBubble(t, m, func(t *testing.T, w *wire) {
		w.receive(build(t, codes.PUT, temp, "21.5"), remote)
		w.nothing(t)
		m.release()
		got := w.one(t)
		if got.Type != message.Acknowledgement || got.Code != codes.Changed || got.MessageID != 77 || string(got.Token) != "\x01\x02" {
			t.Errorf("answered %v, want a piggybacked 2.04", got)
		}
		p := m.stored()[0]
		if r := p.Readings[0]; r.Device != "probe-3" || r.Name != "temp" || r.Value.Text() != "21.5" || r.Source != reading.SourceCoAP {
			t.Errorf("stored %+v", r)
		}
		if !p.Recall || p.Within != 50*time.Second {
			t.Errorf("recall %v within %v, want true within 50s", p.Recall, p.Within)
		}
	})
}

// A reader that commits answers at once, without the answerer.
func TestReaderAnswersWhatItCommits(t *testing.T) {
	m := &memory{hold: true, lead: func(release func()) bool { release(); return true }}
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t, m)
		for i := range 3 {
			w.receive(build(t, codes.PUT, temp, fmt.Sprint(i)), remote)
			if sent := w.take(); len(sent) != 1 || sent[0].Code != codes.Changed {
				t.Fatalf("sent %v, want 2.04", sent)
			}
		}
		if waiting, _ := w.queue.state(); waiting != 0 {
			t.Errorf("%d requests wait", waiting)
		}
	})
}

// Datagrams that wait to be read share the commit, but not more than some: it
// would be put off for as long as somebody sends.
func TestCommitIsNotPutOffForEver(t *testing.T) {
	commits := 0
	m := &memory{hold: true, lead: func(release func()) bool { commits++; release(); return true }}
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t, m)
		w.waits = func() bool { return true }
		w.receive(build(t, codes.PUT, temp, "1"), remote)
		ping := []byte{0x40, 0, 0, 1}
		for range maxPutOff - 1 {
			w.receive(ping, remote)
		}
		if commits != 0 {
			t.Errorf("%d commits though datagrams wait", commits)
		}
		w.receive(ping, remote)
		w.receive(ping, remote)
		if commits != 1 {
			t.Errorf("%d commits, want 1", commits)
		}
	})
}

// A reader that ends commits what it put off: nobody else would.
func TestReaderThatEndsCommitsWhatItPutOff(t *testing.T) {
	m := &memory{hold: true, lead: func(release func()) bool { release(); return true }}
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t, m)
		w.waits = func() bool { return true }
		w.receive(build(t, codes.PUT, temp, "1"), remote)
		if sent := w.take(); len(sent) != 0 {
			t.Fatalf("sent %v before the commit", sent)
		}
		w.lead(true)
		if sent := w.take(); len(sent) != 1 || sent[0].Code != codes.Changed {
			t.Errorf("sent %v, want 2.04", sent)
		}
	})
}

// A deputy is called also when the commit that keeps the reader is about what
// came over another protocol, and nothing of this socket waits.
func TestDeputyIsCalledForOthersCommits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := make(chan struct{})
		m := &memory{hold: true, lead: func(release func()) bool { <-disk; release(); return true }}
		w := newWire(t, m)
		called := make(chan struct{})
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			w.answerAll(func() { close(called) })
		}()
		time.Sleep(time.Second) // asleep
		w.waits = func() bool { return true }
		w.receive(build(t, codes.PUT, temp, "1"), remote)
		m.release() // the collector was quicker
		time.Sleep(2 * tick)
		w.waits = func() bool { return false }
		began := time.Now()
		go w.receive([]byte{0x40, 0, 0, 1}, remote)
		<-called
		if d := time.Since(began); d > 2*tick {
			t.Errorf("called after %v", d)
		}
		close(disk)
		synctest.Wait()
		w.queue.leave()
		<-ended
	})
}

func TestNonConfirmableRequestGetsNonConfirmableAnswer(t *testing.T) {
	m := &memory{}
	inBubble(t, m, func(t *testing.T, w *wire) {
		w.receive(build(t, codes.POST, temp, "21.5", non), remote)
		if got := w.one(t); got.Type != message.NonConfirmable || got.Code != codes.Changed {
			t.Errorf("answered %v, want a non-confirmable 2.04", got)
		}
		if w := m.stored()[0].Within; w != 5*time.Second {
			t.Errorf("recall within %v, want 5s", w)
		}
	})
}

func TestRepetitionIsStoredOnceAndAnswered(t *testing.T) {
	m := &memory{hold: true}
	inBubble(t, m, func(t *testing.T, w *wire) {
		req := build(t, codes.PUT, temp, "21.5")
		w.receive(req, remote)
		w.receive(req, remote) // the first one is in flight
		m.release()
		w.one(t)
		w.receive(req, remote) // the first one is stored
		m.release()
		if got := w.one(t); got.Code != codes.Changed {
			t.Errorf("repetition answered %v", got.Code)
		}
		if n := len(m.stored()); n != 1 {
			t.Errorf("stored %d packets, want 1", n)
		}
	})
}

// A device that restarts its message ids must not lose readings (go-coap's
// own cache would answer from memory).
func TestReusedMessageIDWithOtherContentIsAnotherReading(t *testing.T) {
	m := &memory{}
	inBubble(t, m, func(t *testing.T, w *wire) {
		for i := range 20 {
			w.receive(build(t, codes.PUT, temp, fmt.Sprint(i)), remote)
			w.one(t)
		}
		token := func(m *message.Message) { m.Token = message.Token{9} }
		w.receive(build(t, codes.PUT, temp, "0", token), remote)
		if got := w.one(t); string(got.Token) != "\x09" {
			t.Errorf("answered with token %x, want 09", got.Token)
		}
		if n := len(m.stored()); n != 21 {
			t.Errorf("stored %d packets, want 21", n)
		}
	})
}

func TestSameDatagramFromAnotherEndpointIsAnotherReading(t *testing.T) {
	m := &memory{}
	inBubble(t, m, func(t *testing.T, w *wire) {
		req := build(t, codes.PUT, temp, "21.5")
		w.receive(req, remote)
		w.receive(req, netip.AddrPortFrom(remote.Addr(), 40002))
		w.receive(req, loopback)
		synctest.Wait()
		if n := len(m.stored()); n != 3 {
			t.Errorf("stored %d packets, want 3", n)
		}
	})
}

// Keys are compared with those of an earlier run.
func TestKeysOfARepetitionAreTheSameInAnotherServer(t *testing.T) {
	var keys []batching.Key
	for range 2 {
		m := &memory{}
		inBubble(t, m, func(t *testing.T, w *wire) {
			w.receive(build(t, codes.PUT, temp, "21.5"), remote)
			synctest.Wait()
			keys = append(keys, m.stored()[0].Key)
		})
	}
	if keys[0] != keys[1] || keys[0] == (batching.Key{}) {
		t.Errorf("keys %x and %x, want the same", keys[0], keys[1])
	}
}

func TestSlowCommitIsAcknowledgedAndAnsweredSeparately(t *testing.T) {
	m := &memory{hold: true}
	inBubble(t, m, func(t *testing.T, w *wire) {
		time.Sleep(time.Hour) // asleep
		req := build(t, codes.PUT, temp, "21.5")
		w.receive(req, remote)
		time.Sleep(1400 * time.Millisecond)
		w.nothing(t)
		time.Sleep(300 * time.Millisecond)
		if got := w.one(t); got.Type != message.Acknowledgement || got.Code != codes.Empty || got.MessageID != 77 {
			t.Fatalf("sent %v, want an empty acknowledgement", got)
		}
		w.receive(req, remote) // the acknowledgement was lost
		if got := w.one(t); got.Code != codes.Empty || got.Type != message.Acknowledgement {
			t.Fatalf("repetition answered %v, want an empty acknowledgement", got)
		}
		m.release()
		got := w.one(t)
		if got.Type != message.Confirmable || got.Code != codes.Changed || string(got.Token) != "\x01\x02" {
			t.Fatalf("sent %v, want a confirmable 2.04", got)
		}
		time.Sleep(3100 * time.Millisecond) // ACK_TIMEOUT times 1 to 1.5
		if again := w.one(t); again.MessageID != got.MessageID || again.Code != codes.Changed {
			t.Fatalf("retransmitted %v, want %v", again, got)
		}
		w.receive([]byte{0x60, 0, byte(got.MessageID >> 8), byte(got.MessageID)}, remote)
		time.Sleep(time.Minute)
		w.nothing(t)
	})
}

func TestSeparateAnswerIsGivenUpAfterFourRetransmissions(t *testing.T) {
	m := &memory{hold: true}
	inBubble(t, m, func(t *testing.T, w *wire) {
		w.receive(build(t, codes.PUT, temp, "21.5"), remote)
		time.Sleep(2 * time.Second)
		m.release()
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if sent := w.take(); len(sent) != 1+1+maxRetransmit {
			t.Errorf("sent %d messages, want an acknowledgement and 5 answers", len(sent))
		}
	})
}

func TestErrorsHaveTheirCodes(t *testing.T) {
	for _, tt := range []struct {
		what   string
		req    []byte
		refuse error
		want   codes.Code
	}{
		{"busy", build(t, codes.PUT, temp, "1"), fmt.Errorf("journal full: %w", batching.ErrBusy), codes.ServiceUnavailable},
		{"stopping", build(t, codes.PUT, temp, "1"), batching.ErrClosed, codes.ServiceUnavailable},
		{"unknown path", build(t, codes.PUT, []string{"x"}, "1"), nil, codes.NotFound},
		{"deep path", build(t, codes.PUT, []string{"readings", "a", "b", "c", "d", "e"}, "1"), nil, codes.NotFound},
		{"no path", build(t, codes.GET, nil, ""), nil, codes.NotFound},
		{"never reported", build(t, codes.GET, temp, ""), nil, codes.NotFound},
		{"device without name", build(t, codes.GET, temp[:2], ""), nil, codes.NotFound},
		{"DELETE", build(t, codes.DELETE, temp, ""), nil, codes.MethodNotAllowed},
		{"PUT of the time", build(t, codes.PUT, []string{"time"}, "1"), nil, codes.MethodNotAllowed},
		{"FETCH", build(t, codes.Code(5), temp, ""), nil, codes.MethodNotAllowed},
		{"empty payload", build(t, codes.PUT, temp, ""), nil, codes.BadRequest},
		{"nothing but null", build(t, codes.PUT, temp, "null"), nil, codes.BadRequest},
		{"device with a slash", build(t, codes.PUT, []string{"readings", "a/b", "c"}, "1"), nil, codes.BadRequest},
		{"device too long", build(t, codes.PUT, []string{"readings", strings.Repeat("d", 65)}, "1"), nil, codes.BadRequest},
		{"octet stream", build(t, codes.PUT, temp, "1", with(message.ContentFormat, 42)), nil, codes.UnsupportedMediaType},
		{"Accept", build(t, codes.GET, temp, "", with(message.Accept, 60)), nil, codes.NotAcceptable},
		{"Block1", build(t, codes.PUT, temp, "1", with(message.Block1, 8)), nil, codes.RequestEntityTooLarge},
		{"17 KiB", build(t, codes.PUT, temp, strings.Repeat("x", 17<<10)), nil, codes.RequestEntityTooLarge},
		{"text of 9 KiB", build(t, codes.PUT, temp, strings.Repeat("x", 9<<10)), nil, codes.RequestEntityTooLarge},
		{"If-Match", build(t, codes.PUT, temp, "1", with(message.IfMatch)), nil, codes.BadOption},
	} {
		t.Run(tt.what, func(t *testing.T) {
			m := &memory{refuse: tt.refuse}
			inBubble(t, m, func(t *testing.T, w *wire) {
				w.receive(tt.req, loopback)
				got := w.one(t)
				if got.Code != tt.want || len(got.Payload) == 0 {
					t.Errorf("answered %v %q, want %v with a text", got.Code, got.Payload, tt.want)
				}
				age, err := got.Options.GetUint32(message.MaxAge)
				if busy := tt.want == codes.ServiceUnavailable; busy != (err == nil) || busy && age != 5 {
					t.Errorf("Max-Age %d, %v", age, err)
				}
				if n := len(m.stored()); n != 0 {
					t.Errorf("stored %d packets", n)
				}
			})
		})
	}
}

func TestRefusedReceiptIsAnsweredBusy(t *testing.T) {
	m := &memory{}
	inBubble(t, m, func(t *testing.T, w *wire) {
		r, resolve := batching.NewReceipt()
		p := &pending{arrived: time.Now(), receipt: r}
		p.typ = message.Confirmable
		w.s.flight.enter(p)
		w.queue.join(p)
		resolve(0, batching.ErrBusy)
		w.Resolved()
		if got := w.one(t); got.Code != codes.ServiceUnavailable {
			t.Errorf("answered %v, want 5.03", got.Code)
		}
	})
}

func TestUndecodablePayloadIsStoredRaw(t *testing.T) {
	m := &memory{}
	inBubble(t, m, func(t *testing.T, w *wire) {
		w.receive(build(t, codes.PUT, temp[:2], "{broken"), loopback)
		if got := w.one(t); got.Code != codes.Changed {
			t.Errorf("answered %v, want 2.04", got.Code)
		}
		if r := m.stored()[0].Readings[0]; r.Name != "raw" || r.Value.AsString() != "{broken" || r.Err == "" {
			t.Errorf("stored %+v", r)
		}
	})
}

func TestContentFormats(t *testing.T) {
	pack := "\x81\xa2\x00\x61n\x02\x01" // [{n: "n", v: 1}] in CBOR
	for _, tt := range []struct {
		format  byte
		payload string
		want    string // the reading's value, "" for a raw one
	}{
		{0, "1", "1"},
		{50, "1", "1"},
		{50, "bare text", ""},
		{60, "\x01", "1"},
		{110, `[{"n":"n","v":1}]`, "1"},
		{110, "1", ""},
		{112, pack, "1"},
		{112, "\x01", ""},
	} {
		m := &memory{}
		inBubble(t, m, func(t *testing.T, w *wire) {
			w.receive(build(t, codes.PUT, temp, tt.payload, with(message.ContentFormat, tt.format)), remote)
			if got := w.one(t); got.Code != codes.Changed {
				t.Errorf("format %d %q answered %v", tt.format, tt.payload, got.Code)
			}
			r := m.stored()[0].Readings[0]
			if raw := r.Err != ""; raw != (tt.want == "") || !raw && r.Value.Text() != tt.want {
				t.Errorf("format %d %q stored %+v, want %q", tt.format, tt.payload, r, tt.want)
			}
		})
	}
}

func TestGet(t *testing.T) {
	m := &memory{}
	inBubble(t, m, func(t *testing.T, w *wire) {
		w.receive(build(t, codes.PUT, temp, `{"v":21.5,"u":"Cel"}`), loopback)
		w.one(t)
		for _, tt := range []struct {
			what   string
			req    []byte
			format message.MediaType
			want   string
		}{
			{"text", build(t, codes.GET, temp, ""), message.TextPlain, "21.5"},
			{"text with Observe", build(t, codes.GET, temp, "", with(message.Observe)), message.TextPlain, "21.5"},
			{"JSON", build(t, codes.GET, temp, "", with(message.Accept, 50)), message.AppJSON,
				`{"id":"barn-7/1","device":"probe-3","name":"temp","value":21.5,"unit":"Cel","received":"2025-11-22T10:15:04.233Z","clock":"good","source":"coap"}`},
			{"time", build(t, codes.GET, []string{"time"}, ""), message.TextPlain, fmt.Sprint(time.Now().Unix())},
			{"time as JSON", build(t, codes.GET, []string{"time"}, "", with(message.Accept, 50)), message.AppJSON,
				fmt.Sprintf(`{"time":"2000-01-01T00:00:00.000Z","unix":%d.000}`, time.Now().Unix())},
			{"links", build(t, codes.GET, []string{".well-known", "core"}, ""), message.AppLinkFormat, links},
		} {
			w.receive(tt.req, loopback)
			got := w.one(t)
			format, err := got.Options.ContentFormat()
			if got.Code != codes.Content || string(got.Payload) != tt.want || format != tt.format || err != nil {
				t.Errorf("%s: %v %v %q, want %v %q", tt.what, got.Code, format, got.Payload, tt.format, tt.want)
			}
		}
	})
}

func TestLongAnswerGoesOnlyToAProvenAddress(t *testing.T) {
	m := &memory{}
	inBubble(t, m, func(t *testing.T, w *wire) {
		core := []string{".well-known", "core"}
		w.receive(build(t, codes.GET, core, ""), remote)
		got := w.one(t)
		value, err := got.Options.GetBytes(optionEcho)
		if got.Code != codes.Unauthorized || err != nil {
			t.Fatalf("answered %v, %v; want 4.01 with Echo", got.Code, err)
		}
		other := netip.AddrPortFrom(remote.Addr(), 40002)
		w.receive(build(t, codes.GET, core, "", with(optionEcho, value...)), other)
		if got := w.one(t); got.Code != codes.Unauthorized {
			t.Errorf("another port with this value is answered %v, want 4.01", got.Code)
		}
		time.Sleep(echoPeriod)
		w.receive(build(t, codes.GET, core, "", with(optionEcho, value...)), remote)
		if got := w.one(t); got.Code != codes.Content {
			t.Errorf("with Echo answered %v, want 2.05", got.Code)
		}
		time.Sleep(2 * echoPeriod)
		w.receive(build(t, codes.GET, core, "", with(optionEcho, value...)), remote)
		if got := w.one(t); got.Code != codes.Unauthorized {
			t.Errorf("with an old Echo answered %v, want 4.01", got.Code)
		}
	})
}

func TestRequestsInFlightAreBounded(t *testing.T) {
	m := &memory{hold: true}
	inBubble(t, m, func(t *testing.T, w *wire) {
		w.s.flight.maxEndpoints = 2
		for i := range maxPerSource + 5 {
			w.receive(build(t, codes.PUT, temp, fmt.Sprint(i)), remote)
		}
		w.nothing(t)
		if got := w.s.Stats(); got.OverLimit != 5 || got.Pending != maxPerSource || got.Endpoints != 1 {
			t.Errorf("stats %+v, want 5 over the limit", got)
		}
		w.receive(build(t, codes.PUT, temp, "other"), loopback)
		w.nothing(t)
		w.receive(build(t, codes.PUT, temp, "third"), netip.MustParseAddrPort("192.0.2.10:1"))
		if got := w.one(t); got.Code != codes.ServiceUnavailable {
			t.Errorf("third endpoint answered %v, want 5.03", got.Code)
		}
	})
}

func TestPanicEndsOnlyItsMessage(t *testing.T) {
	m := &memory{panics: true}
	inBubble(t, m, func(t *testing.T, w *wire) {
		w.receive(build(t, codes.PUT, temp, "1"), remote)
		w.nothing(t)
		w.receive(build(t, codes.PUT, temp, "1"), remote)
		if got := w.one(t); got.Code != codes.Changed {
			t.Errorf("answered %v, want 2.04", got.Code)
		}
		if n := w.s.Stats().Panics; n != 1 {
			t.Errorf("%d panics counted, want 1", n)
		}
	})
}

func TestAnswererGivesUpOnAReceiptThatNeverResolves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t, &memory{hold: true})
		w.receive(build(t, codes.PUT, temp, "1", non), remote)
		w.queue.leave()
		began := time.Now()
		w.answerAll(nil)
		if took := time.Since(began); took != drainTime {
			t.Errorf("gave up after %v, want %v", took, drainTime)
		}
	})
}

func TestInternalErrorsAreNotShown(t *testing.T) {
	a := failure(errors.New("open /var/lib/secret: denied"))
	if a.code != codes.ServiceUnavailable || strings.Contains(string(a.body), "secret") {
		t.Errorf("failure = %v %q", a.code, a.body)
	}
	if !slices.Equal(a.body, []byte("not stored, try again")) {
		t.Errorf("text %q", a.body)
	}
}

// An answer that nobody acknowledges is sent again: all of it together counts.
func TestSeparateAnswersKeepWithinTheBound(t *testing.T) {
	for _, tt := range []struct {
		what  string
		err   error
		times int // an answer goes out
	}{
		{"stored", nil, 5},
		{"refused", fmt.Errorf("%w: %s", batching.ErrBusy, strings.Repeat("x", 100)), 5},
	} {
		t.Run(tt.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWire(t, &memory{})
				var bytes, answers int
				w.write = func(b []byte, _ netip.AddrPort) (int, error) {
					bytes += len(b)
					if len(b) > 4 {
						answers++
					}
					return len(b), nil
				}
				req := build(t, codes.PUT, temp, "1")
				r, resolve := batching.NewReceipt()
				p := &pending{arrived: time.Now(), receipt: r}
				p.typ, p.addr, p.size, p.tkl = message.Confirmable, remote, len(req), 2
				w.s.flight.enter(p)
				done := make(chan struct{})
				go func() { w.answerAll(nil); close(done) }()
				w.queue.join(p)
				time.Sleep(2 * time.Second)
				resolve(0, tt.err)
				w.Resolved()
				time.Sleep(2 * time.Minute)
				w.queue.leave()
				<-done
				if bytes > amplification*len(req) || answers > tt.times || answers == 0 {
					t.Errorf("%d bytes in %d answers to a request of %d", bytes, answers, len(req))
				}
				if w.separates() != 0 {
					t.Error("an answer is still sent")
				}
			})
		})
	}
}

// A diagnostic text is UTF-8 (RFC 7252, section 5.5.2), also when it quotes
// the request or is cut off.
func TestDiagnosticsAreUTF8(t *testing.T) {
	if a := refusal(codes.BadRequest, "name \xe2\x82"); string(a.body) != "name " {
		t.Errorf("text %q", a.body)
	}
	x := exchange{size: 8}
	if a := x.fit(refusal(codes.BadRequest, "\u20ac\u20ac\u20ac\u20ac"), &echo{}); string(a.body) != "\u20ac\u20ac" {
		t.Errorf("cut off text %q", a.body)
	}
}

func TestBusyIsSaidOnceAndWithoutPaths(t *testing.T) {
	err := fmt.Errorf("%w: %w: disk of /home/x has 7 bytes free", batching.ErrBusy, batching.ErrBusy)
	if a := failure(err); string(a.body) != "gateway busy, not stored, try again" {
		t.Errorf("text %q", a.body)
	}
}
