package peer_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// How long a block takes from being attached at one gateway to being stored at
// another: one that is alone, one of a stream, and one of bunches as votes come in.
func BenchmarkHop(b *testing.B) {
	for _, flow := range []struct {
		name  string
		every time.Duration
		from  int // gateways that attach about at once
	}{
		{"lone", 200 * time.Millisecond, 1},
		{"every 50 ms", 50 * time.Millisecond, 1},
		{"every 25 ms", 25 * time.Millisecond, 1},
		{"every 10 ms", 10 * time.Millisecond, 1},
		{"every 3 ms", 3 * time.Millisecond, 1},
		{"3 every 100 ms", 100 * time.Millisecond, 3},
		{"9 every 100 ms", 100 * time.Millisecond, 9},
	} {
		b.Run(flow.name, func(b *testing.B) { hop(b, flow.every, flow.from) })
	}
}

func hop(b *testing.B, every time.Duration, from int) {
	names := []string{"to"}
	for i := range from {
		names = append(names, fmt.Sprint("from", i))
	}
	s := newSite(b, names...)
	to := s.fresh("to")
	var all []*gateway
	for _, name := range names[1:] {
		all = append(all, s.fresh(name))
	}
	for _, g := range all {
		eventually(b, "they have met", func() bool { return to.seen(g.name).Up && g.seen("to").Up })
	}
	took := make(chan time.Duration, 100_000)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for i := 0; b.Loop(); i++ {
		<-tick.C
		for _, g := range all {
			delay := rand.N(2 * time.Millisecond) // as far as followers are apart
			go func() {
				time.Sleep(delay)
				block := &stardust.Block{
					Version: stardust.ProtocolVersion, Parents: []stardust.BlockID{stardust.GenesisID},
					Payload: &stardust.TaggedData{Tag: []byte(g.name), Data: fmt.Append(nil, i)},
				}
				id, err := g.Attach(b.Context(), block, nil)
				if err != nil {
					b.Error(err)
				}
				attached := time.Now()
				for known := false; !known; known, _ = to.Has(id) {
					time.Sleep(200 * time.Microsecond)
				}
				took <- time.Since(attached)
			}()
		}
	}
	var sorted []time.Duration
	for range b.N * from {
		sorted = append(sorted, <-took)
	}
	slices.Sort(sorted)
	ms := func(q float64) float64 {
		return float64(sorted[int(q*float64(len(sorted)-1))].Microseconds()) / 1000
	}
	b.ReportMetric(ms(0.5), "p50-ms")
	b.ReportMetric(ms(0.95), "p95-ms")
	b.ReportMetric(0, "ns/op")
}
