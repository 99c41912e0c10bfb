package admin

import (
	"encoding/hex"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

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
	item, err := h.byID(r.PathValue("name"), seq)
	switch {
	case errors.Is(err, errGateway):
		writeError(w, http.StatusNotFound, err.Error())
	case err != nil:
		h.readError(w, r, err)
	default:
		writeJSON(w, http.StatusOK, item)
	}
}

func (h *Handler) byID(gateway string, seq uint64) (readingJSON, error) {
	if gateway == h.cfg.Name {
		rd, err := h.src.Journal.Get(seq)
		if err != nil {
			return readingJSON{}, err
		}
		return h.show(&rd, standings{})
	}
	if err := h.checkGateway(gateway); err != nil {
		return readingJSON{}, err
	}
	it, err := h.src.Archive.ByID(gateway, seq)
	if err != nil {
		return readingJSON{}, err
	}
	return h.showForeign(&it, standings{})
}

// latest answers the last value per device and name.
func (h *Handler) latest(w http.ResponseWriter, r *http.Request) {
	q := parseQuery(r.URL.RawQuery, "gateway", "device", "limit", "cursor")
	gateway, device, limit, cursor := h.gateway(q), q.device(), q.limit(maxLimit, maxLimit), q.cursor()
	if q.err != nil {
		writeQueryError(w, q.err)
		return
	}
	answer := pages{Items: []readingJSON{}}
	for start := time.Now(); time.Since(start) < scanTime; {
		items, next, err := h.latestPage(gateway, device, cursor, min(pageSize, limit-len(answer.Items)))
		if err != nil {
			h.readError(w, r, err)
			return
		}
		if cursor = next; answer.add(items, next, limit) {
			break
		}
	}
	writeJSON(w, http.StatusOK, answer)
}

// What a cursor of latest for all gateways begins with: what follows is of the
// journal or, when that has ended, of the archive.
const (
	ofJournal = "j"
	ofArchive = "a"
)

// latestPage reads the next last values of a gateway; those of all gateways are
// this one's and then the others', by name.
func (h *Handler) latestPage(gateway, device, cursor string, limit int) (items []readingJSON, next string, err error) {
	switch gateway {
	case h.cfg.Name:
		return h.ownLatest(device, cursor, limit)
	case allGateways:
	default:
		return h.othersLatest(gateway, device, cursor, limit)
	}
	if rest, ok := strings.CutPrefix(cursor, ofArchive); ok {
		items, next, err = h.othersLatest(gateway, device, rest, limit)
		if next != "" {
			next = ofArchive + next
		}
		return items, next, err
	}
	rest, ok := strings.CutPrefix(cursor, ofJournal)
	if !ok && cursor != "" {
		return nil, "", journal.ErrCursor
	}
	items, next, err = h.ownLatest(device, rest, limit)
	if next == "" {
		return items, ofArchive, err
	}
	return items, ofJournal + next, err
}

func (h *Handler) ownLatest(device, after string, limit int) (items []readingJSON, next string, err error) {
	rs, next, err := h.src.Journal.Latest(device, after, limit)
	if err != nil {
		return nil, "", err
	}
	items = make([]readingJSON, len(rs))
	on := standings{}
	for i := range rs {
		if items[i], err = h.show(&rs[i], on); err != nil {
			return nil, "", err
		}
	}
	return items, next, nil
}

func (h *Handler) othersLatest(gateway, device, after string, limit int) (items []readingJSON, next string, err error) {
	its, next, err := h.src.Archive.Latest(gateway, h.cfg.Name, device, after, limit)
	if err != nil {
		return nil, "", err
	}
	items = make([]readingJSON, len(its))
	on := standings{}
	for i := range its {
		if items[i], err = h.showForeign(&its[i], on); err != nil {
			return nil, "", err
		}
	}
	return items, next, nil
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
