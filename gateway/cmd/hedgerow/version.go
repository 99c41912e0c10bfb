package main

import (
	"encoding/json"
	"fmt"

	"github.com/hedgerow-iot/hedgerow/gateway"
)

type versionCmd struct {
	JSON bool `name:"json" help:"Print JSON."`
}

// Run prints what this program was built from.
func (c *versionCmd) Run(e *env) error {
	b := gateway.ReadBuild()
	if c.JSON {
		return json.NewEncoder(e.stdout).Encode(b)
	}
	_, err := fmt.Fprintf(e.stdout, "hedgerow %s\ncommit %s\n%s\nstore format %s\n", b.Version, b.Commit, b.Go, b.StoreFormat)
	return err
}
