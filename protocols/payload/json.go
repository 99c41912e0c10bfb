package payload

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/hedgerow-iot/hedgerow/batching/reading"
)

// whitespace is what may surround a JSON value.
const whitespace = " \t\r\n"

// maxNumber bounds the digits of a number. The longest decimal that any
// sender writes for a float64 has about 330.
const maxNumber = 400

// A node is one value of a document, in JSON or CBOR.
type node struct {
	kind    nodeKind
	value   reading.Value // of a scalar
	members []member      // of an object; of an array, without names
}

type member struct {
	name string
	node
}

type nodeKind uint8

const (
	isNull nodeKind = iota
	isScalar
	isObject
	isArray
)

// float returns the number in n.
func (n node) float() (f float64, ok bool) {
	if n.kind != isScalar {
		return 0, false
	}
	switch n.value.Kind() {
	case reading.KindInt:
		return float64(n.value.AsInt()), true
	case reading.KindUint:
		return float64(n.value.AsUint()), true
	case reading.KindFloat:
		return n.value.AsFloat(), true
	}
	return 0, false
}

// checkMembers refuses two members of one name: which of them counts differs
// between decoders, and a reading must mean the same to everybody.
func checkMembers(ms []member) error {
	if len(ms) <= 16 {
		for i := range ms {
			for j := range i {
				if ms[i].name == ms[j].name {
					return errors.New("an object has two members of one name")
				}
			}
		}
		return nil
	}
	seen := make(map[string]struct{}, len(ms))
	for i := range ms {
		seen[ms[i].name] = struct{}{}
	}
	if len(seen) < len(ms) {
		return errors.New("an object has two members of one name")
	}
	return nil
}

// A parser reads JSON (RFC 8259). It exists because encoding/json keeps
// neither large integers nor the order of members and hides duplicate ones.
type parser struct {
	b     []byte
	i     int
	nodes int
}

var errJSON = errors.New("broken JSON")

// parseJSON reads the one value that b holds.
func parseJSON(b []byte) (node, error) {
	if !utf8.Valid(b) {
		return node{}, errors.New("JSON is not UTF-8")
	}
	p := parser{b: b}
	n, err := p.parse(0)
	if err != nil {
		return node{}, err
	}
	if p.next() != 0 || p.i != len(b) {
		return node{}, p.broken()
	}
	return n, nil
}

func (p *parser) broken() error { return fmt.Errorf("%w at byte %d", errJSON, p.i) }

// next skips whitespace and returns the byte there, or 0 at the end.
func (p *parser) next() byte {
	for ; p.i < len(p.b); p.i++ {
		switch c := p.b[p.i]; c {
		case ' ', '\t', '\r', '\n':
		default:
			return c
		}
	}
	return 0
}

func (p *parser) parse(depth int) (node, error) {
	if p.nodes++; p.nodes > maxNodes {
		return node{}, fmt.Errorf("more than %d values", maxNodes)
	}
	switch c := p.next(); {
	case c == '{' || c == '[':
		if depth == MaxDepth {
			return node{}, fmt.Errorf("nested deeper than %d", MaxDepth)
		}
		p.i++
		if c == '{' {
			return p.object(depth + 1)
		}
		return p.array(depth + 1)
	case c == '"':
		s, err := p.text()
		if err != nil {
			return node{}, err
		}
		v, err := reading.String(s)
		return node{kind: isScalar, value: v}, err
	case c == 't' && p.word("true"):
		return node{kind: isScalar, value: reading.Bool(true)}, nil
	case c == 'f' && p.word("false"):
		return node{kind: isScalar, value: reading.Bool(false)}, nil
	case c == 'n' && p.word("null"):
		return node{}, nil
	}
	n, integer := scanNumber(p.b[p.i:])
	if n == 0 {
		return node{}, p.broken()
	}
	v, err := number(p.b[p.i:p.i+n], integer)
	p.i += n
	return node{kind: isScalar, value: v}, err
}

