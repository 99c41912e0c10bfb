package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// A message is one that was published.
type message struct{ topic, payload string }

// A fakePublisher keeps what is published.
type fakePublisher struct {
	hold chan struct{} // if not nil, Event waits until it is closed

	mu     sync.Mutex // guards what follows
	wanted map[string]bool
	got    []message
	asked  int
}

func (p *fakePublisher) Event(topic string, payload []byte) {
	if p.hold != nil {
		<-p.hold
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.got = append(p.got, message{topic, string(payload)})
}

func (p *fakePublisher) Listening() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.wanted) > 0
}

func (p *fakePublisher) Wanted(topic string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked++
	return p.wanted[topic]
}

// take returns what was published since the last call, once nothing moves.
func (p *fakePublisher) take() []message {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	got := p.got
	p.got = nil
	return got
}

// follow runs events of l for those who want the topics, until the test ends.
func follow(t *testing.T, l Feed, p *fakePublisher, topics ...string) *Events {
	t.Helper()
	p.wanted = map[string]bool{}
	for _, topic := range topics {
		p.wanted[topic] = true
	}
	e := NewEvents(l, p, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	synctest.Wait()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	})
	return e
}

func TestBlocksAreToldOnTheTopicsOfTheirPayload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, p := newFakeLedger(0), &fakePublisher{}
		l.attach(t, "before")
		const tag = "blocks/tagged-data/0x74657374" // test
		follow(t, l, p, "blocks", "blocks/tagged-data", tag, "blocks/tagged-data/0x")
		tagged := string(block(t, 0, "tagged"))
		untagged := stardust.Block{Version: 2, Parents: []stardust.BlockID{{}}, Payload: &stardust.TaggedData{Data: []byte("x")}}
		empty := stardust.Block{Version: 2, Parents: []stardust.BlockID{{}}}
		l.attach(t, "tagged")
		var raws []string
		for _, b := range []*stardust.Block{&untagged, &empty} {
			id, err := l.Attach(t.Context(), b, nil)
			if err != nil {
				t.Fatal(err)
			}
			raws = append(raws, string(l.blocks[id]))
		}
		want := []message{
			{"blocks", tagged}, {"blocks/tagged-data", tagged}, {tag, tagged},
			{"blocks", raws[0]}, {"blocks/tagged-data", raws[0]},
			{"blocks", raws[1]},
		}
		if got := p.take(); !reflect.DeepEqual(got, want) {
			t.Errorf("told %q, want %q", got, want)
		}
	})
}

func TestMetadataIsToldWhenItChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, p := newFakeLedger(0), &fakePublisher{}
		raw := block(t, 0, "a")
		id := stardust.IDOf(raw)
		topic := "block-metadata/" + id.String()
		e := follow(t, l, p, topic, "block-metadata/referenced")
		if _, ok := e.Current(topic); ok {
			t.Error("an unknown block has a current state")
		}
		l.attach(t, "a")
		other := l.attach(t, "b")[0]
		head := fmt.Sprintf(`{"blockId":"%v","parents":["%v"],"isSolid":true,`, id, stardust.GenesisID)
		free := head + `"shouldPromote":false,"shouldReattach":false}`
		if got := p.take(); !reflect.DeepEqual(got, []message{{topic, free}}) {
			t.Errorf("on arrival told %q, want %q on %s", got, free, topic)
		}
		if got, ok := e.Current(topic); !ok || string(got) != free {
			t.Errorf("current = %s, %v; want %s", got, ok, free)
		}
		l.Confirm(consensus.Entry{ID: other}, consensus.Entry{ID: id, Inclusion: consensus.Included})
		done := head + `"referencedByMilestoneIndex":1,"whiteFlagIndex":1,"ledgerInclusionState":"included"}`
		got := p.take()
		if want := []message{{topic, done}, {"block-metadata/referenced", done}}; len(got) != 3 || !reflect.DeepEqual(got[1:], want) ||
			got[0].topic != "block-metadata/referenced" {
			t.Errorf("on confirmation told %q, want the other block and %q", got, want)
		}
		if got, ok := e.Current(topic); !ok || string(got) != done {
			t.Errorf("current = %s, %v; want %s", got, ok, done)
		}
		for _, topic := range []string{"block-metadata/referenced", "block-metadata/0x12", "blocks", id.String(), ""} {
			if got, ok := e.Current(topic); ok {
				t.Errorf("current of %q = %s, want none", topic, got)
			}
		}
	})
}

