package admin

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching/reading"
)

// A query reads the parameters of one request. The first error sticks and
// names its parameter.
type query struct {
	values url.Values
	err    error
}

// parseQuery reads a raw query and refuses parameters that the route does not
// have: a filter that is misspelt must not answer everything.
func parseQuery(raw string, known ...string) *query {
	values, err := url.ParseQuery(raw)
	q := &query{values: values}
	if err != nil {
		q.err = fmt.Errorf("query: %w", err)
		return q
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		switch {
		case !slices.Contains(known, name):
			q.fail(name, "no such parameter; there are "+strings.Join(known, ", "))
		case len(values[name]) > 1:
			q.fail(name, "given more than once")
		}
	}
	return q
}

func (q *query) fail(name, text string) {
	if q.err == nil {
		q.err = fmt.Errorf("%s: %s", name, text)
	}
}

// text returns a parameter of at most limit bytes.
func (q *query) text(name string, limit int) string {
	s := q.values.Get(name)
	if len(s) > limit {
		q.fail(name, fmt.Sprintf("%d bytes, at most %d", len(s), limit))
		return ""
	}
	return s
}

// word returns a parameter that is absent or one of words.
func (q *query) word(name string, words ...string) string {
	s := q.values.Get(name)
	if s != "" && !slices.Contains(words, s) {
		q.fail(name, fmt.Sprintf("%.40q, want one of %s", s, strings.Join(words, ", ")))
	}
	return s
}

// limit returns the number of items asked for, otherwise when absent.
func (q *query) limit(otherwise, most int) int {
	s := q.values.Get("limit")
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > most {
		q.fail("limit", fmt.Sprintf("%.40q, want a whole number from 1 to %d", s, most))
		return otherwise
	}
	return n
}

// time returns a time in Unix milliseconds, 0 when absent: RFC 3339, a date
// (midnight UTC) or Unix milliseconds. The "+" of an offset may have become
// a space on its way through a URL.
func (q *query) time(name string) int64 {
	s := q.values.Get(name)
	if s == "" {
		return 0
	}
	if ms, err := strconv.ParseInt(s, 10, 64); err == nil && ms > 0 {
		return ms
	}
	for _, layout := range []string{time.RFC3339Nano, time.DateOnly} {
		if t, err := time.Parse(layout, strings.Replace(s, " ", "+", 1)); err == nil && t.UnixMilli() > 0 {
			return t.UnixMilli()
		}
	}
	q.fail(name, fmt.Sprintf("%.40q, want a time after 1970 as 2026-11-22T10:15:04Z, 2026-11-22 or Unix milliseconds", s))
	return 0
}

// device and name return filters of readings.
func (q *query) device() string { return q.text("device", reading.MaxDevice) }
func (q *query) name() string   { return q.text("name", reading.MaxName) }

// maxCursor bounds a cursor, which is opaque here.
const maxCursor = 1024

func (q *query) cursor() string { return q.text("cursor", maxCursor) }
