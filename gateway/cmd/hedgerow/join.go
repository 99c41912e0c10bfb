package main

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/hedgerow-iot/hedgerow/gateway"
)

type joinCmd struct {
	Config string   `required:"" placeholder:"FILE" help:"Configuration file of the gateway, which must not run."`
	Set    []string `placeholder:"KEY=VALUE" sep:"none" help:"Override a key of the configuration (repeatable; lists comma-separated)."`
	File   string   `arg:"" placeholder:"NETWORKFILE" help:"The network to join, or the next epoch of one's own."`
}

// Run makes the gateway a member of a network.
func (c *joinCmd) Run(e *env) error {
	cfg, err := gateway.Load(c.Config, c.Set)
	if err != nil {
		var problems gateway.Problems
		if errors.As(err, &problems) {
			return err
		}
		return usageError{err}
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
