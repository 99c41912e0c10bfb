package archive

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"slices"

	"github.com/hedgerow-iot/hedgerow/batching/envelope"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// reason is why a block under a gateway's tag is none of its batches.
func reason(err error) string {
	for name, is := range map[string]error{
		"syntax": envelope.ErrSyntax, "encoding": envelope.ErrCanonical, "key": envelope.ErrKey,
		"gateway": envelope.ErrGateway, "signature": envelope.ErrSignature, "mode": envelope.ErrMode,
		"runs": envelope.ErrRuns, "body": envelope.ErrBody, "record": envelope.ErrRecord,
		"unlisted": envelope.ErrUnlisted, "root": envelope.ErrRoot, "size": envelope.ErrTooLarge,
	} {
		if errors.Is(err, is) {
			return name
		}
	}
	return "other"
}

// examine returns what a block changes in the index, after what g holds.
func (a *Archive) examine(g *group, members map[string]Member, position uint64, id stardust.BlockID, raw []byte) (delta, error) {
	d := newDelta()
	name, data, ok := tagged(raw)
	if !ok {
		return d, nil
	}
	m, ok := members[name]
	if !ok {
		d.counts.refused["member"]++
		d.unknown = a.genuine(name, data)
		return d, nil
	}
	b, err := envelope.Open(data, envelope.Expect{Genesis: a.cfg.Genesis, Gateway: name, Key: m.Key})
	if err != nil {
		d.counts.refused[reason(err)]++
		d.unknown = errors.Is(err, envelope.ErrKey) && a.genuine(name, data)
		a.log.Debug("block is no batch of its tag's gateway", "block", id, "gateway", name, "err", err)
		return d, nil
	}
	o := &opened{Batch: b, id: id, position: position}
	runs, err := a.unclaimed(g, &d, o)
	if err != nil || len(runs) == 0 {
		return d, err
	}
	return d, a.describe(g, &d, o, runs)
}

// unclaimed returns the numbers of a batch that no other block holds, and notes
// in d how the others compare; none if the batch is indexed already.
func (a *Archive) unclaimed(g *group, d *delta, o *opened) (runs [][2]uint64, err error) {
	runs = o.Runs
	var others []claim
	known := false // spares the comparison of a batch with itself
	err = split(o.Runs, func(bucket uint64, runs [][2]uint64) error {
		prefix := numbersPrefix(o.Key, bucket, o.Incarnation)
		cs := slices.Clone(g.claims[string(prefix)])
		err := scan(a.index, prefix, nil, func(key, value []byte) (bool, error) {
			_, _, c, err := decodeClaim(key, value)
			cs = append(cs, c)
			return true, err
		})
		for _, c := range cs {
			known = known || c.position == o.position
			if taken := both(c.runs, runs); len(taken) > 0 {
				others = append(others, claim{c.position, taken})
			}
		}
		return err
	})
	if err != nil || known {
		return nil, err
	}
	slices.SortStableFunc(others, func(a, b claim) int { return cmp.Compare(a.position, b.position) })
	for _, c := range others {
		runs = without(runs, c.runs)
		if err := a.compare(g, d, o, c); err != nil {
			return nil, err
		}
	}
	return runs, nil
}

