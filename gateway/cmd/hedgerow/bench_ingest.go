package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hedgerow-iot/hedgerow/gateway"
)

type benchIngestCmd struct {
	benchFlags
	Clients int      `default:"10" aliases:"threads" help:"Clients at once."`
	Window  int      `default:"20" help:"Unacknowledged publishes per client (MQTT)."`
	Rate    int      `help:"Readings per second over all clients; 0 is as fast as they are acknowledged."`
	CoAP    bool     `name:"coap" help:"Confirmable CoAP PUT, one outstanding per client, instead of MQTT QoS 1."`
	Dir     string   `help:"Directory on the disk to use (default: the system's temporary one)."`
	Set     []string `placeholder:"KEY=VALUE" sep:"none" help:"Override a key of the configuration (repeatable)."`
}

// ingestResult is what was measured. CPU and memory are those of the whole
// process: the gateway, its proof of work and the clients.
type ingestResult struct {
	Protocol     string  `json:"protocol"`
	Clients      int     `json:"clients"`
	Window       int     `json:"window"`
	Rate         int     `json:"rate"` // asked for, 0: closed loop
	Seconds      float64 `json:"seconds"`
	Acked        uint64  `json:"acked"`
	AckedPerSec  float64 `json:"ackedPerSecond"`
	P50          float64 `json:"p50Milliseconds"`
	P99          float64 `json:"p99Milliseconds"`
	CPU          float64 `json:"cpuMicrosecondsPerReading"`
	Written      float64 `json:"bytesWrittenPerReading"`
	Resident     int64   `json:"residentBytes"`
	Attached     uint64  `json:"attached"` // by the end of the measurement
	MeanPerGroup float64 `json:"packetsPerCommit"`
}

// Run measures a gateway in this process.
func (c *benchIngestCmd) Run(e *env) error {
	if err := c.check(); err != nil {
		return err
	}
	if c.Clients < 1 || c.Clients > 1000 || c.Window < 1 || c.Window > 256 || c.Rate < 0 || c.Rate > 1_000_000 {
		return usagef("--clients takes 1 to 1000, --window 1 to 256, --rate 0 to 1000000")
	}
	if c.CoAP {
		c.Window = 1
	}
	g, remove, err := benchGateway(e, c.Dir, append([]string{
		"mqtt.limits.per_address=1000", "batching.max_age=1s", "shutdown.drain=0s",
	}, c.Set...))
	if err != nil {
		return err
	}
	defer remove()
	var result *ingestResult
	err = withGateway(e, g, func(ctx context.Context) (err error) {
		result, err = c.measure(ctx, g)
		return err
	})
	if err != nil {
		return err
	}
	return c.print(e.stdout, result)
}

// benchGateway opens a sandbox in a directory of its own, on free ports.
func benchGateway(e *env, dir string, set []string) (*gateway.Gateway, func(), error) {
	path, remove, err := scratch(dir)
	if err != nil {
		return nil, nil, err
	}
	cfg, err := sandboxConfig(path, append([]string{
		"mqtt.listen=127.0.0.1:0", "coap.listen=127.0.0.1:0", "api.listen=127.0.0.1:0", "journal.reserve=64MiB",
	}, set...))
	var g *gateway.Gateway
	if err == nil {
		log := slog.New(slog.NewTextHandler(e.stderr, &slog.HandlerOptions{Level: slog.LevelError}))
		g, err = gateway.New(cfg, log)
	}
	if err != nil {
		remove()
		return nil, nil, err
	}
	return g, remove, nil
}

// withGateway runs do beside the gateway and stops it afterwards.
func withGateway(e *env, g *gateway.Gateway, do func(context.Context) error) error {
	serve, stop := context.WithCancel(context.Background())
	defer stop()
	group, ctx := errgroup.WithContext(e.ctx)
	group.Go(func() error {
		err := g.Run(serve, e.now)
		if err == nil && serve.Err() == nil {
			err = errors.New("the gateway stopped")
		}
		return err
	})
	group.Go(func() error {
		defer stop()
		return do(ctx)
	})
	return group.Wait()
}

