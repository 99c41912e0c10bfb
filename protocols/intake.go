package protocols

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/batching/reading"
	"github.com/hedgerow-iot/hedgerow/protocols/payload"
)

// rawName names an undecodable payload that came without a name.
const rawName = "raw"

// Bounds of a device time that is believed (the upper one from now).
const (
	earliestTime = 1577836800000 // 2020-01-01T00:00:00Z, Unix milliseconds
	latestAhead  = 24 * time.Hour
)

// IntakeConfig holds what an [Intake] needs. All fields but Clock must be set.
type IntakeConfig struct {
	Sink  Sink
	ACL   ACL
	Log   *slog.Logger
	Clock func() time.Time // nil: time.Now
}

// An Intake takes messages that a mapping matched and turns each into one
// submitted packet of readings. Its methods may be called concurrently.
type Intake struct {
	sink   Sink
	acl    ACL
	log    *slog.Logger
	clock  func() time.Time
	counts [3]counters // by reading.Source

	duplicates duplicates
}

// NewIntake returns an intake; it starts nothing.
func NewIntake(cfg IntakeConfig) (*Intake, error) {
	if cfg.Sink == nil || cfg.ACL == nil || cfg.Log == nil {
		return nil, errors.New("intake needs a sink, an access list and a logger")
	}
	in := &Intake{sink: cfg.Sink, acl: cfg.ACL, log: cfg.Log, clock: cfg.Clock}
	if in.clock == nil {
		in.clock = time.Now
	}
	return in, nil
}

// A Message is what a front end received on a mapped topic or path.
type Message struct {
	From   Device
	Source reading.Source
	Target Target         // as [MapTopic] or [MapPath] returned it
	Format payload.Format // what the sender says the payload is
	// Payload is only read during Submit.
	Payload []byte
	// Key, Recall and Within recognise a repetition, and Leader is set by who
	// calls Lead after Submit, as in [batching.Submission].
	Key    batching.Key
	Recall bool
	Within time.Duration
	Leader batching.Leader
}

// Submit decodes the message and hands its readings to the sink. It does not
// block. A payload that cannot be decoded becomes one raw reading whose Err
// says why. The receipt is resolved when the readings are durable or refused;
// its error then wraps [batching.ErrBusy] or [batching.ErrClosed].
//
// An error of Submit itself means that nothing was stored and wraps one of
// [ErrTooLarge], [ErrNotAllowed], [ErrNoReading], [ErrName],
// [batching.ErrBusy] and [batching.ErrClosed]; its text may be shown to the
// sender.
func (in *Intake) Submit(m Message) (*batching.Receipt, error) {
	c := &in.counts[min(m.Source, reading.SourceHTTP)]
	rs, err := in.readings(&m, c)
	if err == nil {
		var r *batching.Receipt
		r, err = in.sink.Submit(batching.Submission{
			Packet: batching.Packet{Readings: rs, Key: m.Key},
			Recall: m.Recall,
			Within: m.Within,
			Leader: m.Leader,
		})
		if err == nil {
			c.accepted.Add(1)
			c.readings.Add(uint64(len(rs)))
			if r.Duplicate() {
				in.duplicates.add(m.Target.Device)
			}
			return r, nil
		}
		if errors.Is(err, reading.ErrLimit) {
			err = fmt.Errorf("%w: %v", ErrTooLarge, err)
		}
	}
	c.refuse(err)
	if in.log.Enabled(context.Background(), slog.LevelDebug) {
		in.log.Debug("message refused", "source", m.Source.String(), "device", m.Target.Device, "err", err)
	}
	return nil, err
}

// Lead lends the calling goroutine to the sink, as [Sink] has it.
func (in *Intake) Lead(l batching.Leader) (led bool) { return in.sink.Lead(l) }