func TestMilestonesAreToldOnceAndTheirPayloadWithSignatures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, p := newFakeLedger(0), &fakePublisher{}
		e := follow(t, l, p, "milestone-info/latest", "milestone-info/confirmed", "milestones")
		if got, ok := e.Current("milestone-info/latest"); ok || got != nil {
			t.Errorf("current before the first milestone = %s", got)
		}
		m := l.Confirm(entries(l.attach(t, "a")...)...)
		info := fmt.Sprintf(`{"index":1,"timestamp":%d,"milestoneId":"0x%x","milestoneIndex":1,"milestoneTimestamp":%d}`, m.Timestamp, m.ID, m.Timestamp)
		if got, want := p.take(), []message{{"milestone-info/latest", info}, {"milestone-info/confirmed", info}}; !reflect.DeepEqual(got, want) {
			t.Errorf("told %q, want %q", got, want)
		}
		for _, topic := range []string{"milestone-info/latest", "milestone-info/confirmed"} {
			if got, ok := e.Current(topic); !ok || string(got) != info {
				t.Errorf("current of %s = %s, %v; want %s", topic, got, ok, info)
			}
		}
		l.Certify()
		got := p.take()
		if len(got) != 1 || got[0].topic != "milestones" {
			t.Fatalf("told %q, want the payload alone", got)
		}
		payload, err := stardust.ParseMilestone([]byte(got[0].payload))
		if err != nil || payload.ID() != m.ID || len(payload.Signatures) != 1 {
			t.Errorf("payload %+v, %v; want milestone %x signed", payload, err, m.ID)
		}
	})
}

// A countingFeed counts what is read to be encoded.
type countingFeed struct {
	*fakeLedger
	reads atomic.Int32
	looks atomic.Int32 // for blocks, and for what milestones order
}

func (f *countingFeed) Metadata(id stardust.BlockID) (ledger.Metadata, error) {
	f.reads.Add(1)
	return f.fakeLedger.Metadata(id)
}

func (f *countingFeed) Milestone(index uint32) (ledger.Milestone, error) {
	f.reads.Add(1)
	return f.fakeLedger.Milestone(index)
}

func (f *countingFeed) Order(after uint64, yield func(uint64, stardust.BlockID) bool) error {
	f.looks.Add(1)
	return f.fakeLedger.Order(after, yield)
}

func (f *countingFeed) Ordered(index uint32) ([]consensus.Entry, error) {
	f.looks.Add(1)
	return f.fakeLedger.Ordered(index)
}

func TestNothingIsEncodedThatNobodyWants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, p := &countingFeed{fakeLedger: newFakeLedger(0)}, &fakePublisher{}
		follow(t, l, p, "outputs")
		l.Confirm(entries(l.attach(t, "a", "b")...)...)
		l.Certify()
		if got := p.take(); len(got) != 0 || p.asked == 0 || l.reads.Load() != 0 {
			t.Errorf("told %q, asked %d times what is wanted, read %d times; want nothing told and read", got, p.asked, l.reads.Load())
		}
	})
}

// Without any subscriber not even the ids are looked up; who subscribes later is
// told of what comes then.
func TestNothingIsReadWhileNobodyListens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, p := &countingFeed{fakeLedger: newFakeLedger(0)}, &fakePublisher{}
		follow(t, l, p)
		l.Confirm(entries(l.attach(t, "a", "b")...)...)
		if got := p.take(); len(got) != 0 || p.asked != 0 || l.looks.Load() != 0 {
			t.Errorf("told %q, asked %d times what is wanted, looked %d times", got, p.asked, l.looks.Load())
		}
		p.mu.Lock()
		p.wanted = map[string]bool{"blocks": true, "milestone-info/latest": true}
		p.mu.Unlock()
		l.Confirm(entries(l.attach(t, "c")...)...)
		if got := p.take(); len(got) != 2 {
			t.Errorf("then told %q, want the new block and milestone", got)
		}
	})
}

func TestWhatIsTooFarBehindIsLeftOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, p := newFakeLedger(0), &fakePublisher{hold: make(chan struct{})}
		follow(t, l, p, "blocks", "milestone-info/latest")
		first := l.attach(t, "first")
		l.Confirm(entries(first...)...)
		synctest.Wait() // both are being published
		l.mu.Lock()
		for range maxBlocksBehind + 10 {
			l.put(l.blocks[first[0]])
		}
		l.mu.Unlock()
		var last uint32
		for range maxMilestonesBehind + 10 {
			last = l.Confirm(entries(first...)...).Index
		}
		close(p.hold)
		blocks, infos := 0, []message(nil)
		for _, m := range p.take() {
			if m.topic == "blocks" {
				blocks++
			} else {
				infos = append(infos, m)
			}
		}
		if blocks != 1+blocksAtOnce {
			t.Errorf("%d blocks told, want the first and the last %d", blocks, blocksAtOnce)
		}
		if a := l.Agreed(); len(infos) != 2 || infos[1].payload != string(encode(newMilestoneInfo(last, a.Timestamp, a.ID))) {
			t.Errorf("milestones told %q, want the first and the last", infos)
		}
		l.attach(t, "next")
		if got := p.take(); len(got) != 1 {
			t.Errorf("then told %d, want the next block alone", len(got))
		}
	})
}

func TestEventsEndWithTheErrorOfTheLedger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLedger(0)
		l.err = errors.New("disk gone")
		e := NewEvents(l, &fakePublisher{wanted: map[string]bool{"blocks": true}}, slog.New(slog.DiscardHandler))
		done := make(chan error, 1)
		go func() { done <- e.Run(t.Context()) }()
		synctest.Wait()
		l.attach(t, "a")
		if err := <-done; !errors.Is(err, l.err) {
			t.Errorf("Run = %v, want that of the ledger", err)
		}
	})
}
