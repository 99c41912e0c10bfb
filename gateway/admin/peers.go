package admin

import (
	"fmt"
	"math"
	"net/http"
	"strings"
	"time"

	"github.com/hedgerow-iot/hedgerow/gateway/bus"
	"github.com/hedgerow-iot/hedgerow/ledger/peer"
)

// A peerLine is another gateway of the network, as status shows it.
type peerLine struct {
	Name     string  `json:"name"`
	Key      string  `json:"key"`
	Up       bool    `json:"up"`       // it was heard of lately
	Votes    bool    `json:"votes"`    // it takes part in the agreement, as it said
	LastSeen *string `json:"lastSeen"` // null: never since the start
	Blocks   uint64  `json:"blocks"`   // in its replica, as it said
	Lag      uint64  `json:"lag"`      // of them, how many may be missing here
	// Milestone is the index of its last one, as it said, and MilestoneLag how
	// many this gateway is ahead of it; below 0, behind it. Null: not known.
	Milestone    *uint32 `json:"milestone"`
	MilestoneLag *int64  `json:"milestoneLag"`
	Score        float64 `json:"score"`   // 0 to 1; at 0 it is shunned for a while
	Refused      uint64  `json:"refused"` // what came from it, or in its name, and was not taken
}

// A peerInfo is all that is known of it. Counts are since the start.
type peerInfo struct {
	peerLine
	Weight       uint32  `json:"weight"`
	ShunnedUntil *string `json:"shunnedUntil,omitempty"` // not listened to
	New          uint64  `json:"new"`                    // blocks that this replica lacked
	Duplicates   uint64  `json:"duplicates"`             // blocks that were known
	Held         uint64  `json:"held"`                   // blocks that missed a parent when they came
	Useless      uint64  `json:"useless"`                // votes of equivocators that tell nothing
	Invalid      uint64  `json:"invalid"`                // blocks that break a rule
	Unsupported  uint64  `json:"unsupported"`            // blocks of a newer version than this gateway's
	Malformed    uint64  `json:"malformed"`              // frames that could not be read
	Replayed     uint64  `json:"replayed"`               // frames that had come before
	Forged       uint64  `json:"forged"`                 // frames in its name that it did not sign
	Limited      uint64  `json:"limited"`                // frames, requests and blocks over its rate
	Shunned      uint64  `json:"shunned"`                // frames that came while it was shunned
	Unanswered   uint64  `json:"unanswered"`             // requests to it
	ServedBytes  uint64  `json:"servedBytes"`            // of answers to it
}

// A busState is the state of the connection with the others.
type busState struct {
	Mode        bus.Mode `json:"mode"`             // embedded or external
	Connected   bool     `json:"connected"`        // with its NATS server
	Server      string   `json:"server,omitempty"` // in mode external, while connected
	Routes      []route  `json:"routes"`           // with other gateways' servers
	Clients     int      `json:"clients"`          // members and workers at peers.clients
	Refused     uint64   `json:"refused"`          // handshakes, since the start
	LastRefused *refusal `json:"lastRefused,omitempty"`
}

type route struct {
	Name    string `json:"name"` // as the other server says
	Address string `json:"address"`
	Since   string `json:"since"`
}

// A refusal is a handshake that was refused.
type refusal struct {
	Time string `json:"time"`
	Why  string `json:"why"`
}

// refusedLately is how long a refused handshake is worth an alarm. Who is
// refused dials again within seconds as long as it runs.
const refusedLately = 10 * time.Minute

// peers answers the other gateways of the network and the connection with them.
func (h *Handler) peers(w http.ResponseWriter, r *http.Request) {
	if q := parseQuery(r.URL.RawQuery); q.err != nil {
		writeError(w, http.StatusBadRequest, q.err.Error())
		return
	}
	s, b := h.src.Peers.Stats(), h.src.Bus.Status()
	items, lines := make([]peerInfo, len(s.Members)), h.peerLines(&s)
	for i := range s.Members {
		items[i] = showPeer(lines[i], &s.Members[i])
	}
	writeJSON(w, http.StatusOK, struct {
		Bus   busState   `json:"bus"`
		Items []peerInfo `json:"items"`
	}{showBus(&b), items})
}

func showPeer(line peerLine, m *peer.Member) peerInfo {
	p := peerInfo{
		peerLine: line, Weight: m.Weight,
		New: m.New, Duplicates: m.Duplicates, Held: m.Held, Useless: m.Useless, Invalid: m.Invalid, Unsupported: m.Unsupported,
		Malformed: m.Malformed, Replayed: m.Replayed, Forged: m.Forged, Limited: m.Limited, Shunned: m.Shunned,
		Unanswered: m.Unanswered, ServedBytes: m.Served,
	}
	if !m.ShunnedUntil.IsZero() {
		p.ShunnedUntil = new(timeText(m.ShunnedUntil.UnixMilli()))
	}
	return p
}

