package api

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// Topics of TIP-28, in the order of the TIP. Those of outputs and transactions
// come with value.
const (
	topicLatest     = "milestone-info/latest"
	topicConfirmed  = "milestone-info/confirmed"
	topicMilestones = "milestones"
	topicBlocks     = "blocks"
	topicTaggedData = "blocks/tagged-data" // and /0x…, a tag
	topicMetadata   = "block-metadata/"    // and an id
	topicReferenced = "block-metadata/referenced"
)

// How far events may be behind the ledger before they leave some out, and how
// many blocks are looked up at a time.
const (
	maxBlocksBehind     = 10_000
	maxMilestonesBehind = 1000
	blocksAtOnce        = 256
)

// A Feed is the replica whose events are told. *ledger.Ledger is one.
type Feed interface {
	Blocks
	Milestones
	Arrivals
	WaitAgreed(ctx context.Context, before ledger.Agreed) (ledger.Agreed, error)
}

// Arrivals is the replica's own order of blocks.
type Arrivals interface {
	Position() uint64
	Wait(ctx context.Context, after uint64) error
	Order(after uint64, yield func(position uint64, id stardust.BlockID) bool) error
}

var _ Feed = (*ledger.Ledger)(nil)

// A Publisher is a broker that carries events; *mqtt.Broker is one. Both methods
// are called by several goroutines.
type Publisher interface {
	// Event hands a message to those who are subscribed to the topic now; it must
	// not be kept for later ones, who get [Events.Current]. payload must not be
	// changed. It may block while the broker runs: events wait then, and leave out
	// what becomes too much.
	Event(topic string, payload []byte)
	// Listening reports whether anybody is subscribed to any topic of events. It
	// is asked before anything is read.
	Listening() bool
	// Wanted reports whether anybody is subscribed to the topic. It is asked for
	// every topic of every event, before anything is encoded.
	Wanted(topic string) bool
}

// Events tells what happens in a replica as the topics and messages of TIP-28.
// It reads what it tells from the ledger, which knows nothing of it.
type Events struct {
	feed   Feed
	to     Publisher
	log    *slog.Logger
	orders orders
}

// NewEvents returns events that nobody is told until [Events.Run].
func NewEvents(feed Feed, to Publisher, log *slog.Logger) *Events {
	return &Events{feed: feed, to: to, log: log}
}

// Run tells what happens from now on until ctx ends, and then returns nil. An
// error is the ledger's, which has ended or cannot be read.
func (e *Events) Run(ctx context.Context) error {
	at, agreed := e.feed.Position(), e.feed.Agreed()
	following, cancel := context.WithCancelCause(ctx)
	var running sync.WaitGroup
	running.Go(func() { cancel(e.followBlocks(following, at)) })
	running.Go(func() { cancel(e.followMilestones(following, agreed)) })
	running.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("events: %w", context.Cause(following))
}

// Current returns what somebody who subscribes to the topic is told at once:
// the last milestone, and what is known of a block. Other topics have no such
// state, nor has a block that is not known here.
func (e *Events) Current(topic string) (payload []byte, ok bool) {
	switch topic {
	case topicLatest, topicConfirmed:
		a := e.feed.Agreed()
		if a.Milestone == 0 {
			return nil, false
		}
		return encode(newMilestoneInfo(a.Milestone, a.Timestamp, a.ID)), true
	}
	text, isBlock := strings.CutPrefix(topic, topicMetadata)
	id, err := stardust.ParseBlockID(text)
	if !isBlock || err != nil {
		return nil, false
	}
	d, err := lookUp(e.feed, e.feed, &e.orders, id)
	if err != nil {
		e.missed("block", id, err)
		return nil, false
	}
	return encode(d), true
}

// followBlocks tells of blocks as they arrive after a position.
func (e *Events) followBlocks(ctx context.Context, at uint64) error {
	for {
		if err := e.feed.Wait(ctx, at); err != nil {
			return err
		}
		last := e.feed.Position()
		if !e.to.Listening() {
			at = last
			continue
		}
		if last-at > maxBlocksBehind {
			e.log.Warn("events of blocks left out", "blocks", last-at-blocksAtOnce)
			at = last - blocksAtOnce
		}
		// The ids first: publishing may take long, and reading holds the store.
		ids := make([]stardust.BlockID, 0, blocksAtOnce)
		next := last // nothing there: those up to last are gone again
		err := e.feed.Order(at, func(position uint64, id stardust.BlockID) bool {
			ids, next = append(ids, id), position
			return len(ids) < blocksAtOnce
		})
		if err != nil {
			return err
		}
		for _, id := range ids {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			e.arrived(id)
		}
		at = next
	}
}

