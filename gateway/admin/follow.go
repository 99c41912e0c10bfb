package admin

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

const (
	scanEvery   = 10 * time.Minute // all marks are looked at again
	roomEvery   = 2 * time.Second  // looked for room for those that found none
	retryFollow = time.Second      // after a store could not be read
)

// Run follows the stages until ctx ends, for the counts in status and metrics
// and for the events; then the streams of events end, and it returns nil. It
// may be called once. What cannot be read is logged and tried again.
func (h *Handler) Run(ctx context.Context) error {
	h.hub.open()
	var all sync.WaitGroup
	for doing, follow := range map[string]func(context.Context) error{
		// From a moment before the marks are read: nothing is missed in between.
		"follow milestones": h.followMilestones(), "follow approvals": h.followApprovals(), "follow marks": h.followMarks,
		"tell of readings": h.tellReadings(), "tell of blocks": h.tellBlocks(), "watch": h.watch,
	} {
		all.Go(func() { h.persist(ctx, doing, follow) })
	}
	<-ctx.Done()
	h.hub.close()
	all.Wait()
	return nil
}

// persist calls follow until ctx ends.
func (h *Handler) persist(ctx context.Context, doing string, follow func(context.Context) error) {
	for ctx.Err() == nil {
		if err := follow(ctx); err != nil && ctx.Err() == nil {
			h.log.Error("admin cannot follow the stores; trying again", "doing", doing, "err", err)
		}
		select {
		case <-time.After(retryFollow):
		case <-ctx.Done():
		}
	}
}

// Attached takes in that a batch of this gateway is attached; see
// batching.Config.Attached. It may be called before Run and at any time.
func (h *Handler) Attached(runs [][2]uint64, block stardust.BlockID) {
	if err := h.progress.attached(block, runs); err != nil {
		h.log.Error("admin cannot follow a block", "err", err)
	}
}

// tellState publishes that a block has come to its state.
func (h *Handler) tellState(t *tracked) {
	h.hub.publish(eventState, stateEvent{
		State: t.state, Gateway: h.cfg.Name, Readings: t.runs, Count: t.readings, BlockID: t.id, Milestone: t.milestone,
	})
}

// followMarks looks at the marks now, from time to time, and when there is room
// for more of them.
func (h *Handler) followMarks(ctx context.Context) error {
	for {
		if err := h.progress.scan(ctx, h.src.Journal.Stats().Next); err != nil {
			return err
		}
		for start := time.Now(); time.Since(start) < scanEvery && !h.progress.crowded(); {
			select {
			case <-time.After(roomEvery):
			case <-ctx.Done():
				return nil
			}
		}
	}
}

// followMilestones returns what follows the milestones from now on.
func (h *Handler) followMilestones() func(context.Context) error {
	at := h.src.Ledger.Agreed()
	return func(ctx context.Context) error {
		for {
			now, err := h.src.Ledger.WaitAgreed(ctx, at)
			if err != nil {
				return err
			}
			for ; at.Milestone < now.Milestone && ctx.Err() == nil; at.Milestone++ {
				kept, err := h.ordered(at.Milestone + 1)
				if err != nil {
					return err
				}
				if !kept { // milestones were taken over: nobody waits to hear of all of them
					at.Milestone = now.Milestone - 1
				}
			}
			if now.Certified > at.Certified {
				h.progress.certify(now.Certified)
				h.tellMilestone(now.Certified, 0, true)
			}
			at = now
		}
	}
}

// ordered takes in what a milestone orders, unless that is not kept.
func (h *Handler) ordered(index uint32) (kept bool, err error) {
	entries, err := h.src.Ledger.Ordered(index)
	if errors.Is(err, ledger.ErrNotFound) { // as after a state sync
		return false, h.progress.checkAll()
	}
	if err != nil {
		return false, err
	}
	for i := range entries {
		h.progress.reach(entries[i].ID, ledger.Progress{Approved: true, Milestone: index, Inclusion: entries[i].Inclusion})
	}
	h.progress.count(0, uint64(len(entries)))
	h.tellMilestone(index, len(entries), false)
	return true, nil
}

// tellMilestone publishes a milestone.
func (h *Handler) tellMilestone(index uint32, blocks int, certified bool) {
	if !h.hub.wants(eventMilestone) {
		return
	}
	m, err := h.src.Ledger.Milestone(index)
	if err != nil {
		h.log.Warn("milestone not told of", "index", index, "err", err)
		h.hub.missed(eventMilestone, 1)
		return
	}
	h.hub.publish(eventMilestone, milestoneEvent{
		milestoneJSON: milestoneJSON{Index: m.Index, ID: hexID(m.ID), Timestamp: m.Timestamp},
		Epoch:         m.Epoch, Blocks: blocks, Certified: certified,
	})
}

// followApprovals returns what follows the approvals from the start on.
func (h *Handler) followApprovals() func(context.Context) error {
	at := uint64(0)
	return func(ctx context.Context) error {
		for {
			ids, next, err := h.src.Ledger.WaitApproved(ctx, at)
			if err != nil {
				return err
			}
			for _, id := range ids {
				h.progress.reach(id, ledger.Progress{Approved: true})
			}
			h.progress.count(next-at, 0)
			missed := next-at > uint64(len(ids))
			if at = next; missed {
				if err := h.progress.checkAll(); err != nil {
					return err
				}
			}
		}
	}
}
