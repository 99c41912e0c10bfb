package journal

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/batching/reading"
)

// A model is a journal in memory, as simple as can be.
type model struct {
	readings []reading.Reading // kept
	packets  []modelPacket
	next     uint64
}

type modelPacket struct {
	key      batching.Key
	first    uint64
	received int64
}

func (m *model) append(packets []batching.Packet, at batching.Stamp) {
	for _, p := range packets {
		if p.Key != (batching.Key{}) {
			m.packets = append(m.packets, modelPacket{p.Key, m.next, at.Received})
		}
		for _, r := range p.Readings {
			r.Seq, r.Received, r.Clock = m.next, at.Received, at.Clock
			m.readings = append(m.readings, r)
			m.next++
		}
	}
}

func (m *model) recall(key batching.Key, within time.Duration, now int64) (uint64, bool) {
	seen := 0
	for _, p := range slices.Backward(m.packets) {
		if p.key.Sender != key.Sender {
			continue
		}
		if seen++; seen > windowSize {
			break
		}
		if p.key == key && now-p.received <= within.Milliseconds() {
			return p.first, true
		}
	}
	return 0, false
}

func (m *model) history(q Query) []reading.Reading {
	from, to := q.bounds()
	var rs []reading.Reading
	for _, r := range m.readings {
		if (q.Device == "" || r.Device == q.Device) && (q.Name == "" || r.Name == q.Name) &&
			r.Received >= from && r.Received < to {
			rs = append(rs, r)
		}
	}
	if q.Device != "" {
		slices.SortStableFunc(rs, func(a, b reading.Reading) int { return cmp.Compare(a.Received, b.Received) })
	}
	return rs
}

func (m *model) latest(device string) []reading.Reading {
	last := make(map[series]reading.Reading)
	for _, r := range m.readings {
		if device == "" || r.Device == device {
			last[series{r.Device, r.Name}] = r
		}
	}
	var rs []reading.Reading
	for _, r := range last {
		rs = append(rs, r)
	}
	slices.SortFunc(rs, func(a, b reading.Reading) int {
		return compareSeries(series{a.Device, a.Name}, series{b.Device, b.Name})
	})
	return rs
}

var genValue = rapid.OneOf(
	rapid.Map(rapid.Int64(), reading.Int),
	rapid.Map(rapid.Uint64(), reading.Uint),
	rapid.Map(rapid.Float64(), func(f float64) reading.Value {
		v, err := reading.Float(f)
		if err != nil {
			return reading.Bool(true)
		}
		return v
	}),
	rapid.Map(rapid.Bool(), reading.Bool),
	rapid.Map(rapid.StringN(0, 20, 80), func(s string) reading.Value {
		v, err := reading.String(s)
		if err != nil {
			return reading.Bool(false)
		}
		return v
	}),
	rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 40), reading.Bytes),
)

var (
	genDevice = rapid.SampledFrom([]string{"a", "b", "a\x01", "dev-3"})
	genName   = rapid.SampledFrom([]string{"x", "y", "temperature"})
)

var genReading = rapid.Custom(func(t *rapid.T) reading.Reading {
	return reading.Reading{
		Device: genDevice.Draw(t, "device"), Name: genName.Draw(t, "name"), Value: genValue.Draw(t, "value"),
		Unit:   rapid.SampledFrom([]string{"", "Cel", "%RH"}).Draw(t, "unit"),
		Time:   rapid.OneOf(rapid.Just(int64(0)), rapid.Int64Range(1, 1<<45)).Draw(t, "time"),
		Auth:   reading.Auth(rapid.IntRange(0, 3).Draw(t, "auth")),
		Source: reading.Source(rapid.IntRange(0, 2).Draw(t, "source")),
		Err:    rapid.SampledFrom([]string{"", "not a number"}).Draw(t, "err"),
	}
})

