package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hedgerow-iot/hedgerow/gateway"
)

type demoCmd struct {
	Data     string        `placeholder:"DIR" help:"Keep the sandbox in this directory (default: a temporary one, removed at the end)."`
	Duration time.Duration `help:"Stop after this long (default: at Ctrl-C)."`
	Sensors  int           `default:"8" help:"Simulated sensors; every second one speaks CoAP."`
	Interval time.Duration `default:"1s" help:"Time between the readings of a sensor."`
	JSON     bool          `name:"json" help:"Print progress as one JSON object per line."`
	Set      []string      `placeholder:"KEY=VALUE" sep:"none" help:"Override a key of the configuration (repeatable)."`
}

// Run runs a sandbox and its sensors.
func (c *demoCmd) Run(e *env) (err error) {
	if c.Sensors < 1 || c.Sensors > 1000 || c.Interval < time.Millisecond {
		return usagef("--sensors takes 1 to 1000, --interval 1ms or more")
	}
	dir := c.Data
	if dir == "" {
		if dir, err = os.MkdirTemp("", "hedgerow-demo-"); err != nil {
			return err
		}
		defer os.RemoveAll(dir) //nolint:errcheck // a temporary directory
	}
	cfg, err := sandboxConfig(dir, c.Set)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(e.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	g, err := gateway.New(cfg, log)
	if err != nil {
		return err
	}
	if !c.JSON {
		printSandbox(e.stdout, g)
		fmt.Fprintln(e.stdout)
	}
	ctx, stop := context.WithCancel(e.ctx)
	defer stop()
	if c.Duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.Duration)
		defer cancel()
	}
	return c.run(ctx, e, g)
}

// run ends the sensors first, so that each has its answer, then the gateway.
func (c *demoCmd) run(ctx context.Context, e *env, g *gateway.Gateway) error {
	serve, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	started := time.Now()
	var sent counts
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		err := g.Run(serve, e.now)
		if ctx.Err() == nil {
			return errors.Join(err, errors.New("the gateway stopped"))
		}
		return err
	})
	group.Go(func() error {
		defer stop()
		sensors, ctx := errgroup.WithContext(ctx)
		for i := range c.Sensors {
			sensors.Go(func() error { return c.sensor(ctx, g, i, &sent) })
		}
		sensors.Go(func() error { return c.progress(ctx, e, g, started) })
		err := sensors.Wait()
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			err = nil
		}
		return err
	})
	err := group.Wait()
	switch {
	case err != nil:
		return err
	case c.JSON: // what the drain has still attached
		return json.NewEncoder(e.stdout).Encode(progressOf(g, started))
	}
	_, err = fmt.Fprintf(e.stdout, "%d readings sent, %d acknowledged, %d attached\n", sent.sent.Load(), sent.acked.Load(), g.Stats().Attached)
	return err
}

// counts are what the sensors saw.
type counts struct{ sent, acked atomic.Uint64 }

// sensor reports a value that wanders, until ctx ends.
func (c *demoCmd) sensor(ctx context.Context, g *gateway.Gateway, i int, n *counts) error {
	kinds := []string{"temperature", "humidity", "pressure", "soil"}
	device, name := "sensor-"+strconv.Itoa(i+1), kinds[i%len(kinds)]
	report, closeFn, err := connect(ctx, g, device, i%2 == 1)
	if err != nil {
		return fmt.Errorf("%s: %w", device, err)
	}
	defer closeFn()
	value := 15 + 10*rand.Float64()
	tick := time.NewTicker(c.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		value += rand.NormFloat64() / 10
		n.sent.Add(1)
		if err := report(name, strconv.AppendFloat(nil, math.Round(value*100)/100, 'f', -1, 64)); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("%s: %w", device, err)
		}
		n.acked.Add(1)
	}
}

// connect returns a function that reports one reading and returns when it is
// acknowledged.
func connect(ctx context.Context, g *gateway.Gateway, device string, coap bool) (report func(name string, value []byte) error, closeFn func(), err error) {
	if address := addressOf(g, "coap"); coap && address != "" {
		cl, err := dialCoAP(address, uint16(rand.Uint32()))
		if err != nil {
			return nil, nil, err
		}
		return func(name string, value []byte) error {
			// Not cut off by ctx: a reading that is on its way is answered.
			return cl.put(context.WithoutCancel(ctx), []string{"readings", device, name}, value)
		}, cl.close, nil
	}
	p, err := dialMQTT(ctx, addressOf(g, "mqtt"), device)
	if err != nil {
		return nil, nil, err
	}
	id := uint16(0)
	return func(name string, value []byte) error {
		id = id%0xffff + 1
		if err := p.publish("readings/"+device+"/"+name, id, value); err != nil {
			return err
		}
		_ = p.conn.SetReadDeadline(time.Now().Add(30 * time.Second))
		_, err := p.acked()
		return err
	}, p.close, nil
}

// addressOf returns the first address of a protocol as one to connect to.
func addressOf(g *gateway.Gateway, protocol string) string {
	for _, l := range g.Listeners() {
		if host, port, err := net.SplitHostPort(l.Address); err == nil && l.Protocol == protocol {
			if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
				host = "127.0.0.1"
			}
			return net.JoinHostPort(host, port)
		}
	}
	return ""
}

// demoProgress is one line of progress.
type demoProgress struct {
	Seconds  float64 `json:"seconds"`
	Stored   uint64  `json:"stored"`   // readings on stable storage
	Batched  uint64  `json:"batched"`  // of them in a sealed batch
	Attached uint64  `json:"attached"` // of them in a block
	Blocks   uint64  `json:"blocks"`
}

func progressOf(g *gateway.Gateway, started time.Time) demoProgress {
	st := g.Stats()
	return demoProgress{
		Seconds: math.Round(time.Since(started).Seconds()*10) / 10, Stored: st.Acked, Attached: st.Attached,
		Batched: st.Attached + st.Backlog.Batched, Blocks: st.Batches,
	}
}

// progress shows how far the readings are until ctx ends.
func (c *demoCmd) progress(ctx context.Context, e *env, g *gateway.Gateway, started time.Time) error {
	every := 2 * time.Second
	live := !c.JSON && isTerminal(e.stdout)
	if live {
		every = 250 * time.Millisecond
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			if live {
				fmt.Fprintln(e.stdout)
			}
			return nil
		case <-tick.C:
		}
		p := progressOf(g, started)
		if c.JSON {
			if err := json.NewEncoder(e.stdout).Encode(p); err != nil {
				return err
			}
			continue
		}
		p.print(e.stdout, live)
	}
}

func (p demoProgress) print(w io.Writer, live bool) {
	lead, end, on, off := "", "\n", "", ""
	if live {
		lead, end = "\r\x1b[K", ""
	}
	if colour(w) {
		on, off = "\x1b[32m", "\x1b[0m"
	}
	fmt.Fprintf(w, "%s%6.1f s  stored %d  batched %d  %sattached %d%s  blocks %d%s",
		lead, p.Seconds, p.Stored, p.Batched, on, p.Attached, off, p.Blocks, end)
}
