package archive

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// When a group is written.
const (
	groupBatches = 256
	groupKeys    = 4096 // more only for one batch alone, in several steps
	groupBytes   = 512 << 10
	groupBlocks  = 4096 // looked at, also when none of them is a batch
	groupWaits   = 1024 // blocks that begin or cease to wait
	groupTime    = 250 * time.Millisecond
	retryTime    = time.Second // between attempts of a write that was refused

	// companyTime is how long a new block waits for company before it is
	// looked at: blocks that come one by one would be read one by one.
	companyTime = 100 * time.Millisecond
)

// A group is what one write is to bring to the index.
type group struct {
	delta
	position uint64 // up to which the stream was looked at
	looks    looks
	wait     []uint64 // positions of blocks that begin to wait
	leave    []uint64 // and that cease to
	blocks   int      // looked at
	batches  int
	torn     uint64    // position of the last of them
	since    time.Time // when it got its first content
	crowded  bool      // the next block finds no room
}

func (a *Archive) newGroup() *group {
	return &group{delta: newDelta(), position: a.position, looks: a.looks}
}

// A delta is what one block changes.
type delta struct {
	set      map[string][]byte
	bytes    int
	gateways map[string]gateway
	claims   map[string][]claim // by the prefix of their keys
	alarms   int
	counts   counts
	unknown  bool // it is a batch of a gateway or key that is not known
}

// counts are those of [Stats] since the start.
type counts struct {
	duplicates, conflicts uint64
	refused               map[string]uint64
}

func newDelta() delta {
	return delta{
		set: map[string][]byte{}, gateways: map[string]gateway{},
		claims: map[string][]claim{}, counts: counts{refused: map[string]uint64{}},
	}
}

func (d *delta) put(key, value []byte) {
	old := d.set[string(key)]
	d.set[string(key)] = value
	if d.bytes += len(value) - len(old); old == nil {
		d.bytes += len(key)
	}
}

// add adds what a later block changes.
func (d *delta) add(e *delta) {
	for k, v := range e.set {
		d.put([]byte(k), v)
	}
	maps.Copy(d.gateways, e.gateways)
	for k, cs := range e.claims {
		d.claims[k] = append(d.claims[k], cs...)
	}
	d.alarms += e.alarms
}

func (c *counts) add(d *counts) {
	c.duplicates += d.duplicates
	c.conflicts += d.conflicts
	for reason, n := range d.refused {
		c.refused[reason] += n
	}
}

func (g *group) full() bool {
	return g.crowded || g.batches >= groupBatches || g.blocks >= groupBlocks || len(g.wait)+len(g.leave) >= groupWaits
}

// due reports whether the group should be written now.
func (g *group) due() bool {
	return g.full() || len(g.set) > 0 && time.Since(g.since) >= groupTime
}

// take adds a block's delta unless the group has no room for it.
func (g *group) take(d *delta, position uint64) bool {
	if len(g.set) > 0 && (len(g.set)+len(d.set) > groupKeys || g.bytes+d.bytes > groupBytes) {
		g.crowded = true
		return false
	}
	if len(g.set) == 0 {
		g.since = time.Now()
	}
	if g.add(d); len(d.set) > 0 {
		g.batches++
		g.torn = position
	}
	g.blocks++
	return true
}

// Run indexes what the stream has and what comes, until ctx ends; then it
// returns nil. While nothing comes it does nothing. An error means that blocks
// or index cannot be read or that the index is in doubt: the process must end.
// Run may be called once.
func (a *Archive) Run(ctx context.Context) error {
	err := a.prepare(ctx)
	for err == nil && ctx.Err() == nil {
		g := a.newGroup()
		if err = a.gather(ctx, g); err == nil && ctx.Err() == nil {
			err = a.write(ctx, g)
		}
		if err == nil && a.again() {
			err = a.prepare(ctx)
		}
	}
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("archive: %w", err)
	}
	return nil
}

