package journal

import (
	"encoding/binary"
	"fmt"
	"time"
)

const (
	// chunkSpan bounds the received times of one chunk, so that a query by
	// time looks no further back than this.
	chunkSpan = int64(time.Hour / time.Millisecond)
	// maxChunk bounds the entries of one chunk.
	maxChunk = 8192
)

// An entry says where one reading of a series is and when it was received.
type entry struct {
	seq      uint64
	received int64
}

// compareEntries orders by received time, then by number.
func compareEntries(a, b entry) int {
	switch {
	case a.received < b.received, a.received == b.received && a.seq < b.seq:
		return -1
	case a == b:
		return 0
	}
	return 1
}

// chunks calls yield with the pieces of es that become one chunk each: times
// in a chunk never fall and span at most chunkSpan.
func chunks(es []entry, yield func([]entry)) {
	start := 0
	for i := 1; i <= len(es); i++ {
		if i < len(es) && es[i].received >= es[i-1].received &&
			es[i].received-es[start].received <= chunkSpan && i-start < maxChunk {
			continue
		}
		yield(es[start:i])
		start = i
	}
}

// encodeChunk encodes the entries after the first one, which stands in the key.
func encodeChunk(es []entry) []byte {
	last := es[len(es)-1]
	b := binary.AppendUvarint(nil, uint64(len(es)))
	b = binary.AppendUvarint(b, uint64(last.received-es[0].received))
	b = binary.AppendUvarint(b, last.seq-es[0].seq)
	for i := 1; i < len(es); i++ {
		b = binary.AppendUvarint(b, es[i].seq-es[i-1].seq)
		b = binary.AppendUvarint(b, uint64(es[i].received-es[i-1].received))
	}
	return b
}

// chunkEnd returns the last entry of a chunk without decoding the others.
func chunkEnd(first entry, value []byte) (last entry, err error) {
	last, _, _, err = chunkHead(first, value)
	return last, err
}

func chunkHead(first entry, value []byte) (last entry, count int, rest []byte, err error) {
	var head [3]uint64
	for i := range head {
		v, n := binary.Uvarint(value)
		if n <= 0 {
			return last, 0, nil, fmt.Errorf("%w: index chunk at %d ends early", ErrCorrupt, first.seq)
		}
		head[i], value = v, value[n:]
	}
	last = entry{seq: first.seq + head[2], received: first.received + int64(head[1])}
	if head[0] == 0 || head[0] > maxChunk || head[1] > uint64(chunkSpan) || last.seq < first.seq {
		return last, 0, nil, fmt.Errorf("%w: index chunk at %d", ErrCorrupt, first.seq)
	}
	return last, int(head[0]), value, nil
}

// decodeChunk calls yield with each entry in order until it returns false.
func decodeChunk(first entry, value []byte, yield func(entry) bool) error {
	_, count, rest, err := chunkHead(first, value)
	if err != nil {
		return err
	}
	at := first
	for i := range count {
		if i > 0 {
			seq, n := binary.Uvarint(rest)
			received, m := binary.Uvarint(rest[max(n, 0):])
			if n <= 0 || m <= 0 {
				return fmt.Errorf("%w: index chunk at %d ends early", ErrCorrupt, first.seq)
			}
			at.seq, at.received = at.seq+seq, at.received+int64(received)
			rest = rest[n+m:]
		}
		if !yield(at) {
			return nil
		}
	}
	return nil
}

// A segment is the summary of the groups of one flush.
type segment struct {
	first, next              uint64 // covers [first, next)
	bytes                    int64  // of the encoded groups
	minReceived, maxReceived int64
}

func (s *segment) count() uint64 { return s.next - s.first }

// overlaps reports whether a reading of s may lie in [from, to).
func (s *segment) overlaps(from, to int64) bool { return s.maxReceived >= from && s.minReceived < to }

func encodeSegment(s *segment) []byte {
	b := binary.BigEndian.AppendUint64(nil, s.next)
	b = binary.BigEndian.AppendUint64(b, uint64(s.bytes))
	b = binary.BigEndian.AppendUint64(b, uint64(s.minReceived))
	return binary.BigEndian.AppendUint64(b, uint64(s.maxReceived))
}

func decodeSegment(key, value []byte) (segment, error) {
	first, ok := parseSeqKey(key)
	if !ok || len(value) != 32 {
		return segment{}, fmt.Errorf("%w: segment %x", ErrCorrupt, key)
	}
	s := segment{
		first: first, next: binary.BigEndian.Uint64(value),
		bytes:       int64(binary.BigEndian.Uint64(value[8:])),
		minReceived: int64(binary.BigEndian.Uint64(value[16:])),
		maxReceived: int64(binary.BigEndian.Uint64(value[24:])),
	}
	if s.next <= s.first || s.bytes < 0 || s.minReceived > s.maxReceived {
		return segment{}, fmt.Errorf("%w: segment %d", ErrCorrupt, first)
	}
	return s, nil
}

// A checkpoint says up to where the indexes reach.
type checkpoint struct {
	next     uint64 // the first number that is not indexed
	received int64  // the latest time of a dedup key that is stored
}

func encodeCheckpoint(c checkpoint) []byte {
	b := binary.BigEndian.AppendUint64(nil, c.next)
	return binary.BigEndian.AppendUint64(b, uint64(c.received))
}

func decodeCheckpoint(b []byte) (checkpoint, error) {
	if len(b) != 16 || binary.BigEndian.Uint64(b) == 0 {
		return checkpoint{}, fmt.Errorf("%w: checkpoint %x", ErrCorrupt, b)
	}
	return checkpoint{binary.BigEndian.Uint64(b), int64(binary.BigEndian.Uint64(b[8:]))}, nil
}

// encodeLast and decodeLast hold the newest entry of a series.
func encodeLast(e entry) []byte {
	b := binary.BigEndian.AppendUint64(nil, e.seq)
	return binary.BigEndian.AppendUint64(b, uint64(e.received))
}

func decodeLast(b []byte) (entry, error) {
	if len(b) != 16 {
		return entry{}, fmt.Errorf("%w: last value %x", ErrCorrupt, b)
	}
	return entry{binary.BigEndian.Uint64(b), int64(binary.BigEndian.Uint64(b[8:]))}, nil
}