// compare looks for evidence: records of o that differ from those of a block
// with the same numbers that was indexed before.
func (a *Archive) compare(g *group, d *delta, o *opened, c claim) error {
	first, err := a.open(c.position)
	if err != nil {
		return err
	}
	if first == nil { // not kept any more: nothing to show
		d.counts.duplicates += length(c.runs)
		return nil
	}
	for _, r := range c.runs {
		for seq := r[0]; seq <= r[1]; seq++ {
			i, ok := indexOf(first.Runs, seq)
			k, _ := indexOf(o.Runs, seq)
			switch {
			case !ok:
				return damaged("block %v at %d does not hold number %d", first.id, c.position, seq)
			case bytes.Equal(first.Records[i], o.Records[k]):
				d.counts.duplicates++
			default:
				d.counts.conflicts++
				if err := a.alarm(g, d, first, o, seq); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// alarm keeps the first evidence of a block.
func (a *Archive) alarm(g *group, d *delta, first, second *opened, seq uint64) error {
	if a.Stats().Alarms+g.alarms >= MaxAlarms || d.alarms > 0 {
		return nil
	}
	al := Alarm{
		Gateway: second.Gateway, Key: second.Key, Incarnation: second.Incarnation,
		Seq: seq, First: first.id, Second: second.id,
	}
	if v, err := a.index.Get(alarmKey(second.position)); v != nil || err != nil {
		return err // kept when the block was looked at before
	}
	v, err := json.Marshal(&al)
	if err != nil {
		return err
	}
	d.put(alarmKey(second.position), v)
	d.alarms++
	a.log.Error("a gateway signed two readings with one number", "gateway", al.Gateway, "seq", seq, "first", al.First, "second", al.Second)
	return nil
}

// describe adds the entries of a batch of which these numbers count.
func (a *Archive) describe(g *group, d *delta, o *opened, runs [][2]uint64) error {
	if err := a.latest(g, d, o, runs); err != nil {
		return err
	}
	for _, p := range parts(o, runs) {
		d.put(batchKey(o.Gateway, p.low, o.position), p.encode())
	}
	err := split(runs, func(bucket uint64, runs [][2]uint64) error {
		c := claim{o.position, runs}
		prefix := numbersPrefix(o.Key, bucket, o.Incarnation)
		d.claims[string(prefix)] = append(d.claims[string(prefix)], c)
		d.put(appendNumber(prefix, o.position), c.encode(bucket))
		return nil
	})
	if err != nil {
		return err
	}
	gw, ok := g.gateways[o.Gateway]
	if !ok {
		a.mu.RLock()
		gw = a.gateways[o.Gateway]
		a.mu.RUnlock()
	}
	gw.batches++
	gw.readings += length(runs)
	if key := [32]byte(o.Key); !slices.Contains(gw.keys, key) {
		gw.keys = append(slices.Clone(gw.keys), key)
	}
	d.gateways[o.Gateway] = gw
	return nil
}

// parts returns the entries b of a batch of which these numbers count.
func parts(o *opened, runs [][2]uint64) (out []*part) {
	counts := runs
	if length(runs) == uint64(o.Count) {
		counts = nil
	}
	bySpan := map[int64]*part{}
	elements := map[int64]map[uint64]bool{}
	for i := range o.Readings {
		r := &o.Readings[i]
		if _, ok := indexOf(runs, r.Seq); !ok {
			continue
		}
		span := r.Received >> spanBits
		p := bySpan[span]
		if p == nil {
			p = &part{low: r.Received, high: r.Received, position: o.position, counts: counts}
			bySpan[span], elements[span] = p, map[uint64]bool{}
			out = append(out, p)
		}
		p.low, p.high = min(p.low, r.Received), max(p.high, r.Received)
		for _, h := range []uint64{element(r.Device, ""), element("", r.Name), element(r.Device, r.Name)} {
			elements[span][h] = true
		}
	}
	for span, p := range bySpan {
		p.filter = newFilter(elements[span])
	}
	return out
}

// journal returns where the first batch of o's journal stands that was indexed,
// which tells it from every other journal.
func (a *Archive) journal(g *group, d *delta, o *opened) (first uint64, err error) {
	key := journalKey(o.Key, o.Incarnation)
	v := g.set[string(key)]
	if v == nil {
		if v, err = a.index.Get(key); err != nil {
			return 0, err
		}
	}
	if v == nil {
		d.put(key, binary.AppendUvarint(nil, o.position))
		return o.position, nil
	}
	first, rest, ok := cutUvarint(v)
	if !ok || len(rest) > 0 {
		return 0, damaged("journal %x: %x", key, v)
	}
	return first, nil
}

// latest adds the series of which a batch has a newer value.
func (a *Archive) latest(g *group, d *delta, o *opened, runs [][2]uint64) error {
	first, err := a.journal(g, d, o)
	if err != nil {
		return err
	}
	newest := map[string]last{}
	for i := range o.Readings {
		r := &o.Readings[i]
		if _, ok := indexOf(runs, r.Seq); !ok {
			continue
		}
		key := string(lastKey(o.Gateway, r.Device, r.Name))
		l := last{first, r.Seq, o.position}
		if old, ok := newest[key]; !ok || l.newer(old) {
			newest[key] = l
		}
	}
	for key, l := range newest {
		v := g.set[key]
		if v == nil {
			var err error
			if v, err = a.index.Get([]byte(key)); err != nil {
				return err
			}
		}
		if v != nil {
			old, err := decodeLast([]byte(key), v)
			if err != nil {
				return err
			}
			// An equal one was left by a write that was cut.
			if !l.newer(old) && l != old {
				continue
			}
		}
		d.put([]byte(key), l.encode())
	}
	return nil
}

// newer orders readings of a series: of one journal by number, of two journals
// by which of them began later in the stream.
//
// Time would let a clock that was ahead once hide what comes after it for ever,
// and the order of single blocks one of a former journal that comes late. The
// order is total, so it does not matter which of the readings is seen first.
func (l last) newer(than last) bool {
	return cmp.Or(cmp.Compare(l.journal, than.journal), cmp.Compare(l.seq, than.seq), cmp.Compare(l.position, than.position)) > 0
}
