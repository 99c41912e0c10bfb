package batching

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// collect commits one group after the other until the inbox is closed and
// empty, or ctx ends.
func (s *Stage) collect(ctx context.Context) error {
	s.count.running.Store(true)
	defer s.count.running.Store(false)
	defer s.seal.intakeOver()
	var c company
	last := time.Now()
	for s.await(ctx, &c) {
		g := s.inbox.take()
		if err := s.commit(g); err != nil {
			return err
		}
		now := time.Now()
		c.came(len(g.packets), now.Sub(last))
		last = now
	}
	return nil
}

// await blocks until the oldest group should be committed. It returns false
// when there is none and the inbox is closed, or when ctx ends.
func (s *Stage) await(ctx context.Context, c *company) bool {
	enough, most := c.await(s.cfg.Linger)
	linger := time.NewTimer(time.Hour)
	defer linger.Stop()
	for ctx.Err() == nil {
		since, now, ok, closed := s.inbox.front(enough)
		wait := time.Hour
		switch {
		case !ok && closed:
			return false
		case ok && now:
			return true
		case ok:
			if wait = most - time.Since(since); wait <= 0 {
				return true
			}
		case enough > 1:
			wait = most // the first packet of a group is not worth a wake-up
		}
		linger.Reset(wait)
		select {
		case <-s.inbox.wake:
		case <-linger.C:
			if !ok {
				enough = 1 // the company does not come again
			}
		case <-ctx.Done():
		}
	}
	return false
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
