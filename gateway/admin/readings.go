package admin

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/batching/archive"
	"github.com/hedgerow-iot/hedgerow/batching/journal"
	"github.com/hedgerow-iot/hedgerow/batching/reading"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// Bounds of answers.
const (
	defaultLimit = 100
	maxLimit     = 1000
	pageSize     = 200     // readings read at a time
	maxBytes     = 2 << 20 // of the texts in a JSON answer, or a page more
	// scanTime bounds the search for readings that a filter passes, for one
	// JSON answer; the cursor says where to go on.
	scanTime    = 2 * time.Second
	maxExports  = 4                // streams at the same time
	pageTime    = 30 * time.Second // for the client to take one page of a stream
	exportRetry = "10"             // seconds, told when there are maxExports
)

// A readingJSON is a reading as the contract's section 5 has it.
type readingJSON struct {
	seq      uint64
	received int64
	position uint64 // of its block in the archive's stream; 0: a reading of this gateway

	ID       string            `json:"id"`
	Device   string            `json:"device"`
	Name     string            `json:"name"`
	Value    reading.Value     `json:"value"`
	Unit     string            `json:"unit,omitempty"`
	Time     string            `json:"time,omitempty"`
	Received string            `json:"received"`
	Clock    string            `json:"clock"`
	Source   string            `json:"source,omitempty"` // not known of other gateways' readings
	State    string            `json:"state"`
	BlockID  *stardust.BlockID `json:"blockId,omitempty"`
	// Milestone is the index of the one that orders the block: from confirmed on.
	Milestone uint32 `json:"milestone,omitempty"`
	Error     string `json:"error,omitempty"` // why Value is the raw payload
}

// show adds to r what the Tangle knows of it.
func (h *Handler) show(r *reading.Reading, on standings) (readingJSON, error) {
	state, block, err := h.src.Stage.State(r.Seq)
	if errors.Is(err, batching.ErrNotFound) {
		// The stage hears of a reading a moment after the journal has it.
		state, err = batching.Stored, nil
	}
	if err != nil {
		return readingJSON{}, fmt.Errorf("look up the state of reading %d: %w", r.Seq, err)
	}
	out := newReadingJSON(h.cfg.Name, r)
	out.Source, out.State = r.Source.String(), string(state)
	if block == stardust.GenesisID {
		return out, nil
	}
	return out, h.stand(&out, block, on)
}

// newReadingJSON returns what a reading itself says.
func newReadingJSON(gateway string, r *reading.Reading) readingJSON {
	out := readingJSON{
		seq: r.Seq, received: r.Received,
		ID:     gateway + "/" + strconv.FormatUint(r.Seq, 10),
		Device: r.Device, Name: r.Name, Value: r.Value, Unit: r.Unit,
		Received: timeText(r.Received), Clock: r.Clock.String(), Error: r.Err,
	}
	if r.Time != 0 {
		out.Time = timeText(r.Time)
	}
	return out
}

// timeText writes Unix milliseconds as RFC 3339 in UTC with milliseconds.
func timeText(ms int64) string {
	return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z07:00")
}

// A selection is what a request for readings asks for.
type selection struct {
	journal.Query
	gateway string  // a name, or * for all
	state   string  // "": any
	format  string  // json, ndjson or csv
	end     horizon // of a stream
}

func (h *Handler) parseSelection(raw string) (selection, error) {
	q := parseQuery(raw, "gateway", "device", "name", "from", "to", "state", "limit", "cursor", "format")
	s := selection{state: q.word("state", states()...), format: q.word("format", "json", "ndjson", "csv")}
	s.Device, s.Name, s.From, s.To = q.device(), q.name(), q.time("from"), q.time("to")
	s.Cursor = q.cursor()
	if s.From != 0 && s.To != 0 && s.To <= s.From {
		q.fail("to", "not after from")
	}
	if s.format == "" {
		s.format = "json"
	}
	if s.format == "json" {
		s.Limit = q.limit(defaultLimit, maxLimit)
	} else {
		s.Limit = q.limit(0, 1<<31-1) // 0: the whole range
	}
	s.gateway = h.gateway(q)
	return s, q.err
}

// gateway returns the gateway asked for: this one when there is none.
func (h *Handler) gateway(q *query) string {
	name := q.text("gateway", 64)
	switch {
	case name == "":
		return h.cfg.Name
	case name == allGateways:
		return name
	}
	if err := h.checkGateway(name); err != nil && q.err == nil {
		q.err = fmt.Errorf("gateway: %w", err)
	}
	return name
}

// readings answers a page of readings as JSON, or the whole range as a stream.
func (h *Handler) readings(w http.ResponseWriter, r *http.Request) {
	s, err := h.parseSelection(r.URL.RawQuery)
	if err != nil {
		writeQueryError(w, err)
		return
	}
	if s.format != "json" {
		h.export(w, r, s)
		return
	}
	answer := pages{Items: []readingJSON{}}
	for start := time.Now(); time.Since(start) < scanTime; {
		items, next, err := h.page(s, min(pageSize, s.Limit-len(answer.Items)))
		if err != nil {
			h.readError(w, r, err)
			return
		}
		if s.Cursor = next; answer.add(items, next, s.Limit) {
			break
		}
	}
	writeJSON(w, http.StatusOK, answer)
}

// pages is a JSON answer. It may hold less than was asked for although the
// cursor leads on: its texts and the time of the search are bounded.
type pages struct {
	Items  []readingJSON `json:"items"`
	Cursor string        `json:"cursor"` // "" at the end
	bytes  int
}

// add appends a page and reports whether that is enough.
func (p *pages) add(items []readingJSON, next string, limit int) bool {
	p.Items, p.Cursor = append(p.Items, items...), next
	for i := range items {
		p.bytes += len(items[i].Device) + len(items[i].Name) + len(items[i].Value.AsString())
	}
	return next == "" || len(p.Items) >= limit || p.bytes > maxBytes
}

// page reads up to limit readings of s from its cursor on, those of several
// gateways in the order of received time, and leaves out those in another state,
// of which it passes pageSize at most.
func (h *Handler) page(s selection, limit int) (items []readingJSON, next string, err error) {
	n := limit
	if s.state != "" {
		n = pageSize
	}
	all, err := h.feeds(&s, n)
	if err != nil {
		return nil, "", err
	}
	for src := first(all); src != nil; src = first(all) {
		r := &src.items[src.taken]
		if !s.end.passed(r) && (s.state == "" || s.state == r.State) {
			if len(items) == limit {
				break
			}
			items = append(items, *r)
		}
		src.taken++
	}
	next, err = joinCursor(all)
	return items, next, err
}

// readError answers for readings that could not be had.
func (h *Handler) readError(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(err, journal.ErrCursor) || errors.Is(err, archive.ErrCursor):
		writeError(w, http.StatusBadRequest, "cursor: not one that this route gave out")
	case errors.Is(err, journal.ErrNotFound) || errors.Is(err, archive.ErrNotFound):
		writeError(w, http.StatusNotFound, "reading not known here, or no longer kept")
	default:
		h.fault(w, r, "read the stores", err)
	}
}
