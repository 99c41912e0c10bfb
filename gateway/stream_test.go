package gateway

import (
	"bufio"
	"context"
	"net/http"
	"strings"
	"testing"
	"time"
)

// A client of a real gateway sees a reading stored and attached, and its stream
// does not hold up the end.
func TestEventsFollowAReadingThroughAGateway(t *testing.T) {
	g := start(t, testSandbox(t, t.TempDir()))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+g.address("http")+"/api/hedgerow/v1/events?types=reading,state,block", nil)
	must(t, err)
	req.Header.Set("Authorization", "Bearer "+g.token)
	resp, err := http.DefaultClient.Do(req)
	for ; err == nil && resp.StatusCode == http.StatusServiceUnavailable; resp, err = http.DefaultClient.Do(req) {
		resp.Body.Close() // it has just been started
		time.Sleep(10 * time.Millisecond)
	}
	must(t, err)
	defer resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Fatalf("GET events = %s", resp.Status)
	}
	must(t, g.publish("readings/probe-1/temperature", "21.5"))
	lines := bufio.NewScanner(resp.Body)
	for _, want := range []string{`"id":"sandbox/1"`, `"state":"attached","gateway":"sandbox","readings":[[1,1]],"count":1`} {
		found := false
		for !found && lines.Scan() {
			found = strings.Contains(lines.Text(), want)
		}
		if !found {
			t.Fatalf("the stream ended before %s: %v", want, lines.Err())
		}
	}
	var s struct {
		Backlog struct{ Stored, Attached, Approved, Confirmed int }
	}
	if g.get("/api/hedgerow/v1/status", &s); s.Backlog.Stored != 0 {
		t.Errorf("backlog is %+v, want nothing stored", s.Backlog)
	}
	begin := time.Now()
	must(t, g.stop())
	if took := time.Since(begin); took > httpStop {
		t.Errorf("the gateway took %v to stop", took)
	}
	for lines.Scan() {
	}
	if err := lines.Err(); err != nil {
		t.Errorf("the stream was cut off: %v", err)
	}
}
