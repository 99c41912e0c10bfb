package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// An Updates takes network files of the next epoch.
type Updates interface {
	// Propose attaches the file as a block if it follows the one in force. It
	// waits for proof of work, and not for the members' decision. The error
	// wraps one of [network.File.Follows], ErrBehind or ErrTooLarge, or is one of
	// proof of work and ledger.
	Propose(ctx context.Context, f *network.File) (Proposal, error)
}

// A Proposal is what became of a network file.
type Proposal struct {
	Epoch   uint32
	Hash    [32]byte
	InForce bool             // it is already, and was not attached
	Block   stardust.BlockID // in which it stands, if not
}

// Why a network file is not taken that may be right.
var (
	// ErrBehind means that this gateway does not know the epoch in force yet.
	ErrBehind = errors.New("this gateway is still catching up")
	// ErrTooLarge means that the file fits no block.
	ErrTooLarge = errors.New("network file too large for a block")
)

// proposeTime bounds the proof of work of a network file.
const proposeTime = 5 * time.Minute

// network answers the network file in force, as a network file.
func (h *Handler) network(w http.ResponseWriter, r *http.Request) {
	if q := parseQuery(r.URL.RawQuery); q.err != nil {
		writeError(w, http.StatusBadRequest, q.err.Error())
		return
	}
	writeJSON(w, http.StatusOK, h.cfg.Network())
}

// proposalJSON answers a network file that was taken.
type proposalJSON struct {
	Network string `json:"network"`
	Epoch   uint32 `json:"epoch"`
	Hash    string `json:"hash"`
	State   string `json:"state"` // attached or inForce
	Block   string `json:"block,omitempty"`
	Next    string `json:"next"` // what happens now, in words
}

// postNetwork takes the network file of the next epoch.
func (h *Handler) postNetwork(w http.ResponseWriter, r *http.Request) {
	if q := parseQuery(r.URL.RawQuery); q.err != nil {
		writeError(w, http.StatusBadRequest, q.err.Error())
		return
	}
	text, err := io.ReadAll(io.LimitReader(r.Body, network.MaxFileSize+1))
	if err != nil {
		writeError(w, http.StatusBadRequest, "read the network file: "+err.Error())
		return
	}
	f, err := network.Parse(text)
	if err != nil {
		h.refuseUpdate(w, r, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), proposeTime)
	defer cancel()
	// The server's time for an answer may not be enough on a slow box.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(proposeTime + time.Minute))
	p, err := h.src.Updates.Propose(ctx, f)
	if err != nil {
		h.refuseUpdate(w, r, err)
		return
	}
	out := proposalJSON{Network: f.NetworkName, Epoch: p.Epoch, Hash: hexID(p.Hash)}
	if p.InForce {
		out.State, out.Next = "inForce", "nothing: it is the network file in force"
		writeJSON(w, http.StatusOK, out)
		return
	}
	out.State, out.Block = "attached", p.Block.String()
	out.Next = fmt.Sprintf("epoch %d begins at every gateway once a milestone of epoch %d confirms the block; nobody has to be restarted, and no other gateway needs the file", p.Epoch, p.Epoch-1)
	writeJSON(w, http.StatusAccepted, out)
}

// refuseUpdate answers why a network file is not taken, and counts it.
func (h *Handler) refuseUpdate(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	for i, why := range updateRefusals() {
		if errors.Is(err, why.err) {
			h.updates[i].Add(1)
			h.log.Warn("network file refused", "reason", why.reason, "err", err)
			writeError(w, why.status, err.Error())
			return
		}
	}
	h.log.Warn("network file not attached", "err", err)
	w.Header().Set("Retry-After", "10")
	writeError(w, http.StatusServiceUnavailable, "the network file is right and not attached now: "+err.Error())
}

const reasons = 7 // of updateRefusals

// An updateRefusal is why a network file is not taken.
type updateRefusal struct {
	err    error
	reason string
	status int
}

// updateRefusals returns them in the order in which they are looked for.
func updateRefusals() [reasons]updateRefusal {
	return [reasons]updateRefusal{
		{network.ErrInvalid, "invalid", http.StatusBadRequest},
		{network.ErrOtherNetwork, "other_network", http.StatusConflict},
		{network.ErrStale, "stale", http.StatusConflict},
		{network.ErrForged, "forged", http.StatusConflict},
		{network.ErrUnsigned, "unsigned", http.StatusConflict},
		{ErrTooLarge, "too_large", http.StatusRequestEntityTooLarge},
		{ErrBehind, "behind", http.StatusServiceUnavailable},
	}
}

// refusedUpdates counts the network files that were refused, by reason.
type refusedUpdates [reasons]atomic.Uint64

// An updateCollector shows those counts and the epoch.
type updateCollector struct {
	h              *Handler
	refused, epoch *prometheus.Desc
}

func newUpdateCollector(h *Handler) *updateCollector {
	return &updateCollector{
		h:       h,
		refused: desc("network_files_refused_total", "Network files of a next epoch that were handed in and refused, by reason.", "reason"),
		epoch:   desc("epoch", "Epoch of the network file in force."),
	}
}

// Describe implements prometheus.Collector.
func (c *updateCollector) Describe(out chan<- *prometheus.Desc) {
	out <- c.refused
	out <- c.epoch
}

// Collect implements prometheus.Collector.
func (c *updateCollector) Collect(out chan<- prometheus.Metric) {
	for i, why := range updateRefusals() {
		out <- prometheus.MustNewConstMetric(c.refused, counter, float64(c.h.updates[i].Load()), why.reason)
	}
	out <- prometheus.MustNewConstMetric(c.epoch, gauge, float64(c.h.cfg.Network().Epoch))
}
