package admin

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/hedgerow-iot/hedgerow/batching/reading"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

// all follows the cursors of a query and returns the ids.
func all(t *testing.T, b box, path string) (ids []string) {
	t.Helper()
	for cursor := ""; ; {
		got := items(t, b.get("/api/hedgerow/v1/"+path+"&cursor="+url.QueryEscape(cursor)))
		for _, it := range got.Items {
			ids = append(ids, it["id"].(string))
		}
		if cursor = got.Cursor; cursor == "" {
			return ids
		}
	}
}

func TestAReadingOfAnotherGatewayIsShownAsFarAsItIsKnown(t *testing.T) {
	b := newBox(t, Config{})
	b.mill(1)
	r := &b.archive.items[0].Reading
	r.Unit, r.Time, r.Clock = "Cel", r.Received-100, reading.ClockUnsure
	want := `{"id":"mill/1","device":"probe-0","name":"temperature","value":0,"unit":"Cel",` +
		`"time":"2026-11-22T10:00:00.400Z","received":"2026-11-22T10:00:00.500Z","clock":"unsure",` +
		`"state":"attached","blockId":"` + fakeBlock.String() + `"}`
	for _, path := range []string{"readings/mill/1", "readings?gateway=mill&format=ndjson"} {
		if w := b.get("/api/hedgerow/v1/" + path); w.Code != 200 || strings.TrimSpace(w.Body.String()) != want {
			t.Errorf("%s = %d %s\nwant %s", path, w.Code, w.Body, want)
		}
	}
	if w := b.get("/api/hedgerow/v1/readings?gateway=mill&format=csv"); !strings.Contains(w.Body.String(), "unsure,,attached,0x") {
		t.Errorf("CSV is %s", w.Body)
	}
}

func TestGatewayChoosesWhoseReadings(t *testing.T) {
	b := newBox(t, Config{})
	b.fill(30)
	b.mill(10)
	b.stage.through = 20
	for query, want := range map[string]int{
		"":                                      30,
		"gateway=barn-7":                        30,
		"gateway=mill":                          10,
		"gateway=old-1":                         0,
		"gateway=*":                             40,
		"gateway=*&device=probe-0":              14,
		"gateway=*&state=attached":              30,
		"gateway=*&state=batched":               10,
		"gateway=mill&state=attached":           10,
		"gateway=mill&state=stored":             0,
		"gateway=*&from=2026-11-22T10:00:10Z":   25,
		"gateway=mill&to=2026-11-22T10:00:10Z":  5,
		"gateway=*&limit=7":                     7,
		"gateway=mill&limit=3":                  3,
		"gateway=mill&name=humidity":            0,
		"gateway=*&device=probe-1&state=stored": 0,
	} {
		if got := items(t, b.get("/api/hedgerow/v1/readings?"+query)); len(got.Items) != want {
			t.Errorf("readings?%s has %d items, want %d", query, len(got.Items), want)
		}
		if strings.Contains(query, "limit") {
			continue
		}
		body, _, err := fetch(t, b, query+"&format=ndjson")
		if n := strings.Count(body, "\n"); n != want || err != nil {
			t.Errorf("ndjson %s has %d lines, %v; want %d", query, n, err, want)
		}
	}
}

func TestReadingsOfAllGatewaysComeByTimeAndOnce(t *testing.T) {
	for _, tt := range []struct {
		query             string
		own, mill         int
		journal, archived int // what one call looks at; 0: all
	}{
		{"limit=7", 50, 40, 0, 0},
		{"limit=1", 20, 5, 0, 0},
		{"limit=7", 50, 40, 3, 0},
		{"limit=7", 50, 40, 0, 4},
		{"limit=7", 50, 40, 3, 4},
		{"limit=7", 0, 40, 0, 0},
		{"limit=7", 50, 0, 0, 0},
		{"limit=7&state=attached", 300, 40, 0, 0},
		{"limit=300", 500, 400, 0, 0},
	} {
		t.Run(fmt.Sprint(tt), func(t *testing.T) {
			b := newBox(t, Config{})
			b.fill(tt.own)
			b.mill(tt.mill)
			b.stage.through = uint64(tt.own)
			b.journal.short, b.archive.short = tt.journal, tt.archived
			type one struct {
				received int64
				id       string
			}
			var want []one
			for _, r := range b.journal.rs {
				want = append(want, one{r.Received, fmt.Sprintf("barn-7/%d", r.Seq)})
			}
			for _, it := range b.archive.items {
				want = append(want, one{it.Reading.Received, fmt.Sprintf("mill/%d", it.Reading.Seq)})
			}
			slices.SortFunc(want, func(a, b one) int { return int(a.received - b.received) })
			got := all(t, b, "readings?gateway=*&"+tt.query)
			if len(got) != len(want) {
				t.Fatalf("%d readings, want %d", len(got), len(want))
			}
			for i := range want {
				if got[i] != want[i].id {
					t.Fatalf("reading %d is %s, want %s", i, got[i], want[i].id)
				}
			}
			_, rest, _ := strings.Cut(tt.query, "&")
			body, _, err := fetch(t, b, "gateway=*&format=ndjson&"+rest)
			if n := strings.Count(body, "\n"); n != len(want) || err != nil {
				t.Errorf("the stream has %d lines, %v; want %d", n, err, len(want))
			}
		})
	}
}

