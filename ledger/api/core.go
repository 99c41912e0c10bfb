package api

import (
	"errors"
	"net/http"
	"slices"

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
	all := append([]string{"core/v2", "poi/v1"}, s.cfg.Routes...)
	slices.Sort(all)
	writeJSON(w, http.StatusOK, map[string][]string{"routes": all})
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
	if id == stardust.GenesisID && errors.Is(err, ledger.ErrNotFound) {
		err = refuse(http.StatusNotFound, "the genesis block "+id.String()+" has no body")
	}
	s.readError(w, "block "+id.String(), err)
}

// readError answers for what could not be read.
func (s *Server) readError(w http.ResponseWriter, what string, err error) {
	var r *refusal
	switch {
	case errors.As(err, &r):
		writeError(w, r.status, r.text)
	case errors.Is(err, ledger.ErrPruned):
		writeError(w, http.StatusNotFound, what+" pruned: it was confirmed, and its body is kept no more")
	case errors.Is(err, ledger.ErrNotFound):
		writeError(w, http.StatusNotFound, what+" not known here")
	case errors.Is(err, ledger.ErrClosed):
		writeError(w, http.StatusServiceUnavailable, "gateway stopping")
	default:
		s.log.Error("not readable", "what", what, "err", err)
		writeError(w, http.StatusInternalServerError, what+" not readable; the gateway's log says why")
	}
}
