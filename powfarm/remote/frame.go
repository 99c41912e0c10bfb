package remote

import (
	"crypto/ed25519"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/blake2b"
)

// A Key is an Ed25519 public key.
type Key [ed25519.PublicKeySize]byte

// String returns 0x and 64 hex digits, as network files have it.
func (k Key) String() string { return "0x" + hex.EncodeToString(k[:]) }

// ParseKey reads the text form.
func ParseKey(s string) (k Key, err error) {
	digits, ok := strings.CutPrefix(s, "0x")
	if !ok || len(digits) != 2*len(k) {
		return k, fmt.Errorf("%.80q is not a public key: want 0x and %d hex digits", s, 2*len(k))
	}
	if _, err := hex.Decode(k[:], []byte(digits)); err != nil {
		return k, fmt.Errorf("%.80q is not a public key: %w", s, err)
	}
	return k, nil
}

// id is how subjects name the key.
func (k Key) id() string { return hex.EncodeToString(k[:8]) }

func publicOf(key ed25519.PrivateKey) Key { return Key(key.Public().(ed25519.PublicKey)) }

// A Peer is the key of another box and what to call it.
type Peer struct {
	Name string
	Key  Key
}

func helloSubject(prefix string) string { return prefix + ".pow.hello" }

func workerSubject(prefix string, worker Key) string { return prefix + ".pow." + worker.id() }

func answerSubject(prefix string, gateway Key, id requestID) string {
	return prefix + ".inbox." + gateway.id() + ".pow." + hex.EncodeToString(id[:])
}

// CheckName says what is wrong with the name of a worker, if something is.
func CheckName(name string) error { return checkWord(name, maxName) }

// A requestID names one request to one worker: eight random bytes, which are
// the gateway's for this worker since its start, and a count.
type requestID [16]byte

// series is how far the count of one request may be from the one before in
// the same series, on either side.
const series = 1024

func newRequestID(random [8]byte, count uint64) (id requestID) {
	binary.BigEndian.PutUint64(id[copy(id[:], random[:]):], count)
	return id
}

// continues tells whether the request is one of the series of the last.
func (id requestID) continues(last requestID) bool {
	n := int64(binary.BigEndian.Uint64(id[8:]) - binary.BigEndian.Uint64(last[8:]))
	return last != requestID{} && [8]byte(id[:8]) == [8]byte(last[:8]) && -series <= n && n <= series
}

// frameVersion is the first byte of every frame. Another version is refused.
const frameVersion = 1

// Kinds of frames, the second byte. The sender's key follows.
const (
	kindHello byte = iota + 1
	kindSearch
	kindCancel
	kindAnswer
)

const (
	headSize   = 2 + ed25519.PublicKeySize
	idSize     = len(requestID{})
	maxName    = 32
	maxKernel  = 16
	helloSize  = headSize + 8 + 8 + 8 + 1 + 1 + 2 + 2 + 1 + maxName + 1 + maxKernel + ed25519.SignatureSize
	searchSize = headSize + idSize + 8 + 32 + 1 + 1 + 4 + ed25519.SignatureSize
	cancelSize = headSize + idSize + ed25519.SignatureSize
	answerSize = headSize + idSize + 1 + 8 + ed25519.SignatureSize
)

// frameSizes are the sizes by kind.
var frameSizes = [...]int{kindHello: helloSize, kindSearch: searchSize, kindCancel: cancelSize, kindAnswer: answerSize}

// errFrame is wrapped by every error about what a frame says.
var errFrame = errors.New("not a frame of remote proof of work")

// A hello announces a worker.
type hello struct {
	session uint64 // random, of this start of the worker
	stamp   uint64 // grows from hello to hello; about nanoseconds of Unix time
	rate    uint64 // tries per second
	most    uint8  // zeros that it takes on
	leaving bool
	slots   uint16 // searches that it holds of one gateway
	queued  uint16 // searches that it holds of all
	name    string // 1-32 letters, digits, . _ -
	kernel  string // 1-16 of those
}

// A request asks one worker to search.
type request struct {
	id       requestID
	stamp    uint64 // of the hello that it answers
	digest   [32]byte
	zeros    uint8
	priority uint8  // more is sooner, among the sender's own
	millis   uint32 // after which no answer is wanted any more
}

// A result is how a search ended at the worker.
type result uint8

const (
	resultFound   result = iota + 1
	resultExpired        // nothing found by the deadline
	resultBusy           // no room: not begun
	resultRefused        // too long a search for this worker, or it cannot search
	results
)

type answer struct {
	id     requestID
	result result
	nonce  uint64
}

// kindOf checks version, kind and size, and returns kind and sender.
func kindOf(raw []byte) (kind byte, from Key, err error) {
	switch {
	case len(raw) < headSize || raw[0] != frameVersion:
		return 0, from, fmt.Errorf("%w: no head of version %d", errFrame, frameVersion)
	case raw[1] < kindHello || raw[1] > kindAnswer:
		return 0, from, fmt.Errorf("%w: kind %d", errFrame, raw[1])
	case len(raw) != frameSizes[raw[1]]:
		return 0, from, fmt.Errorf("%w: kind %d of %d bytes, want %d", errFrame, raw[1], len(raw), frameSizes[raw[1]])
	}
	return raw[1], Key(raw[2:headSize]), nil
}

func head(kind byte, from Key) []byte {
	b := make([]byte, 0, frameSizes[kind])
	b = append(b, frameVersion, kind)
	return append(b, from[:]...)
}

