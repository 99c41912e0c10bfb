package admin

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/powfarm/remote"
)

func twoWorkers() fakeRemote {
	return fakeRemote{
		{
			Name: "barn-8", Key: remote.Key{0xab}, Kernel: "avx2", TriesPerSecond: 5e6, Earned: 4e6,
			Alive: true, LastSeen: time.UnixMilli(1795342504120), Queued: 2, Open: 1,
			Given: 10, Found: 6, Lost: 1, Expired: 1, Refused: 1,
		},
		{Name: "liar", Given: 3, Wrong: 1, TimedOut: 1, Cancelled: 1, LastSeen: time.UnixMilli(1), LeftAloneUntil: time.Now().Add(time.Hour)},
	}
}

func TestWorkersElsewhereAreListedAndInStatus(t *testing.T) {
	b := newBox(t, Config{})
	for _, path := range []string{"workers", "status"} {
		if w := b.get("/api/hedgerow/v1/" + path); w.Code != 200 || !strings.Contains(w.Body.String(), `":[]`) {
			t.Errorf("%s without remote workers = %d %s", path, w.Code, w.Body)
		}
	}
	b.src.Remote = twoWorkers()
	const first = `{"name":"barn-8","key":"0xab00000000000000000000000000000000000000000000000000000000000000","kernel":"avx2",` +
		`"triesPerSecond":5000000,"earnedTriesPerSecond":4000000,"alive":true,"lastSeen":"2026-11-22T10:15:04.120Z","queued":2,"open":1,` +
		`"given":10,"found":6,"wrong":0,"timedOut":0,"lost":1,"expired":1,"refused":1,"cancelled":0}`
	for _, path := range []string{"workers", "status"} {
		var got struct{ Items, Workers []json.RawMessage }
		if err := json.Unmarshal(b.get("/api/hedgerow/v1/"+path).Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		list := append(got.Items, got.Workers...)
		if len(list) != 2 || string(list[0]) != first || !strings.Contains(string(list[1]), `"leftAloneUntil":"2`) {
			t.Errorf("%s lists\n%s, want first\n%s", path, list, first)
		}
	}
	if w := b.get("/api/hedgerow/v1/workers?x=1"); w.Code != 400 {
		t.Errorf("workers?x=1 = %d, want 400", w.Code)
	}
}

func TestAWorkerElsewhereIsAWorker(t *testing.T) {
	b := newBox(t, Config{})
	b.src.Farm = fakeFarm{}
	b.stage.stats = batching.Stats{Backlog: batching.Backlog{Batched: 1}}
	alarmed := func() bool {
		return strings.Contains(b.get("/api/hedgerow/v1/status").Body.String(), `"name":"powfarm"`)
	}
	if !alarmed() {
		t.Error("no alarm although nobody searches")
	}
	b.src.Remote = twoWorkers()
	if alarmed() {
		t.Error("an alarm although a remote worker is there")
	}
	if b.src.Remote = twoWorkers()[1:]; !alarmed() {
		t.Error("no alarm although only a liar is there")
	}
}

func TestMetricsSumWorkersElsewhere(t *testing.T) {
	b := newBox(t, Config{})
	b.src.Remote = twoWorkers()
	body := call(b, "GET", "/metrics", "").Body.String()
	for _, line := range []string{
		`hedgerow_pow_remote_workers 1`,
		`hedgerow_pow_remote_given_total 13`,
		`hedgerow_pow_remote_messages_refused_total 9`,
		`hedgerow_pow_remote_ended_total{end="found"} 6`,
		`hedgerow_pow_remote_ended_total{end="wrong"} 1`,
		`hedgerow_pow_remote_ended_total{end="timed_out"} 1`,
		`hedgerow_pow_remote_ended_total{end="lost"} 1`,
		`hedgerow_pow_remote_ended_total{end="expired"} 1`,
		`hedgerow_pow_remote_ended_total{end="refused"} 1`,
		`hedgerow_pow_remote_ended_total{end="cancelled"} 1`,
	} {
		if !strings.Contains(body, "\n"+line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
}
