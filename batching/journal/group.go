package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"strings"
	"unsafe"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/batching/reading"
)

const (
	groupFormat = 1
	groupHeader = 1 + 1 + 8 + 4 + 4
	// maxGroup is where a group is cut into the next one; a packet is never cut.
	maxGroup = 512 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A group is what one key holds: whole packets taken in at one time.
type group struct {
	first    uint64
	at       batching.Stamp
	packets  []packet
	readings []reading.Reading // of all packets, in order
}

// A packet is the dedup key of n readings of a group.
type packet struct {
	key batching.Key
	n   int
}

// next returns the number after the group's last.
func (g *group) next() uint64 { return g.first + uint64(len(g.readings)) }

// size estimates the memory that the group holds.
func (g *group) size() int64 {
	n := len(g.packets)*int(unsafe.Sizeof(packet{})) + len(g.readings)*int(unsafe.Sizeof(reading.Reading{}))
	for i := range g.readings {
		n += len(g.readings[i].Value.AsString()) + len(g.readings[i].Err)
	}
	return int64(n)
}

// A groupWriter builds a group and its encoding at once. Its texts are copies:
// those of the packets may be slices of a much larger message.
type groupWriter struct {
	g       group
	buf     []byte
	strs    map[string]int
	copies  []string
	rows    map[row]int
	senders map[[16]byte]int
}

// A row is what readings of one series repeat.
type row struct{ device, name, unit string }

func newGroupWriter(first uint64, at batching.Stamp) *groupWriter {
	w := &groupWriter{
		g:       group{first: first, at: at},
		buf:     make([]byte, groupHeader, 1024),
		strs:    make(map[string]int),
		rows:    make(map[row]int),
		senders: make(map[[16]byte]int),
	}
	w.buf[0], w.buf[1] = groupFormat, byte(at.Clock)
	binary.BigEndian.PutUint64(w.buf[2:], uint64(at.Received))
	return w
}

// add appends p whole.
func (w *groupWriter) add(p *batching.Packet) {
	w.g.packets = append(w.g.packets, packet{p.Key, len(p.Readings)})
	switch i, known := w.senders[p.Key.Sender]; {
	case p.Key == batching.Key{}:
		w.buf = append(w.buf, 0)
	case known:
		w.buf = binary.AppendUvarint(w.buf, uint64(2+i))
		w.buf = append(w.buf, p.Key.Message[:]...)
	default:
		w.senders[p.Key.Sender] = len(w.senders)
		w.buf = append(w.buf, 1)
		w.buf = append(w.buf, p.Key.Sender[:]...)
		w.buf = append(w.buf, p.Key.Message[:]...)
	}
	w.buf = binary.AppendUvarint(w.buf, uint64(len(p.Readings)))
	for i := range p.Readings {
		w.reading(p.Readings[i])
	}
}

func (w *groupWriter) reading(r reading.Reading) {
	at := row{r.Device, r.Name, r.Unit}
	if i, known := w.rows[at]; known {
		w.buf = binary.AppendUvarint(w.buf, uint64(1+i))
	} else {
		w.buf = append(w.buf, 0)
		w.text(r.Device)
		w.text(r.Name)
		w.text(r.Unit)
		at = row{w.copy(r.Device), w.copy(r.Name), w.copy(r.Unit)}
		w.rows[at] = len(w.rows)
	}
	r.Device, r.Name, r.Unit = w.copy(r.Device), w.copy(r.Name), w.copy(r.Unit)
	r.Seq, r.Received, r.Clock = w.g.next(), w.g.at.Received, w.g.at.Clock
	r.Value, r.Err = cloneValue(r.Value), strings.Clone(r.Err)
	w.buf = appendReading(w.buf, &r)
	w.g.readings = append(w.g.readings, r)
}

// text appends a reference to s, or s itself where it is new in this group.
func (w *groupWriter) text(s string) {
	if i, known := w.strs[s]; known {
		w.buf = binary.AppendUvarint(w.buf, uint64(1+i))
		return
	}
	s = strings.Clone(s)
	w.strs[s] = len(w.copies)
	w.copies = append(w.copies, s)
	w.buf = append(w.buf, 0)
	w.buf = appendBytes(w.buf, s)
}

func (w *groupWriter) copy(s string) string { return w.copies[w.strs[s]] }

// value returns the finished encoding.
func (w *groupWriter) value() []byte {
	binary.BigEndian.PutUint32(w.buf[10:], uint32(len(w.g.packets)))
	binary.BigEndian.PutUint32(w.buf[14:], uint32(len(w.g.readings)))
	return binary.BigEndian.AppendUint32(w.buf, groupSum(w.g.first, w.buf))
}

// groupSum covers the key too, so that a value under a wrong key shows.
func groupSum(first uint64, body []byte) uint32 {
	return crc32.Update(crc32.Checksum(seqKey(prefixGroup, first), castagnoli), castagnoli, body)
}

const (
	formKind = 0x07
	formTime = 0x08
	formErr  = 0x10
)

func appendReading(b []byte, r *reading.Reading) []byte {
	form := byte(r.Value.Kind())
	if r.Time != 0 {
		form |= formTime
	}
	if r.Err != "" {
		form |= formErr
	}
	b = append(b, form, byte(r.Auth)|byte(r.Source)<<4)
	switch r.Value.Kind() {
	case reading.KindInt:
		b = binary.AppendVarint(b, r.Value.AsInt())
	case reading.KindUint:
		b = binary.AppendUvarint(b, r.Value.AsUint())
	case reading.KindFloat:
		b = binary.BigEndian.AppendUint64(b, math.Float64bits(r.Value.AsFloat()))
	case reading.KindBool:
		var v byte
		if r.Value.AsBool() {
			v = 1
		}
		b = append(b, v)
	default:
		b = appendBytes(b, r.Value.AsString())
	}
	if r.Time != 0 {
		b = binary.AppendVarint(b, r.Time-r.Received)
	}
	if r.Err != "" {
		b = appendBytes(b, r.Err)
	}
	return b
}

func appendBytes(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// cloneValue returns v with its own copy of the text it holds.
func cloneValue(v reading.Value) reading.Value {
	switch v.Kind() {
	case reading.KindBytes:
		return reading.Bytes([]byte(v.AsString()))
	case reading.KindString:
		if c, err := reading.String(strings.Clone(v.AsString())); err == nil {
			return c
		}
	}
	return v
}

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
	packets, readings := binary.BigEndian.Uint32(body[10:]), binary.BigEndian.Uint32(body[14:])
	p := &groupParser{b: body[groupHeader:], g: g}
	const leastReading, leastPacket = 4, 2
	if body[0] != groupFormat || body[1] > byte(reading.ClockBad) || packets == 0 || readings < packets ||
		int64(readings)*leastReading+int64(packets)*leastPacket > int64(len(p.b)) ||
		first+uint64(readings) < first {
		return nil, errForm
	}
	g.packets = make([]packet, 0, packets)
	g.readings = make([]reading.Reading, 0, readings)
	for range packets {
		if err := p.packet(int(readings)); err != nil {
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
	for range pk.n {
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
		Received: p.g.at.Received, Clock: p.g.at.Clock,
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
