package admin

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/batching/reading"
	"github.com/hedgerow-iot/hedgerow/ledger/peer"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// run runs the handler until the test ends or stop is called.
func (b box) run(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	synctest.Wait()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

// A watcher is a client of the events.
type watcher struct {
	t     *testing.T
	lines *bufio.Scanner
	end   func()
	ended chan struct{}
}

// listen connects a client through a pipe, as synctest knows no sockets.
func (b box) listen(t *testing.T, query string, header ...string) *watcher {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := httptest.NewRequestWithContext(ctx, "GET", "/api/hedgerow/v1/events?"+query, nil)
	r.Header.Set("Authorization", "Bearer "+token)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	out, in := io.Pipe()
	w := &watcher{t: t, lines: bufio.NewScanner(out), ended: make(chan struct{})}
	w.end = func() { // as a connection that is closed
		cancel()
		_ = out.Close()
		<-w.ended
	}
	rec := &streamRecorder{header: http.Header{}, body: in}
	go func() {
		defer close(w.ended)
		defer in.Close()
		b.ServeHTTP(rec, r)
	}()
	if first := w.line(); !strings.HasPrefix(first, ": events of barn-7") || rec.header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("the stream begins with %q, %v", first, rec.header)
	}
	return w
}

type streamRecorder struct {
	header http.Header
	body   io.Writer
}

func (s *streamRecorder) Header() http.Header         { return s.header }
func (s *streamRecorder) WriteHeader(int)             {}
func (s *streamRecorder) Write(b []byte) (int, error) { return s.body.Write(b) }
func (s *streamRecorder) Flush()                      {}

// line returns the next line that is not empty.
func (w *watcher) line() string {
	w.t.Helper()
	for w.lines.Scan() {
		if text := w.lines.Text(); text != "" {
			return text
		}
	}
	return "end"
}

// next returns the next event, as name and data.
func (w *watcher) next() string {
	w.t.Helper()
	name := ""
	for {
		line := w.line()
		if rest, ok := strings.CutPrefix(line, "event: "); ok {
			name = rest
		}
		if rest, ok := strings.CutPrefix(line, "data: "); ok {
			return name + " " + rest
		}
		if line == "end" {
			return line
		}
	}
}

func (w *watcher) want(want ...string) {
	w.t.Helper()
	for _, text := range want {
		if got := w.next(); got != text {
			w.t.Errorf("got  %s\nwant %s", got, text)
		}
	}
}

func TestEventsTellOfAReadingsWholeWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t, Config{})
		b.fill(1) // before anybody listens
		stop := b.run(t)
		defer stop()
		w := b.listen(t, "types=milestone,reading,state")
		b.fill(2)
		b.journal.rs = b.journal.rs[:2]
		b.journal.rs[1] = reading.Reading{Seq: 2, Device: "door", Name: "open", Value: reading.Bool(true), Received: 1795342504000, Source: reading.SourceCoAP}
		b.stage.stored <- 3
		w.want(`reading {"id":"barn-7/2","device":"door","name":"open","value":true,"received":"2026-11-22T10:15:04.000Z","clock":"good","source":"coap","state":"stored"}`)
		id := block(5)
		b.ledger.mark(1, 2, id)
		b.Attached([][2]uint64{{1, 2}}, id)
		state := func(name, more string) string {
			return `state {"state":"` + name + `","gateway":"barn-7","readings":[[1,2]],"count":2,"blockId":"` + id.String() + `"` + more + `}`
		}
		const milestone = `milestone {"index":1,"id":"0x0100000000000000000000000000000000000000000000000000000000000000","timestamp":1795342504,"epoch":0,`
		w.want(state("attached", ""))
		b.ledger.approve(block(9), id)
		w.want(state("approved", ""))
		b.ledger.confirm(id, block(9), block(8))
		w.want(state("confirmed", `,"milestone":1`), milestone+`"blocks":3,"certified":false}`)
		b.ledger.certify(1)
		w.want(state("certified", `,"milestone":1`), milestone+`"certified":true}`)
		w.end()
	})
}

// changingPeers come and go while they are asked.
type changingPeers struct{ now atomic.Pointer[[]peer.Member] }

func (c *changingPeers) set(members ...peer.Member) { c.now.Store(&members) }
func (c *changingPeers) Stats() peer.Stats          { return peer.Stats{Members: *c.now.Load()} }

func TestEventsTellOfBlocksPeersAndAlarms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t, Config{})
		b.site()
		peers := &changingPeers{}
		peers.set(b.peers.Members...)
		b.src.Peers = peers
		stop := b.run(t)
		defer stop()
		w := b.listen(t, "types=block,peer,alarm")
		raw := func(tag string) []byte {
			raw, err := (&stardust.Block{
				Version: stardust.ProtocolVersion, Parents: []stardust.BlockID{{}}, Payload: &stardust.TaggedData{Tag: []byte(tag)},
			}).AppendBinary(nil)
			if err != nil {
				t.Fatal(err)
			}
			return raw
		}
		b.ledger.change(func() {
			b.ledger.fakeTangle.blocks = []fakeTangleBlock{{block(1), raw("hedgerow/mill")}, {block(2), raw("\x01")}}
		})
		w.want(
			`block {"blockId":"`+block(1).String()+`","attached":"2026-11-22T10:15:04.120Z","bytes":68,"tag":"hedgerow/mill"}`,
			`block {"blockId":"`+block(2).String()+`","attached":"2026-11-22T10:15:04.120Z","bytes":56,"tag":"0x01"}`,
		)
		mill, silo, shed := b.peers.Members[0], b.peers.Members[1], b.peers.Members[2]
		mill.Up = false
		peers.set(mill, silo, shed)
		w.want(`peer {"name":"mill","up":false}`,
			`alarm {"name":"quorum","text":"gateways of weight 1 are up, a quorum is 3; not heard of: mill, silo, shed","over":false}`)
		mill.Up, shed.Up = true, true
		peers.set(mill, silo, shed)
		got := []string{w.next(), w.next()}
		if !strings.HasSuffix(got[0], `"up":true}`) || !strings.HasSuffix(got[1], `"up":true}`) {
			t.Errorf("got %q, want mill and shed up", got)
		}
		w.want(`alarm {"name":"quorum","text":"gateways of weight 1 are up, a quorum is 3; not heard of: mill, silo, shed","over":true}`)
		w.end()
	})
}

func TestAStreamOfEventsLivesEndsAndIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t, Config{})
		const path = "/api/hedgerow/v1/events"
		if w := b.get(path); w.Code != 503 || w.Header().Get("Retry-After") == "" || errorText(t, w) == "" {
			t.Errorf("before Run = %d %s", w.Code, w.Body)
		}
		stop := b.run(t)
		for query, want := range map[string]string{"?types=blocks": "types: ", "?types=block,": "types: ", "?kind=block": "kind: "} {
			if w := b.get(path + query); w.Code != 400 || !strings.HasPrefix(errorText(t, w), want) {
				t.Errorf("%s = %d %s", query, w.Code, w.Body)
			}
		}
		w := b.listen(t, "")
		begin := time.Now()
		if beat := w.line(); beat != ": still here" || time.Since(begin) != heartbeat {
			t.Errorf("after %v comes %q, want a sign of life", time.Since(begin), beat)
		}
		for range maxListeners - 1 {
			defer b.listen(t, "types=peer").end()
		}
		if w := b.get(path); w.Code != 503 || w.Header().Get("Retry-After") == "" {
			t.Errorf("stream %d = %d, want 503", maxListeners+1, w.Code)
		}
		stop()
		<-w.ended
		if got := w.next(); got != "end" {
			t.Errorf("after Run comes %q", got)
		}
	})
}

// A client that was away for a moment finds the readings of that time, and one
// that was away for long is told.
func TestReadingsGoOnWhereAClientLeftOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t, Config{})
		stop := b.run(t)
		defer stop()
		w := b.listen(t, "types=reading")
		store := func(n int) {
			b.journal.rs = nil
			b.fill(n)
			b.stage.stored <- uint64(n + 1)
			synctest.Wait()
		}
		store(1)
		id := strings.TrimPrefix(w.line(), "id: ")
		if !strings.Contains(w.next(), "barn-7/1") {
			t.Fatal("not the first reading")
		}
		w.end()
		store(2)
		w = b.listen(t, "types=reading", "Last-Event-ID", id)
		if got := w.next(); !strings.Contains(got, "barn-7/2") {
			t.Errorf("back soon: %s", got)
		}
		w.end()
		time.Sleep(2 * listenerLinger)
		store(3)
		w = b.listen(t, "types=reading", "Last-Event-ID", id)
		if got := w.next(); !strings.Contains(got, "barn-7/2") {
			t.Errorf("what was told of in between: %s", got)
		}
		w.want(`missed {"types":["reading"]}`)
		store(2*maxBehind + 4)
		w.want(`missed {"types":["reading"],"events":4097}`)
		if got := w.next(); !strings.Contains(got, "barn-7/4101") {
			t.Errorf("then comes %s", got)
		}
		w.end()
	})
}

// Blocks of which the ledger tells nothing any more, and approvals that are left
// out, are looked up.
func TestWhatTheLedgerLeavesOutIsLookedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t, Config{})
		stop := b.run(t)
		defer stop()
		for i := range 20 {
			b.ledger.mark(uint64(i+1), uint64(i+1), block(i))
			b.Attached([][2]uint64{{uint64(i + 1), uint64(i + 1)}}, block(i))
		}
		var ids []stardust.BlockID
		for i := range 20 {
			ids = append(ids, block(i))
		}
		b.ledger.approve(ids...) // the fake tells of the last 5
		synctest.Wait()
		if got, want := b.Handler.progress.backlog(batching.Backlog{}), (backlog{Approved: 20}); got != want {
			t.Errorf("after approvals %+v, want %+v", got, want)
		}
		b.ledger.confirm(ids...)
		b.ledger.change(func() { delete(b.ledger.ordered, 1); b.ledger.agreed.Milestone++; b.ledger.ordered[2] = nil })
		synctest.Wait()
		if got, want := b.Handler.progress.backlog(batching.Backlog{}), (backlog{Confirmed: 20}); got != want {
			t.Errorf("after milestones %+v, want %+v", got, want)
		}
		if s := b.Handler.progress.stats(); s.approved != 20 {
			t.Errorf("%d approvals are counted, want 20", s.approved)
		}
	})
}

func TestEventTextsAreOneLine(t *testing.T) {
	h := newOpenHub()
	l := join(t, h, "", eventAlarm)
	h.publish(eventAlarm, Alarm{"a", "two\nlines\r"})
	out, _, _ := h.take(l)
	if bytes.ContainsAny(out[0].text, "\r\n") {
		t.Errorf("%q breaks the stream", out[0].text)
	}
}
