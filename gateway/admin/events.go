package admin

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// The data of the events, but for readings, which are as everywhere.
type (
	// A stateEvent says that the readings in a block of this gateway have come
	// to a state. Between attached and certified one may be passed over.
	stateEvent struct {
		State     batching.State   `json:"state"`
		Gateway   string           `json:"gateway"`
		Readings  [][2]uint64      `json:"readings"` // runs of first and last number
		Count     uint64           `json:"count"`
		BlockID   stardust.BlockID `json:"blockId"`
		Milestone uint32           `json:"milestone,omitempty"`
	}
	// A blockEvent is any block that came into the replica, votes included.
	blockEvent struct {
		BlockID  stardust.BlockID `json:"blockId"`
		Attached string           `json:"attached"` // by this replica's clock
		Bytes    int              `json:"bytes"`
		Tag      string           `json:"tag,omitempty"` // of tagged data: text, or 0x and hex digits
	}
	// A milestoneEvent comes when this replica derives a milestone, and again
	// when that and all before it are certified.
	milestoneEvent struct {
		milestoneJSON
		Epoch     uint32 `json:"epoch"`
		Blocks    int    `json:"blocks,omitempty"` // that it orders
		Certified bool   `json:"certified"`
	}
	peerEvent struct {
		Name string `json:"name"`
		Up   bool   `json:"up"`
	}
	// An alarmEvent says that there is an alarm, that its text has changed, or
	// that it is over.
	alarmEvent struct {
		Alarm
		Over bool `json:"over"`
	}
)

// Times of a stream of events.
const (
	heartbeat   = 15 * time.Second // between signs of life
	eventTime   = 30 * time.Second // for the client to take what is sent at a time
	eventsRetry = "10"             // seconds, told when there are maxListeners
)

// events streams what happens (server-sent events) until the client goes away
// or Run ends.
func (h *Handler) events(w http.ResponseWriter, r *http.Request) {
	q := parseQuery(r.URL.RawQuery, "types")
	kinds := q.words("types", eventKinds())
	last := r.Header.Get("Last-Event-ID")
	if len(last) > maxCursor {
		q.fail("Last-Event-ID", "too long")
	}
	if q.err != nil {
		writeError(w, http.StatusBadRequest, q.err.Error())
		return
	}
	l, err := h.hub.join(kinds, last)
	if err != nil {
		w.Header().Set("Retry-After", eventsRetry)
		writeError(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	defer h.hub.leave(l)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("X-Accel-Buffering", "no") // a proxy in between holds nothing back
	if r.Method == http.MethodHead {
		return
	}
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Time{}) // the server's is for one request
	for text := ": events of " + h.cfg.Name + "\n\n"; ; {
		_ = rc.SetWriteDeadline(time.Now().Add(eventTime))
		if _, err := w.Write([]byte(text)); err != nil {
			return
		}
		if rc.Flush() != nil {
			return
		}
		var ok bool
		if text, ok = h.nextEvents(r, l); !ok {
			return
		}
	}
}

// nextEvents waits for the next text of a stream, at most a heartbeat long. ok
// is false at its end.
func (h *Handler) nextEvents(r *http.Request, l *listener) (text string, ok bool) {
	beat := time.NewTimer(heartbeat)
	defer beat.Stop()
	for {
		out, more, open := h.hub.take(l)
		switch {
		case !open:
			return "", false
		case len(out) > 0:
			var b bytes.Buffer
			for _, d := range out {
				fmt.Fprintf(&b, "id: %s\nevent: %s\ndata: %s\n\n", d.id, d.name, d.text)
			}
			return b.String(), true
		}
		select {
		case <-more:
		case <-beat.C:
			return ": still here\n\n", true
		case <-r.Context().Done():
			return "", false
		}
	}
}

// words returns a parameter that is absent or a list, with commas, of some of
// all; all when absent.
func (q *query) words(name string, all []string) []string {
	s := q.values.Get(name)
	if s == "" {
		return all
	}
	list := strings.Split(s, ",")
	for _, word := range list {
		if !slices.Contains(all, word) {
			q.fail(name, fmt.Sprintf("%.40q, want some of %s", word, strings.Join(all, ",")))
			return nil
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}
