package api

import (
	"fmt"
	"net/http"
	"strconv"

	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// milestoneByID answers with the milestone that has an id.
func (s *Server) milestoneByID(w http.ResponseWriter, r *http.Request) {
	id, err := stardust.ParseMilestoneID(r.PathValue("id"))
	if err != nil {
		writeError(w, http.StatusBadRequest, "milestone id in the path: "+err.Error())
		return
	}
	index, err := s.ledger.MilestoneIndex(id)
	if err != nil {
		s.readError(w, "milestone "+id.String(), err)
		return
	}
	s.milestone(w, r, index)
}

// milestoneByIndex answers with the milestone of an index.
func (s *Server) milestoneByIndex(w http.ResponseWriter, r *http.Request) {
	index, err := strconv.ParseUint(r.PathValue("index"), 10, 32)
	if err != nil {
		writeError(w, http.StatusBadRequest, fmt.Sprintf("milestone index in the path: %.40q, want a number below 2^32", r.PathValue("index")))
		return
	}
	s.milestone(w, r, uint32(index))
}

// milestone answers with a milestone's bytes or its JSON.
func (s *Server) milestone(w http.ResponseWriter, r *http.Request, index uint32) {
	name := fmt.Sprintf("milestone %d", index)
	m, err := s.certified(index)
	if err != nil {
		s.readError(w, name, err)
		return
	}
	w.Header().Set("Vary", "Accept")
	if !wantsBytes(r.Header.Get("Accept")) {
		writeJSON(w, http.StatusOK, m)
		return
	}
	raw, err := m.AppendBinary(nil)
	if err != nil {
		s.readError(w, name, err)
		return
	}
	write(w, http.StatusOK, mediaBytes, raw)
}

// certified returns a milestone with the signatures of a quorum: what has none
// is no payload of TIP-29 yet, and nobody could check it.
func (s *Server) certified(index uint32) (*stardust.Milestone, error) {
	m, err := s.ledger.Milestone(index)
	switch {
	case err != nil:
		return nil, err
	case len(m.Signatures) > 0:
		return m.Payload(m.Signatures), nil
	case index <= s.ledger.Agreed().Certified:
		return nil, refuse(http.StatusNotFound, fmt.Sprintf("signatures of milestone %d not kept here", index))
	}
	return nil, refuse(http.StatusServiceUnavailable, fmt.Sprintf(
		"milestone %d is not signed by a quorum of the gateways yet; try again", index))
}
