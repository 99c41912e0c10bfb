package journal

import (
	"encoding/binary"
	"hash/crc32"
	"math"
	"strings"
	"unsafe"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/batching/reading"
)

// Formats of a group.
const (
	inHead  = 1 // packets with their dedup keys
	inStore = 2 // runs of readings that were taken in together
)

const (
	groupHeader = 1 + 1 + 8 + 4 + 4
	// maxGroup is where a group is cut into the next one; a packet is never cut.
	maxGroup = 512 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A group is what one record of the head or one key of the store holds: whole
// packets, in the head taken in at one time.
type group struct {
	first    uint64
	at       batching.Stamp    // of the first reading
	packets  []packet          // none in the store, where the windows hold the dedup keys
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
	encoder
	g       group
	senders map[[16]byte]int
}

// An encoder writes the encoding of a group.
type encoder struct {
	first    uint64
	buf      []byte
	parts    uint32 // packets or runs
	readings uint32
	strs     map[string]int
	copies   []string
	rows     map[row]int
}

// A row is what readings of one series repeat.
type row struct{ device, name, unit string }

func newEncoder(format byte, first uint64, at batching.Stamp) encoder {
	e := encoder{
		first: first, buf: make([]byte, groupHeader, 1024),
		strs: make(map[string]int), rows: make(map[row]int),
	}
	e.buf[0], e.buf[1] = format, byte(at.Clock)
	binary.BigEndian.PutUint64(e.buf[2:], uint64(at.Received))
	return e
}

func newGroupWriter(first uint64, at batching.Stamp) *groupWriter {
	return &groupWriter{
		encoder: newEncoder(inHead, first, at),
		g:       group{first: first, at: at},
		senders: make(map[[16]byte]int),
	}
}

// add appends p whole.
func (w *groupWriter) add(p *batching.Packet) {
	w.g.packets = append(w.g.packets, packet{p.Key, len(p.Readings)})
	w.parts++
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
	at := w.row(&r)
	r.Device, r.Name, r.Unit = at.device, at.name, at.unit
	r.Seq, r.Received, r.Clock = w.g.next(), w.g.at.Received, w.g.at.Clock
	r.Value, r.Err = cloneValue(r.Value), strings.Clone(r.Err)
	w.rest(&r)
	w.g.readings = append(w.g.readings, r)
}

// row appends a reference to the reading's series and unit, or them where they
// are new in this group, and returns copies of them.
func (e *encoder) row(r *reading.Reading) row {
	at := row{r.Device, r.Name, r.Unit}
	if i, known := e.rows[at]; known {
		e.buf = binary.AppendUvarint(e.buf, uint64(1+i))
	} else {
		e.buf = append(e.buf, 0)
		e.text(r.Device)
		e.text(r.Name)
		e.text(r.Unit)
	}
	at = row{e.copy(r.Device), e.copy(r.Name), e.copy(r.Unit)}
	if _, known := e.rows[at]; !known {
		e.rows[at] = len(e.rows)
	}
	return at
}

// rest appends what row does not.
func (e *encoder) rest(r *reading.Reading) {
	e.buf = appendReading(e.buf, r)
	e.readings++
}

// text appends a reference to s, or s itself where it is new in this group.
func (e *encoder) text(s string) {
	if i, known := e.strs[s]; known {
		e.buf = binary.AppendUvarint(e.buf, uint64(1+i))
		return
	}
	s = strings.Clone(s)
	e.strs[s] = len(e.copies)
	e.copies = append(e.copies, s)
	e.buf = append(e.buf, 0)
	e.buf = appendBytes(e.buf, s)
}

func (e *encoder) copy(s string) string { return e.copies[e.strs[s]] }

// value returns the finished encoding.
func (e *encoder) value() []byte {
	binary.BigEndian.PutUint32(e.buf[10:], e.parts)
	binary.BigEndian.PutUint32(e.buf[14:], e.readings)
	return binary.BigEndian.AppendUint32(e.buf, groupSum(e.first, e.buf))
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
