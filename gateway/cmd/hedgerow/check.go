package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/hedgerow-iot/hedgerow/gateway"
)

type checkCmd struct {
	Config string   `required:"" placeholder:"FILE" help:"Configuration file."`
	Set    []string `placeholder:"KEY=VALUE" sep:"none" help:"Override a key of the file (repeatable; lists comma-separated)."`
	JSON   bool     `name:"json" help:"Print JSON."`
}

// Run validates the file and what it names; no store is opened.
func (c *checkCmd) Run(e *env) error {
	err := gateway.Check(c.Config, c.Set)
	var problems gateway.Problems
	switch {
	case err != nil && !errors.As(err, &problems):
		return usageError{err}
	case !c.JSON && err == nil:
		for _, text := range c.cautions() {
			fmt.Fprintf(e.stderr, "%s: warning: %s\n", c.Config, text)
		}
		_, err := fmt.Fprintf(e.stdout, "%s is valid\n", c.Config)
		return err
	case !c.JSON:
		return problems
	}
	out := make([]problemJSON, 0, len(problems))
	for _, p := range problems {
		out = append(out, problemJSON(p))
	}
	if jsonErr := json.NewEncoder(e.stdout).Encode(map[string]any{"valid": err == nil, "problems": out, "warnings": c.cautions()}); jsonErr != nil {
		return jsonErr
	}
	if err != nil {
		return printed{err}
	}
	return nil
}

// cautions are what a valid configuration is unlikely to mean.
func (c *checkCmd) cautions() []string {
	cfg, err := gateway.Load(c.Config, c.Set)
	if err != nil {
		return []string{}
	}
	return append([]string{}, gateway.Cautions(cfg)...)
}

// problemJSON is a problem as `check --json` prints it.
type problemJSON struct {
	File   string `json:"file"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
	Key    string `json:"key,omitempty"`
	Text   string `json:"text"`
}
