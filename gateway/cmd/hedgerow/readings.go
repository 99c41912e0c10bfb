package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/hedgerow-iot/hedgerow/gateway"
)

type readingsCmd struct {
	List   listCmd   `cmd:"" help:"List readings, oldest first."`
	Export exportCmd `cmd:"" help:"Write readings as CSV or NDJSON."`
}

// selection says which readings are meant.
type selection struct {
	Gateway string `help:"Of this gateway of the network, or * for all (default: the one that is asked)."`
	Device  string `help:"Only of this device."`
	Name    string `help:"Only with this name."`
	From    string `placeholder:"TIME" help:"Received at or after: RFC 3339, a date, or a duration ago such as 2h or 30d."`
	To      string `placeholder:"TIME" help:"Received before."`
	State   string `enum:",stored,batched,attached,approved,confirmed,certified" default:"" help:"Only in this state: stored, batched, attached, approved, confirmed or certified."`
}

func (s *selection) query() (url.Values, error) {
	q := url.Values{}
	for key, v := range map[string]string{"gateway": s.Gateway, "device": s.Device, "name": s.Name, "state": s.State} {
		if v != "" {
			q.Set(key, v)
		}
	}
	for key, v := range map[string]string{"from": s.From, "to": s.To} {
		if v == "" {
			continue
		}
		if d, err := gateway.ParseDuration(v); err == nil {
			v = time.Now().Add(-d).UTC().Format(time.RFC3339Nano)
		} else if _, err := time.Parse(time.RFC3339Nano, v); err != nil {
			day, err := time.ParseInLocation(time.DateOnly, v, time.Local)
			if err != nil {
				return nil, usagef("--%s: %q is neither a time such as 2026-11-22T10:15:04Z, a date, nor a duration such as 2h or 30d", key, v)
			}
			v = day.UTC().Format(time.RFC3339)
		}
		q.Set(key, v)
	}
	return q, nil
}

// A readingItem is a reading as the admin API shows it.
type readingItem struct {
	ID        string          `json:"id"`
	Device    string          `json:"device"`
	Name      string          `json:"name"`
	Value     json.RawMessage `json:"value"`
	Unit      string          `json:"unit"`
	Received  time.Time       `json:"received"`
	State     string          `json:"state"`
	BlockID   string          `json:"blockId"`
	Milestone uint32          `json:"milestone"` // 0: none
	Error     string          `json:"error"`
}

const readingsPath = "/api/hedgerow/v1/readings"

type listCmd struct {
	target
	selection
	Limit  int    `default:"100" help:"Most readings to list; 0 lists all."`
	Format string `enum:"table,csv,ndjson" default:"table" help:"table, csv or ndjson."`
	JSON   bool   `name:"json" help:"Print one JSON object per line (as --format ndjson)."`
}

// Run lists readings.
func (c *listCmd) Run(e *env) error {
	if c.Limit < 0 {
		return usagef("--limit: %d is negative", c.Limit)
	}
	if c.JSON {
		c.Format = "ndjson"
	}
	q, err := c.query()
	if err != nil {
		return err
	}
	cl, err := c.open(e)
	if err != nil {
		return err
	}
	defer cl.close() //nolint:errcheck // only read
	if c.Limit > 0 {
		q.Set("limit", strconv.Itoa(c.Limit))
	}
	if c.Format != "table" {
		return stream(e, cl, q, c.Format, e.stdout, false)
	}
	q.Set("format", "ndjson")
	resp, err := cl.get(e.ctx, readingsPath, q)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	n, err := writeTable(e.stdout, resp.Body)
	if err == nil && n == c.Limit {
		fmt.Fprintf(e.stderr, "the first %d readings; --limit 0 lists all, --from, --to and --device choose\n", n)
	}
	return err
}

