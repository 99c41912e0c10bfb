package api

import (
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// health answers 200 when the ledger can attach now, else 503, with no body.
func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	if s.cfg.Health() != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
}

func (s *Server) routes(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string][]string{"routes": append([]string{"core/v2"}, s.cfg.Routes...)})
}

func (s *Server) tips(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string][]stardust.BlockID{"tips": s.ledger.Tips()})
}

// block answers with a block's bytes or its JSON.
func (s *Server) block(w http.ResponseWriter, r *http.Request) {
	id, ok := pathID(w, r)
	if !ok {
		return
	}
	raw, err := s.ledger.Block(id)
	if err != nil {
		s.lookupError(w, id, err)
		return
	}
	w.Header().Set("Vary", "Accept")
	if wantsBytes(r.Header.Get("Accept")) {
		write(w, http.StatusOK, mediaBytes, raw)
		return
	}
	b, err := stardust.ParseBlock(raw)
	if err != nil {
		s.lookupError(w, id, err)
		return
	}
	writeJSON(w, http.StatusOK, b)
}

// metadata answers what is known of a block. Which milestone references it
// is left out as long as none does.
func (s *Server) metadata(w http.ResponseWriter, r *http.Request) {
	id, ok := pathID(w, r)
	if !ok {
		return
	}
	m, err := s.ledger.Metadata(id)
	if err != nil {
		s.lookupError(w, id, err)
		return
	}
	writeJSON(w, http.StatusOK, struct {
		ID      stardust.BlockID   `json:"blockId"`
		Parents []stardust.BlockID `json:"parents"`
		Solid   bool               `json:"isSolid"`
	}{id, list(m.Parents), m.Solid})
}

// children answers the blocks that approve a block directly: with count equal
// to maxResults there may be more. TIP-25 has no such route.
func (s *Server) children(w http.ResponseWriter, r *http.Request) {
	id, ok := pathID(w, r)
	if !ok {
		return
	}
	ids, err := s.ledger.Children(id)
	if err != nil {
		s.lookupError(w, id, err)
		return
	}
	writeJSON(w, http.StatusOK, struct {
		ID         stardust.BlockID   `json:"blockId"`
		MaxResults int                `json:"maxResults"`
		Count      int                `json:"count"`
		Children   []stardust.BlockID `json:"children"`
	}{id, ledger.MaxList, len(ids), list(ids)})
}

// list makes an empty list of none: null is not one.
func list(ids []stardust.BlockID) []stardust.BlockID {
	return append([]stardust.BlockID{}, ids...)
}

// lookupError answers for a block that could not be read.
func (s *Server) lookupError(w http.ResponseWriter, id stardust.BlockID, err error) {
	switch {
	case errors.Is(err, ledger.ErrNotFound) && id == stardust.GenesisID:
		writeError(w, http.StatusNotFound, "the genesis block "+id.String()+" has no body")
	case errors.Is(err, ledger.ErrNotFound):
		writeError(w, http.StatusNotFound, "block "+id.String()+" not known here")
	case errors.Is(err, ledger.ErrClosed):
		writeError(w, http.StatusServiceUnavailable, "gateway stopping")
	default:
		s.log.Error("block not readable", "block", id, "err", err)
		writeError(w, http.StatusInternalServerError, "block "+id.String()+" not readable; the gateway's log says why")
	}
}

// A rate tells blocks per second over the last ten seconds or more.
type rate struct {
	mu     sync.Mutex // guards what follows
	at     time.Time  // of the sample
	blocks uint64     // at that time
	perSec float64
}

// observe returns the rate, given the number of blocks at now. The first call
// of all knows none yet.
func (r *rate) observe(now time.Time, blocks uint64) float64 {
	const window = 10 * time.Second
	r.mu.Lock()
	defer r.mu.Unlock()
	if age := now.Sub(r.at); r.at.IsZero() || age >= window {
		if !r.at.IsZero() {
			r.perSec = max(0, float64(blocks)-float64(r.blocks)) / age.Seconds()
		}
		r.at, r.blocks = now, blocks
	}
	return r.perSec
}
