package admin

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/batching/archive"
	"github.com/hedgerow-iot/hedgerow/batching/journal"
)

// An Archive holds the batches of every gateway. *archive.Archive is one.
type Archive interface {
	History(q archive.Query) (items []archive.Item, next string, err error)
	ByID(gateway string, seq uint64) (archive.Item, error)
	Latest(gateway, without, device, after string, limit int) (items []archive.Item, next string, err error)
	Gateways() []string
	Alarms() ([]archive.Alarm, error)
	Stats() archive.Stats
}

var _ Archive = (*archive.Archive)(nil)

// allGateways stands for every gateway in a query, this one included.
const allGateways = "*"

// errGateway is wrapped by errors about a gateway that nobody knows here.
var errGateway = errors.New("no such gateway")

// checkGateway returns an error unless name is that of a member, or of a
// former one whose batches are kept.
func (h *Handler) checkGateway(name string) error {
	known := append(h.src.Archive.Gateways(), h.cfg.Name)
	for _, g := range h.cfg.Network().Gateways {
		known = append(known, g.Name)
	}
	if slices.Contains(known, name) {
		return nil
	}
	slices.SortFunc(known, func(a, b string) int {
		if n := likeness(b, name) - likeness(a, name); n != 0 {
			return n
		}
		return strings.Compare(a, b)
	})
	const most = 5
	known = slices.Compact(known)
	more := ""
	if n := len(known) - most; n > 0 {
		known, more = known[:most], fmt.Sprintf(" and %d more", n)
	}
	return fmt.Errorf("%w in this network: %.40q; known are %s%s", errGateway, name, strings.Join(known, ", "), more)
}

// likeness is how many bytes two names share at their ends.
func likeness(a, b string) (n int) {
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	for i := 1; i <= min(len(a), len(b))-n && a[len(a)-i] == b[len(b)-i]; i++ {
		n++
	}
	return n
}

// showForeign is show for a reading of another gateway. Over which protocol it
// came is not known.
func (h *Handler) showForeign(it *archive.Item, on standings) (readingJSON, error) {
	out := newReadingJSON(it.Gateway, &it.Reading)
	out.position = it.Position
	return out, h.stand(&out, it.Block, on)
}

// A horizon is where a stream of readings ends: what comes in meanwhile is not
// waited for. Zero fields are no bound.
type horizon struct {
	seq      uint64 // of this gateway's readings
	position uint64 // of the blocks with those of others
}

func (e horizon) passed(r *readingJSON) bool {
	if r.position == 0 {
		return e.seq != 0 && r.seq >= e.seq
	}
	return e.position != 0 && r.position > e.position
}

// A feed is what the journal or the archive gave for one page.
type feed struct {
	items  []readingJSON
	cursor string // that stands before them
	next   string // that stands behind them, "" at the end
	cut    func(n int) (string, error)
	taken  int // items that the page is done with
}

// ended is the cursor of a feed of which nothing is left, in a cursor for
// several.
const ended = "~"

// first returns the feed whose next item was received first, nil when there
// is none or when it may be one that was not read yet.
func first(all []*feed) (first *feed) {
	for _, src := range all {
		switch {
		case src.taken == len(src.items) && src.next != "":
			return nil
		case src.taken == len(src.items):
		case first == nil || src.items[src.taken].received < first.items[first.taken].received:
			first = src
		}
	}
	return first
}

// here returns the cursor that stands behind what was taken, "" at the end.
func (s *feed) here() (string, error) {
	switch s.taken {
	case len(s.items):
		return s.next, nil
	case 0:
		return s.cursor, nil
	}
	return s.cut(s.taken)
}

// end drops what nothing of is wanted behind the horizon.
func (s *feed) end(at horizon) {
	if len(s.items) > 0 && !slices.ContainsFunc(s.items, func(r readingJSON) bool { return !at.passed(&r) }) {
		s.items, s.next = nil, ""
	}
}

// own reads this gateway's readings.
func (h *Handler) own(s *selection, cursor string, limit int) (*feed, error) {
	q := s.Query
	q.Cursor, q.Limit = cursor, limit
	rs, next, err := h.src.Journal.History(q)
	if err != nil {
		return nil, err
	}
	src, on := &feed{cursor: cursor, next: next, items: make([]readingJSON, len(rs))}, standings{}
	for i := range rs {
		if src.items[i], err = h.show(&rs[i], on); err != nil {
			return nil, err
		}
	}
	src.cut = func(n int) (string, error) { // only the journal can make its cursors
		q.Limit = n
		_, next, err := h.src.Journal.History(q)
		return next, err
	}
	src.end(s.end)
	return src, nil
}

// others reads the readings of other gateways.
func (h *Handler) others(s *selection, cursor string, limit int) (*feed, error) {
	if s.state == string(batching.Stored) || s.state == string(batching.Batched) {
		return &feed{}, nil
	}
	q := archive.Query{
		Gateway: s.gateway, Without: h.cfg.Name, Device: s.Device, Name: s.Name, From: s.From, To: s.To,
		Limit: limit, Cursor: cursor,
	}
	items, next, err := h.src.Archive.History(q)
	if err != nil {
		return nil, err
	}
	src, on := &feed{cursor: cursor, next: next, items: make([]readingJSON, len(items))}, standings{}
	for i := range items {
		if src.items[i], err = h.showForeign(&items[i], on); err != nil {
			return nil, err
		}
	}
	src.cut = func(n int) (string, error) { return q.Behind(items[n-1]), nil }
	src.end(s.end)
	return src, nil
}

// feeds reads what a page of s is made from.
func (h *Handler) feeds(s *selection, limit int) ([]*feed, error) {
	if s.gateway != allGateways {
		read := h.others
		if s.gateway == h.cfg.Name {
			read = h.own
		}
		src, err := read(s, s.Cursor, limit)
		return []*feed{src}, err
	}
	mine, theirs, err := splitCursor(s.Cursor)
	if err != nil {
		return nil, err
	}
	all := []*feed{{}, {}} // at their ends
	if mine != ended {
		if all[0], err = h.own(s, mine, limit); err != nil {
			return nil, err
		}
	}
	if theirs != ended {
		all[1], err = h.others(s, theirs, limit)
	}
	return all, err
}

// splitCursor takes the cursor of a query for all gateways apart.
func splitCursor(cursor string) (own, others string, err error) {
	if cursor == "" {
		return "", "", nil
	}
	own, others, ok := strings.Cut(cursor, ".")
	if !ok || own == ended && others == ended {
		return "", "", fmt.Errorf("cursor %.100q: %w", cursor, journal.ErrCursor)
	}
	return own, others, nil
}

// joinCursor is the inverse of splitCursor for feeds that a page was made
// from; "" when all have ended.
func joinCursor(all []*feed) (string, error) {
	cursors := make([]string, len(all))
	left := false
	for i, src := range all {
		var err error
		if cursors[i], err = src.here(); err != nil {
			return "", err
		}
		// A feed of which nothing was taken yet has an empty cursor, too.
		begins := src.taken == 0 && len(src.items) > 0
		if left = left || begins || cursors[i] != ""; cursors[i] == "" && !begins {
			cursors[i] = ended
		}
	}
	switch {
	case !left:
		return "", nil
	case len(all) == 1:
		return cursors[0], nil
	}
	return strings.Join(cursors, "."), nil
}
