package admin

import (
	"context"
	"encoding/hex"
	"slices"
	"time"
	"unicode"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

const (
	watchEvery = 2 * time.Second // peers and alarms are looked at
	maxBehind  = maxEvents       // readings, and blocks, that are still told of
)

// tellReadings returns what publishes the readings as they are stored, while
// somebody listens.
func (h *Handler) tellReadings() func(context.Context) error {
	at := uint64(1) // the number of the first one that was not told of
	var next uint64
	wait := func(ctx context.Context) (err error) {
		next, err = h.src.Stage.WaitStored(ctx, at)
		return err
	}
	return func(ctx context.Context) error {
		for {
			if err := h.until(ctx, eventReading, &at, wait); err != nil {
				return err
			}
			h.skip(eventReading, &at, next)
			if at >= next {
				continue
			}
			rs, err := h.src.Journal.Read(at, int(min(next-at, pageSize)))
			if err != nil {
				return err
			}
			at = next
			items := make([]any, len(rs))
			for i := range rs {
				item := newReadingJSON(h.cfg.Name, &rs[i])
				item.Source, item.State = rs[i].Source.String(), string(batching.Stored)
				items[i], at = item, rs[i].Seq+1
			}
			h.hub.publish(eventReading, items...)
		}
	}
}

// until returns once wait does while somebody listens to a kind. It moves at to
// where they begin to want it.
func (h *Handler) until(ctx context.Context, kind string, at *uint64, wait func(context.Context) error) error {
	begin, err := h.hub.await(ctx, kind)
	if err != nil {
		return err
	}
	*at = max(*at, begin)
	if err := wait(ctx); err != nil {
		return err
	}
	begin, err = h.hub.await(ctx, kind) // the wait may have been long
	*at = max(*at, begin)
	return err
}

// skip moves at over what is too far back to be told of, and says so.
func (h *Handler) skip(kind string, at *uint64, end uint64) {
	if end > *at && end-*at > maxBehind {
		h.hub.missed(kind, end-*at-maxBehind)
		*at = end - maxBehind
	}
}

// tellBlocks returns what publishes the blocks as they come, while somebody
// listens.
func (h *Handler) tellBlocks() func(context.Context) error {
	at := uint64(0) // the position of the last one that was told of
	wait := func(ctx context.Context) error { return h.src.Ledger.Wait(ctx, at) }
	return func(ctx context.Context) error {
		for {
			if err := h.until(ctx, eventBlock, &at, wait); err != nil {
				return err
			}
			h.skip(eventBlock, &at, h.src.Ledger.Position())
			var items []any
			err := h.src.Ledger.Blocks(at, func(position uint64, id stardust.BlockID, raw []byte, attached time.Time) bool {
				items = append(items, blockEvent{
					BlockID: id, Attached: timeText(attached.UnixMilli()), Bytes: len(raw), Tag: tagText(raw),
				})
				at = position
				return len(items) < pageSize
			})
			h.hub.publish(eventBlock, items...)
			if err != nil {
				return err
			}
		}
	}
}

// tagText returns the tag of a block's payload as it may be shown.
func tagText(raw []byte) string {
	b, err := stardust.ParseBlock(raw)
	if err != nil {
		return ""
	}
	p, ok := b.Payload.(*stardust.TaggedData)
	if !ok || len(p.Tag) == 0 {
		return ""
	}
	for _, c := range string(p.Tag) {
		if c > unicode.MaxASCII || !unicode.IsPrint(c) {
			return "0x" + hex.EncodeToString(p.Tag)
		}
	}
	return string(p.Tag)
}

// watch publishes what changes with peers and alarms.
func (h *Handler) watch(ctx context.Context) error {
	up, alarms := h.watched()
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		nowUp, nowAlarms := h.watched()
		for name, is := range nowUp {
			if is != up[name] {
				h.hub.publish(eventPeer, peerEvent{name, is})
			}
		}
		h.tellAlarms(alarms, nowAlarms)
		up, alarms = nowUp, nowAlarms
	}
}

// watched returns which peers are up, and the alarms.
func (h *Handler) watched() (up map[string]bool, alarms []Alarm) {
	s := h.src.Peers.Stats()
	up = map[string]bool{}
	for i := range s.Members {
		up[s.Members[i].Name] = s.Members[i].Up
	}
	return up, h.allAlarms(&s)
}

// tellAlarms publishes the alarms that are new, and those that are over.
func (h *Handler) tellAlarms(before, now []Alarm) {
	for _, a := range now {
		if !slices.Contains(before, a) {
			h.hub.publish(eventAlarm, alarmEvent{a, false})
		}
	}
	for _, a := range before {
		if !slices.ContainsFunc(now, func(b Alarm) bool { return a.Name == b.Name }) {
			h.hub.publish(eventAlarm, alarmEvent{a, true})
		}
	}
}
