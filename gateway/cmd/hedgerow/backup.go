package main

import (
	"fmt"
	"log/slog"
	"os"
	"strconv"

	"github.com/hedgerow-iot/hedgerow/gateway"
)

type backupCmd struct {
	target
	File string `arg:"" help:"File to write; an older backup there is replaced once the new one is whole."`
}

// Help says what a backup is good for.
func (backupCmd) Help() string {
	return "The file holds the readings, the ledger, the network files and the configuration. " +
		"It holds no identity key and no admin token: keep a copy of the key elsewhere, a restore wants it."
}

// Run has the gateway write a backup.
func (c *backupCmd) Run(e *env) error {
	client, err := c.open(e)
	if err != nil {
		return err
	}
	defer client.close() //nolint:errcheck // nothing was written
	resp, err := client.get(e.ctx, "/api/hedgerow/v1/backup", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	size, _ := strconv.ParseInt(resp.Header.Get("Hedgerow-Backup-Size"), 10, 64)
	progress := e.steps(size)
	h, err := gateway.SaveBackup(c.File, resp.Body, func(n int64) { progress.set("copying", n) })
	progress.end()
	if err != nil {
		return err
	}
	info, err := os.Stat(c.File)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.stdout, "%s is a backup of gateway %s in network %s: %d bytes, checked\n"+
		"The identity key is not in it; keep a copy of that apart from it.\n", c.File, h.Gateway, h.Network, info.Size())
	return err
}

type restoreCmd struct {
	target
	Force bool   `hidden:""`
	File  string `arg:"" help:"Backup to restore."`
}

// Help says what is wanted before, and what comes after.
func (restoreCmd) Help() string {
	return "The gateway must not run, its data directory must be empty, and its identity key and configuration must be in place: " +
		"tar -xf FILE hedgerow.yaml gets the latter. The backup is verified before anything is written. " +
		"Never restore beside a gateway that still runs with the same key: the two would vote against each other."
}

// Run restores a backup.
func (c *restoreCmd) Run(e *env) error {
	if c.Force {
		return usagef("there is no --force: a restore replaces nothing; move the data directory away, and restore into an empty one")
	}
	cfg, err := c.configuration()
	if err != nil {
		return err
	}
	if _, running := gateway.Running(cfg); running {
		return fmt.Errorf("a gateway runs on %s; a backup is restored into an empty data directory that nobody uses", cfg.DataDir)
	}
	var size int64
	if info, err := os.Stat(c.File); err == nil {
		size = info.Size()
	}
	log := slog.New(slog.NewTextHandler(e.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	progress := e.steps(size)
	r, err := gateway.Restore(e.ctx, cfg, c.File, log, progress.set)
	progress.end()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.stdout, "restored gateway %s of network %s as of %s: %d readings, %d blocks, both stores checked\n%s\n",
		r.Gateway, r.Network, r.Created.Format("2006-01-02 15:04:05 MST"), r.Readings, r.Blocks, r.Next)
	return err
}

// steps shows how far each step of something long has come, if somebody
// watches.
type steps struct {
	e     *env
	total int64
	step  string
	bar   *bar // nil: nobody watches, or nothing was shown yet
}

func (e *env) steps(total int64) *steps { return &steps{e: e, total: total} }

// set shows the bytes of a step.
func (s *steps) set(step string, n int64) {
	if !isTerminal(s.e.stderr) {
		return
	}
	if step != s.step {
		s.end()
		s.step, s.bar = step, newBar(s.e.stderr, step, s.total)
		s.bar.bytes = true
	}
	s.bar.set(n)
}

// end leaves the line.
func (s *steps) end() {
	if s.bar != nil {
		s.bar.done()
		s.bar = nil
	}
}
