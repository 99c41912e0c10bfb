package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// A bar shows progress on one line of a terminal. One goroutine uses it.
type bar struct {
	w       io.Writer
	what    string
	bytes   bool  // n counts bytes, not readings
	total   int64 // 0: unknown
	n       int64
	started time.Time
	drawn   time.Time
}

func newBar(w io.Writer, what string, total int64) *bar {
	return &bar{w: w, what: what, total: total, started: time.Now()}
}

// set draws the state n, ten times a second at most.
func (b *bar) set(n int64) {
	b.n = n
	if now := time.Now(); now.Sub(b.drawn) >= 100*time.Millisecond {
		b.drawn = now
		b.draw()
	}
}

func (b *bar) draw() {
	rate := float64(b.n) / max(time.Since(b.started).Seconds(), 0.001)
	much := fmt.Sprintf("%d readings, %.0f/s", b.n, rate)
	if b.bytes {
		const mib = 1 << 20
		much = fmt.Sprintf("%.1f MiB, %.1f MiB/s", float64(b.n)/mib, rate/mib)
	}
	if b.total <= 0 {
		fmt.Fprintf(b.w, "\r\x1b[K%s %s", b.what, much)
		return
	}
	const width = 30
	part := min(1, float64(b.n)/float64(b.total))
	full := int(part * width)
	fmt.Fprintf(b.w, "\r\x1b[K%s [%s%s] %3.0f%% %s", b.what,
		strings.Repeat("#", full), strings.Repeat(".", width-full), part*100, much)
}

// done draws the last state and leaves the line.
func (b *bar) done() {
	b.draw()
	fmt.Fprintln(b.w)
}
