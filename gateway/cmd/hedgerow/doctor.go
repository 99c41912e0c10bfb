package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"github.com/hedgerow-iot/hedgerow/gateway"
)

type doctorCmd struct {
	target
	Repair bool `help:"First repair what can be without losing anything that was acknowledged; the gateway must not run."`
	Again  bool `name:"vote-again" help:"First end a milestone conflict, after finding out that the milestones of this gateway are the right ones; the gateway must not run."`
	JSON   bool `name:"json" help:"Print a JSON list."`
}

// Run examines what the gateway stands on.
func (c *doctorCmd) Run(e *env) error {
	cfg, err := c.configuration()
	if err != nil {
		var problems gateway.Problems
		if !errors.As(err, &problems) { // it could not be read
			return err
		}
		return c.print(e, []gateway.Finding{gateway.Misconfigured(c.Config, problems)})
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	d := &gateway.Doctor{Config: cfg, File: c.Config, Self: func(ctx context.Context, args ...string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, self, append([]string{"fsck"}, args...)...)
		cmd.Args[0] = os.Args[0]
		return cmd
	}}
	var findings []gateway.Finding
	if c.Repair {
		findings = d.Repair(e.ctx)
	}
	if c.Again {
		findings = append(findings, d.VoteAgain()...)
	}
	findings = append(findings, d.Examine(e.ctx)...)
	return c.print(e, findings)
}

// print prints the findings and returns the error whose exit code they mean.
func (c *doctorCmd) print(e *env, findings []gateway.Finding) error {
	var err error
	if c.JSON {
		enc := json.NewEncoder(e.stdout)
		enc.SetIndent("", "  ")
		err = enc.Encode(findings)
	} else {
		err = printFindings(e.stdout, findings, colour(e.stdout))
	}
	if err != nil {
		return err
	}
	bad, misconfigured, store := 0, false, false
	for _, f := range findings {
		if f.Verdict == gateway.VerdictBad {
			bad++
			misconfigured = misconfigured || f.Check == "configuration"
			store = store || f.Store
		}
	}
	switch {
	case store:
		return printed{gateway.ErrStore}
	case misconfigured:
		return usageError{printed{errors.New("the configuration is invalid")}}
	case bad > 0:
		return printed{fmt.Errorf("%d checks are bad", bad)}
	}
	return nil
}

// printFindings prints a line for each finding, and one below it that says
// what to do.
func printFindings(w io.Writer, findings []gateway.Finding, colours bool) error {
	var b strings.Builder
	count := map[gateway.Verdict]int{}
	for _, f := range findings {
		count[f.Verdict]++
		fmt.Fprintf(&b, "%s %-13s %s\n", mark(f.Verdict, colours), strings.ReplaceAll(f.Check, "_", " "), plain(f.Found))
		if f.Advice != "" {
			fmt.Fprintf(&b, "%20s%s\n", "", plain(f.Advice))
		}
	}
	fmt.Fprintf(&b, "\n%d ok, %d warn, %d bad\n", count[gateway.VerdictOK], count[gateway.VerdictWarn], count[gateway.VerdictBad])
	_, err := io.WriteString(w, b.String())
	return err
}

// mark is a verdict as a word of five columns.
func mark(v gateway.Verdict, colours bool) string {
	word := fmt.Sprintf("%-5s", v)
	code := map[gateway.Verdict]string{gateway.VerdictOK: "32", gateway.VerdictWarn: "33", gateway.VerdictBad: "31"}[v]
	if !colours {
		return word
	}
	return "\x1b[" + code + "m" + word + "\x1b[0m"
}

// fsckCmd is what doctor runs in a process of its own.
type fsckCmd struct {
	Args []string `arg:"" help:"journal DIR, ledger DIR, or carry FROM TO."`
}

// Run does one job on a store.
func (c *fsckCmd) Run(e *env) error {
	if err := gateway.Fsck(e.ctx, c.Args, e.stdout); err != nil {
		return usageError{err}
	}
	return nil
}
