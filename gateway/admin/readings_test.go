package admin

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/batching/journal"
	"github.com/hedgerow-iot/hedgerow/batching/reading"
)

func text(t testing.TB, s string) reading.Value {
	t.Helper()
	v, err := reading.String(s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestReadingHasTheFormOfTheContract(t *testing.T) {
	b := newBox(t, Config{})
	half, _ := reading.Float(21.5)
	b.journal.rs = []reading.Reading{
		{Seq: 1, Device: "probe-3", Name: "temperature", Value: half, Unit: "Cel",
			Time: 1795342504120, Received: 1795342504233, Source: reading.SourceMQTT},
		{Seq: 2, Device: "door", Name: "open", Value: reading.Bool(true), Received: 1795342504000,
			Clock: reading.ClockBad, Source: reading.SourceCoAP},
		{Seq: 3, Device: "door", Name: "raw", Value: reading.Bytes([]byte{0xff, 0}), Received: 1795342504000,
			Clock: reading.ClockUnsure, Err: "not JSON"},
		{Seq: 4, Device: "door", Name: "says", Value: text(t, `"ja"`), Received: 1795342504000},
	}
	b.stage.through, b.stage.known = 1, 2
	for i, want := range []string{
		`{"id":"barn-7/1","device":"probe-3","name":"temperature","value":21.5,"unit":"Cel",` +
			`"time":"2026-11-22T10:15:04.120Z","received":"2026-11-22T10:15:04.233Z","clock":"good","source":"mqtt",` +
			`"state":"attached","blockId":"` + fakeBlock.String() + `"}`,
		`{"id":"barn-7/2","device":"door","name":"open","value":true,` +
			`"received":"2026-11-22T10:15:04.000Z","clock":"bad","source":"coap","state":"batched"}`,
		`{"id":"barn-7/3","device":"door","name":"raw","value":{"base64":"/wA="},` +
			`"received":"2026-11-22T10:15:04.000Z","clock":"unsure","source":"mqtt","state":"stored","error":"not JSON"}`,
		`{"id":"barn-7/4","device":"door","name":"says","value":"\"ja\"",` +
			`"received":"2026-11-22T10:15:04.000Z","clock":"good","source":"mqtt","state":"stored"}`,
	} {
		w := b.get("/api/hedgerow/v1/readings/barn-7/" + string(rune('1'+i)))
		if got := strings.TrimSpace(w.Body.String()); w.Code != 200 || got != want {
			t.Errorf("reading %d = %d %s\nwant %s", i+1, w.Code, got, want)
		}
	}
}

func TestReadingsAreFilteredByEveryParameter(t *testing.T) {
	b := newBox(t, Config{})
	b.fill(30)
	b.journal.rs[4].Name = "humidity"
	b.stage.through = 10
	for query, want := range map[string]int{
		"":                                    30,
		"gateway=barn-7":                      30,
		"gateway=*":                           30,
		"device=probe-1":                      10,
		"device=probe-1&name=humidity":        1,
		"name=humidity":                       1,
		"from=2026-11-22T10:00:10Z":           20,
		"from=2026-11-22T11:00:10%2B01:00":    20,
		"from=2026-11-22T11:00:10+01:00":      20,
		"to=2026-11-22T10:00:10Z":             10,
		"from=2026-11-22&to=2026-11-23":       30,
		"from=1795341600000&to=1795341601000": 1,
		"state=attached":                      10,
		"state=batched&device=probe-0":        6,
		"state=confirmed":                     0,
		"limit=7":                             7,
		"device=nobody":                       0,
		"format=json&state=attached&limit=10": 10,
	} {
		if got := items(t, b.get("/api/hedgerow/v1/readings?"+query)); len(got.Items) != want {
			t.Errorf("readings?%s has %d items, want %d", query, len(got.Items), want)
		}
	}
}

func TestCursorsLeadThroughAllReadingsOnce(t *testing.T) {
	for name, query := range map[string]string{"all": "limit=7", "by state": "limit=7&state=attached"} {
		for _, short := range []int{0, 5} {
			b := newBox(t, Config{})
			b.fill(1300)
			b.stage.through = 1200
			b.journal.short = short
			seen, pages := 0, 0
			for cursor := ""; ; pages++ {
				got := items(t, b.get("/api/hedgerow/v1/readings?"+query+"&cursor="+cursor))
				for _, item := range got.Items {
					seen++
					if id := "barn-7/" + itoa(seen); item["id"] != id {
						t.Fatalf("%s: item %d is %v, want %s", name, seen, item["id"], id)
					}
				}
				if cursor = got.Cursor; cursor == "" {
					break
				}
				if len(got.Items) != 7 {
					t.Fatalf("%s: page %d has %d items, want 7", name, pages, len(got.Items))
				}
			}
			if want := map[string]int{"all": 1300, "by state": 1200}[name]; seen != want {
				t.Errorf("%s: %d readings, want %d", name, seen, want)
			}
		}
	}
}

func itoa(i int) string { b, _ := json.Marshal(i); return string(b) }

func TestParameterErrorsNameTheParameter(t *testing.T) {
	b := newBox(t, Config{})
	b.fill(3)
	for path, want := range map[string]string{
		"readings?limit=0":                             "limit: ",
		"readings?limit=1001":                          "limit: ",
		"readings?limit=ten":                           "limit: ",
		"readings?format=xml":                          "format: ",
		"readings?state=lost":                          "state: ",
		"readings?from=yesterday":                      "from: ",
		"readings?to=-5":                               "to: ",
		"readings?from=2026-11-23&to=2026-11-22":       "to: not after from",
		"readings?devcie=a":                            "devcie: no such parameter",
		"readings?device=a&device=b":                   "device: given more than once",
		"readings?device=" + strings.Repeat("a", 65):   "device: 65 bytes",
		"readings?cursor=nonsense":                     "cursor: ",
		"readings?cursor=" + strings.Repeat("a", 2000): "cursor: ",
		"readings?a=%zz":                               "query: ",
		"readings?format=csv&limit=-1":                 "limit: ",
		"readings?format=ndjson&cursor=nonsense":       "cursor: ",
		"readings/barn-7/x":                            "number in the path",
		"readings/barn-7/1?x=1":                        "x: no such parameter",
		"latest?name=a":                                "name: no such parameter",
		"latest?cursor=nonsense":                       "cursor: ",
		"blocks":                                       "tag: missing",
		"blocks?tag=0xabc":                             "tag: ",
		"blocks?tag=" + strings.Repeat("a", 65):        "tag: ",
		"blocks?tag=a&cursor=nonsense":                 "cursor: ",
		"status?verbose=1":                             "verbose: no such parameter",
		"config?verbose=1":                             "verbose: no such parameter",
	} {
		w := b.get("/api/hedgerow/v1/" + path)
		if got := errorText(t, w); w.Code != 400 || !strings.HasPrefix(got, want) {
			t.Errorf("GET %s = %d %q, want 400 %q…", path, w.Code, got, want)
		}
	}
}

func TestUnknownReadingIs404(t *testing.T) {
	b := newBox(t, Config{})
	b.fill(3)
	for _, path := range []string{"readings/barn-7/4", "readings/barn-7/0", "readings/barn-8/1"} {
		if w := b.get("/api/hedgerow/v1/" + path); w.Code != 404 {
			t.Errorf("GET %s = %d, want 404", path, w.Code)
		} else {
			errorText(t, w)
		}
	}
}

func TestLatestHasOneReadingPerDeviceAndName(t *testing.T) {
	b := newBox(t, Config{})
	b.fill(9)
	if got := items(t, b.get("/api/hedgerow/v1/latest")); len(got.Items) != 3 || got.Items[0]["id"] != "barn-7/7" {
		t.Errorf("latest = %v", got.Items)
	}
	if got := items(t, b.get("/api/hedgerow/v1/latest?device=probe-2")); len(got.Items) != 1 || got.Items[0]["id"] != "barn-7/9" {
		t.Errorf("latest of a device = %v", got.Items)
	}
}

func TestJSONAnswersAreBounded(t *testing.T) {
	b := newBox(t, Config{})
	b.fill(1500)
	for i := range b.journal.rs {
		b.journal.rs[i].Device = "probe-" + itoa(i)
		b.journal.rs[i].Value = text(t, strings.Repeat("x", reading.MaxText))
	}
	for _, path := range []string{"readings", "latest"} {
		path += "?limit=1000"
		seen, most := 0, 0
		for cursor := ""; ; {
			w := b.get("/api/hedgerow/v1/" + path + "&cursor=" + cursor)
			most = max(most, w.Body.Len())
			got := items(t, w)
			seen += len(got.Items)
			if cursor = got.Cursor; cursor == "" {
				break
			}
		}
		if seen != 1500 || most > 2*maxBytes {
			t.Errorf("%s: %d readings, answers of up to %d bytes; want 1500, %d", path, seen, most, 2*maxBytes)
		}
	}
}

// fetch asks a real server, as trailers and broken streams need one.
func fetch(t *testing.T, h http.Handler, query string) (body string, r *http.Response, err error) {
	t.Helper()
	srv := httptest.NewServer(h)
	defer srv.Close()
	req, err := http.NewRequestWithContext(t.Context(), "GET", srv.URL+"/api/hedgerow/v1/readings?"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	r, err = srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	return string(b), r, err
}

func TestStreamsHoldTheWholeRange(t *testing.T) {
	b := newBox(t, Config{})
	b.fill(1700)
	b.stage.through = 1600
	for query, want := range map[string]int{"": 1700, "state=attached": 1600, "device=probe-0": 567, "limit=1200": 1200, "gateway=*&from=2026-11-23": 0} {
		body, r, err := fetch(t, b, query+"&format=ndjson")
		n := 0
		for lines := bufio.NewScanner(strings.NewReader(body)); lines.Scan(); n++ {
			var item map[string]any
			if err := json.Unmarshal(lines.Bytes(), &item); err != nil || item["id"] == "" {
				t.Fatalf("line %q: %v", lines.Text(), err)
			}
		}
		if err != nil || n != want || r.Header.Get("Content-Type") != "application/x-ndjson" {
			t.Errorf("ndjson %q has %d lines, %v; want %d", query, n, err, want)
		}
		next := r.Trailer.Get("Hedgerow-Cursor")
		if (next != "") != strings.HasPrefix(query, "limit") {
			t.Errorf("ndjson %q ends with cursor %q", query, next)
		}

		body, r, err = fetch(t, b, query+"&format=csv")
		rows, csvErr := csv.NewReader(strings.NewReader(body)).ReadAll()
		if err != nil || csvErr != nil || len(rows) != want+1 || strings.Join(rows[0], " ") != strings.Join(csvHeader(), " ") {
			t.Errorf("csv %q has %d rows, %v, %v; want %d and a header", query, len(rows), err, csvErr, want)
		}
		if !strings.Contains(body, "error,milestone\r\n") || !strings.HasPrefix(r.Header.Get("Content-Type"), "text/csv") {
			t.Errorf("csv %q: header of %q", query, r.Header.Get("Content-Type"))
		}
	}
}

func TestAStreamGoesOnFromItsCursor(t *testing.T) {
	b := newBox(t, Config{})
	b.fill(20)
	_, r, _ := fetch(t, b, "format=ndjson&limit=5")
	body, _, _ := fetch(t, b, "format=ndjson&limit=1&cursor="+url.QueryEscape(r.Trailer.Get("Hedgerow-Cursor")))
	if !strings.HasPrefix(body, `{"id":"barn-7/6"`) {
		t.Errorf("after five readings comes %s", body)
	}
}

func TestWhatComesInDuringAStreamIsNotWaitedFor(t *testing.T) {
	b := newBox(t, Config{})
	b.fill(10)
	s, err := b.parseSelection("format=ndjson")
	if err != nil {
		t.Fatal(err)
	}
	s.end.seq = 3
	got, next, err := b.page(s, 5)
	if err != nil || len(got) != 2 || next == "" {
		t.Errorf("page up to number 3 = %d readings, %q, %v", len(got), next, err)
	}
	s.Cursor = next
	if got, next, err = b.page(s, 5); err != nil || len(got) != 0 || next != "" {
		t.Errorf("page behind number 3 = %d readings, %q, %v; want the end", len(got), next, err)
	}
}

func TestABrokenStreamIsNotTakenForAWholeOne(t *testing.T) {
	b := newBox(t, Config{})
	b.fill(1700)
	b.journal.fails, b.journal.err = 3, errBroken
	srv := http.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { b.ServeHTTP(w, r) }))
	if body, _, err := fetch(t, srv, "format=ndjson"); err == nil {
		t.Errorf("%d bytes read to a regular end, want a broken connection", len(body))
	}
	b.journal.fails, b.journal.calls = 1, 0
	if w := b.get("/api/hedgerow/v1/readings?format=csv"); w.Code != 500 || strings.Contains(w.Body.String(), "secret") {
		t.Errorf("error before the first line = %d %s, want 500 without details", w.Code, w.Body)
	}
}

func TestExportsAtATimeAreBounded(t *testing.T) {
	b := newBox(t, Config{})
	for range maxExports {
		b.exports <- struct{}{}
	}
	w := b.get("/api/hedgerow/v1/readings?format=csv")
	if errorText(t, w); w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Errorf("one export too many = %d, want 503 with Retry-After", w.Code)
	}
	<-b.exports
	if w := b.get("/api/hedgerow/v1/readings?format=csv"); w.Code != 200 || len(b.exports) != maxExports-1 {
		t.Errorf("export = %d, %d in progress after it", w.Code, len(b.exports))
	}
}

