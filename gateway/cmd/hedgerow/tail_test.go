package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// A stream that breaks off is gone on with behind its last event, and what was
// left out is said.
func TestTailPrintsReadingsAndGoesOnWhereItWas(t *testing.T) {
	const reading = `{"id":"barn-7/7","device":"probe-3","name":"temp\u001b[2J","value":21.5,"unit":"Cel","received":"2026-11-22T10:15:04.233Z","state":"stored"}`
	const other = `{"id":"barn-7/8","device":"door","name":"raw","value":"x","received":"2026-11-22T10:15:04.233Z","error":"not JSON"}`
	text := ": events of barn-7\n\nid: a-6\nevent: missed\ndata: {\"types\":[\"reading\"],\"events\":3}\n\n" +
		"id: a-7\nevent: reading\ndata: " + reading + "\n\n: still here\n\nid: a-8\nevent: reading\ndata: " + other + "\n\n"
	var behind []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		behind = append(behind, r.URL.Query().Get("types")+" "+r.Header.Get("Last-Event-ID"))
		_, _ = w.Write([]byte(text))
	}))
	defer s.Close()
	cl := &client{http: s.Client(), base: s.URL}
	for _, tt := range []struct {
		tail tail
		want []string // parts of what is printed
		not  string
	}{
		{tail{}, []string{"  barn-7/7  probe-3  temp\uFFFD[2J  21.5 Cel\n", `  barn-7/8  door  raw  "x" (undecodable)`}, "\x1b"},
		{tail{device: "door"}, []string{"barn-7/8"}, "barn-7/7"},
		{tail{json: true}, []string{reading + "\n" + other + "\n"}, "(undecodable)"},
	} {
		var out, notes strings.Builder
		tt.tail.out, tt.tail.notes = &out, &notes
		behind = nil
		for range 2 {
			if err := tt.tail.follow(context.Background(), cl); err != nil {
				t.Fatal(err)
			}
		}
		for _, want := range tt.want {
			if !strings.Contains(out.String(), want) || strings.Contains(out.String(), tt.not) {
				t.Errorf("printed %q, want %q and no %q", out.String(), want, tt.not)
			}
		}
		if !strings.HasPrefix(notes.String(), "up to 3 readings came too fast") {
			t.Errorf("notes are %q", notes.String())
		}
		if len(behind) != 2 || behind[0] != "reading " || behind[1] != "reading a-8" {
			t.Errorf("asked for %q, want the second behind a-8", behind)
		}
	}
}
