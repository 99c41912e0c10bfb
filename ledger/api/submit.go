package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"strconv"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// submit answers POST blocks: it attaches the block of the body, after having
// found its nonce and chosen its parents when the client left that to the
// gateway.
func (s *Server) submit(w http.ResponseWriter, r *http.Request) {
	var id stardust.BlockID
	b, err := s.readBlock(w, r)
	if err == nil {
		id, err = s.admit(w, r, b)
	}
	if err == nil {
		w.Header().Set("Location", "/api/core/v2/blocks/"+id.String())
		writeJSON(w, http.StatusCreated, map[string]stardust.BlockID{"blockId": id})
		return
	}
	if r.Context().Err() != nil {
		return // the client is gone
	}
	status, text := s.explain(err)
	if status >= http.StatusInternalServerError {
		s.log.Warn("submitted block not attached", "status", status, "err", err)
	}
	if many := (*TooManyError)(nil); errors.As(err, &many) {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(many.After.Seconds()))))
	}
	writeError(w, status, text)
}

// admit attaches b when the client may hand it in and there is room for it.
// Only then: a client that sends its body slowly takes no one's place.
func (s *Server) admit(w http.ResponseWriter, r *http.Request, b *stardust.Block) (id stardust.BlockID, err error) {
	if err := s.cfg.Admit(r.Context(), r.RemoteAddr); err != nil {
		return id, err
	}
	select {
	case s.submits <- struct{}{}:
		defer func() { <-s.submits }()
	default:
		return id, refuse(http.StatusServiceUnavailable, fmt.Sprintf("%d submissions in progress, the most at a time; try again", maxSubmits))
	}
	return s.place(r.Context(), r.RemoteAddr, http.NewResponseController(w), b)
}

// readBlock reads and decodes the body.
func (s *Server) readBlock(w http.ResponseWriter, r *http.Request) (*stardust.Block, error) {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) || media != mediaJSON && media != mediaBytes {
		return nil, refuse(http.StatusUnsupportedMediaType, fmt.Sprintf(
			"Content-Type is %q, want %s or %s", r.Header.Get("Content-Type"), mediaJSON, mediaBytes))
	}
	body, err := s.receive(w, r, maxBody)
	if err != nil {
		return nil, err
	}
	return decodeBlock(media, body)
}

// receive reads the body, at most most bytes and for bodyTime at most.
func (s *Server) receive(w http.ResponseWriter, r *http.Request, most int64) ([]byte, error) {
	rc := http.NewResponseController(w)
	// A recorder or a wrapped writer has no deadlines; then the server's hold.
	_ = rc.SetReadDeadline(time.Now().Add(bodyTime))
	body, err := s.readBody(http.MaxBytesReader(w, r.Body, most))
	// A deadline that passes during the search would end the request.
	_ = rc.SetReadDeadline(time.Time{})
	var tooLong *http.MaxBytesError
	var busy *refusal
	switch {
	case errors.As(err, &busy):
		return nil, err
	case errors.As(err, &tooLong):
		return nil, refuse(http.StatusRequestEntityTooLarge, fmt.Sprintf("body: above %d bytes", most))
	case err != nil:
		return nil, refuse(http.StatusBadRequest, "body: cannot be read to its end")
	}
	return body, nil
}

// readBody reads a body whole. Few may be longer than any block needs, so that
// the memory for them is bounded without a bound on those who send slowly.
func (s *Server) readBody(body io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(body, smallBody))
	if err != nil || len(b) < smallBody {
		return b, err
	}
	select {
	case s.large <- struct{}{}:
		defer func() { <-s.large }()
	default:
		return nil, refuse(http.StatusServiceUnavailable, fmt.Sprintf("body: above %d bytes, and %d such are in progress; try again", smallBody, maxLarge))
	}
	rest, err := io.ReadAll(body)
	return append(b, rest...), err
}

// decodeBlock decodes a body of either media type. A block of JSON may have
// no parents; a block of bytes always has some.
func decodeBlock(media string, body []byte) (*stardust.Block, error) {
	if len(body) == 0 {
		return nil, refuse(http.StatusBadRequest, "body: empty, want a block")
	}
	if media == mediaBytes {
		b, err := stardust.ParseBlock(body)
		if err != nil {
			return nil, refuse(http.StatusBadRequest, "block: "+err.Error())
		}
		return b, nil
	}
	b := &stardust.Block{}
	if err := json.Unmarshal(body, b); err != nil {
		return nil, refuse(http.StatusBadRequest, "block: "+err.Error())
	}
	if b.Version == 0 { // "null" leaves the block alone
		return nil, refuse(http.StatusBadRequest, "block: want a JSON object")
	}
	return b, nil
}