func TestTextInCSVIsNoFormula(t *testing.T) {
	b := newBox(t, Config{})
	b.journal.rs = []reading.Reading{
		{Seq: 1, Device: "=1+1", Name: "@n", Value: text(t, "+49\r\n, \"q\""), Unit: "-u", Err: "=e"},
		{Seq: 2, Device: "d", Name: "n", Value: reading.Int(-5)},
	}
	w := b.get("/api/hedgerow/v1/readings?format=csv")
	rows, err := csv.NewReader(w.Body).ReadAll()
	if err != nil || len(rows) != 3 {
		t.Fatalf("%v, %v", rows, err)
	}
	// encoding/csv reads CRLF inside quotes as LF.
	if got, want := strings.Join(rows[1][1:5], "|"), "'=1+1|'@n|'+49\n, \"q\"|'-u"; got != want || rows[1][11] != "'=e" {
		t.Errorf("row = %q, want %q", got, want)
	}
	if rows[2][3] != "-5" {
		t.Errorf("number = %q, want -5", rows[2][3])
	}
}

// Whatever is asked, the answer is a list or an error that names a parameter.
func FuzzReadingsQuery(f *testing.F) {
	f.Add("gateway=*&device=a&name=b&from=2026-11-22T10:00:00Z&to=1795342504000&state=stored&limit=3&cursor=2&format=csv")
	f.Add("from=2026-11-22T11:00:10+01:00&format=ndjson")
	b := newBox(f, Config{})
	b.fill(5)
	f.Fuzz(func(t *testing.T, query string) {
		r := httptest.NewRequest("GET", "/api/hedgerow/v1/readings", nil)
		r.URL.RawQuery = query
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		b.ServeHTTP(w, r)
		switch w.Code {
		case 200:
		case 400, 404:
			if !strings.Contains(errorText(t, w), ": ") {
				t.Errorf("error %s names no parameter", w.Body)
			}
		default:
			t.Errorf("%q = %d %s", query, w.Code, w.Body)
		}
	})
}

