package coap

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"net/netip"
	"strings"
	"time"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/udp/coder"
)

// maxAge is after how many seconds a refused device may try again.
const maxAge = 5

// amplification is how many times longer than its request an answer to an
// unverified address may be (RFC 7252, section 11.3).
const amplification = 3

// An exchange is what is kept of a request to answer it.
type exchange struct {
	addr    netip.AddrPort
	typ     message.Type
	mid     uint16
	token   [message.MaxTokenSize]byte
	tkl     int
	size    int  // of the request in bytes
	trusted bool // the address cannot be somebody else's
}

// An answer is a response before it is addressed.
type answer struct {
	code   codes.Code
	format int // of the body; ignored when there is none or it is a diagnostic
	body   []byte
	size1  uint32 // with 4.13
	retry  bool   // with Max-Age
	echo   []byte // with 4.01
}

// refusal returns an error answer with a diagnostic text (section 5.5.2).
func refusal(code codes.Code, text string) answer {
	text = strings.ToValidUTF8(text, "") // it may quote the request
	return answer{code: code, format: none, body: []byte(text), retry: code == codes.ServiceUnavailable}
}

func (a *answer) failed() bool { return a.code >= codes.BadRequest }

// encode appends the datagram that carries a, as type typ with id mid.
func (x *exchange) encode(dst []byte, a answer, typ message.Type, mid uint16) ([]byte, error) {
	var optionSpace [4]message.Option
	var values [12]byte
	opts := message.Options(optionSpace[:0])
	v := values[:]
	add := func(id message.OptionID, n uint32) {
		used, _ := message.EncodeUint32(v, n) // at most 4 of the bytes left
		opts = append(opts, message.Option{ID: id, Value: v[:used]})
		v = v[used:]
	}
	if len(a.body) > 0 && a.format != none {
		add(message.ContentFormat, uint32(a.format))
	}
	if a.retry {
		add(message.MaxAge, maxAge)
	}
	if a.size1 != 0 {
		add(message.Size1, a.size1)
	}
	if len(a.echo) > 0 {
		opts = append(opts, message.Option{ID: optionEcho, Value: a.echo})
	}
	m := message.Message{
		Type: typ, MessageID: int32(mid), Code: a.code,
		Token: x.token[:x.tkl], Options: opts, Payload: a.body,
	}
	size, err := coder.DefaultCoder.Size(m)
	if err != nil {
		return nil, err
	}
	start := len(dst)
	dst = append(dst, make([]byte, size)...)
	_, err = coder.DefaultCoder.Encode(m, dst[start:])
	return dst, err
}

// fit keeps an answer within the amplification bound: an error loses the end
// of its text, a larger result is replaced by an Echo challenge.
func (x *exchange) fit(a answer, e *echo) answer {
	if x.trusted {
		return a
	}
	// Header, token, marker, and the options: content format (3), Max-Age (2),
	// Size1 (6).
	room := amplification*x.size - (4 + x.tkl + 1 + 11)
	switch {
	case len(a.body) == 0 || len(a.body) <= room:
		return a
	case a.failed():
		a.body = bytes.ToValidUTF8(a.body[:max(room, 0)], nil)
		return a
	}
	return answer{code: codes.Unauthorized, format: none, echo: e.value(x.addr, time.Now())}
}

// repeats returns how often an answer of length bytes may be sent again when
// nobody acknowledges it: to an unverified address, the empty acknowledgement
// and all that follows it together keep within the bound.
func (x *exchange) repeats(length int) int {
	if x.trusted {
		return maxRetransmit
	}
	return min(maxRetransmit, max(0, (amplification*x.size-4)/length-1))
}

// An echo makes and knows the values that prove an address (RFC 9175, section
// 2.3): a keyed hash of address and time, so that nothing is kept.
type echo struct {
	secret [16]byte
}

// echoPeriod is how long a value is good for, at least; at most twice that.
const echoPeriod = 4 * time.Minute

func (e *echo) value(addr netip.AddrPort, at time.Time) []byte {
	return e.make(addr, at.Unix()/int64(echoPeriod/time.Second))
}

func (e *echo) make(addr netip.AddrPort, period int64) []byte {
	b := append(make([]byte, 0, 64), e.secret[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(period))
	ip := addr.Addr().As16()
	b = append(b, ip[:]...)
	b = binary.BigEndian.AppendUint16(b, addr.Port())
	sum := sha256.Sum256(b)
	return sum[:8]
}

// verify tells whether addr sent a value that it was given.
func (e *echo) verify(value []byte, addr netip.AddrPort, at time.Time) bool {
	if len(value) == 0 {
		return false
	}
	period := at.Unix() / int64(echoPeriod/time.Second)
	return subtle.ConstantTimeCompare(value, e.make(addr, period)) == 1 ||
		subtle.ConstantTimeCompare(value, e.make(addr, period-1)) == 1
}
