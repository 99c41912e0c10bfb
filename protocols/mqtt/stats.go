package mqtt

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

// Stats says what the broker did since it was made.
type Stats struct {
	Connections   int    // open now
	Guests        int    // of them, on the public path for events
	Sessions      int    // connected and remembered clients, now
	Subscriptions int    // now
	Retained      int    // retained messages now, the broker's own not counted
	Accepted      uint64 // connections
	Surplus       uint64 // connections closed or refused at once: too many, in total, per address or sessions
	Denied        uint64 // connections refused by the registry, or for their will or client id
	Unconnected   uint64 // connections that ended without a complete CONNECT
	Oversized     uint64 // CONNECT packets, and packets of guests, above their limit
	Panics        uint64 // panics of the library; those over a connection ended it
	SlowCloses    uint64 // connections closed because a write took too long
	SlowSkips     uint64 // deliveries left out because the subscriber did not read
	Published     uint64 // PUBLISH packets taken in
	Mapped        uint64 // of them on mapped topics
	Acked         uint64 // PUBACK and PUBREC that said success
	Redelivered   uint64 // PUBLISH packets of QoS 1 with DUP: the sink knows which were stored before
	Duplicates    uint64 // PUBLISH packets of QoS 2 whose packet id was still open
	Busy          uint64 // mapped messages not stored now: answered 0x97, or the connection closed
	Refused       uint64 // messages never to be stored or forwarded: answered an error, or the connection closed
	Wills         uint64 // will messages published
	Unretained    uint64 // messages not retained because the limit was reached
	Events        uint64 // events that somebody wanted
	LostEvents    uint64 // of them, those dropped because more came than could be delivered
}

type counters struct {
	accepted, surplus, denied, unconnected, oversized, panics, slowCloses, slowSkips atomic.Uint64
	published, mapped, acked, redelivered, duplicates, busy, refused                 atomic.Uint64
	wills, unretained, events, lostEvents                                            atomic.Uint64
}

// Stats returns the counts; it may be called at any time.
func (b *Broker) Stats() Stats {
	b.mu.Lock()
	open, guests := len(b.conns), b.guests
	b.mu.Unlock()
	c := &b.counts
	return Stats{
		Connections:   open,
		Guests:        guests,
		Sessions:      b.server.Clients.Len(),
		Subscriptions: int(max(0, atomic.LoadInt64(&b.server.Info.Subscriptions))),
		Retained:      b.retained.len(),
		Accepted:      c.accepted.Load(),
		Surplus:       c.surplus.Load(),
		Denied:        c.denied.Load(),
		Unconnected:   c.unconnected.Load(),
		Oversized:     c.oversized.Load(),
		Panics:        c.panics.Load(),
		SlowCloses:    c.slowCloses.Load(),
		SlowSkips:     c.slowSkips.Load(),
		Published:     c.published.Load(),
		Mapped:        c.mapped.Load(),
		Acked:         c.acked.Load(),
		Redelivered:   c.redelivered.Load(),
		Duplicates:    c.duplicates.Load(),
		Busy:          c.busy.Load(),
		Refused:       c.refused.Load(),
		Wills:         c.wills.Load(),
		Unretained:    c.unretained.Load(),
		Events:        c.events.Load(),
		LostEvents:    c.lostEvents.Load(),
	}
}

// quiet carries the library's log. A hostile client can make the library warn
// at will, so its warnings are our debug lines and its errors our warnings;
// attributes that hold whole packets, and with them payloads, are left out.
type quiet struct{ inner slog.Handler }

func lower(l slog.Level) slog.Level {
	if l >= slog.LevelError {
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

// Enabled is false below warnings, whose arguments cost more than they tell.
func (q quiet) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && q.inner.Enabled(ctx, lower(l))
}

func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	out := slog.NewRecord(r.Time, lower(r.Level), named(r.Message), r.PC)
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "packet", "pk", "will":
		default:
			out.AddAttrs(a)
		}
		return true
	})
	return q.inner.Handle(ctx, out)
}

// named names the library's records that have no text of their own.
func named(s string) string {
	if s == "" {
		return "mqtt connection ended"
	}
	return s
}

func (q quiet) WithAttrs(as []slog.Attr) slog.Handler { return quiet{q.inner.WithAttrs(as)} }
func (q quiet) WithGroup(name string) slog.Handler    { return quiet{q.inner.WithGroup(name)} }

// A limiter lets one log line through per interval, so that refused clients
// cannot fill the log.
type limiter struct {
	every      time.Duration
	next       atomic.Int64 // Unix nanoseconds
	suppressed atomic.Uint64
}

// allow reports whether a line may be written and how many were not since the
// last one.
func (l *limiter) allow() (left uint64, ok bool) {
	now, next := time.Now().UnixNano(), l.next.Load()
	if now < next || !l.next.CompareAndSwap(next, now+int64(l.every)) {
		l.suppressed.Add(1)
		return 0, false
	}
	return l.suppressed.Swap(0), true
}
