package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/batching/reading"
	"github.com/hedgerow-iot/hedgerow/gateway"
	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
	"github.com/hedgerow-iot/hedgerow/ledger/store"
)

type benchAttachCmd struct {
	benchFlags
	Threads int    `default:"8" help:"Senders at once to the ledger alone."`
	Dir     string `help:"Directory on the disk to use (default: the system's temporary one)."`
}

// attachResult holds the two halves of the measurement.
type attachResult struct {
	Pipeline pipelineResult `json:"pipeline"` // readings that are there, sealed, proven and attached
	Ledger   ledgerResult   `json:"ledger"`   // ready blocks without proof of work
}

type pipelineResult struct {
	Seconds        float64 `json:"seconds"`
	Readings       uint64  `json:"readings"`
	Blocks         uint64  `json:"blocks"`
	ReadingsPerSec float64 `json:"readingsPerSecond"`
	BlocksPerSec   float64 `json:"blocksPerSecond"`
	CPU            float64 `json:"cpuMicrosecondsPerReading"`
	Written        float64 `json:"bytesWrittenPerReading"`
}

type ledgerResult struct {
	Threads      int     `json:"threads"`
	Seconds      float64 `json:"seconds"`
	Blocks       uint64  `json:"blocks"`
	BlocksPerSec float64 `json:"blocksPerSecond"`
	P50          float64 `json:"p50Milliseconds"`
	P99          float64 `json:"p99Milliseconds"`
	Written      float64 `json:"bytesWrittenPerBlock"`
}

// Run measures both halves, each for half of the duration.
func (c *benchAttachCmd) Run(e *env) error {
	if err := c.check(); err != nil {
		return err
	}
	if c.Threads < 1 || c.Threads > 1000 {
		return usagef("--threads takes 1 to 1000")
	}
	var result attachResult
	g, remove, err := benchGateway(e, c.Dir, []string{"shutdown.drain=0s", "mqtt.listen=", "coap.listen="})
	if err != nil {
		return err
	}
	defer remove()
	err = withGateway(e, g, func(ctx context.Context) (err error) {
		result.Pipeline, err = measurePipeline(ctx, g, c.Duration/2)
		return err
	})
	if err != nil {
		return err
	}
	if result.Ledger, err = c.measureLedger(e); err != nil {
		return fmt.Errorf("measure the ledger: %w", err)
	}
	return c.print(e.stdout, &result)
}

// backlog is how many readings are kept waiting, so that batches are full.
const backlog = 20_000

// measurePipeline keeps readings waiting and counts what becomes of them.
func measurePipeline(ctx context.Context, g *gateway.Gateway, d time.Duration) (r pipelineResult, err error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	before, first, started := readUsage(), g.Stats(), time.Now()
	for n := int64(0); ctx.Err() == nil; {
		st := g.Stats()
		if st.Backlog.Stored+st.Backlog.Batched > backlog {
			pause(ctx, 5*time.Millisecond)
			continue
		}
		var last *batching.Receipt
		for range 1000 {
			n++
			rd := reading.Reading{
				Device: "bench-" + strconv.FormatInt(n%50, 10), Name: "temperature",
				Value: reading.Int(n % 1000), Unit: "Cel", Source: reading.SourceMQTT,
			}
			rc, err := g.Submit(batching.Submission{Packet: batching.Packet{Readings: []reading.Reading{rd}}})
			if errors.Is(err, batching.ErrBusy) {
				break
			}
			if err != nil {
				return r, err
			}
			last = rc
		}
		if last != nil {
			<-last.Done()
			if err := last.Err(); err != nil && !errors.Is(err, batching.ErrBusy) {
				return r, err
			}
		}
	}
	after, st, seconds := readUsage(), g.Stats(), time.Since(started).Seconds()
	r.Seconds, r.Readings, r.Blocks = per(seconds, 1), st.Attached-first.Attached, st.Batches-first.Batches
	r.ReadingsPerSec, r.BlocksPerSec = per(float64(r.Readings), seconds), per(float64(r.Blocks), seconds)
	r.CPU = per(float64((after.cpu - before.cpu).Microseconds()), float64(r.Readings))
	r.Written = per(float64(after.written-before.written), float64(r.Readings))
	return r, nil
}

// measureLedger attaches small blocks to a ledger of its own.
func (c *benchAttachCmd) measureLedger(e *env) (r ledgerResult, err error) {
	dir, remove, err := scratch(c.Dir)
	if err != nil {
		return r, err
	}
	defer remove()
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		return r, err
	}
	f := network.NewOfOne("bench", "bench", public)
	f.MinPoWScore = 0
	s, err := store.Open(filepath.Join(dir, "ledger"), store.Options{Reserve: 64 << 20})
	if err != nil {
		return r, err
	}
	l, err := ledger.New(ledger.Config{Network: f}, s)
	if err != nil {
		return r, errors.Join(err, s.Close())
	}
	run, stop := context.WithCancel(context.Background())
	defer stop()
	var g errgroup.Group
	g.Go(func() error { return l.Run(run) })
	r, err = c.attachBlocks(e.ctx, l)
	stop()
	return r, errors.Join(err, g.Wait(), s.Close())
}

func (c *benchAttachCmd) attachBlocks(ctx context.Context, l *ledger.Ledger) (r ledgerResult, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.Duration/2)
	defer cancel()
	var lat latencies
	before, started := readUsage(), time.Now()
	var g errgroup.Group
	for i := range c.Threads {
		g.Go(func() error {
			for n := uint64(0); ctx.Err() == nil; n++ {
				at := time.Now()
				data := fmt.Appendf(nil, "%d %d", i, n)
				b := &stardust.Block{Version: stardust.ProtocolVersion, Parents: l.Tips(), Payload: &stardust.TaggedData{Tag: []byte("bench"), Data: data}}
				_, err := l.Attach(context.WithoutCancel(ctx), b, nil)
				if errors.Is(err, ledger.ErrBusy) {
					continue
				}
				if err != nil {
					return err
				}
				lat.add(time.Since(at))
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return r, err
	}
	after, seconds := readUsage(), time.Since(started).Seconds()
	n := float64(lat.count())
	return ledgerResult{
		Threads: c.Threads, Seconds: per(seconds, 1), Blocks: lat.count(), BlocksPerSec: per(n, seconds),
		P50: lat.quantile(0.5), P99: lat.quantile(0.99), Written: per(float64(after.written-before.written), n),
	}, nil
}

func (r *attachResult) text(w io.Writer) {
	p, l := r.Pipeline, r.Ledger
	fmt.Fprintf(w, "sealed, proven and attached, %.1f s\n\n", p.Seconds)
	fmt.Fprintf(w, "  readings             %.0f/s\n  blocks               %.1f/s\n", p.ReadingsPerSec, p.BlocksPerSec)
	fmt.Fprintf(w, "  CPU per reading      %.1f µs\n  written per reading  %.0f bytes\n\n", p.CPU, p.Written)
	fmt.Fprintf(w, "ledger alone, without proof of work, %d senders, %.1f s\n\n", l.Threads, l.Seconds)
	fmt.Fprintf(w, "  blocks               %.0f/s\n  latency p50          %.2f ms\n  latency p99          %.2f ms\n  written per block    %.0f bytes\n",
		l.BlocksPerSec, l.P50, l.P99, l.Written)
}
