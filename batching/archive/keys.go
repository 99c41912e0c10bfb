package archive

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/bits"
)

// First bytes of keys; the package comment has the layout.
const (
	kindBatch    = 'b'
	kindFile     = 'f'
	kindGateway  = 'g'
	kindJournal  = 'j'
	kindLast     = 'l'
	kindNumbers  = 'n'
	kindProgress = 'p'
	kindWaiting  = 'r'
	kindTorn     = 'w'
	kindAlarm    = 'x'
)

const layout = 2

const (
	bucketBits = 10 // of a sequence number stand in the value of an entry n
	spanBits   = 22 // of a received time: an entry b lies within one span
)

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrDamaged}, args...)...)
}

// appendNumber appends n so that bytes sort as numbers.
func appendNumber(dst []byte, n uint64) []byte {
	size := (bits.Len64(n) + 7) / 8
	dst = append(dst, byte(size))
	for i := size - 1; i >= 0; i-- {
		dst = append(dst, byte(n>>(8*i)))
	}
	return dst
}

// cutNumber reads what appendNumber wrote.
func cutNumber(b []byte) (n uint64, rest []byte, ok bool) {
	if len(b) < 1 || b[0] > 8 || len(b) < 1+int(b[0]) || b[0] > 0 && b[1] == 0 {
		return 0, nil, false
	}
	for _, c := range b[1 : 1+b[0]] {
		n = n<<8 | uint64(c)
	}
	return n, b[1+b[0]:], true
}

// cutUvarint reads a number of a value.
func cutUvarint(b []byte) (n uint64, rest []byte, ok bool) {
	n, size := binary.Uvarint(b)
	if size <= 0 {
		return 0, nil, false
	}
	return n, b[size:], true
}

func encodeProgress(position uint64) []byte {
	return binary.AppendUvarint([]byte{layout}, position)
}

func decodeProgress(v []byte) (uint64, error) {
	if len(v) > 0 && v[0] != layout {
		return 0, fmt.Errorf("archive index has layout %d, this program knows %d", v[0], layout)
	}
	n, rest, ok := cutUvarint(v[min(1, len(v)):])
	if !ok || len(rest) > 0 {
		return 0, damaged("progress %x", v)
	}
	return n, nil
}

// A gateway is the value of an entry g.
type gateway struct {
	batches, readings uint64
	keys              [][ed25519.PublicKeySize]byte
}

func (g *gateway) encode() []byte {
	v := binary.AppendUvarint(binary.AppendUvarint(nil, g.batches), g.readings)
	for _, k := range g.keys {
		v = append(v, k[:]...)
	}
	return v
}

func decodeGateway(v []byte) (g gateway, err error) {
	rest, ok := v, false
	if g.batches, rest, ok = cutUvarint(rest); ok {
		g.readings, rest, ok = cutUvarint(rest)
	}
	if !ok || len(rest)%ed25519.PublicKeySize != 0 {
		return g, damaged("gateway %x", v)
	}
	for ; len(rest) > 0; rest = rest[ed25519.PublicKeySize:] {
		g.keys = append(g.keys, [ed25519.PublicKeySize]byte(rest))
	}
	return g, nil
}

// appendRuns appends ascending runs that do not touch as distances from base.
func appendRuns(dst []byte, base uint64, runs [][2]uint64) []byte {
	for _, r := range runs {
		dst = binary.AppendUvarint(dst, r[0]-base)
		dst = binary.AppendUvarint(dst, r[1]-r[0])
		base = r[1]
	}
	return dst
}

// cutRuns reads n runs.
func cutRuns(b []byte, base, n uint64) (runs [][2]uint64, rest []byte, ok bool) {
	for ; n > 0; n-- {
		var gap, more uint64
		if gap, b, ok = cutUvarint(b); ok {
			more, b, ok = cutUvarint(b)
		}
		first := base + gap
		if !ok || first < base || first+more < first {
			return nil, nil, false
		}
		base = first + more
		runs = append(runs, [2]uint64{first, base})
	}
	return runs, b, true
}

// A part is an entry b: the readings of a batch in one span of received time.
type part struct {
	low, high int64 // received, of its readings
	position  uint64
	counts    [][2]uint64 // numbers in its batch that count; nil: all
	filter    filter
}

func batchPrefix(gateway string) []byte {
	return append(append([]byte{kindBatch}, gateway...), 0)
}

func batchKey(gateway string, low int64, position uint64) []byte {
	b := binary.BigEndian.AppendUint64(batchPrefix(gateway), uint64(low)^1<<63)
	return appendNumber(b, position)
}

