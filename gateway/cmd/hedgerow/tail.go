package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/hedgerow-iot/hedgerow/gateway"
)

type tailCmd struct {
	target
	Device string `arg:"" optional:"" help:"Only of this device."`
	JSON   bool   `name:"json" help:"Print one JSON object per line."`
}

const (
	eventsPath   = "/api/hedgerow/v1/events"
	maxEventLine = 1 << 20
	tailRetry    = time.Second // before a stream that ended is asked for again
)

// Run prints the readings of a running gateway as they are stored, until it is
// interrupted or the gateway stops.
func (c *tailCmd) Run(e *env) error {
	cfg, err := c.configuration()
	if err != nil {
		return err
	}
	if _, running := gateway.Running(cfg); !running {
		return fmt.Errorf("no gateway runs on %s; start it, or see hedgerow readings list", cfg.DataDir)
	}
	cl, err := c.open(e)
	if err != nil {
		return err
	}
	defer cl.close() //nolint:errcheck // only read
	t := &tail{device: c.Device, json: c.JSON, out: e.stdout, notes: e.stderr}
	for {
		if err := t.follow(e.ctx, cl); e.ctx.Err() != nil {
			return nil
		} else if err != nil {
			return err
		}
		select {
		case <-time.After(tailRetry):
		case <-e.ctx.Done():
			return nil
		}
		if _, running := gateway.Running(cfg); !running {
			return errors.New("the gateway has stopped")
		}
	}
}

// A tail prints the readings of a stream of events.
type tail struct {
	device     string // "": all
	json       bool
	out, notes io.Writer
	last       string // id of the last event
}

// follow prints what comes until the stream breaks off, and then returns nil.
func (t *tail) follow(ctx context.Context, cl *client) error {
	resp, err := cl.getBehind(ctx, eventsPath, url.Values{"types": {"reading"}}, t.last)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxEventLine)
	name := ""
	for lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ": ")
		switch field {
		case "id":
			t.last = value
		case "event":
			name = value
		case "data":
			if err := t.print(name, value); err != nil {
				return err
			}
		}
	}
	return nil // a connection that breaks is made again
}

// print prints one event.
func (t *tail) print(name, data string) error {
	if name == "missed" {
		var m struct{ Events uint64 }
		_ = json.Unmarshal([]byte(data), &m) // not to know the number is no fault
		note := "some readings"
		if m.Events > 0 {
			note = "up to " + count(m.Events, "reading")
		}
		fmt.Fprintln(t.notes, note+" came too fast to be shown; hedgerow readings list has them")
		return nil
	}
	var it readingItem
	if err := json.Unmarshal([]byte(data), &it); err != nil {
		return fmt.Errorf("read the gateway's answer: %w", err)
	}
	if t.device != "" && it.Device != t.device {
		return nil
	}
	if t.json {
		_, err := fmt.Fprintln(t.out, data)
		return err
	}
	value := shortValue(it.Value)
	if it.Error != "" {
		value += " (undecodable)"
	}
	_, err := fmt.Fprintf(t.out, "%s  %s  %s  %s  %s\n", it.Received.Local().Format("15:04:05.000"),
		it.ID, plain(it.Device), plain(it.Name), strings.TrimSpace(value+" "+plain(it.Unit)))
	return err
}
