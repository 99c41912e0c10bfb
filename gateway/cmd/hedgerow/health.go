package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/hedgerow-iot/hedgerow/gateway"
)

type healthCmd struct {
	target
}

// Run asks /ready; for the health check of a container, which has no shell.
func (c *healthCmd) Run(e *env) error {
	cfg, err := c.configuration()
	if err != nil {
		return err
	}
	address, running := gateway.Running(cfg)
	if !running {
		return fmt.Errorf("no gateway runs on %s", cfg.DataDir)
	}
	ctx, cancel := context.WithTimeout(e.ctx, 5*time.Second)
	defer cancel()
	cl := &client{http: http.DefaultClient, base: "http://" + address}
	resp, err := cl.get(ctx, "/ready", nil)
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.New("the gateway does not answer within 5 s")
	}
	if err != nil {
		return err
	}
	_ = resp.Body.Close()
	_, err = fmt.Fprintln(e.stdout, "ready")
	return err
}