func (c *benchIngestCmd) measure(ctx context.Context, g *gateway.Gateway) (*ingestResult, error) {
	var l latencies
	var measuring atomic.Bool
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	group, ctx := errgroup.WithContext(ctx)
	for i := range c.Clients {
		group.Go(func() error {
			return c.client(ctx, g, i, func(d time.Duration) {
				if measuring.Load() {
					l.add(d)
				}
			})
		})
	}
	result := &ingestResult{Protocol: "mqtt", Clients: c.Clients, Window: c.Window, Rate: c.Rate}
	if c.CoAP {
		result.Protocol = "coap"
	}
	group.Go(func() error {
		defer stop()
		pause(ctx, min(time.Second, c.Duration/5)) // connections stand, caches are warm
		before, started, firstGroups := readUsage(), time.Now(), g.Stats()
		measuring.Store(true)
		pause(ctx, c.Duration)
		measuring.Store(false)
		after, st := readUsage(), g.Stats()
		seconds := time.Since(started).Seconds()
		n := float64(l.count())
		result.Seconds, result.Acked, result.AckedPerSec = per(seconds, 1), l.count(), per(n, seconds)
		result.P50, result.P99 = l.quantile(0.5), l.quantile(0.99)
		result.CPU = per(float64((after.cpu - before.cpu).Microseconds()), n)
		result.Written = per(float64(after.written-before.written), n)
		result.Resident, result.Attached = residentBytes(), st.Attached-firstGroups.Attached
		result.MeanPerGroup = per(st.Group.Sum-firstGroups.Group.Sum, float64(st.Group.Count()-firstGroups.Group.Count()))
		return nil
	})
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return nil, fmt.Errorf("client: %w", err)
	}
	return result, nil
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// client publishes until ctx ends and reports how long each acknowledgement
// took: from when the reading was due, so that a stall counts for all that it
// delays.
func (c *benchIngestCmd) client(ctx context.Context, g *gateway.Gateway, i int, took func(time.Duration)) error {
	due := c.schedule(i)
	if c.CoAP {
		return c.coapClient(ctx, g, i, due, took)
	}
	p, err := dialMQTT(ctx, addressOf(g, "mqtt"), "bench-"+strconv.Itoa(i))
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, p.close)()
	free := make(chan uint16, c.Window)
	sent := make([]atomic.Int64, c.Window+1) // by packet id: when it was due, Unix ns
	for id := range c.Window {
		free <- uint16(id + 1)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	var ackErr error
	ended := make(chan struct{})
	wg.Go(func() {
		defer close(ended)
		for {
			id, err := p.acked()
			if err != nil || int(id) > c.Window || id == 0 {
				ackErr = err
				return
			}
			took(time.Since(time.Unix(0, sent[id].Load())))
			free <- id
		}
	})
	topic := "readings/bench-" + strconv.Itoa(i) + "/count"
	for n := 0; ; n++ {
		var id uint16
		at, ok := due(ctx, n)
		if !ok {
			return nil
		}
		select {
		case id = <-free:
		case <-ended:
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("connection ended: %w", ackErr)
		}
		if c.Rate == 0 {
			at = time.Now()
		}
		sent[id].Store(at.UnixNano())
		if err := p.publish(topic, id, strconv.AppendInt(nil, int64(n), 10)); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

func (c *benchIngestCmd) coapClient(ctx context.Context, g *gateway.Gateway, i int, due func(context.Context, int) (time.Time, bool), took func(time.Duration)) error {
	cl, err := dialCoAP(addressOf(g, "coap"), uint16(i*997))
	if err != nil {
		return err
	}
	defer cl.close()
	path := []string{"readings", "bench-" + strconv.Itoa(i), "count"}
	for n := 0; ; n++ {
		at, ok := due(ctx, n)
		if !ok {
			return nil
		}
		if err := cl.put(ctx, path, strconv.AppendInt(nil, int64(n), 10)); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		took(time.Since(at))
	}
}

// schedule returns a function that waits until the n-th reading of client i is
// due and returns that time; at once in a closed loop.
func (c *benchIngestCmd) schedule(i int) func(ctx context.Context, n int) (time.Time, bool) {
	if c.Rate == 0 {
		return func(ctx context.Context, _ int) (time.Time, bool) { return time.Now(), ctx.Err() == nil }
	}
	interval := time.Duration(float64(time.Second) * float64(c.Clients) / float64(c.Rate))
	start := time.Now().Add(interval * time.Duration(i) / time.Duration(c.Clients))
	return func(ctx context.Context, n int) (time.Time, bool) {
		at := start.Add(time.Duration(n) * interval)
		if d := time.Until(at); d > 0 {
			pause(ctx, d)
		}
		return at, ctx.Err() == nil
	}
}

func (r *ingestResult) text(w io.Writer) {
	load := "closed loop, " + strconv.Itoa(r.Window) + " in flight each"
	if r.Rate > 0 {
		load = strconv.Itoa(r.Rate) + " readings/s asked for"
	}
	fmt.Fprintf(w, "ingest over %s, %d clients, %s, %.1f s\n\n", r.Protocol, r.Clients, load, r.Seconds)
	for _, row := range []struct {
		name, format string
		value        any
	}{
		{"acknowledged", "%.0f readings/s", r.AckedPerSec},
		{"latency p50", "%.2f ms", r.P50},
		{"latency p99", "%.2f ms", r.P99},
		{"packets per commit", "%.1f", r.MeanPerGroup},
		{"CPU per reading", "%.1f µs (gateway, proof of work and clients)", r.CPU},
		{"written per reading", "%.0f bytes", r.Written},
		{"resident memory", "%.1f MB", float64(r.Resident) / 1e6},
		{"attached meanwhile", "%d readings", r.Attached},
	} {
		fmt.Fprintf(w, "  %-20s "+row.format+"\n", row.name, row.value)
	}
}
