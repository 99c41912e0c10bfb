package batching

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Limits of what waits for a commit.
const (
	groupReadings = 2000      // a commit takes about this many readings at most,
	groupBytes    = 512 << 10 // or about this many bytes
	inboxReadings = 16000     // more waiting than this is refused
	inboxBytes    = 4 << 20

	ledPackets = 32                   // of a group that a leader commits, at most
	ledAfter   = 8                    // commits in a row that took at most
	ledTime    = 2 * time.Millisecond // on a disk on which leaders commit
)

// A group is what one commit stores.
type group struct {
	packets  []Packet
	receipts []*Receipt // of the packets, in the same order
	leaders  []Leader   // who is told when they are resolved,
	by       Leader     // but for who commits it
	readings int
	bytes    int
	since    time.Time // when its first packet came
	done     chan struct{}
}

// inbox holds the packets that are on their way to the journal.
type inbox struct {
	wake chan struct{} // capacity 1: the collector looks again
	none chan struct{} // closed: of receipts that are resolved from the start

	mu       sync.Mutex    // guards everything below
	groups   []*group      // oldest first; the last one is open
	enough   int           // packets at which the only group is committed; above 1 it waits for company,
	most     time.Duration // so long after its first packet at most
	last     time.Time     // when the last commit ended
	quick    int           // commits in a row that took no longer than ledTime
	looks    time.Time     // when the collector looks by itself
	readings int           // in all groups and in the one being committed
	bytes    int
	pending  map[Key]waiting // packets with a key that are not committed yet
	commits  uint64          // counts the groups that left pending
	closed   bool            // takes no more packets
	refusing bool            // the journal refused the last group: ask before taking more
}

// A waiting is a packet in a group.
type waiting struct {
	receipt *Receipt
	group   *group
}

// again returns the receipt of a repetition of the packet.
func (w waiting) again(l Leader) *Receipt {
	w.group.tell(l)
	return w.receipt.Again()
}

// tell notes whom to tell when the group's receipts are resolved.
func (g *group) tell(l Leader) {
	if l != nil && !slices.Contains(g.leaders, l) {
		g.leaders = append(g.leaders, l)
	}
}