func showLine(m *peer.Member) peerLine {
	p := peerLine{
		Name: m.Name, Key: m.PublicKey.String(), Up: m.Up, Votes: m.Votes, Blocks: m.Position, Lag: m.Behind,
		Score:   math.Round(100*m.Standing) / 100,
		Refused: m.Invalid + m.Malformed + m.Forged + m.Replayed + m.Limited + m.Shunned,
	}
	if !m.Heard.IsZero() {
		p.LastSeen = new(timeText(m.Heard.UnixMilli()))
	}
	return p
}

func (h *Handler) peerLines(s *peer.Stats) []peerLine {
	all := make([]peerLine, len(s.Members))
	told, own := h.src.Milestones(), h.src.Ledger.Agreed().Milestone
	for i := range s.Members {
		all[i] = showLine(&s.Members[i])
		if its, ok := told[s.Members[i].Name]; ok {
			all[i].Milestone, all[i].MilestoneLag = &its, new(int64(own)-int64(its))
		}
	}
	return all
}

func showBus(s *bus.Status) busState {
	b := busState{
		Mode: s.Mode, Connected: s.Connected, Server: s.Server,
		Routes: []route{}, Clients: s.Clients, Refused: s.Refused,
	}
	for _, r := range s.Routes {
		b.Routes = append(b.Routes, route{r.Name, r.Address, timeText(r.Since.UnixMilli())})
	}
	if !s.RefusedAt.IsZero() {
		b.LastRefused = &refusal{timeText(s.RefusedAt.UnixMilli()), s.RefusedWhy}
	}
	return b
}

// peerAlarms tells what somebody should look at in the federation.
func peerAlarms(q quorum, ps *peer.Stats, bs *bus.Status, now time.Time) (out []Alarm) {
	switch {
	case bs.Connected:
	case bs.Mode == bus.External:
		out = append(out, Alarm{"nats", "no NATS server of peers.url lets this gateway in; the log says why. Readings are attached here and sent to the others later"})
	default:
		out = append(out, Alarm{"nats", "the embedded NATS server is not connected; the other gateways do not hear this one"})
	}
	if q.Up < q.Needed {
		text := fmt.Sprintf("gateways of weight %d are up, a quorum is %d", q.Up, q.Needed)
		if len(q.silent) > 0 {
			text += "; not heard of: " + someOf(q.silent)
		}
		if len(q.mute) > 0 {
			text += "; not voting: " + someOf(q.mute)
		}
		out = append(out, Alarm{"quorum", text})
	}
	for i := range ps.Members {
		if m := &ps.Members[i]; !m.ShunnedUntil.IsZero() {
			out = append(out, Alarm{"peer_shunned", fmt.Sprintf("%s sent what no sound gateway sends and is not listened to until %s; GET peers has the counts",
				m.Name, timeText(m.ShunnedUntil.UnixMilli()))})
		}
	}
	if !bs.RefusedAt.IsZero() && now.Sub(bs.RefusedAt) < refusedLately {
		out = append(out, Alarm{"handshake", fmt.Sprintf("a NATS connection was refused at %s, as %d since the start: %s. %s",
			timeText(bs.RefusedAt.UnixMilli()), bs.Refused, bs.RefusedWhy, whoIsRefused)})
	}
	return out
}

// troubleAlarms tells what is wrong with the agreement.
func troubleAlarms(t Trouble) (out []Alarm) {
	if len(t.Equivocators) > 0 {
		out = append(out, Alarm{"equivocation", someOf(t.Equivocators) + " signed two votes of one round: that key is in use elsewhere, or stolen. Its blocks are not built on; take it out of the network, and let its box join again with another key"})
	}
	if t.Conflict != 0 {
		out = append(out, Alarm{"milestone_conflict", fmt.Sprintf("more gateways than may be faulty signed another milestone %d than this one derived. "+
			"It votes no more, restarted or not; compare the milestones of all gateways, and trust no confirmation until the cause is found", t.Conflict)})
	}
	return out
}

// whoIsRefused is what an unknown key may mean.
const whoIsRefused = "A newcomer? It is let in once its epoch has begun here: have a member join the network file. A worker? Its key belongs into powfarm.remote.workers"

// someOf lists the first of the names.
func someOf(names []string) string {
	const most = 5
	if n := len(names) - most; n > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), n)
	}
	return strings.Join(names, ", ")
}
