package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// A proof shows that a block is confirmed to whoever knows the network file
// (consensus.md §10), in the JSON of INX-POI.
type proof struct {
	Milestone *stardust.Milestone `json:"milestone"`
	Block     *stardust.Block     `json:"block"`
	Inclusion *stardust.Inclusion `json:"proof"`
}

// createProof answers with the proof that a block is confirmed.
func (s *Server) createProof(w http.ResponseWriter, r *http.Request) {
	id, ok := pathID(w, r)
	if !ok {
		return
	}
	leave, err := s.enterProofs()
	if err != nil {
		s.lookupError(w, id, err)
		return
	}
	defer leave()
	p, err := s.proofOf(id)
	if err != nil {
		s.lookupError(w, id, err)
		return
	}
	writeJSON(w, http.StatusOK, p)
}

// enterProofs takes one of the places for those who make or check a proof, which
// leave gives back.
func (s *Server) enterProofs() (leave func(), err error) {
	select {
	case s.proofs <- struct{}{}:
		return func() { <-s.proofs }, nil
	default:
		return nil, refuse(http.StatusServiceUnavailable, fmt.Sprintf("%d proofs in progress, the most at a time; try again", maxProofs))
	}
}

func (s *Server) proofOf(id stardust.BlockID) (*proof, error) {
	raw, err := s.ledger.Block(id)
	if err != nil {
		return nil, err
	}
	block, err := stardust.ParseBlock(raw)
	if err != nil {
		return nil, err
	}
	known, err := s.ledger.Metadata(id)
	if err != nil {
		return nil, err
	}
	if known.Milestone == 0 {
		return nil, refuse(http.StatusNotFound, "block "+id.String()+" is not referenced by a milestone yet")
	}
	m, err := s.certified(known.Milestone)
	var all []consensus.Entry
	if err == nil {
		all, err = s.orders.of(s.ledger, known.Milestone)
	}
	if errors.Is(err, ledger.ErrNotFound) {
		return nil, refuse(http.StatusNotFound, fmt.Sprintf("milestone %d, which references block %v, is not kept here", known.Milestone, id))
	}
	if err != nil {
		return nil, err
	}
	i := indexOf(all, id)
	if i < 0 {
		return nil, fmt.Errorf("milestone %d does not order it", known.Milestone)
	}
	ids := make([]stardust.BlockID, len(all))
	for j, e := range all {
		ids[j] = e.ID
	}
	inclusion := stardust.NewInclusion(ids, i)
	if inclusion.Root() != m.InclusionRoot {
		return nil, fmt.Errorf("the order of milestone %d does not give its inclusion root", known.Milestone)
	}
	return &proof{m, block, &inclusion}, nil
}

// validateProof answers whether a proof holds, and if not why. It needs nothing
// of the ledger.
func (s *Server) validateProof(w http.ResponseWriter, r *http.Request) {
	var p proof
	err := s.readProof(w, r, &p)
	if err == nil {
		var leave func()
		if leave, err = s.enterProofs(); err == nil {
			defer leave()
		}
	}
	if err != nil {
		s.readError(w, "proof", err)
		return
	}
	verdict := struct {
		Valid  bool   `json:"valid"`
		Reason string `json:"reason,omitempty"`
	}{Valid: true}
	if err := s.check(&p); err != nil {
		verdict.Valid, verdict.Reason = false, err.Error()
	}
	writeJSON(w, http.StatusOK, verdict)
}

func (s *Server) readProof(w http.ResponseWriter, r *http.Request, p *proof) error {
	if media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); media != mediaJSON {
		return refuse(http.StatusUnsupportedMediaType, fmt.Sprintf("Content-Type is %q, want %s", r.Header.Get("Content-Type"), mediaJSON))
	}
	body, err := s.receive(w, r, smallBody) // holds the largest block, 64 signatures and 32 hashes
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, p); err != nil {
		return refuse(http.StatusBadRequest, "proof: "+err.Error())
	}
	if p.Milestone == nil || p.Block == nil || p.Inclusion == nil {
		return refuse(http.StatusBadRequest, "proof: want a JSON object with milestone, block and proof")
	}
	return nil
}

// check returns nil if the proof holds, or why it does not.
func (s *Server) check(p *proof) error {
	id, err := p.Block.ID()
	switch {
	case err != nil:
		return fmt.Errorf("block: %w", err)
	case id != p.Inclusion.Block:
		return fmt.Errorf("proof: is of block %v, and that given is %v", p.Inclusion.Block, id)
	case p.Inclusion.Root() != p.Milestone.InclusionRoot:
		return errors.New("proof: does not lead to the inclusionMerkleRoot of the milestone")
	}
	essence, signatures, err := consensus.ParsePayload(p.Milestone)
	if err != nil {
		return fmt.Errorf("milestone: %w", err)
	}
	file := s.networkOf(essence.NetworkHash)
	if file == nil || file.Epoch != essence.Epoch {
		return fmt.Errorf("milestone: names network file %#x of epoch %d, which is not one of this network", essence.NetworkHash, essence.Epoch)
	}
	if err := consensus.VerifyCertificate(file, p.Milestone.ID(), signatures); err != nil {
		return fmt.Errorf("milestone: %w", err)
	}
	return nil
}

// networkOf returns the network file with this hash, or nil.
func (s *Server) networkOf(hash [32]byte) *network.File {
	if s.hash == hash {
		return s.cfg.Network
	}
	return s.cfg.NetworkOf(hash)
}
