package coap

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/batching/reading"
	"github.com/hedgerow-iot/hedgerow/protocols"
	"github.com/hedgerow-iot/hedgerow/protocols/payload"
)

// links is the answer to /.well-known/core (RFC 6690).
const links = `</readings>;rt="hedgerow.readings";title="PUT or POST readings/{device}/{name}, GET the last value";ct="0 50 60 110 112",` +
	`</time>;rt="hedgerow.time";ct="0 50"`

// Content formats that are answered with.
const (
	formatText  = int(0)
	formatLinks = 40
	formatJSON  = 50
)

// serve answers a request, or returns now false when the answer comes later
// or never.
func (r *reader) serve(req *request, data []byte) (a answer, now bool) {
	who, err := r.s.cfg.Registry.Authenticate(protocols.Credentials{Source: reading.SourceCoAP, Remote: req.addr.Addr()})
	if err != nil {
		return failure(err), true
	}
	target, mapped, err := protocols.MapPath(req.path())
	switch {
	case err != nil:
		return failure(err), true
	case mapped && (req.code == codes.PUT || req.code == codes.POST):
		format, ok := formatOf(req.format)
		if !ok {
			return refusal(codes.UnsupportedMediaType, "content format not one of 0 50 60 110 112"), true
		}
		return r.submit(req, data, protocols.Message{
			From: who, Source: reading.SourceCoAP, Target: target, Format: format, Payload: req.payload,
		})
	case mapped && req.code == codes.GET && target.Name != "":
		return r.lookUp(req, who, target)
	case mapped && req.code == codes.GET:
		return refusal(codes.NotFound, "want /readings/{device}/{name}"), true
	case req.isPath(".well-known", "core"):
		return get(req, formatLinks, func(int) []byte { return []byte(links) }), true
	case req.isPath("time"):
		return get(req, formatText, r.s.timeBody), true
	case mapped:
		return refusal(codes.MethodNotAllowed, "want GET, POST or PUT"), true
	}
	return refusal(codes.NotFound, "no such resource"), true
}

// formatOf translates a content format.
func formatOf(n int) (f payload.Format, ok bool) {
	switch message.MediaType(n) {
	case message.TextPlain:
		return payload.Text, true
	case message.AppJSON:
		return payload.JSON, true
	case message.AppCBOR:
		return payload.CBOR, true
	case message.AppSenmlJSON:
		return payload.SenMLJSON, true
	case message.AppSenmlCbor:
		return payload.SenMLCBOR, true
	}
	return payload.Auto, n == none
}

// failure translates the errors of the intake, of receipts and of registries.
func failure(err error) answer {
	switch {
	case errors.Is(err, protocols.ErrTooLarge):
		a := refusal(codes.RequestEntityTooLarge, err.Error())
		a.size1 = reading.MaxText // for a text; raw bytes may be more
		return a
	case errors.Is(err, protocols.ErrNotAllowed):
		return refusal(codes.Forbidden, err.Error())
	case errors.Is(err, protocols.ErrNoReading), errors.Is(err, protocols.ErrName):
		return refusal(codes.BadRequest, err.Error())
	case errors.Is(err, batching.ErrBusy):
		return refusal(codes.ServiceUnavailable, "gateway busy, not stored, try again")
	case errors.Is(err, batching.ErrClosed):
		return refusal(codes.ServiceUnavailable, "gateway stopping, not stored, try again")
	}
	// What is wrong inside, and which disk is full, is not the sender's business.
	return refusal(codes.ServiceUnavailable, "not stored, try again")
}

// get answers a GET that needs nothing but this process. body is called with
// the format to write, which is the first one unless the client accepts
// another that we have.
func get(req *request, first int, body func(format int) []byte) answer {
	if req.code != codes.GET {
		return refusal(codes.MethodNotAllowed, "want GET")
	}
	format, ok := acceptable(req.accept, first)
	if !ok {
		return refusal(codes.NotAcceptable, "content format not available")
	}
	return answer{code: codes.Content, format: format, body: body(format)}
}

func acceptable(accept, first int) (format int, ok bool) {
	switch {
	case accept == none || accept == first:
		return first, true
	case accept == formatJSON && first == formatText:
		return formatJSON, true
	}
	return 0, false
}

// timeBody writes the time: Unix seconds as text, or both forms as JSON.
func (s *Server) timeBody(format int) []byte {
	now := s.clock()
	if format == formatText {
		return strconv.AppendInt(nil, now.Unix(), 10)
	}
	return fmt.Appendf(nil, `{"time":"%s","unix":%d.%03d}`, stamp(now.UnixMilli()), now.Unix(), now.UnixMilli()%1000)
}

// lookUp answers with a last value from the store, in a goroutine of its own.
func (c *socket) lookUp(req *request, who protocols.Device, t protocols.Target) (a answer, now bool) {
	if !c.s.cfg.ACL.MaySubscribe(who, "readings/"+t.Device+"/"+t.Name) {
		return failure(fmt.Errorf("%w: readings of this device", protocols.ErrNotAllowed)), true
	}
	format, ok := acceptable(req.accept, formatText)
	if !ok {
		return refusal(codes.NotAcceptable, "content format not 0 or 50"), true
	}
	select {
	case c.s.lookups <- struct{}{}:
	default:
		return refusal(codes.ServiceUnavailable, "too many requests in flight"), true
	}
	x := req.exchange // req is the reader's
	c.s.reading.Go(func() {
		defer func() { <-c.s.lookups }()
		defer c.guard()
		c.answer(nil, &x, c.s.lastValue(t, format))
	})
	return answer{}, false
}

func (s *Server) lastValue(t protocols.Target, format int) answer {
	r, err := s.last.Last(t.Device, t.Name)
	var body []byte
	switch {
	case errors.Is(err, protocols.ErrNotFound):
		return refusal(codes.NotFound, "no reading yet")
	case err != nil:
		s.log.Error("coap last value", "device", t.Device, "err", err)
		return refusal(codes.InternalServerError, "the store cannot be read")
	case format == formatJSON:
		body, err = s.readingJSON(r)
	default:
		body, err = r.Value.AppendText(nil)
	}
	if err != nil {
		s.log.Error("coap last value", "device", t.Device, "err", err)
		return refusal(codes.InternalServerError, "the value cannot be written")
	}
	return answer{code: codes.Content, format: format, body: body}
}

// readingJSON writes a reading as the admin API does, without its state
// (contract, "HTTP").
func (s *Server) readingJSON(r reading.Reading) ([]byte, error) {
	out := struct {
		ID       string        `json:"id"`
		Device   string        `json:"device"`
		Name     string        `json:"name"`
		Value    reading.Value `json:"value"`
		Unit     string        `json:"unit,omitempty"`
		Time     string        `json:"time,omitempty"`
		Received string        `json:"received"`
		Clock    string        `json:"clock"`
		Source   string        `json:"source"`
		Error    string        `json:"error,omitempty"`
	}{
		ID:     s.cfg.Gateway + "/" + strconv.FormatUint(r.Seq, 10),
		Device: r.Device, Name: r.Name, Value: r.Value, Unit: r.Unit,
		Received: stamp(r.Received), Clock: r.Clock.String(), Source: r.Source.String(), Error: r.Err,
	}
	if r.Time != 0 {
		out.Time = stamp(r.Time)
	}
	return json.Marshal(out)
}

// stamp writes Unix milliseconds as RFC 3339 in UTC.
func stamp(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z") }
