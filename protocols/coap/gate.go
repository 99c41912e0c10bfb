package coap

import (
	"encoding/binary"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
)

// Options that go-coap does not name.
const optionEcho message.OptionID = 252 // RFC 9175

// maxSegments is how many segments of a path are kept. No resource has more
// than three.
const maxSegments = 4

// none stands for a content format that was not given.
const none = -1

// A request is what the gate let through.
type request struct {
	exchange
	code     codes.Code
	segments [maxSegments]string
	depth    int // number of segments, also those beyond maxSegments
	format   int // of the payload, or none
	accept   int // or none
	echo     []byte
	payload  []byte
}

// path returns the segments, or nil when there are more than were kept.
func (r *request) path() []string {
	if r.depth > maxSegments {
		return nil
	}
	return r.segments[:r.depth]
}

// A verdict says what to do with a datagram.
type verdict uint8

const (
	pass   verdict = iota // serve the request
	ignore                // say nothing
	reset                 // answer Reset: a ping, or malformed and confirmable
	settle                // an empty ACK or RST: it ends a separate answer
	refuse                // answer the request with the returned answer
)

// gate reads a datagram, checks it strictly, and fills req as far as it came.
// It keeps data's payload and Echo value, and copies the rest. The checks are
// those of RFC 7252, sections 3, 4.2, 4.3 and 5.4; body is the largest
// payload.
func gate(data []byte, body int, req *request) (verdict, answer) {
	*req = request{format: none, accept: none}
	req.size = len(data)
	if len(data) < 4 || data[0]>>6 != 1 {
		return ignore, answer{}
	}
	req.typ = message.Type(data[0] >> 4 & 3)
	req.code = codes.Code(data[1])
	req.mid = binary.BigEndian.Uint16(data[2:])
	malformed := ignore // RFC 7252, sections 4.2 and 4.3
	if req.typ == message.Confirmable {
		malformed = reset
	}
	tkl := int(data[0] & 15)
	switch {
	case req.typ == message.Acknowledgement || req.typ == message.Reset:
		// We send no request, so that only an empty one means anything.
		if req.code == codes.Empty && len(data) == 4 {
			return settle, answer{}
		}
		return ignore, answer{}
	case req.code == codes.Empty, req.code > 31: // a ping, a response, a reserved class
		return malformed, answer{}
	case tkl > message.MaxTokenSize || len(data) < 4+tkl:
		return malformed, answer{}
	}
	req.tkl = copy(req.token[:], data[4:4+tkl])
	bad, ok := req.options(data[4+tkl:])
	switch {
	case !ok:
		return malformed, answer{}
	case bad.code == codes.BadOption && req.typ == message.NonConfirmable:
		return reset, answer{} // section 5.4.1: rejected, not answered
	case bad.code != 0:
		return refuse, bad
	case req.code > codes.DELETE: // FETCH, PATCH, iPATCH and undefined ones
		return refuse, refusal(codes.MethodNotAllowed, "method not supported")
	case len(req.payload) > body:
		a := refusal(codes.RequestEntityTooLarge, "payload too large")
		a.size1 = uint32(body)
		return refuse, a
	}
	return pass, answer{}
}

// options walks over options and payload. ok is false when they are malformed;
// bad is the first reason to refuse a well-formed request.
func (r *request) options(b []byte) (bad answer, ok bool) {
	var number, previous int
	for len(b) > 0 {
		if b[0] == 0xff {
			r.payload = b[1:]
			return bad, len(b) > 1 // section 3: a marker without payload
		}
		delta, length := int(b[0]>>4), int(b[0]&15)
		b = b[1:]
		if delta, b, ok = extended(delta, b); !ok {
			return bad, false
		}
		if length, b, ok = extended(length, b); !ok || length > len(b) {
			return bad, false
		}
		previous, number = number, number+delta
		if number > 65535 {
			return bad, false
		}
		if why := r.option(message.OptionID(number), b[:length], number == previous); why.code != 0 && bad.code == 0 {
			bad = why
		}
		b = b[length:]
	}
	return bad, true
}

// extended reads the extension of a delta or a length.
func extended(n int, b []byte) (int, []byte, bool) {
	switch {
	case n == message.ExtendOptionByteCode && len(b) >= 1:
		return int(b[0]) + message.ExtendOptionByteAddend, b[1:], true
	case n == message.ExtendOptionWordCode && len(b) >= 2:
		return int(binary.BigEndian.Uint16(b)) + message.ExtendOptionWordAddend, b[2:], true
	case n >= message.ExtendOptionByteCode:
		return 0, nil, false
	}
	return n, b, true
}

// option takes over one option or says why the request is refused. again is
// true when the option before had the same number.
func (r *request) option(id message.OptionID, value []byte, again bool) answer {
	critical := id&1 == 1
	def, known := message.CoapOptionDefs[id]
	legal := known && len(value) >= int(def.MinLen) && len(value) <= int(def.MaxLen)
	if again && id != message.URIPath && id != message.URIQuery {
		legal = false // section 5.4.5: like an unrecognized one
	}
	switch {
	case id == optionEcho && !again && len(value) <= 40:
		r.echo = value
	case critical && !legal, id == message.IfMatch, id == message.IfNoneMatch:
		return refusal(codes.BadOption, "option "+strconv.Itoa(int(id))+" not supported")
	case !legal:
		return answer{} // elective
	case id == message.URIPath:
		if !utf8.Valid(value) {
			return refusal(codes.BadRequest, "path is not UTF-8")
		}
		if r.depth < maxSegments {
			r.segments[r.depth] = string(value)
		}
		r.depth++
	case id == message.ContentFormat:
		r.format = int(number(value))
	case id == message.Accept:
		r.accept = int(number(value))
	case id == message.Block1, id == message.Block2:
		return refusal(codes.RequestEntityTooLarge, "no block-wise transfer: send one datagram")
	case id == message.ProxyURI, id == message.ProxyScheme:
		return refusal(codes.ProxyingNotSupported, "not a proxy")
	}
	return answer{}
}

// number reads an option of format uint, of at most 4 bytes.
func number(value []byte) (n uint32) {
	for _, c := range value {
		n = n<<8 | uint32(c)
	}
	return n
}

// isPath compares a path with segments.
func (r *request) isPath(segments ...string) bool { return slices.Equal(r.path(), segments) }