// arrived tells of a block that the ledger has now.
func (e *Events) arrived(id stardust.BlockID) {
	raw, err := e.feed.Block(id)
	if err != nil {
		e.missed("block", id, err)
		return
	}
	b, err := stardust.ParseBlock(raw)
	if err != nil {
		e.missed("block", id, err)
		return
	}
	e.publish(topicBlocks, raw)
	if p, ok := b.Payload.(*stardust.TaggedData); ok {
		e.publish(topicTaggedData, raw)
		if len(p.Tag) > 0 {
			e.publish(topicTaggedData+"/0x"+hex.EncodeToString(p.Tag), raw)
		}
	}
	if topic := topicMetadata + id.String(); e.to.Wanted(topic) {
		if m, err := e.feed.Metadata(id); err != nil {
			e.missed("block", id, err)
		} else if m.Milestone == 0 { // else the milestone tells
			e.to.Event(topic, encode(describe(id, m, nil)))
		}
	}
}

// followMilestones tells of what is agreed after before.
func (e *Events) followMilestones(ctx context.Context, before ledger.Agreed) error {
	for {
		now, err := e.feed.WaitAgreed(ctx, before)
		if err != nil {
			return err
		}
		if !e.to.Listening() {
			before = now
			continue
		}
		for i := e.from(before.Milestone, now.Milestone); i <= now.Milestone && ctx.Err() == nil; i++ {
			e.confirmed(ctx, i)
		}
		for i := e.from(before.Certified, now.Certified); i <= now.Certified && ctx.Err() == nil; i++ {
			e.certified(i)
		}
		before = now
	}
}

// from returns the first milestone to tell of after one, up to another.
func (e *Events) from(after, to uint32) uint32 {
	if to > after && to-after > maxMilestonesBehind {
		e.log.Warn("events of milestones left out", "milestones", to-after-1)
		return to
	}
	return after + 1
}

// confirmed tells of a new milestone and of the blocks that it references.
func (e *Events) confirmed(ctx context.Context, index uint32) {
	if e.to.Wanted(topicLatest) || e.to.Wanted(topicConfirmed) {
		if m, err := e.feed.Milestone(index); err != nil {
			e.missed("milestone", index, err)
		} else {
			payload := encode(newMilestoneInfo(m.Index, m.Timestamp, m.ID))
			e.publish(topicLatest, payload)
			e.publish(topicConfirmed, payload)
		}
	}
	all, err := e.feed.Ordered(index)
	if err != nil {
		e.missed("milestone", index, err)
		return
	}
	for i, b := range all {
		if ctx.Err() != nil {
			return
		}
		e.referenced(index, uint32(i), b)
	}
}

// referenced tells of a block at its place in a milestone.
func (e *Events) referenced(milestone, place uint32, b consensus.Entry) {
	topic := topicMetadata + b.ID.String()
	if !e.to.Wanted(topic) && !e.to.Wanted(topicReferenced) {
		return
	}
	m, err := e.feed.Metadata(b.ID)
	if err != nil {
		e.missed("block", b.ID, err)
		return
	}
	m.Milestone, m.Inclusion = milestone, b.Inclusion
	payload := encode(describe(b.ID, m, &place))
	e.publish(topic, payload)
	e.publish(topicReferenced, payload)
}

// certified tells of a milestone that is a payload of TIP-29 now.
func (e *Events) certified(index uint32) {
	if !e.to.Wanted(topicMilestones) {
		return
	}
	m, err := e.feed.Milestone(index)
	var raw []byte
	if err == nil {
		raw, err = m.Payload(m.Signatures).AppendBinary(nil)
	}
	if err != nil {
		e.missed("milestone", index, err)
		return
	}
	e.to.Event(topicMilestones, raw)
}

func (e *Events) publish(topic string, payload []byte) {
	if e.to.Wanted(topic) {
		e.to.Event(topic, payload)
	}
}

// missed notes that there is no event of a block or milestone, unless the ledger
// just does not keep it.
func (e *Events) missed(what string, id any, err error) {
	if !errors.Is(err, ledger.ErrNotFound) {
		e.log.Warn("event left out", what, id, "err", err)
	}
}

// A milestoneInfo is the message of milestone-info: the names that brokers and
// client libraries of the field have, and those of the TIP.
type milestoneInfo struct {
	Index     uint32               `json:"index"`
	Timestamp uint32               `json:"timestamp"`
	ID        stardust.MilestoneID `json:"milestoneId"`

	TIPIndex     uint32 `json:"milestoneIndex"`
	TIPTimestamp uint32 `json:"milestoneTimestamp"`
}

func newMilestoneInfo(index, timestamp uint32, id [32]byte) milestoneInfo {
	return milestoneInfo{index, timestamp, id, index, timestamp}
}

// encode returns v, which must be one that encodes, as JSON.
func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("api: encode an event: " + err.Error())
	}
	return b
}
