package admin

import (
	"net/http"
	"time"

	"github.com/hedgerow-iot/hedgerow/powfarm/remote"
)

// worker is a proof-of-work worker on another box. Counts are since the start.
type worker struct {
	Name           string  `json:"name"` // "" if it never came
	Key            string  `json:"key"`
	Kernel         string  `json:"kernel"`
	TriesPerSecond uint64  `json:"triesPerSecond"` // as it says
	Earned         uint64  `json:"earnedTriesPerSecond"`
	Alive          bool    `json:"alive"`
	LastSeen       *string `json:"lastSeen"` // null: never
	Queued         int     `json:"queued"`   // searches it holds, of all gateways
	Open           int     `json:"open"`     // of them this one's
	LeftAlone      *string `json:"leftAloneUntil,omitempty"`
	Given          uint64  `json:"given"`
	Found          uint64  `json:"found"`
	Wrong          uint64  `json:"wrong"`
	TimedOut       uint64  `json:"timedOut"`
	Lost           uint64  `json:"lost"`
	Expired        uint64  `json:"expired"`
	Refused        uint64  `json:"refused"`
	Cancelled      uint64  `json:"cancelled"`
}

// noRemote are the workers of a gateway that uses none.
type noRemote struct{}

func (noRemote) Workers() []remote.Worker { return nil }
func (noRemote) Refused() uint64          { return 0 }

// workers answers the workers on other boxes; the local ones stand in status.
func (h *Handler) workers(w http.ResponseWriter, r *http.Request) {
	if q := parseQuery(r.URL.RawQuery); q.err != nil {
		writeError(w, http.StatusBadRequest, q.err.Error())
		return
	}
	writeJSON(w, http.StatusOK, struct {
		Items []worker `json:"items"`
	}{h.showWorkers()})
}

func (h *Handler) showWorkers() []worker {
	out := []worker{}
	for _, w := range h.src.Remote.Workers() {
		shown := worker{
			Name: w.Name, Key: w.Key.String(), Kernel: w.Kernel, TriesPerSecond: w.TriesPerSecond, Earned: w.Earned,
			Alive: w.Alive, Queued: w.Queued, Open: w.Open,
			Given: w.Given, Found: w.Found, Wrong: w.Wrong, TimedOut: w.TimedOut, Lost: w.Lost,
			Expired: w.Expired, Refused: w.Refused, Cancelled: w.Cancelled,
		}
		if !w.LastSeen.IsZero() {
			shown.LastSeen = new(timeText(w.LastSeen.UnixMilli()))
		}
		if w.LeftAloneUntil.After(time.Now()) {
			shown.LeftAlone = new(timeText(w.LeftAloneUntil.UnixMilli()))
		}
		out = append(out, shown)
	}
	return out
}

// helped tells whether a worker elsewhere searches, or would.
func (h *Handler) helped() bool {
	for _, w := range h.src.Remote.Workers() {
		if w.Alive && !w.LeftAloneUntil.After(time.Now()) {
			return true
		}
	}
	return false
}
