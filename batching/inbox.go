package batching

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// Limits of what waits for a commit.
const (
	groupReadings = 2000      // a commit takes about this many readings at most,
	groupBytes    = 512 << 10 // or about this many bytes
	inboxReadings = 16000     // more waiting than this is refused
	inboxBytes    = 4 << 20
)

// A group is what one commit stores.
type group struct {
	packets  []Packet
	receipts []*Receipt // of the packets, in the same order
	readings int
	bytes    int
	since    time.Time // when its first packet came
	done     chan struct{}
}

// inbox holds the packets that are on their way to the journal.
type inbox struct {
	wake chan struct{} // capacity 1: look at front again
	none chan struct{} // closed: of receipts that are resolved from the start

	mu       sync.Mutex // guards everything below
	groups   []*group   // oldest first; the last one is open
	enough   int        // packets in the only group at which the collector is woken; above 1 it lingers
	readings int        // in all groups and in the one being committed
	bytes    int
	pending  map[Key]*Receipt // packets with a key that are not committed yet
	commits  uint64           // counts the groups that left pending
	closed   bool             // takes no more packets
	refusing bool             // the journal refused the last group: ask before taking more
}

func (in *inbox) init() {
	in.wake = make(chan struct{}, 1)
	in.none = make(chan struct{})
	close(in.none)
	in.pending = make(map[Key]*Receipt)
}

// Submit takes a packet in and returns at once with the receipt that tells
// when it is durable. The stage keeps sub.Readings until then: the caller
// must not change them.
//
// The error wraps [ErrBusy] when too much is waiting or the journal is full,
// [ErrClosed] after CloseIntake, and [reading.ErrLimit] when [Packet.Validate]
// says that the gateway never stores such a packet.
func (s *Stage) Submit(sub Submission) (*Receipt, error) {
	if err := sub.Validate(); err != nil {
		s.count.refused.Add(1)
		return nil, err
	}
	bytes := sub.Bytes()
	if !sub.Recall || sub.Key == (Key{}) {
		s.inbox.mu.Lock()
		r, err := s.add(sub.Packet, bytes)
		s.inbox.mu.Unlock()
		return r, err
	}
	for try := 0; ; try++ {
		r, err := s.recall(sub, bytes, try >= 3)
		if r != nil || err != nil {
			return r, err
		}
	}
}

// recall looks for an earlier packet with the same key, first among those
// that wait, then in the journal, and adds the packet when there is none. It
// returns nothing when a commit came in between, because the earlier packet
// may have moved from one place to the other unseen. The journal is asked
// without the lock unless insist is set.
func (s *Stage) recall(sub Submission, bytes int, insist bool) (*Receipt, error) {
	in := &s.inbox
	in.mu.Lock()
	defer in.mu.Unlock()
	if r := in.pending[sub.Key]; r != nil {
		s.count.duplicates.Add(1)
		return r.Again(), nil
	}
	commits := in.commits
	if !insist {
		in.mu.Unlock()
	}
	now, _ := s.cfg.Clock()
	first, ok := s.journal.Recall(sub.Key, sub.Within, now.UnixMilli())
	if !insist {
		in.mu.Lock()
	}
	if ok {
		s.count.duplicates.Add(1)
		return (&Receipt{done: in.none, first: first}).Again(), nil
	}
	if in.commits != commits {
		return nil, nil
	}
	if r := in.pending[sub.Key]; r != nil { // came while the lock was open
		s.count.duplicates.Add(1)
		return r.Again(), nil
	}
	return s.add(sub.Packet, bytes)
}

// add puts a packet into the open group. The caller holds the lock.
func (s *Stage) add(p Packet, bytes int) (*Receipt, error) {
	in := &s.inbox
	if err := s.admit(len(p.Readings), bytes); err != nil {
		s.count.refused.Add(1)
		return nil, err
	}
	var g *group
	if n := len(in.groups); n > 0 {
		g = in.groups[n-1]
	}
	if g == nil || g.readings+len(p.Readings) > groupReadings || g.bytes+bytes > groupBytes {
		g = &group{since: time.Now(), done: make(chan struct{})}
		in.groups = append(in.groups, g)
		if in.enough <= 1 || len(in.groups) > 1 {
			in.signal() // else the collector lingers and looks by itself
		}
	}
	r := &Receipt{done: g.done}
	g.packets = append(g.packets, p)
	g.receipts = append(g.receipts, r)
	g.readings += len(p.Readings)
	g.bytes += bytes
	in.readings += len(p.Readings)
	in.bytes += bytes
	if len(g.packets) == in.enough {
		in.signal()
	}
	if p.Key != (Key{}) {
		in.pending[p.Key] = r
	}
	return r, nil
}

// admit says whether a packet of so many readings and bytes is taken now.
func (s *Stage) admit(readings, bytes int) error {
	in := &s.inbox
	switch {
	case in.closed:
		return ErrClosed
	case in.readings > 0 && (in.readings+readings > inboxReadings || in.bytes+bytes > inboxBytes):
		return fmt.Errorf("%w: %d readings wait to be stored", ErrBusy, in.readings)
	case in.refusing:
		if err := s.journal.Ready(); err != nil {
			return asBusy(err)
		}
		in.refusing = false
	}
	return nil
}

// asBusy makes err wrap ErrBusy, saying so once.
func asBusy(err error) error {
	if errors.Is(err, ErrBusy) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrBusy, err)
}

// signal wakes the collector.
func (in *inbox) signal() {
	select {
	case in.wake <- struct{}{}:
	default:
	}
}

func (in *inbox) close() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.closed = true
	in.signal()
}

func (in *inbox) ready() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case in.closed:
		return ErrClosed
	case in.readings >= inboxReadings || in.bytes >= inboxBytes:
		return fmt.Errorf("%w: %d readings wait to be stored", ErrBusy, in.readings)
	}
	return nil
}

// front returns when the oldest group began and whether it should be
// committed now: because it holds enough packets, another one waits behind
// it, or the inbox is closed. ok is false when there is no group.
func (in *inbox) front(enough int) (since time.Time, now, ok, closed bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.enough = enough
	if len(in.groups) == 0 {
		return time.Time{}, false, false, in.closed
	}
	g := in.groups[0]
	return g.since, len(g.packets) >= enough || len(in.groups) > 1 || in.closed, true, in.closed
}

// take removes the oldest group, which gets no more packets from now on.
func (in *inbox) take() *group {
	in.mu.Lock()
	defer in.mu.Unlock()
	g := in.groups[0]
	in.groups[0] = nil
	in.groups = in.groups[1:]
	if len(in.groups) == 0 {
		in.groups = nil
	}
	return g
}

// resolve gives every receipt of a group that was taken its answer.
func (in *inbox) resolve(g *group, first uint64, err error, refusing bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for i, r := range g.receipts {
		r.first, r.err = first, err
		first += uint64(len(g.packets[i].Readings))
		if key := g.packets[i].Key; in.pending[key] == r {
			delete(in.pending, key)
		}
	}
	in.commits++
	in.readings -= g.readings
	in.bytes -= g.bytes
	in.refusing = refusing
	close(g.done)
}

// refuse closes the inbox and resolves everything that still waits with err.
func (in *inbox) refuse(err error) {
	in.close()
	for {
		if _, _, ok, _ := in.front(0); !ok {
			return
		}
		in.resolve(in.take(), 0, err, false)
	}
}