// place attaches b by the rules of the reference node: without parents the
// gateway chooses them and searches the nonce; with parents and nonce 0 it
// keeps them and searches unless 0 happens to suffice; else b is complete.
func (s *Server) place(ctx context.Context, remote string, rc *http.ResponseController, b *stardust.Block) (stardust.BlockID, error) {
	if len(b.Parents) == 0 {
		if b.Nonce != 0 {
			return stardust.BlockID{}, refuse(http.StatusBadRequest, fmt.Sprintf(
				"nonce: is %d but parents is empty, and a nonce holds for its parents only; send both or neither", b.Nonce))
		}
		if s.prover == nil {
			return stardust.BlockID{}, refuse(http.StatusBadRequest,
				"parents: empty, and this gateway does no proof of work; take parents from /api/core/v2/tips and find the nonce")
		}
		return s.search(ctx, remote, rc, b, true)
	}
	id, err := s.ledger.Attach(ctx, b, nil)
	if b.Nonce != 0 || !errors.Is(err, ledger.ErrScore) {
		return id, err
	}
	if s.prover == nil {
		return id, refuse(http.StatusServiceUnavailable,
			"nonce: is 0 and does not suffice, and this gateway does no proof of work")
	}
	// The score may have been looked at first; no search for a block that
	// will be refused for its parents.
	for _, p := range b.Parents {
		if p == stardust.GenesisID {
			continue
		}
		if m, err := s.ledger.Metadata(p); errors.Is(err, ledger.ErrNotFound) && !errors.Is(err, ledger.ErrPruned) || err == nil && !m.Solid {
			return id, fmt.Errorf("%w: %s", ledger.ErrUnknownParent, p)
		} else if err != nil && !errors.Is(err, ledger.ErrPruned) {
			return id, fmt.Errorf("look up parent %s: %w", p, err)
		}
	}
	return s.search(ctx, remote, rc, b, false)
}

// search finds a nonce for b and attaches it. With choose it takes tips as
// parents, and newer ones every TipRefresh: the search has no memory, so
// nothing is lost by changing what it searches for.
func (s *Server) search(ctx context.Context, remote string, rc *http.ResponseController, b *stardust.Block, choose bool) (stardust.BlockID, error) {
	leave, err := s.jobs.enter(remote)
	if err != nil {
		return stardust.BlockID{}, err
	}
	defer leave()
	_ = rc.SetWriteDeadline(time.Now().Add(s.cfg.PoWTime + answerTime)) // see readBlock
	searching, cancel := context.WithTimeoutCause(ctx, s.cfg.PoWTime, errSearchTime)
	defer cancel()
	for {
		if choose {
			b.Parents = s.ledger.Tips()
			for b.Size() > stardust.MaxBlockSize && len(b.Parents) > 1 {
				b.Parents = b.Parents[:len(b.Parents)-1]
			}
		}
		err := s.prove(searching, b, choose)
		if errors.Is(err, errTipsOld) {
			continue
		}
		if err != nil {
			return stardust.BlockID{}, err
		}
		return s.ledger.Attach(ctx, b, nil)
	}
}

var (
	errSearchTime = errors.New("time for a search is over")
	errTipsOld    = errors.New("parents are to be chosen again")
	errProver     = errors.New("proof of work")
)

// prove sets b's nonce. With choose it stops after TipRefresh, with errTipsOld.
func (s *Server) prove(ctx context.Context, b *stardust.Block, choose bool) error {
	b.Nonce = 0
	raw, err := b.AppendBinary(nil)
	if err != nil {
		return refuse(http.StatusBadRequest, "block: "+err.Error())
	}
	if choose {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, s.cfg.TipRefresh, errTipsOld)
		defer cancel()
	}
	nonce, err := s.prover.Prove(ctx, stardust.PoWDigest(raw), stardust.TargetZeros(len(raw), s.ledger.MinPoWScore()))
	switch {
	case err == nil:
		b.Nonce = nonce
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return fmt.Errorf("%w: %w", errProver, err)
}

// explain chooses status and text for what went wrong.
func (s *Server) explain(err error) (status int, text string) {
	var r *refusal
	var many *TooManyError
	switch {
	case errors.As(err, &r):
		return r.status, r.text
	case errors.As(err, &many):
		return http.StatusTooManyRequests, err.Error()
	case errors.Is(err, ledger.ErrUnknownParent):
		return http.StatusBadRequest, "block is not solid: " + err.Error()
	case errors.Is(err, ledger.ErrScore), errors.Is(err, ledger.ErrInvalid):
		return http.StatusBadRequest, err.Error()
	case errors.Is(err, errSearchTime):
		return http.StatusServiceUnavailable, fmt.Sprintf("no nonce found in %v; send a smaller block or find the nonce yourself", s.cfg.PoWTime)
	case errors.Is(err, errProver), errors.Is(err, ledger.ErrBusy), errors.Is(err, ledger.ErrClosed):
		return http.StatusServiceUnavailable, err.Error()
	}
	return http.StatusInternalServerError, "block not attached; the gateway's log says why"
}