// The append functions write a frame without its signature; the parse functions
// read what kindOf has found to be of their kind.

func appendHello(from Key, h *hello) []byte {
	b := head(kindHello, from)
	b = binary.BigEndian.AppendUint64(b, h.session)
	b = binary.BigEndian.AppendUint64(b, h.stamp)
	b = binary.BigEndian.AppendUint64(b, h.rate)
	b = append(b, h.most, 0)
	if h.leaving {
		b[len(b)-1] = 1
	}
	b = binary.BigEndian.AppendUint16(b, h.slots)
	b = binary.BigEndian.AppendUint16(b, h.queued)
	b = appendText(b, h.name, maxName)
	return appendText(b, h.kernel, maxKernel)
}

func parseHello(raw []byte) (h hello, err error) {
	b := raw[headSize:]
	h.session, b = binary.BigEndian.Uint64(b), b[8:]
	h.stamp, b = binary.BigEndian.Uint64(b), b[8:]
	h.rate, b = binary.BigEndian.Uint64(b), b[8:]
	h.most, h.leaving = b[0], b[1] == 1
	if b[1] > 1 {
		return h, fmt.Errorf("%w: hello with flags %#x", errFrame, b[1])
	}
	b = b[2:]
	h.slots, b = binary.BigEndian.Uint16(b), b[2:]
	h.queued, b = binary.BigEndian.Uint16(b), b[2:]
	if h.name, err = parseText(b[:1+maxName]); err != nil {
		return h, err
	}
	h.kernel, err = parseText(b[1+maxName : 1+maxName+1+maxKernel])
	return h, err
}

func appendRequest(from Key, r *request) []byte {
	b := head(kindSearch, from)
	b = append(b, r.id[:]...)
	b = binary.BigEndian.AppendUint64(b, r.stamp)
	b = append(b, r.digest[:]...)
	b = append(b, r.zeros, r.priority)
	return binary.BigEndian.AppendUint32(b, r.millis)
}

func parseRequest(raw []byte) (r request) {
	b := raw[headSize:]
	b = b[copy(r.id[:], b):]
	r.stamp, b = binary.BigEndian.Uint64(b), b[8:]
	b = b[copy(r.digest[:], b):]
	r.zeros, r.priority = b[0], b[1]
	r.millis = binary.BigEndian.Uint32(b[2:])
	return r
}

func appendCancel(from Key, id requestID) []byte { return append(head(kindCancel, from), id[:]...) }

func parseCancel(raw []byte) (id requestID) { return requestID(raw[headSize : headSize+idSize]) }

func appendAnswer(from Key, a *answer) []byte {
	b := append(head(kindAnswer, from), a.id[:]...)
	b = append(b, byte(a.result))
	return binary.BigEndian.AppendUint64(b, a.nonce)
}

func parseAnswer(raw []byte) (a answer, err error) {
	b := raw[headSize:]
	b = b[copy(a.id[:], b):]
	a.result, a.nonce = result(b[0]), binary.BigEndian.Uint64(b[1:])
	if a.result < resultFound || a.result >= results {
		return a, fmt.Errorf("%w: answer %d", errFrame, a.result)
	}
	return a, nil
}

// appendText writes a length byte and the text, padded with zeros to most.
func appendText(b []byte, s string, most int) []byte {
	b = append(append(b, byte(len(s))), s...)
	return append(b, make([]byte, most-len(s))...)
}

// parseText takes only what appendText writes of a checked word: it is shown
// to people.
func parseText(b []byte) (string, error) {
	n := int(b[0])
	b = b[1:]
	if n > len(b) || checkWord(string(b[:n]), len(b)) != nil || strings.Trim(string(b[n:]), "\x00") != "" {
		return "", fmt.Errorf("%w: no name in %q", errFrame, b)
	}
	return string(b[:n]), nil
}

// checkWord takes what network files take as a gateway's name.
func checkWord(s string, most int) error {
	if len(s) < 1 || len(s) > most {
		return fmt.Errorf("%d characters, want 1 to %d", len(s), most)
	}
	for _, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '_', c == '-':
		default:
			return fmt.Errorf("%.80q has %q, want letters, digits, '.', '_', '-'", s, c)
		}
	}
	return nil
}

// signDomain keeps these signatures apart from all others of the same keys.
const signDomain = "hedgerow-pow-1"

func signedHash(genesis [32]byte, to Key, body []byte) [32]byte {
	b := append(make([]byte, 0, len(signDomain)+64+len(body)), signDomain...)
	b = append(append(append(b, genesis[:]...), to[:]...), body...)
	return blake2b.Sum256(b)
}

// sign appends the signature of a frame for one receiver, or of a hello for
// the zero key.
func sign(key ed25519.PrivateKey, genesis [32]byte, to Key, body []byte) []byte {
	hash := signedHash(genesis, to, body)
	return append(body, ed25519.Sign(key, hash[:])...)
}

// signed tells whether the sender named in a frame that kindOf accepts signed
// it for this receiver.
func signed(genesis [32]byte, to Key, raw []byte) bool {
	body, sig := raw[:len(raw)-ed25519.SignatureSize], raw[len(raw)-ed25519.SignatureSize:]
	hash := signedHash(genesis, to, body)
	return ed25519.Verify(ed25519.PublicKey(raw[2:headSize]), hash[:], sig)
}
