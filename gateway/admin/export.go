package admin

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching/reading"
)

// cursorTrailer follows a stream that ended at its limit, and says where to go
// on; it is empty when the range was written whole.
const cursorTrailer = "Hedgerow-Cursor"

// export streams readings as NDJSON or CSV. A stream that cannot be completed
// is cut without its end, so that no client takes a part for the whole.
func (h *Handler) export(w http.ResponseWriter, r *http.Request, s selection) {
	select {
	case h.exports <- struct{}{}:
		defer func() { <-h.exports }()
	default:
		w.Header().Set("Retry-After", exportRetry)
		writeError(w, http.StatusServiceUnavailable, "too many exports in progress; try again later")
		return
	}
	rc := http.NewResponseController(w)
	// The server's time for a request is not enough for an export. A wrapped
	// writer may have no deadlines; then the server's hold.
	_ = rc.SetReadDeadline(time.Time{})
	enc, media := newEncoder(w, s.format)
	s.end = horizon{h.src.Journal.Stats().Next, h.src.Archive.Stats().Position}
	left := s.Limit
	if left == 0 {
		left = math.MaxInt
	}
	for first := true; ; first = false {
		items, next, err := h.page(s, min(left, pageSize))
		switch {
		case err != nil && first:
			h.readError(w, r, err)
			return
		case err != nil:
			h.log.Error("export cut short", "err", err)
			panic(http.ErrAbortHandler)
		case first:
			w.Header().Set("Content-Type", media)
			w.Header().Set("Cache-Control", "no-store")
			w.Header().Set("X-Content-Type-Options", "nosniff")
			w.Header().Set("Trailer", cursorTrailer)
		}
		if r.Method == http.MethodHead {
			return
		}
		_ = rc.SetWriteDeadline(time.Now().Add(pageTime))
		if enc.write(items, first) != nil || r.Context().Err() != nil {
			panic(http.ErrAbortHandler) // the client went away or takes nothing
		}
		_ = rc.Flush()
		left -= len(items)
		if s.Cursor = next; next == "" || left == 0 {
			w.Header().Set(cursorTrailer, next)
			return
		}
	}
}

// An encoder writes readings in one of the formats of a stream.
type encoder struct {
	out   *bufio.Writer
	json  *json.Encoder // nil for CSV
	table *csv.Writer
}

// newEncoder returns an encoder onto w and the media type of what it writes.
func newEncoder(w io.Writer, format string) (e encoder, media string) {
	e.out = bufio.NewWriterSize(w, 64<<10)
	if format == "ndjson" {
		e.json = json.NewEncoder(e.out)
		return e, "application/x-ndjson"
	}
	e.table = csv.NewWriter(e.out)
	e.table.UseCRLF = true // RFC 4180
	return e, "text/csv; charset=utf-8; header=present"
}

// write writes a page, and what stands before the first one.
func (e encoder) write(items []readingJSON, first bool) error {
	if first && e.json == nil {
		if err := e.table.Write(csvHeader()); err != nil {
			return err
		}
	}
	for i := range items {
		var err error
		if e.json != nil {
			err = e.json.Encode(&items[i])
		} else {
			err = e.table.Write(items[i].row())
		}
		if err != nil {
			return err
		}
	}
	if e.table != nil {
		e.table.Flush()
		if err := e.table.Error(); err != nil {
			return err
		}
	}
	return e.out.Flush()
}

// csvHeader names the columns of [readingJSON.row].
func csvHeader() []string {
	return []string{"id", "device", "name", "value", "unit", "time", "received", "clock", "source", "state", "blockId", "error", "milestone"}
}

// row returns a reading as a line of CSV. Spreadsheets run text that begins
// like a formula, and devices choose their texts: such a text gets an
// apostrophe in front, as spreadsheets themselves write it. Numbers stay as
// they are; NDJSON has every text exactly.
func (r *readingJSON) row() []string {
	value := r.Value.Text()
	if r.Value.Kind() == reading.KindString {
		value = plainCell(value)
	}
	block := ""
	if r.BlockID != nil {
		block = r.BlockID.String()
	}
	milestone := ""
	if r.Milestone != 0 {
		milestone = strconv.FormatUint(uint64(r.Milestone), 10)
	}
	return []string{
		r.ID, plainCell(r.Device), plainCell(r.Name), value, plainCell(r.Unit),
		r.Time, r.Received, r.Clock, r.Source, r.State, block, plainCell(r.Error), milestone,
	}
}

func plainCell(s string) string {
	if s != "" && strings.ContainsRune("=+-@\t\r\n", rune(s[0])) {
		return "'" + s
	}
	return s
}