// readings makes the valid readings of a message.
func (in *Intake) readings(m *Message, c *counters) ([]reading.Reading, error) {
	if err := m.Target.check(); err != nil {
		return nil, err
	}
	if !in.acl.MayReport(m.From, m.Target.Device) {
		return nil, fmt.Errorf("%w: readings of this device", ErrNotAllowed)
	}
	if len(m.Payload) == 0 {
		return nil, fmt.Errorf("%w: it is empty", ErrNoReading)
	}
	now := in.clock()
	rs, err := payload.Decode(m.Format, m.Payload, payload.Hints{Device: m.Target.Device, Name: m.Target.Name, Now: now})
	if err != nil {
		rs, err = raw(m, err)
		if err != nil {
			return nil, err
		}
		c.undecodable.Add(1)
	}
	if len(rs) == 0 {
		return nil, ErrNoReading
	}
	for i := range rs {
		r := &rs[i]
		r.Auth, r.Source = m.From.Auth, m.Source
		r.Time = saneTime(r.Time, now)
		if err := r.Validate(); err != nil {
			// Decode keeps names and units to their limits, so this is a text
			// that is too long to store.
			return nil, fmt.Errorf("%w: %v", ErrTooLarge, err)
		}
	}
	return rs, nil
}

// raw keeps a payload that could not be decoded as one reading.
func raw(m *Message, why error) ([]reading.Reading, error) {
	if len(m.Payload) > batching.MaxRaw {
		return nil, fmt.Errorf("%w: undecodable payload of %d bytes, at most %d are kept (%v)",
			ErrTooLarge, len(m.Payload), batching.MaxRaw, why)
	}
	name := m.Target.Name
	if name == "" {
		name = rawName
	}
	text := why.Error()
	text = strings.ToValidUTF8(strings.ReplaceAll(text[:min(len(text), reading.MaxErr)], "\x00", ""), "")
	return []reading.Reading{{
		Device: m.Target.Device, Name: name, Value: reading.Bytes(m.Payload), Err: text,
	}}, nil
}

// saneTime returns t, or 0 when no sensible clock can have shown it.
func saneTime(t int64, now time.Time) int64 {
	if t < earliestTime || t > now.Add(latestAhead).UnixMilli() {
		return 0
	}
	return t
}

// Counts says what became of the messages of one front end, since the start.
type Counts struct {
	Accepted    uint64 // messages handed to the sink, repetitions included
	Readings    uint64 // readings in them
	Undecodable uint64 // messages of which only the raw bytes could be kept
	Busy        uint64 // refused: [batching.ErrBusy] or [batching.ErrClosed]
	TooLarge    uint64 // refused: [ErrTooLarge]
	NotAllowed  uint64 // refused: [ErrNotAllowed]
	NoReading   uint64 // refused: [ErrNoReading]
	BadName     uint64 // refused: [ErrName]
}

// CountDuplicate counts a message for a device that a front end recognised as
// a repetition itself, without asking the sink.
func (in *Intake) CountDuplicate(device string) { in.duplicates.add(device) }

// Duplicates returns how many messages for each device were answered again
// and not stored again, since the start; those of devices beyond the first
// 1000 that sent any stand under "".
func (in *Intake) Duplicates() map[string]uint64 { return in.duplicates.all() }

// Stats returns the counts of each source, indexed by [reading.Source].
func (in *Intake) Stats() [3]Counts {
	var out [3]Counts
	for i := range in.counts {
		c := &in.counts[i]
		out[i] = Counts{
			Accepted:    c.accepted.Load(),
			Readings:    c.readings.Load(),
			Undecodable: c.undecodable.Load(),
			Busy:        c.busy.Load(),
			TooLarge:    c.tooLarge.Load(),
			NotAllowed:  c.notAllowed.Load(),
			NoReading:   c.noReading.Load(),
			BadName:     c.badName.Load(),
		}
	}
	return out
}

type counters struct {
	accepted, readings, undecodable                atomic.Uint64
	busy, tooLarge, notAllowed, noReading, badName atomic.Uint64
}

func (c *counters) refuse(err error) {
	switch {
	case errors.Is(err, ErrTooLarge):
		c.tooLarge.Add(1)
	case errors.Is(err, ErrNotAllowed):
		c.notAllowed.Add(1)
	case errors.Is(err, ErrNoReading):
		c.noReading.Add(1)
	case errors.Is(err, ErrName):
		c.badName.Add(1)
	default:
		c.busy.Add(1)
	}
}
