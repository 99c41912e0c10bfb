package journal

import (
	"encoding/binary"

	"github.com/hedgerow-iot/hedgerow/batching"
)

// A group of the store holds several of the head, which may be of a single
// reading each: they name their series once, and their dedup keys, which the
// windows hold from then on, not at all. It is closed when the next group would
// bring it above mergeReadings, or when it has mergeBytes: a query for one
// device decodes a group for each of its readings.
const (
	mergeReadings = 128
	mergeBytes    = 32 << 10
)

// merge calls yield with the encoded groups for the store. They depend on the
// groups only, and where each begins on those before it: a flush that was cut
// off left the same keys.
func merge(groups []*group, yield func(first uint64, value []byte) error) error {
	var m *merger
	for _, g := range groups {
		if m != nil && m.full(g) {
			if err := yield(m.first, m.value()); err != nil {
				return err
			}
			m = nil
		}
		if m == nil {
			m = &merger{encoder: newEncoder(inStore, g.first, g.at)}
		}
		m.add(g)
	}
	if m == nil {
		return nil
	}
	return yield(m.first, m.value())
}

type merger struct {
	encoder
	at batching.Stamp // of the run being written
}

func (m *merger) full(next *group) bool {
	return int(m.readings)+len(next.readings) > mergeReadings || len(m.buf) >= mergeBytes
}

// add appends the readings of g, as runs of one stamp each.
func (m *merger) add(g *group) {
	for rest := g.readings; len(rest) > 0; {
		n := 1
		for n < len(rest) && rest[n].Received == rest[0].Received && rest[n].Clock == rest[0].Clock {
			n++
		}
		m.run(batching.Stamp{Received: rest[0].Received, Clock: rest[0].Clock}, n)
		for i := range rest[:n] {
			m.row(&rest[i])
			m.rest(&rest[i])
		}
		rest = rest[n:]
	}
}

// run appends the head of a run of n readings.
func (m *merger) run(at batching.Stamp, n int) {
	if m.parts == 0 {
		m.at = at // it stands in the header
	}
	m.buf = binary.AppendVarint(m.buf, at.Received-m.at.Received)
	head := uint64(n) << 1
	if at.Clock == m.at.Clock {
		m.buf = binary.AppendUvarint(m.buf, head)
	} else {
		m.buf = append(binary.AppendUvarint(m.buf, head|1), byte(at.Clock))
	}
	m.at = at
	m.parts++
}