// word consumes w if it stands here.
func (p *parser) word(w string) bool {
	if end := p.i + len(w); end <= len(p.b) && string(p.b[p.i:end]) == w {
		p.i = end
		return true
	}
	return false
}

func (p *parser) object(depth int) (node, error) {
	n := node{kind: isObject}
	if p.next() == '}' {
		p.i++
		return n, nil
	}
	n.members = make([]member, 0, p.expect())
	for {
		if p.next() != '"' {
			return node{}, p.broken()
		}
		name, err := p.text()
		if err != nil {
			return node{}, err
		}
		if p.next() != ':' {
			return node{}, p.broken()
		}
		p.i++
		v, err := p.parse(depth)
		if err != nil {
			return node{}, err
		}
		n.members = append(n.members, member{name, v})
		switch p.next() {
		case ',':
			p.i++
		case '}':
			p.i++
			return n, checkMembers(n.members)
		default:
			return node{}, p.broken()
		}
	}
}

func (p *parser) array(depth int) (node, error) {
	n := node{kind: isArray}
	if p.next() == ']' {
		p.i++
		return n, nil
	}
	for {
		v, err := p.parse(depth)
		if err != nil {
			return node{}, err
		}
		n.members = append(n.members, member{node: v})
		switch p.next() {
		case ',':
			p.i++
		case ']':
			p.i++
			return n, nil
		default:
			return node{}, p.broken()
		}
	}
}

// expect guesses how many members the object has whose first one stands here:
// exactly for a flat one without commas in texts. Growing step by step
// allocates three times as much.
func (p *parser) expect() int {
	const most = 8 // what is wrong with a guess stays small
	rest := p.b[p.i:]
	if end := bytes.IndexByte(rest, '}'); end >= 0 {
		rest = rest[:end]
	}
	return min(most, 1+bytes.Count(rest, []byte{','}))
}

// text reads the string whose opening quote stands here.
func (p *parser) text() (string, error) {
	start, escaped := p.i, false
	for p.i++; p.i < len(p.b); p.i++ {
		switch c := p.b[p.i]; {
		case c == '\\':
			escaped = true
			p.i++
		case c < ' ':
			return "", p.broken()
		case c == '"':
			p.i++
			raw := p.b[start:p.i]
			if !escaped {
				return string(raw[1 : len(raw)-1]), nil
			}
			var s string
			if json.Unmarshal(raw, &s) != nil {
				return "", p.broken()
			}
			return s, nil
		}
	}
	p.i = len(p.b) // an escape may have stepped over the end
	return "", p.broken()
}

// scanNumber returns how many bytes of b are a JSON number, 0 when it does not
// begin with one, and whether it has neither fraction nor exponent.
func scanNumber(b []byte) (n int, integer bool) {
	digits := func() bool {
		from := n
		for n < len(b) && b[n] >= '0' && b[n] <= '9' {
			n++
		}
		return n > from
	}
	at := func(c byte) bool { return n < len(b) && b[n] == c }
	if at('-') {
		n++
	}
	if at('0') {
		n++
	} else if !digits() {
		return 0, false
	}
	integer = true
	if at('.') {
		n++
		if integer = false; !digits() {
			return 0, false
		}
	}
	if at('e') || at('E') {
		n++
		if at('+') || at('-') {
			n++
		}
		if integer = false; !digits() {
			return 0, false
		}
	}
	return n, integer
}

// number converts what scanNumber found: an integer exactly when 64 bits hold
// it, else the nearest float64.
func number(b []byte, integer bool) (reading.Value, error) {
	if len(b) > maxNumber {
		return reading.Value{}, fmt.Errorf("a number has more than %d bytes", maxNumber)
	}
	s := string(b)
	if integer {
		if i, err := strconv.ParseInt(s, 10, 64); err == nil {
			return reading.Int(i), nil
		}
		if u, err := strconv.ParseUint(s, 10, 64); err == nil {
			return reading.Uint(u), nil
		}
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return reading.Value{}, errors.New("a number is beyond float64")
	}
	return reading.Float(f)
}
