package batching

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"
)

// A committer is what one goroutine at a time needs to commit: the collector,
// or a leader in its place.
type committer struct {
	turn    chan struct{} // holds a token while anybody may commit; who takes it owns the rest
	company company
	last    time.Time // when the last commit ended
	failed  error     // ends the process
}

// collect commits what no leader does, one group after the other, until the
// inbox is closed and empty, or ctx ends.
func (s *Stage) collect(ctx context.Context) error {
	s.count.running.Store(true)
	defer s.count.running.Store(false)
	defer s.seal.intakeOver()
	c := &s.commits
	c.last = time.Now()
	c.turn <- struct{}{}
	for s.await(ctx) {
		<-c.turn
		if s.commitFront(nil); c.failed != nil {
			return c.failed
		}
		c.turn <- struct{}{}
	}
	<-c.turn // for good: from now on nobody leads
	return c.failed
}

// await blocks until the oldest group should be committed. It returns false
// when there is none and the inbox is closed, or when ctx ends.
func (s *Stage) await(ctx context.Context) bool {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil {
		due, over, wait := s.inbox.look(time.Now())
		if due || over {
			return due
		}
		timer.Reset(wait)
		select {
		case <-s.inbox.wake:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	return false
}

// Lead commits, on the calling goroutine, the group that is due, if it is of
// few packets, l has no more of them and nobody else is committing, and tells
// whether it did. Who sets Submission.Leader to l calls it after Submit, and
// again once l has no more. It tells other leaders than l. It blocks for as long
// as the disk takes.
//
// A hand-over to the collector and one back to the front end cost more than
// all else that is done for a reading, and clients that wait for their answers
// wait for them, too. With many packets in a group they cost little, and
// reading, storing and answering go on side by side.
func (s *Stage) Lead(l Leader) (led bool) {
	if !s.inbox.toLead() || l.More() {
		return false
	}
	c := &s.commits
	select {
	case <-c.turn:
	default:
		return false // who has it looks again afterwards
	}
	led = s.commitFront(l)
	c.turn <- struct{}{}
	s.inbox.remind()
	return led
}

// commitFront commits the oldest group, if there is one, and decides how many
// packets the next one waits for. The caller has the turn; by is who of the
// leaders it is.
func (s *Stage) commitFront(by Leader) (committed bool) {
	c := &s.commits
	if c.failed != nil {
		return false
	}
	g := s.inbox.take()
	if g == nil {
		return false
	}
	g.by = by
	begin := time.Now()
	if c.failed = s.commitSafely(g); c.failed != nil {
		s.inbox.close() // the collector ends
		return true
	}
	now := time.Now()
	c.company.came(len(g.packets), now.Sub(c.last))
	c.last = now
	enough, most := c.company.await(s.cfg.Linger)
	s.inbox.pace(enough, most, now, now.Sub(begin))
	return true
}

// commitSafely is commit, but makes an error of a panic, which a front end that
// leads would outlive: what is stored is unknown after one.
func (s *Stage) commitSafely(g *group) (err error) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		err = fmt.Errorf("commit panicked: %v", p)
		s.log.Error("commit panicked", "panic", p, "stack", string(debug.Stack()))
		select {
		case <-g.done:
		default:
			s.inbox.resolve(g, 0, err, false)
		}
	}()
	return s.commit(g)
}

// commit makes one group durable and resolves its receipts. It returns the
// error that ends the process.
func (s *Stage) commit(g *group) error {
	begin := time.Now()
	now, clock := s.cfg.Clock()
	first, err := s.journal.Append(g.packets, Stamp{Received: now.UnixMilli(), Clock: clock})
	if errors.Is(err, ErrBusy) {
		s.count.refused.Add(uint64(len(g.packets)))
		s.inbox.resolve(g, 0, err, true)
		return nil
	}
	if err != nil {
		err = fmt.Errorf("append %d readings to the journal: %w", g.readings, err)
		s.inbox.resolve(g, 0, err, false)
		return err
	}
	s.flight.stored(first + uint64(g.readings))
	s.seal.stored(begin)
	s.inbox.resolve(g, first, nil, false)
	s.count.committed(g, time.Since(begin))
	return nil
}