// The journal's own cursors and short pages, not those of the fake.
func TestCursorsOfTheRealJournalLeadThroughAllReadingsOnce(t *testing.T) {
	b := newBox(t, Config{})
	j, err := journal.Open(t.TempDir(), journal.Options{MaxDisk: 256 << 20, Reserve: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	const groups, each = 50, 30
	for g := range groups {
		var p batching.Packet
		for i := range each {
			p.Readings = append(p.Readings, reading.Reading{Device: "probe-" + itoa(i%3), Name: "n" + itoa(i), Value: reading.Int(int64(g))})
		}
		if _, err := j.Append([]batching.Packet{p}, batching.Stamp{Received: 1795342504000 + int64(g)}); err != nil {
			t.Fatal(err)
		}
	}
	b.src.Journal = j
	b.stage.through = groups * each / 2
	for query, want := range map[string]int{
		"limit=70":                                groups * each,
		"limit=70&device=probe-1":                 groups * each / 3,
		"limit=7&name=n4":                         groups,
		"limit=70&state=attached":                 groups * each / 2,
		"limit=9&state=stored&from=1795342504049": each,
	} {
		seen := map[any]bool{}
		for cursor := ""; ; {
			got := items(t, b.get("/api/hedgerow/v1/readings?"+query+"&cursor="+url.QueryEscape(cursor)))
			for _, item := range got.Items {
				if seen[item["id"]] {
					t.Errorf("%s: %v came twice", query, item["id"])
				}
				seen[item["id"]] = true
			}
			if cursor = got.Cursor; cursor == "" {
				break
			}
		}
		if len(seen) != want {
			t.Errorf("%s: %d readings, want %d", query, len(seen), want)
		}
		_, rest, _ := strings.Cut(query, "&")
		if body, _, err := fetch(t, b, rest+"&format=ndjson"); err != nil || strings.Count(body, "\n") != want {
			t.Errorf("ndjson %s: %d lines, %v; want %d", rest, strings.Count(body, "\n"), err, want)
		}
	}
	if got := items(t, b.get("/api/hedgerow/v1/latest?limit=20")); len(got.Items) != 20 || got.Cursor == "" {
		t.Errorf("latest: %d items, cursor %q", len(got.Items), got.Cursor)
	} else if got = items(t, b.get("/api/hedgerow/v1/latest?limit=20&cursor="+url.QueryEscape(got.Cursor))); len(got.Items) != each-20 || got.Cursor != "" {
		t.Errorf("rest of latest: %d items, cursor %q", len(got.Items), got.Cursor)
	}
	if w := b.get("/api/hedgerow/v1/latest?cursor=nonsense%00"); w.Code != 400 {
		t.Errorf("latest with a foreign cursor = %d %s, want 400", w.Code, w.Body)
	}
}
