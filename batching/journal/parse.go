package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/batching/reading"
)

// decodeGroup parses the value under the group key of first. The error wraps
// [ErrCorrupt].
func decodeGroup(first uint64, value []byte) (*group, error) {
	if len(value) < groupHeader+4 {
		return nil, fmt.Errorf("%w: group %d has %d bytes", ErrCorrupt, first, len(value))
	}
	body, sum := value[:len(value)-4], binary.BigEndian.Uint32(value[len(value)-4:])
	if got := groupSum(first, body); got != sum {
		return nil, fmt.Errorf("%w: group %d has checksum %08x, want %08x", ErrCorrupt, first, got, sum)
	}
	g, err := parseGroup(first, body)
	if err != nil {
		return nil, fmt.Errorf("%w: group %d: %v", ErrCorrupt, first, err)
	}
	return g, nil
}

var (
	errShort = errors.New("ends early")
	errForm  = errors.New("not in the form this program writes")
)

// parseGroup parses a group without its checksum. Counts are held against the
// bytes there are before anything is allocated for them.
func parseGroup(first uint64, body []byte) (*group, error) {
	if len(body) < groupHeader {
		return nil, errShort
	}
	g := &group{first: first, at: batching.Stamp{
		Received: int64(binary.BigEndian.Uint64(body[2:])),
		Clock:    reading.Clock(body[1]),
	}}
	parts, readings := binary.BigEndian.Uint32(body[10:]), binary.BigEndian.Uint32(body[14:])
	p := &groupParser{b: body[groupHeader:], g: g, at: g.at}
	part := p.packet
	if body[0] == inStore {
		part = p.run
	}
	const leastReading, leastPart = 4, 2
	if body[0] != inHead && body[0] != inStore || body[1] > byte(reading.ClockBad) || parts == 0 || readings < parts ||
		int64(readings)*leastReading+int64(parts)*leastPart > int64(len(p.b)) ||
		first+uint64(readings) < first {
		return nil, errForm
	}
	if body[0] == inHead {
		g.packets = make([]packet, 0, parts)
	}
	g.readings = make([]reading.Reading, 0, readings)
	for range parts {
		if err := part(int(readings)); err != nil {
			return nil, err
		}
	}
	if len(p.b) != 0 || len(g.readings) != int(readings) {
		return nil, errForm
	}
	return g, nil
}

type groupParser struct {
	b       []byte
	g       *group
	at      batching.Stamp // of the readings that are parsed now
	strs    []string
	rows    []row
	senders [][16]byte
}

func (p *groupParser) packet(most int) error {
	var pk packet
	ref, err := p.uvarint()
	switch {
	case err != nil:
		return err
	case ref == 0:
	case ref == 1:
		var s [16]byte
		if err := p.array(&s); err != nil {
			return err
		}
		p.senders = append(p.senders, s)
		ref = uint64(1 + len(p.senders))
		fallthrough
	default:
		if ref-2 >= uint64(len(p.senders)) {
			return errForm
		}
		pk.key.Sender = p.senders[ref-2]
		if err := p.array(&pk.key.Message); err != nil {
			return err
		}
	}
	n, err := p.uvarint()
	if err != nil {
		return err
	}
	if n == 0 || n > uint64(most-len(p.g.readings)) {
		return errForm
	}
	pk.n = int(n)
	p.g.packets = append(p.g.packets, pk)
	return p.some(pk.n)
}

func (p *groupParser) run(most int) error {
	later, n := binary.Varint(p.b)
	if n <= 0 {
		return errShort
	}
	p.b = p.b[n:]
	count, err := p.uvarint()
	if err != nil {
		return err
	}
	changes := count&1 == 1
	if count >>= 1; count == 0 || count > uint64(most-len(p.g.readings)) {
		return errForm
	}
	clock := p.at.Clock
	if changes {
		if len(p.b) == 0 {
			return errShort
		}
		clock, p.b = reading.Clock(p.b[0]), p.b[1:]
		if clock > reading.ClockBad || clock == p.at.Clock {
			return errForm
		}
	}
	if len(p.g.readings) == 0 && (later != 0 || changes) {
		return errForm // the stamp of the first one is the header's
	}
	p.at = batching.Stamp{Received: p.at.Received + later, Clock: clock}
	return p.some(int(count))
}

func (p *groupParser) some(n int) error {
	for range n {
		if err := p.reading(); err != nil {
			return err
		}
	}
	return nil
}