// gather fills g until it is due or ctx ends.
func (a *Archive) gather(ctx context.Context, g *group) error {
	for ctx.Err() == nil {
		if err := a.collect(ctx, g); err != nil || g.due() {
			return err
		}
		until, cancel := ctx, context.CancelFunc(func() {})
		if len(g.set) > 0 {
			until, cancel = context.WithDeadline(ctx, g.since.Add(groupTime))
		}
		err := a.stream.Wait(until, g.position)
		ended := until.Err() != nil
		cancel()
		if err != nil && !ended {
			return fmt.Errorf("wait for blocks: %w", err)
		}
		if !ended {
			pause(ctx, companyTime)
		}
	}
	return nil
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (a *Archive) members() map[string]Member {
	members := map[string]Member{}
	for _, m := range a.cfg.Members() {
		members[m.Name] = m
	}
	return members
}

// collect adds the blocks that are there.
func (a *Archive) collect(ctx context.Context, g *group) error {
	members := a.members()
	var failed error
	err := a.stream.Blocks(g.position, func(position uint64, id stardust.BlockID, raw []byte, _ time.Time) bool {
		var d delta
		if d, failed = a.examine(g, members, position, id, raw); failed != nil {
			return false
		}
		if !g.take(&d, position) {
			return false
		}
		if g.position = position; d.unknown {
			g.wait = append(g.wait, position)
		}
		a.mu.Lock()
		a.counts.add(&d.counts)
		a.mu.Unlock()
		return !g.full() && ctx.Err() == nil
	})
	if failed != nil {
		return failed
	}
	if err != nil {
		return fmt.Errorf("read blocks behind %d: %w", g.position, err)
	}
	return nil
}

// write brings g to the index and makes it visible.
func (a *Archive) write(ctx context.Context, g *group) error {
	ends := map[string][]byte{string(kindProgress): encodeProgress(g.position)}
	for name, gw := range g.gateways {
		ends[string(kindGateway)+name] = gw.encode()
	}
	waiting := a.waits(g, ends)
	if v := g.looks.encode(); !bytes.Equal(v, a.looked) {
		ends[string(kindFile)] = v
	}
	if err := a.steps(ctx, g, ends); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.position, a.looks, a.looked, a.waiting = g.position, g.looks, g.looks.encode(), waiting
	maps.Copy(a.gateways, g.gateways)
	a.alarms += g.alarms
	a.counts.add(&g.counts)
	return nil
}

// steps writes g's keys and with the last of them the ends. A batch of too many
// keys for one step goes in several, of which the first says so: see undo.
func (a *Archive) steps(ctx context.Context, g *group, ends map[string][]byte) error {
	keys := slices.Sorted(maps.Keys(g.set))
	for len(keys) > groupKeys || g.bytes > groupBytes {
		n, bytes := 0, 0
		for n < len(keys) && n < groupKeys && bytes < groupBytes {
			bytes += len(keys[n]) + len(g.set[keys[n]])
			n++
		}
		var torn map[string][]byte
		if g.torn > 0 {
			torn = map[string][]byte{string(kindTorn): binary.AppendUvarint(nil, g.torn)}
			ends[string(kindTorn)] = nil
		}
		if err := a.step(ctx, g, keys[:n], torn); err != nil {
			return err
		}
		keys, g.bytes = keys[n:], g.bytes-bytes
	}
	return a.step(ctx, g, keys, ends)
}

// step writes some of g's keys, and others, again and again while the write is
// refused.
func (a *Archive) step(ctx context.Context, g *group, names []string, others map[string][]byte) error {
	var keys, values [][]byte
	for _, name := range names {
		keys, values = append(keys, []byte(name)), append(values, g.set[name])
	}
	for name, value := range others {
		keys, values = append(keys, []byte(name)), append(values, value)
	}
	for said := false; ; said = true {
		err := a.index.Write(keys, values)
		if err == nil || !a.cfg.Transient(err) {
			return err
		}
		if !said {
			a.log.Warn("archive index not written; trying again", "err", err)
		}
		retry := time.NewTimer(retryTime)
		select {
		case <-ctx.Done():
			retry.Stop()
			return ctx.Err()
		case <-retry.C:
		}
	}
}
