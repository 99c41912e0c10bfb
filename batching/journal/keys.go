package journal

import (
	"bytes"
	"encoding/binary"
)

// Format is the newest store format that this package reads, and the one that
// it writes. Format 2 had groups of the head in the store; it is read, and
// becomes 3 at the first Open.
const Format = 3

const oldestFormat = 2

// First bytes of keys; the table stands in the package comment.
const (
	prefixGroup   = 'g'
	prefixChunk   = 'i'
	prefixDrop    = 'd'
	prefixGap     = 'k'
	prefixLast    = 'l'
	prefixMeta    = 'm'
	prefixSegment = 't'
	prefixWindow  = 'w'
)

const (
	metaVersion     = "mversion"
	metaIncarnation = "mincarnation"
	metaHead        = "mhead"
	metaCheckpoint  = "mcheckpoint"
	metaTrimmed     = "mtrimmed"
)

// A series is everything one device said under one name.
type series struct{ device, name string }

func compareSeries(a, b series) int {
	return bytes.Compare(a.key(prefixLast), b.key(prefixLast))
}

// key returns prefix, device, NUL and name. Neither part holds a NUL
// ([reading.Reading.Validate]), so that keys of different series differ and
// those of one device stand together.
func (s series) key(prefix byte) []byte {
	k := make([]byte, 0, 2+len(s.device)+len(s.name)+17)
	k = append(k, prefix)
	k = append(k, s.device...)
	k = append(k, 0)
	return append(k, s.name...)
}

// parseSeries takes apart what follows the prefix of a series key.
func parseSeries(b []byte) (series, bool) {
	device, name, ok := bytes.Cut(b, []byte{0})
	if !ok || len(device) == 0 || len(name) == 0 || bytes.IndexByte(name, 0) >= 0 {
		return series{}, false
	}
	return series{string(device), string(name)}, true
}

func seqKey(prefix byte, seq uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{prefix}, seq)
}

func parseSeqKey(key []byte) (uint64, bool) {
	if len(key) != 9 {
		return 0, false
	}
	return binary.BigEndian.Uint64(key[1:]), true
}

// ordered maps a time to a number whose big-endian bytes sort like the time.
func ordered(ms int64) uint64 { return uint64(ms) ^ 1<<63 }

// chunkPrefix is what all chunk keys of the series begin with.
func chunkPrefix(s series) []byte { return append(s.key(prefixChunk), 0) }

func chunkKey(s series, at entry) []byte {
	k := binary.BigEndian.AppendUint64(chunkPrefix(s), ordered(at.received))
	return binary.BigEndian.AppendUint64(k, at.seq)
}

// parseChunkKey returns the series and the first entry of a chunk.
func parseChunkKey(key []byte) (series, entry, bool) {
	if len(key) < 1+1+1+1+1+16 {
		return series{}, entry{}, false
	}
	head, tail := key[1:len(key)-16], key[len(key)-16:]
	if head[len(head)-1] != 0 {
		return series{}, entry{}, false
	}
	s, ok := parseSeries(head[:len(head)-1])
	at := entry{
		received: int64(binary.BigEndian.Uint64(tail) ^ 1<<63),
		seq:      binary.BigEndian.Uint64(tail[8:]),
	}
	return s, at, ok
}

func windowPrefix(sender [16]byte) []byte { return append([]byte{prefixWindow}, sender[:]...) }

func windowKey(sender [16]byte, first uint64) []byte {
	return binary.BigEndian.AppendUint64(windowPrefix(sender), first)
}

func parseWindowKey(key []byte) (sender [16]byte, first uint64, ok bool) {
	if len(key) != 1+16+8 {
		return sender, 0, false
	}
	copy(sender[:], key[1:])
	return sender, binary.BigEndian.Uint64(key[17:]), true
}