func (p *groupParser) reading() error {
	at, err := p.row()
	if err != nil {
		return err
	}
	r := reading.Reading{
		Seq: p.g.next(), Device: at.device, Name: at.name, Unit: at.unit,
		Received: p.at.Received, Clock: p.at.Clock,
	}
	if len(p.b) < 2 {
		return errShort
	}
	form := p.b[0]
	r.Auth, r.Source = reading.Auth(p.b[1]&0x0f), reading.Source(p.b[1]>>4)
	p.b = p.b[2:]
	if r.Value, err = p.value(reading.Kind(form & formKind)); err != nil {
		return err
	}
	if form&formTime != 0 {
		d, n := binary.Varint(p.b)
		if n <= 0 || r.Received+d == 0 {
			return errForm
		}
		p.b = p.b[n:]
		r.Time = r.Received + d
	}
	if form&formErr != 0 {
		if r.Err, err = p.text(reading.MaxErr); err != nil {
			return err
		}
		if r.Err == "" {
			return errForm
		}
	}
	if form&^(formKind|formTime|formErr) != 0 || r.Auth > reading.AuthX509 || r.Source > reading.SourceHTTP {
		return errForm
	}
	p.g.readings = append(p.g.readings, r)
	return nil
}

func (p *groupParser) row() (row, error) {
	ref, err := p.uvarint()
	if err != nil {
		return row{}, err
	}
	if ref > 0 {
		if ref > uint64(len(p.rows)) {
			return row{}, errForm
		}
		return p.rows[ref-1], nil
	}
	var at row
	for _, part := range []struct {
		to          *string
		least, most int
	}{{&at.device, 1, reading.MaxDevice}, {&at.name, 1, reading.MaxName}, {&at.unit, 0, reading.MaxUnit}} {
		s, err := p.shared()
		if err != nil {
			return row{}, err
		}
		if len(s) < part.least || len(s) > part.most {
			return row{}, errForm
		}
		*part.to = s
	}
	if strings.IndexByte(at.device, 0) >= 0 || strings.IndexByte(at.name, 0) >= 0 {
		return row{}, errForm
	}
	p.rows = append(p.rows, at)
	return at, nil
}

// shared reads a text that the group holds once.
func (p *groupParser) shared() (string, error) {
	ref, err := p.uvarint()
	if err != nil {
		return "", err
	}
	if ref > 0 {
		if ref > uint64(len(p.strs)) {
			return "", errForm
		}
		return p.strs[ref-1], nil
	}
	s, err := p.text(reading.MaxName)
	if err != nil {
		return "", err
	}
	p.strs = append(p.strs, s)
	return s, nil
}

func (p *groupParser) value(kind reading.Kind) (v reading.Value, err error) {
	switch kind {
	case reading.KindInt:
		i, n := binary.Varint(p.b)
		if n <= 0 {
			return v, errShort
		}
		p.b = p.b[n:]
		return reading.Int(i), nil
	case reading.KindUint:
		u, err := p.uvarint()
		if err != nil {
			return v, err
		}
		v = reading.Uint(u)
	case reading.KindFloat, reading.KindBool:
		size := 8
		if kind == reading.KindBool {
			size = 1
		}
		if len(p.b) < size {
			return v, errShort
		}
		if kind == reading.KindBool {
			v = reading.Bool(p.b[0] != 0)
		} else if v, err = reading.Float(math.Float64frombits(binary.BigEndian.Uint64(p.b))); err != nil {
			return v, err
		}
		p.b = p.b[size:]
	case reading.KindString, reading.KindBytes:
		s, err := p.text(batching.MaxPacketBytes)
		if err != nil {
			return v, err
		}
		if kind == reading.KindBytes {
			return reading.Bytes([]byte(s)), nil
		}
		return reading.String(s)
	}
	if v.Kind() != kind || kind == reading.KindNone {
		return v, errForm // not the one form that its number has
	}
	return v, nil
}

func (p *groupParser) uvarint() (uint64, error) {
	v, n := binary.Uvarint(p.b)
	if n <= 0 {
		return 0, errShort
	}
	p.b = p.b[n:]
	return v, nil
}

func (p *groupParser) array(to *[16]byte) error {
	if len(p.b) < len(to) {
		return errShort
	}
	copy(to[:], p.b)
	p.b = p.b[len(to):]
	return nil
}

func (p *groupParser) text(most int) (string, error) {
	n, err := p.uvarint()
	if err != nil {
		return "", err
	}
	if n > uint64(len(p.b)) || n > uint64(most) {
		return "", errShort
	}
	s := string(p.b[:n])
	p.b = p.b[n:]
	return s, nil
}
