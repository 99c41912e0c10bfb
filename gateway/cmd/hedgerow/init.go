package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/hedgerow-iot/hedgerow/gateway"
)

type initCmd struct {
	Dir            string `default:"." help:"Directory for the files."`
	Name           string `help:"Name of this gateway in its network (default: the host's name)."`
	NonInteractive bool   `help:"Ask nothing; to be given, as this version has no questions."`
}

// Run writes the files and says how to go on.
func (c *initCmd) Run(e *env) error {
	if !c.NonInteractive {
		return usagef("this version asks nothing yet; say --non-interactive")
	}
	name := c.Name
	if name == "" {
		host, err := os.Hostname()
		if err != nil {
			return usagef("the host has no name (%w); say --name", err)
		}
		name = host
	}
	made, err := gateway.Init(c.Dir, name)
	for _, path := range made {
		fmt.Fprintln(e.stdout, "made", path)
	}
	if err != nil {
		return err
	}
	config := filepath.Join(c.Dir, "hedgerow.yaml")
	_, err = fmt.Fprintf(e.stdout, "\nStart it:\n  hedgerow run --config %s\n"+
		"To be in a network with others, give %s to whoever runs hedgerow network create or add.\n",
		config, filepath.Join(c.Dir, "identity.pub"))
	return err
}