func (in *inbox) init() {
	in.wake = make(chan struct{}, 1)
	in.none = make(chan struct{})
	close(in.none)
	in.pending = make(map[Key]waiting)
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
		r, err := s.add(sub, bytes)
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
	if w, ok := in.pending[sub.Key]; ok {
		s.count.duplicates.Add(1)
		return w.again(sub.Leader), nil
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
	if w, ok := in.pending[sub.Key]; ok { // came while the lock was open
		s.count.duplicates.Add(1)
		return w.again(sub.Leader), nil
	}
	return s.add(sub, bytes)
}

// add puts a packet into the open group. The caller holds the lock.
func (s *Stage) add(sub Submission, bytes int) (*Receipt, error) {
	in, p := &s.inbox, sub.Packet
	if err := s.admit(len(p.Readings), bytes); err != nil {
		s.count.refused.Add(1)
		return nil, err
	}
	var g *group
	if n := len(in.groups); n > 0 {
		g = in.groups[n-1]
	}
	if g == nil && in.enough > 1 && time.Since(in.last) >= in.most {
		in.enough = 1 // the company does not come again
	}
	opened := g == nil || g.readings+len(p.Readings) > groupReadings || g.bytes+bytes > groupBytes
	if opened {
		g = &group{since: time.Now(), done: make(chan struct{})}
		in.groups = append(in.groups, g)
	}
	r := &Receipt{done: g.done}
	g.packets = append(g.packets, p)
	g.receipts = append(g.receipts, r)
	g.tell(sub.Leader)
	g.readings += len(p.Readings)
	g.bytes += bytes
	in.readings += len(p.Readings)
	in.bytes += bytes
	if p.Key != (Key{}) {
		in.pending[p.Key] = waiting{r, g}
	}
	in.added(g, opened, sub.Leader != nil)
	return r, nil
}

// added wakes the collector if it has to do something about the packet that g
// got: it is due and nobody leads, or it would be looked at too late.
func (in *inbox) added(g *group, opened, led bool) {
	due := len(g.packets) >= in.enough || len(in.groups) > 1
	if due && !led || !due && opened && in.late(g) {
		in.signal()
	}
}

// late tells whether the collector looks by itself only after the group should
// have been committed.
func (in *inbox) late(g *group) bool { return in.looks.After(g.since.Add(in.most)) }

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

// due tells whether the oldest group should be committed now: because it holds
// enough packets, another one waits behind it, or the inbox is closed. The
// caller holds the lock.
func (in *inbox) due() bool {
	return len(in.groups) > 0 && (len(in.groups[0].packets) >= in.enough || len(in.groups) > 1 || in.closed)
}

// look tells the collector whether to commit the oldest group now, or that
// there will be none, or how long it need not look again unless it is woken.
func (in *inbox) look(now time.Time) (due, over bool, wait time.Duration) {
	in.mu.Lock()
	defer in.mu.Unlock()
	wait = time.Hour
	switch {
	case in.due():
		return true, false, 0
	case len(in.groups) > 0:
		wait = in.most - now.Sub(in.groups[0].since)
		due = wait <= 0
	case in.closed:
		return false, true, 0
	case in.enough > 1: // the first packet of a group is not worth a wake-up
		if left := in.most - now.Sub(in.last); left > 0 {
			wait = left
		} else {
			in.enough = 1 // the company does not come again
		}
	}
	in.looks = now.Add(wait)
	return due, false, wait
}

// pace sets at how many packets the next group is committed, and how long
// after its first one in any case, when a commit that took so long is over.
func (in *inbox) pace(enough int, most time.Duration, now time.Time, took time.Duration) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.enough, in.most, in.last = enough, most, now
	if in.quick++; took > ledTime {
		in.quick = 0
	}
}

// toLead tells whether a leader should commit now. It leaves to the collector
// what is due and large, and everything on a slow disk, which would keep the
// leader from reading for long.
func (in *inbox) toLead() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.due() {
		return false
	}
	lead := in.quick >= ledAfter && len(in.groups) == 1 && len(in.groups[0].packets) <= ledPackets
	if !lead {
		in.signal()
	}
	return lead
}

// remind wakes the collector if there is something that a leader left, and that
// it would look at too late.
func (in *inbox) remind() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.due() || in.closed || len(in.groups) > 0 && in.late(in.groups[0]) {
		in.signal()
	}
}

// take removes the oldest group, which gets no more packets from now on. It
// returns nil when there is none.
func (in *inbox) take() *group {
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.groups) == 0 {
		return nil // a leader was quicker
	}
	g := in.groups[0]
	in.groups[0] = nil
	in.groups = in.groups[1:]
	if len(in.groups) == 0 {
		in.groups = nil
	}
	return g
}

// resolve gives every receipt of a group that was taken its answer, and tells
// the other leaders.
func (in *inbox) resolve(g *group, first uint64, err error, refusing bool) {
	for _, l := range in.settle(g, first, err, refusing) {
		if l != g.by {
			l.Resolved()
		}
	}
}

// settle does so under the lock and returns whom to tell.
func (in *inbox) settle(g *group, first uint64, err error, refusing bool) []Leader {
	in.mu.Lock()
	defer in.mu.Unlock()
	for i, r := range g.receipts {
		r.first, r.err = first, err
		first += uint64(len(g.packets[i].Readings))
		if key := g.packets[i].Key; in.pending[key].receipt == r {
			delete(in.pending, key)
		}
	}
	in.commits++
	in.readings -= g.readings
	in.bytes -= g.bytes
	in.refusing = refusing
	close(g.done)
	return g.leaders
}

// refuse closes the inbox and resolves everything that still waits with err.
func (in *inbox) refuse(err error) {
	in.close()
	for g := in.take(); g != nil; g = in.take() {
		in.resolve(g, 0, err, false)
	}
}
