package admin

import (
	"encoding/hex"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/hedgerow-iot/hedgerow/batching/journal"
	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// reading answers the one reading with a gateway's name and a number.
func (h *Handler) reading(w http.ResponseWriter, r *http.Request) {
	if q := parseQuery(r.URL.RawQuery); q.err != nil {
		writeError(w, http.StatusBadRequest, q.err.Error())
		return
	}
	seq, err := strconv.ParseUint(r.PathValue("seq"), 10, 64)
	if err != nil {
		writeError(w, http.StatusBadRequest, "number in the path: want digits, as in "+h.cfg.Name+"/48213")
		return
	}
	if name := r.PathValue("name"); name != h.cfg.Name {
		writeError(w, http.StatusNotFound, "no readings of a gateway of this name here; this one is "+h.cfg.Name)
		return
	}
	rd, err := h.src.Journal.Get(seq)
	if errors.Is(err, journal.ErrNotFound) {
		writeError(w, http.StatusNotFound, "reading "+h.cfg.Name+"/"+strconv.FormatUint(seq, 10)+" not known here, or no longer kept")
		return
	}
	if err != nil {
		h.readError(w, r, err)
		return
	}
	item, err := h.show(&rd)
	if err != nil {
		h.readError(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, item)
}

// latest answers the last value per device and name.
func (h *Handler) latest(w http.ResponseWriter, r *http.Request) {
	q := parseQuery(r.URL.RawQuery, "device", "limit", "cursor")
	device, limit, cursor := q.device(), q.limit(maxLimit, maxLimit), q.cursor()
	if q.err != nil {
		writeError(w, http.StatusBadRequest, q.err.Error())
		return
	}
	answer := pages{Items: []readingJSON{}}
	for {
		rs, next, err := h.src.Journal.Latest(device, cursor, min(pageSize, limit-len(answer.Items)))
		if err != nil {
			h.readError(w, r, err)
			return
		}
		items := make([]readingJSON, len(rs))
		for i := range rs {
			if items[i], err = h.show(&rs[i]); err != nil {
				h.readError(w, r, err)
				return
			}
		}
		if cursor = next; answer.add(items, next, limit) {
			break
		}
	}
	writeJSON(w, http.StatusOK, answer)
}

// blocks answers the ids of the blocks that carry a tag.
func (h *Handler) blocks(w http.ResponseWriter, r *http.Request) {
	q := parseQuery(r.URL.RawQuery, "tag", "limit", "cursor")
	tag, limit, cursor := q.tag(), q.limit(defaultLimit, maxLimit), q.cursor()
	if q.err != nil {
		writeError(w, http.StatusBadRequest, q.err.Error())
		return
	}
	ids, next, err := h.src.Ledger.Tagged(tag, limit, cursor)
	if errors.Is(err, ledger.ErrCursor) {
		writeError(w, http.StatusBadRequest, "cursor: not one that this route gave out")
		return
	}
	if err != nil {
		h.fault(w, r, "look up blocks by tag", err)
		return
	}
	writeJSON(w, http.StatusOK, struct {
		Items  []stardust.BlockID `json:"items"`
		Cursor string             `json:"cursor"` // "" at the end
	}{append([]stardust.BlockID{}, ids...), next})
}

// tag returns the tag asked for: text, or bytes as 0x and hex digits.
func (q *query) tag() []byte {
	s := q.text("tag", 2+2*stardust.MaxTag)
	if s == "" {
		q.fail("tag", "missing; want text, or 0x and hex digits")
		return nil
	}
	tag := []byte(s)
	if digits, ok := strings.CutPrefix(s, "0x"); ok {
		var err error
		if tag, err = hex.DecodeString(digits); err != nil {
			q.fail("tag", "begins with 0x but hex digits in pairs do not follow")
			return nil
		}
	}
	if len(tag) > stardust.MaxTag {
		q.fail("tag", "more than 64 bytes")
	}
	return tag
}