// writeTable formats NDJSON readings for people, some hundred at a time so
// that columns line up and nothing is kept.
func writeTable(w io.Writer, r io.Reader) (n int, err error) {
	dec := json.NewDecoder(bufio.NewReaderSize(r, 64<<10))
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "RECEIVED\tID\tDEVICE\tNAME\tVALUE\tUNIT\tSTATE\tBLOCK\tMILESTONE")
	for {
		var it readingItem
		if err := dec.Decode(&it); err == io.EOF {
			return n, tw.Flush()
		} else if err != nil {
			return n, fmt.Errorf("read the gateway's answer: %w", err)
		}
		value := shortValue(it.Value)
		if it.Error != "" {
			value += " (undecodable)"
		}
		milestone := ""
		if it.Milestone != 0 {
			milestone = strconv.FormatUint(uint64(it.Milestone), 10)
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", it.Received.Local().Format("2006-01-02 15:04:05.000"),
			it.ID, plain(it.Device), plain(it.Name), value, plain(it.Unit), it.State, shortID(it.BlockID), milestone)
		if n++; n%500 == 0 {
			if err := tw.Flush(); err != nil {
				return n, err
			}
		}
	}
}

func shortID(id string) string {
	if len(id) > 12 {
		return id[:12] + "…"
	}
	return id
}

// shortValue returns a value on one line of at most 40 columns.
func shortValue(v json.RawMessage) string {
	s := plain(string(v))
	if r := []rune(s); len(r) > 40 {
		return string(r[:39]) + "…"
	}
	return s
}

// plain keeps what devices sent from steering the terminal.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

type exportCmd struct {
	target
	selection
	Format string `enum:"csv,ndjson" default:"csv" help:"csv or ndjson."`
	JSON   bool   `name:"json" help:"As --format ndjson."`
	Output string `short:"o" placeholder:"FILE" help:"Write to this new file (default: stdout)."`
}

// Run exports readings.
func (c *exportCmd) Run(e *env) (err error) {
	if c.JSON {
		c.Format = "ndjson"
	}
	q, err := c.query()
	if err != nil {
		return err
	}
	cl, err := c.open(e)
	if err != nil {
		return err
	}
	defer cl.close() //nolint:errcheck // only read
	out := e.stdout
	if c.Output != "" {
		f, err := os.OpenFile(c.Output, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return fmt.Errorf("write the export: %w", err)
		}
		if err := stream(e, cl, q, c.Format, f, true); err != nil {
			_ = f.Close()
			_ = os.Remove(c.Output) // a part must not pass for the whole
			return err
		}
		return f.Close()
	}
	return stream(e, cl, q, c.Format, out, true)
}

// stream copies an answer of the API, showing progress to whoever watches.
func stream(e *env, cl *client, q url.Values, format string, w io.Writer, progress bool) error {
	q.Set("format", format)
	resp, err := cl.get(e.ctx, readingsPath, q)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	lines := &lineCounter{w: w}
	if progress && isTerminal(e.stderr) && !(w == e.stdout && isTerminal(e.stdout)) {
		total := int64(0) // nobody counts what others have
		if q.Get("gateway") == "" {
			total = cl.total(e)
		}
		if format == "csv" {
			lines.n = -1 // the header
		}
		lines.shown = newBar(e.stderr, "exporting", total)
		defer lines.shown.done()
	}
	if _, err := io.Copy(lines, resp.Body); err != nil {
		return fmt.Errorf("copy the readings: %w", err)
	}
	return nil
}

// total returns how many readings the gateway keeps at most, 0 when unknown.
func (c *client) total(e *env) int64 {
	var status struct {
		Readings struct {
			Kept int64 `json:"kept"`
		} `json:"readings"`
	}
	if c.getJSON(e.ctx, "/api/hedgerow/v1/status", nil, &status) != nil {
		return 0
	}
	return status.Readings.Kept
}

// lineCounter counts lines on their way to w.
type lineCounter struct {
	w     io.Writer
	n     int64
	shown *bar // nil when nobody watches
}

func (l *lineCounter) Write(b []byte) (int, error) {
	l.n += int64(bytes.Count(b, []byte{'\n'}))
	if l.shown != nil {
		l.shown.set(l.n)
	}
	return l.w.Write(b)
}