var genPacket = rapid.Custom(func(t *rapid.T) batching.Packet {
	return batching.Packet{
		Readings: rapid.SliceOfN(genReading, 1, 4).Draw(t, "readings"),
		Key:      keyOf(byte(rapid.IntRange(0, 2).Draw(t, "sender")), byte(rapid.IntRange(0, 5).Draw(t, "message"))),
	}
})

// Whatever is done to a journal, it answers as the model does.
func TestJournalAnswersAsTheModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		h := &modelRun{t: rt, dir: dir, m: model{next: 1}, opt: Options{Reserve: 1, Retention: time.Hour}}
		h.reopen()
		defer func() { _ = h.j.Close() }()
		rt.Repeat(map[string]func(*rapid.T){
			"append": h.append, "flush": h.flush, "trim": h.trim, "skip": h.skip, "restart": h.restart,
			"kill": func(*rapid.T) {
				if rapid.IntRange(0, 3).Draw(rt, "now") == 0 {
					h.dir = killed(t, h.dir)
					h.restart(rt)
				}
			},
			"prune":         func(*rapid.T) { _, err := h.j.pruneWindows(0, h.j.checkpoint.next); h.must(err) },
			"flush cut off": func(*rapid.T) { h.cutOff(t, h.flush) },
			"trim cut off":  func(*rapid.T) { h.cutOff(t, h.trim) },
			"recall":        h.recall, "read": h.read, "history": h.history, "latest": h.latest,
			"": h.check,
		})
	})
}

type modelRun struct {
	t   *rapid.T
	dir string
	opt Options
	j   *Journal
	m   model
	now int64
}

func (h *modelRun) must(err error) {
	if err != nil {
		h.t.Helper()
		h.t.Fatal(err)
	}
}

func (h *modelRun) reopen() {
	j, err := Open(h.dir, h.opt)
	h.must(err)
	h.j = j
}

func (h *modelRun) restart(*rapid.T) {
	h.must(h.j.Close())
	h.reopen()
	h.must(h.j.Check(h.t.Context()))
}

func (h *modelRun) append(t *rapid.T) {
	h.now = max(0, h.now+rapid.OneOf(rapid.Int64Range(0, 1000), rapid.Int64Range(-chunkSpan, 2*chunkSpan)).Draw(t, "later"))
	at := batching.Stamp{Received: h.now, Clock: reading.Clock(rapid.IntRange(0, 2).Draw(t, "clock"))}
	packets := rapid.SliceOfN(genPacket, 1, 10).Draw(t, "packets")
	first, err := h.j.Append(packets, at)
	h.must(err)
	if first != h.m.next {
		t.Fatalf("append = %d, want %d", first, h.m.next)
	}
	h.m.append(packets, at)
}

func (h *modelRun) flush(*rapid.T) { h.must(h.j.flush()) }

func (h *modelRun) trim(t *rapid.T) {
	through := uint64(rapid.IntRange(0, int(h.m.next)).Draw(t, "through"))
	h.must(h.j.Trim(through))
	_, err := h.j.trim(h.now)
	h.must(err)
	first := h.j.Stats().First
	h.m.readings = slices.DeleteFunc(h.m.readings, func(r reading.Reading) bool {
		if r.Seq < first && r.Seq > h.j.through {
			t.Fatalf("trim through %d dropped %d", h.j.through, r.Seq)
		}
		return r.Seq < first
	})
}

func (h *modelRun) skip(t *rapid.T) {
	if rapid.IntRange(0, 5).Draw(t, "really") == 0 {
		h.m.next += uint64(rapid.IntRange(0, 50).Draw(t, "by"))
		h.must(h.j.SkipTo(h.m.next))
	}
}

func (h *modelRun) recall(t *rapid.T) {
	key := genPacket.Draw(t, "like").Key
	within := time.Duration(rapid.Int64Range(0, 3*chunkSpan).Draw(t, "within")) * time.Millisecond
	got, ok := h.j.Recall(key, within, h.now)
	if key == (batching.Key{}) {
		if ok {
			t.Fatalf("recalled the zero key: %d", got)
		}
		return
	}
	if want, known := h.m.recall(key, within, h.now); got != want || ok != known {
		t.Fatalf("recall %x within %s at %d = %d, %t; want %d, %t", key, within, h.now, got, ok, want, known)
	}
}

