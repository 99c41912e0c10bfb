package archive

import (
	"context"
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
	written  uint64 // up to which the index says so
	batches  int
	since    time.Time // when it got its first content
	crowded  bool      // the block behind position finds no room
}

// A delta is what one block changes.
type delta struct {
	set      map[string][]byte
	bytes    int
	gateways map[string]gateway
	claims   map[string][]claim // by the prefix of their keys
	alarms   int
	counts   counts
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
	return g.crowded || g.batches >= groupBatches || g.position-g.written >= groupBlocks
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
	}
	g.position = position
	return true
}

// Run indexes what the stream has and what comes, until ctx ends; then it
// returns nil. While nothing comes it does nothing. An error means that blocks
// or index cannot be read or that the index is in doubt: the process must end.
// Run may be called once.
func (a *Archive) Run(ctx context.Context) error {
	position := a.Stats().Position
	for ctx.Err() == nil {
		g := &group{delta: newDelta(), position: position, written: position}
		err := a.gather(ctx, g)
		if err == nil && ctx.Err() == nil {
			err = a.write(ctx, g)
		}
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("archive: %w", err)
		}
		position = g.position
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

// collect adds the blocks that are there.
func (a *Archive) collect(ctx context.Context, g *group) error {
	members := map[string]Member{}
	for _, m := range a.cfg.Members() {
		members[m.Name] = m
	}
	var failed error
	err := a.stream.Blocks(g.position, func(position uint64, id stardust.BlockID, raw []byte, _ time.Time) bool {
		var d delta
		if d, failed = a.examine(g, members, position, id, raw); failed != nil {
			return false
		}
		if !g.take(&d, position) {
			return false
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

// write brings g to the index and makes it visible. A batch of too many keys
// for one step goes in several: what it has before the last, with the position,
// is ignored or written alike when it is indexed again.
func (a *Archive) write(ctx context.Context, g *group) error {
	keys := slices.Sorted(maps.Keys(g.set))
	for len(keys) > groupKeys || g.bytes > groupBytes {
		n, bytes := 0, 0
		for n < len(keys) && n < groupKeys && bytes < groupBytes {
			bytes += len(keys[n]) + len(g.set[keys[n]])
			n++
		}
		if err := a.step(ctx, g, keys[:n], nil); err != nil {
			return err
		}
		keys, g.bytes = keys[n:], g.bytes-bytes
	}
	ends := map[string][]byte{string(kindProgress): encodeProgress(g.position)}
	for name, gw := range g.gateways {
		ends[string(kindGateway)+name] = gw.encode()
	}
	if err := a.step(ctx, g, keys, ends); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.position = g.position
	maps.Copy(a.gateways, g.gateways)
	a.alarms += g.alarms
	a.counts.add(&g.counts)
	return nil
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