// A stream of all gateways ends although either side goes on.
func TestAStreamOfAllGatewaysEndsAtItsHorizon(t *testing.T) {
	b := newBox(t, Config{})
	b.fill(40)
	b.mill(20)
	for _, end := range []horizon{{seq: 11, position: 6}, {seq: 41, position: 6}, {seq: 11, position: 20}} {
		s, err := b.parseSelection("gateway=*&format=ndjson")
		if err != nil {
			t.Fatal(err)
		}
		s.end = end
		n := 0
		for {
			page, next, err := b.page(s, 4)
			if err != nil {
				t.Fatal(err)
			}
			if n += len(page); next == "" {
				break
			}
			s.Cursor = next
		}
		if want := int(end.seq-1) + int(end.position); n != want {
			t.Errorf("%+v: %d readings, want %d", end, n, want)
		}
	}
}

func TestUnknownGatewayIs404WithSuggestion(t *testing.T) {
	b := newBox(t, Config{})
	b.mill(1)
	for i := range 9 {
		b.file.Gateways = append(b.file.Gateways, network.Gateway{Name: fmt.Sprintf("shed-%d", i)})
	}
	for path, want := range map[string]string{
		"readings?gateway=mil":            "known are mill, ",
		"readings?gateway=barn-8":         "known are barn-7, ",
		"readings?gateway=nobody":         " and 7 more",
		"readings?gateway=x&format=csv":   "known are ",
		"readings/shed/1":                 "known are shed-0, shed-1, shed-2, shed-3, shed-4 and 7 more",
		"latest?gateway=" + string('y'):   "known are ",
		"readings/mill/9":                 "not known here",
		"readings/old-1/1":                "not known here",
		"readings?gateway=barn%2D7%2A":    "known are barn-7",
		"latest?gateway=mil&device=probe": "known are mill, ",
	} {
		w := b.get("/api/hedgerow/v1/" + path)
		if got := errorText(t, w); w.Code != 404 || !strings.Contains(got, want) {
			t.Errorf("GET %s = %d %q, want 404 with %q", path, w.Code, got, want)
		}
	}
}

func TestCursorsOfSeveralGatewaysAreChecked(t *testing.T) {
	b := newBox(t, Config{})
	b.fill(9)
	b.mill(9)
	one := items(t, b.get("/api/hedgerow/v1/readings?gateway=mill&limit=2")).Cursor
	for _, path := range []string{
		"readings?gateway=*&cursor=nonsense", "readings?gateway=*&cursor=~.~", "readings?gateway=*&cursor=x.y",
		"readings?gateway=*&cursor=3." + one, "readings?gateway=*&cursor=" + one, "readings?gateway=mill&cursor=3",
		"latest?gateway=*&cursor=3", "latest?gateway=*&cursor=jx", "latest?gateway=*&cursor=ax", "latest?gateway=mill&cursor=x",
	} {
		w := b.get("/api/hedgerow/v1/" + path)
		if got := errorText(t, w); w.Code != 400 || !strings.HasPrefix(got, "cursor: ") {
			t.Errorf("GET %s = %d %q, want 400 about the cursor", path, w.Code, got)
		}
	}
}

func TestLatestOfOtherGateways(t *testing.T) {
	b := newBox(t, Config{})
	b.fill(9)
	b.mill(7)
	for path, want := range map[string]string{
		"latest?limit=2":                          "barn-7/7 barn-7/8 barn-7/9",
		"latest?gateway=barn-7":                   "barn-7/7 barn-7/8 barn-7/9",
		"latest?gateway=mill&limit=2":             "mill/7 mill/5 mill/6",
		"latest?gateway=*&limit=2":                "barn-7/7 barn-7/8 barn-7/9 mill/7 mill/5 mill/6",
		"latest?gateway=*&limit=3":                "barn-7/7 barn-7/8 barn-7/9 mill/7 mill/5 mill/6",
		"latest?gateway=*":                        "barn-7/7 barn-7/8 barn-7/9 mill/7 mill/5 mill/6",
		"latest?gateway=*&device=probe-1&limit=1": "barn-7/8 mill/5",
	} {
		if got := strings.Join(all(t, b, path), " "); got != want {
			t.Errorf("%s is %s, want %s", path, got, want)
		}
	}
}

func TestEvidenceIsAnAlarm(t *testing.T) {
	b := newBox(t, Config{})
	if w := b.get("/api/hedgerow/v1/status"); strings.Contains(w.Body.String(), "signed_twice") {
		t.Errorf("status without evidence: %s", w.Body)
	}
	b.archive.alarms = 2
	if text := b.alarmsNow(t).text("signed_twice"); !strings.HasPrefix(text, "mill signed") || !strings.Contains(text, "in 2 blocks") {
		t.Errorf("alarm with evidence: %q", text)
	}
}