func (h *modelRun) same(what string, got, want []reading.Reading) {
	if !slices.Equal(got, want) {
		h.t.Fatalf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}

func (h *modelRun) read(t *rapid.T) {
	from := uint64(rapid.IntRange(0, int(h.m.next)+1).Draw(t, "from"))
	limit := rapid.IntRange(0, 30).Draw(t, "limit")
	rs, err := h.j.Read(from, limit)
	h.must(err)
	var want []reading.Reading
	for _, r := range h.m.readings {
		if r.Seq >= from && len(want) < limit {
			want = append(want, r)
		}
	}
	h.same(fmt.Sprintf("read %d from %d", limit, from), rs, want)
	r, err := h.j.Get(from)
	if len(want) > 0 && want[0].Seq == from {
		h.must(err)
		h.same("get", []reading.Reading{r}, want[:1])
	} else if limit > 0 && !errors.Is(err, ErrNotFound) {
		t.Fatalf("get %d = %+v, %v", from, r, err)
	}
}

func (h *modelRun) history(t *rapid.T) {
	q := Query{
		Device: rapid.OneOf(rapid.Just(""), genDevice).Draw(t, "device"),
		Name:   rapid.OneOf(rapid.Just(""), genName).Draw(t, "name"),
		From:   rapid.OneOf(rapid.Just(int64(0)), rapid.Int64Range(0, h.now+1)).Draw(t, "from"),
		To:     rapid.OneOf(rapid.Just(int64(0)), rapid.Int64Range(0, h.now+1)).Draw(t, "to"),
		Limit:  rapid.IntRange(1, 20).Draw(t, "limit"),
	}
	var got []reading.Reading
	for {
		rs, next, err := h.j.History(q)
		h.must(err)
		got = append(got, rs...)
		if q.Cursor = next; next == "" {
			break
		}
	}
	h.same(fmt.Sprintf("history %+v", q), got, h.m.history(q))
}

func (h *modelRun) latest(t *rapid.T) {
	device := rapid.OneOf(rapid.Just(""), genDevice).Draw(t, "device")
	limit := rapid.IntRange(1, 5).Draw(t, "limit")
	var got []reading.Reading
	for after := ""; ; {
		rs, next, err := h.j.Latest(device, after, limit)
		h.must(err)
		got = append(got, rs...)
		if after = next; next == "" {
			break
		}
	}
	want := h.m.latest(device)
	h.same("latest", got, want)
	for _, r := range want {
		last, err := h.j.Last(r.Device, r.Name)
		h.must(err)
		h.same("last", []reading.Reading{last}, []reading.Reading{r})
	}
}

func (h *modelRun) check(t *rapid.T) {
	if got := h.j.Next(); got != h.m.next {
		t.Fatalf("next = %d, want %d", got, h.m.next)
	}
	if got := h.j.Stats().Readings; got != uint64(len(h.m.readings)) {
		t.Fatalf("%d readings kept, want %d", got, len(h.m.readings))
	}
	h.must(h.j.Check(t.Context()))
}

// cutOff pulls the plug behind one of the transactions of what do does, each of
// which takes a few changes, and goes on with what the disk has. What was cut
// off is done as far as readers can tell, or not at all.
func (h *modelRun) cutOff(t *testing.T, do func(*rapid.T)) {
	at, dir := rapid.IntRange(1, 12).Draw(h.t, "transaction"), ""
	before := h.j.cut
	h.j.cut = cut{rapid.IntRange(1, 6).Draw(h.t, "changes"), func() {
		if at--; at == 0 {
			dir = killed(t, h.dir)
		}
	}}
	do(h.t)
	h.j.cut = before
	if dir != "" {
		h.must(h.j.Close())
		h.dir = dir
		h.reopen()
	}
}
