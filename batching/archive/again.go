package archive

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching/envelope"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// MaxWaiting bounds the blocks that are remembered as batches of a gateway or
// key that is not known yet; then the oldest are forgotten, and counted.
const MaxWaiting = 10_000

// A looks is the value of the entry f: by which network file the blocks up to
// the index's position were judged.
type looks struct {
	network   [32]byte // hash of the file
	forgotten uint64   // blocks that found no room among those that wait
	// The file is new and the blocks behind at, up to until, are still to be
	// looked at again: all of them, or those that wait.
	at, until uint64
	all       bool
}

func (l *looks) encode() []byte {
	v := binary.AppendUvarint(l.network[:], l.forgotten)
	v = binary.AppendUvarint(binary.AppendUvarint(v, l.at), l.until)
	if l.all {
		return append(v, 1)
	}
	return append(v, 0)
}

func decodeLooks(v []byte) (l looks, err error) {
	rest, ok := v, len(v) >= len(l.network)
	if ok {
		l.network, rest = [32]byte(v), v[len(l.network):]
		l.forgotten, rest, ok = cutUvarint(rest)
	}
	if ok {
		l.at, rest, ok = cutUvarint(rest)
	}
	if ok {
		l.until, rest, ok = cutUvarint(rest)
	}
	if !ok || len(rest) != 1 || rest[0] > 1 || l.at > l.until {
		return looks{}, damaged("network file %x", v)
	}
	l.all = rest[0] == 1
	return l, nil
}

func waitingKey(position uint64) []byte { return appendNumber([]byte{kindWaiting}, position) }

// loadLooks reads what is kept in memory of the entries f and r.
func (a *Archive) loadLooks() error {
	v, err := a.index.Get([]byte{kindFile})
	switch {
	case err != nil:
		return err
	case v != nil:
		if a.looks, err = decodeLooks(v); err != nil {
			return err
		}
	case a.position > 0: // nothing is known of what was refused
		a.looks.until, a.looks.all = a.position, true
	}
	err = scan(a.index, []byte{kindWaiting}, nil, func(key, value []byte) (bool, error) {
		position, rest, ok := cutNumber(key[1:])
		if !ok || len(rest) > 0 || len(value) > 0 || len(a.waiting) == MaxWaiting {
			return false, damaged("waiting block %x: %x", key, value)
		}
		a.waiting = append(a.waiting, position)
		return true, nil
	})
	if err != nil {
		return err
	}
	a.again()
	return nil
}

// again has the blocks that were refused looked at once more if the network file
// is another one than when they were.
func (a *Archive) again() (changed bool) {
	now, l := a.cfg.Network(), a.looks
	if l.network == now {
		return false
	}
	a.looks = looks{network: now, until: a.position, all: l.all || l.forgotten > 0}
	return true
}

// genuine reports whether a block that no member's key vouches for is a batch
// by every other rule: it would count if a network file named its gateway.
func (a *Archive) genuine(name string, data []byte) bool {
	_, err := envelope.Open(data, envelope.Expect{Genesis: a.cfg.Genesis, Gateway: name})
	return name != "" && err == nil
}

// prepare brings the index to where the stream can be followed: what a killed
// process left is taken back, and what only another network file refused is
// looked at again.
func (a *Archive) prepare(ctx context.Context) error {
	if err := a.undo(ctx); err != nil {
		return err
	}
	for a.looks.until > 0 && ctx.Err() == nil {
		g := a.newGroup()
		collect := a.collectWaiting
		if g.looks.all {
			collect = a.collectAll
		}
		done, err := collect(ctx, g)
		if err != nil {
			return err
		}
		if done {
			g.looks.at, g.looks.until, g.looks.all = 0, 0, false
		}
		if ctx.Err() != nil {
			return nil
		}
		if err := a.write(ctx, g); err != nil {
			return err
		}
	}
	return nil
}

