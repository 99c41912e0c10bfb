package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"

	"github.com/hedgerow-iot/hedgerow/gateway"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

type joinCmd struct {
	Config string   `required:"" placeholder:"FILE" help:"Configuration file of the gateway. While it runs it takes the next epoch of its own network, for all members; another network only while it is stopped."`
	Set    []string `placeholder:"KEY=VALUE" sep:"none" help:"Override a key of the configuration (repeatable; lists comma-separated)."`
	File   string   `arg:"" placeholder:"NETWORKFILE" help:"The network to join, or the next epoch of one's own."`
}

// Run makes the gateway a member of a network, or hands the next epoch of its
// own to the gateway that runs.
func (c *joinCmd) Run(e *env) error {
	cfg, err := gateway.Load(c.Config, c.Set)
	if err != nil {
		var problems gateway.Problems
		if errors.As(err, &problems) {
			return err
		}
		return usageError{err}
	}
	if address, running := gateway.Running(cfg); running {
		return c.propose(e, cfg, address)
	}
	log := slog.New(slog.NewTextHandler(e.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	j, err := gateway.Join(cfg, c.File, log)
	if err != nil {
		return err
	}
	switch {
	case j.Already:
		_, err = fmt.Fprintf(e.stdout, "%s is in this network already: %v\n", cfg.Name, j)
	case j.Archive != "":
		_, err = fmt.Fprintf(e.stdout, "%s is a member of: %v\nThe chain it had alone is in %s, read only; readings in no block yet go to the new one.\n", cfg.Name, j, j.Archive)
	default:
		_, err = fmt.Fprintf(e.stdout, "%s is a member of: %v\n", cfg.Name, j)
	}
	return err
}

// propose hands the file to the running gateway, which puts it before the
// members.
func (c *joinCmd) propose(e *env, cfg gateway.Config, address string) error {
	f, err := network.Load(c.File)
	if err != nil {
		return err
	}
	text, err := json.Marshal(f)
	if err != nil {
		return err
	}
	gw, err := clientOf(cfg, address)
	if err != nil {
		return err
	}
	var answer struct{ Network, State, Block, Next string }
	if err := gw.post(e.ctx, "/api/hedgerow/v1/network", text, &answer); err != nil {
		return fmt.Errorf("%s runs and does not take %s: %w (to join another network, stop it first)", cfg.Name, c.File, err)
	}
	if answer.State == "inForce" {
		_, err = fmt.Fprintf(e.stdout, "epoch %d of %s is in force at %s already\n", f.Epoch, f.NetworkName, cfg.Name)
		return err
	}
	_, err = fmt.Fprintf(e.stdout, "epoch %d of %s is attached as block %s: %s\n", f.Epoch, f.NetworkName, answer.Block, answer.Next)
	return err
}