func (p *part) encode() []byte {
	v := binary.AppendUvarint(nil, uint64(p.high-p.low))
	v = binary.AppendUvarint(v, uint64(len(p.counts)))
	return append(appendRuns(v, 0, p.counts), p.filter...)
}

// decodePart reads an entry b of a gateway. The result shares no memory with
// key and value.
func decodePart(prefix, key, value []byte) (p part, err error) {
	bad := func() (part, error) { return part{}, damaged("batch %x: %x", key, value) }
	rest := key[len(prefix):]
	if len(rest) < 8 {
		return bad()
	}
	p.low = int64(binary.BigEndian.Uint64(rest) ^ 1<<63)
	var ok bool
	if p.position, rest, ok = cutNumber(rest[8:]); !ok || len(rest) > 0 {
		return bad()
	}
	width, rest, ok := cutUvarint(value)
	if !ok || width >= 1<<spanBits || (p.low+int64(width))>>spanBits != p.low>>spanBits {
		return bad()
	}
	p.high = p.low + int64(width)
	n, rest, ok := cutUvarint(rest)
	if !ok {
		return bad()
	}
	if p.counts, rest, ok = cutRuns(rest, 0, n); !ok || len(rest) == 0 {
		return bad()
	}
	p.filter = bytes.Clone(rest)
	return p, nil
}

// A claim is an entry n: numbers of one bucket that stand in a block.
type claim struct {
	position uint64
	runs     [][2]uint64
}

// numbersPrefix is what the keys begin with that hold a bucket of one journal.
func numbersPrefix(key ed25519.PublicKey, bucket uint64, incarnation [8]byte) []byte {
	return append(bucketPrefix(key, bucket), incarnation[:]...)
}

// bucketPrefix is what the keys begin with that hold a bucket of any journal.
func bucketPrefix(key ed25519.PublicKey, bucket uint64) []byte {
	return appendNumber(append([]byte{kindNumbers}, key...), bucket)
}

func (c *claim) encode(bucket uint64) []byte { return appendRuns(nil, bucket<<bucketBits, c.runs) }

// decodeClaim reads an entry n.
func decodeClaim(key, value []byte) (bucket uint64, incarnation [8]byte, c claim, err error) {
	bad := func() (uint64, [8]byte, claim, error) {
		return 0, incarnation, claim{}, damaged("numbers %x: %x", key, value)
	}
	rest := key[min(1+ed25519.PublicKeySize, len(key)):]
	bucket, rest, ok := cutNumber(rest)
	if !ok || len(rest) < 8 || bucket >= 1<<(64-bucketBits) {
		return bad()
	}
	incarnation = [8]byte(rest)
	if c.position, rest, ok = cutNumber(rest[8:]); !ok || len(rest) > 0 || len(value) == 0 {
		return bad()
	}
	for rest = value; len(rest) > 0; {
		base := bucket << bucketBits
		if n := len(c.runs); n > 0 {
			base = c.runs[n-1][1]
		}
		var run [][2]uint64
		if run, rest, ok = cutRuns(rest, base, 1); !ok || run[0][1]>>bucketBits != bucket {
			return bad()
		}
		c.runs = append(c.runs, run[0])
	}
	return bucket, incarnation, c, nil
}

// journalKey is the key of an entry j.
func journalKey(key ed25519.PublicKey, incarnation [8]byte) []byte {
	return append(append([]byte{kindJournal}, key...), incarnation[:]...)
}

// A last is the value of an entry l.
type last struct {
	journal  uint64 // position of the journal's first batch
	seq      uint64
	position uint64
}

func lastPrefix(gateway string) []byte {
	return append(append([]byte{kindLast}, gateway...), 0)
}

func lastKey(gateway, device, name string) []byte {
	b := append(lastPrefix(gateway), device...)
	return append(append(b, 0), name...)
}

func (l *last) encode() []byte {
	v := binary.AppendUvarint(nil, l.journal)
	return binary.AppendUvarint(binary.AppendUvarint(v, l.seq), l.position)
}

func decodeLast(key, v []byte) (l last, err error) {
	rest, ok := v, false
	if l.journal, rest, ok = cutUvarint(rest); ok {
		l.seq, rest, ok = cutUvarint(rest)
	}
	if ok {
		l.position, rest, ok = cutUvarint(rest)
	}
	if !ok || len(rest) > 0 {
		return last{}, damaged("last value %x: %x", key, v)
	}
	return l, nil
}

func alarmKey(position uint64) []byte { return appendNumber([]byte{kindAlarm}, position) }

func decodeAlarm(key, v []byte) (a Alarm, err error) {
	if err := json.Unmarshal(v, &a); err != nil {
		return a, damaged("alarm %x: %v", key, err)
	}
	return a, nil
}