// collectWaiting looks again at the blocks that wait and reports whether these
// were all.
func (a *Archive) collectWaiting(ctx context.Context, g *group) (done bool, err error) {
	members := a.members()
	from, found := slices.BinarySearch(a.waiting, g.looks.at)
	if found {
		from++
	}
	for _, position := range a.waiting[from:] {
		if g.full() || ctx.Err() != nil {
			return false, nil
		}
		id, raw, err := a.block(position)
		if err != nil {
			return false, err
		}
		if more, err := a.lookAgain(g, members, position, id, raw); err != nil || !more {
			return false, err
		}
	}
	return true, nil
}

// collectAll looks again at all blocks and reports whether these were all.
func (a *Archive) collectAll(ctx context.Context, g *group) (done bool, err error) {
	members := a.members()
	done = true
	var failed error
	err = a.stream.Blocks(g.looks.at, func(position uint64, id stardust.BlockID, raw []byte, _ time.Time) bool {
		if position > g.looks.until {
			return false
		}
		var more bool
		more, failed = a.lookAgain(g, members, position, id, raw)
		done = more && !g.full() && ctx.Err() == nil
		return done && failed == nil
	})
	if err != nil {
		err = fmt.Errorf("read blocks behind %d again: %w", g.looks.at, err)
	}
	return done, errors.Join(failed, err)
}

// lookAgain examines a block once more; without effect on the counts, which it
// is part of. raw is nil when the block is not kept any more.
func (a *Archive) lookAgain(g *group, members map[string]Member, position uint64, id stardust.BlockID, raw []byte) (more bool, err error) {
	d := newDelta()
	if raw != nil {
		if d, err = a.examine(g, members, position, id, raw); err != nil {
			return false, err
		}
	}
	if !g.take(&d, position) {
		return false, nil
	}
	g.looks.at = position
	switch _, waits := slices.BinarySearch(a.waiting, position); {
	case d.unknown && !waits:
		g.wait = append(g.wait, position)
	case !d.unknown && waits:
		g.leave = append(g.leave, position)
	}
	return true, nil
}

// waits returns which blocks wait after g, and adds to ends what is to be
// written for it.
func (a *Archive) waits(g *group, ends map[string][]byte) []uint64 {
	list := slices.Clone(a.waiting)
	for _, position := range g.leave {
		if i, ok := slices.BinarySearch(list, position); ok {
			list = slices.Delete(list, i, i+1)
			ends[string(waitingKey(position))] = nil
		}
	}
	for _, position := range g.wait {
		if i, ok := slices.BinarySearch(list, position); !ok {
			list = slices.Insert(list, i, position)
			ends[string(waitingKey(position))] = []byte{}
		}
	}
	for over := len(list) - MaxWaiting; over > 0; over-- {
		key := string(waitingKey(list[0]))
		if _, young := ends[key]; young {
			delete(ends, key)
		} else {
			ends[key] = nil
		}
		list = list[1:]
		g.looks.forgotten++
	}
	return list
}

// undo takes back what a killed process wrote of a batch of several steps. The
// batch is looked at again, perhaps by another network file and after other
// blocks than before, and might leave other entries.
func (a *Archive) undo(ctx context.Context) error {
	v, err := a.index.Get([]byte{kindTorn})
	if v == nil || err != nil {
		return err
	}
	position, rest, ok := cutUvarint(v)
	if !ok || len(rest) > 0 {
		return damaged("cut batch %x", v)
	}
	o, err := a.open(position)
	if err != nil {
		return err
	}
	g := &group{delta: newDelta()}
	if o != nil {
		for i := range o.Readings {
			r := &o.Readings[i]
			g.set[string(batchKey(o.Gateway, r.Received, position))] = nil
			g.set[string(appendNumber(numbersPrefix(o.Key, r.Seq>>bucketBits, o.Incarnation), position))] = nil
		}
	}
	return a.steps(ctx, g, map[string][]byte{string(kindTorn): nil})
}
