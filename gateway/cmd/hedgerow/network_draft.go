package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/hedgerow-iot/hedgerow/gateway"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

// draftFlags are those of the commands that make the next epoch.
type draftFlags struct {
	Out  string `required:"" placeholder:"FILE" help:"Where to write the draft; an earlier draft there is replaced."`
	File string `arg:"" placeholder:"FILE" help:"The network file in force."`
}

// draft reads the file in force and writes what change makes of the next epoch.
func (d *draftFlags) draft(e *env, change func(*network.File) error) error {
	f, err := network.Load(d.File)
	if err != nil {
		return err
	}
	next := f.Next()
	if err := change(next); err != nil {
		return usageError{err}
	}
	old, err := network.Load(d.Out)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fmt.Errorf("not written over %s: %w", d.Out, err)
	case old.NetworkName != next.NetworkName || old.Epoch != next.Epoch:
		return fmt.Errorf("%s is epoch %d of %s: not written over", d.Out, old.Epoch, old.NetworkName)
	}
	if err := next.Save(d.Out); err != nil {
		return err
	}
	if f.Epoch > 0 && len(f.Signatures) == 0 {
		fmt.Fprintf(e.stderr, "warning: nobody has signed %s, which is epoch %d: no gateway takes it, nor what follows it, before a quorum has\n", d.File, f.Epoch)
	}
	_, err = fmt.Fprintf(e.stdout, "%s is a draft of epoch %d; it needs signatures of weight %d of %d:\n"+
		"  hedgerow network sign --key identity.key --previous %s %s\n", d.Out, next.Epoch, f.Quorum(), f.Weight(), d.File, d.Out)
	return err
}

type networkAddCmd struct {
	draftFlags
	Operator []string `placeholder:"PUBFILE=GATEWAY,…" sep:"none" help:"A key that may sign later epochs for these gateways (repeatable)."`
	Gateways []string `arg:"" placeholder:"GATEWAY=PUBFILE[:WEIGHT]" help:"The new members, each as GATEWAY=PUBFILE[:WEIGHT]: its identity.pub, and the weight of its votes (1)."`
}

// Run drafts the next epoch.
func (c *networkAddCmd) Run(e *env) error {
	gateways, err := members(c.Gateways)
	if err != nil {
		return err
	}
	more, err := operators(c.Operator)
	if err != nil {
		return err
	}
	var advice string
	err = c.draft(e, func(f *network.File) error {
		for _, g := range gateways {
			f.Add(g)
		}
		f.Operators = append(f.Operators, more...)
		advice = gateway.ClockAdvice(f)
		return f.Validate()
	})
	if err == nil && advice != "" {
		fmt.Fprintf(e.stderr, "note: %s\n", advice)
	}
	return err
}

type networkRemoveCmd struct {
	draftFlags
	Gateways []string `arg:"" placeholder:"GATEWAY" help:"Names of the members that leave."`
}

// Run drafts the next epoch.
func (c *networkRemoveCmd) Run(e *env) error {
	return c.draft(e, func(f *network.File) error {
		for _, name := range c.Gateways {
			if err := f.Remove(name); err != nil {
				return err
			}
		}
		return f.Validate()
	})
}

// change drafts the next epoch with what the arguments, each GATEWAY=VALUE, set of
// its members. what names the value.
func (c *draftFlags) change(e *env, args []string, what string, set func(f *network.File, name, value string) error) error {
	return c.draft(e, func(f *network.File) error {
		for _, text := range args {
			name, value, _ := strings.Cut(text, "=")
			if value == "" {
				return fmt.Errorf("%q is not GATEWAY=%s", text, what)
			}
			if err := set(f, name, value); err != nil {
				return err
			}
		}
		return f.Validate()
	})
}

type networkWeightCmd struct {
	draftFlags
	Weights []string `arg:"" placeholder:"GATEWAY=WEIGHT" help:"Members and the new weights of their votes, each as GATEWAY=WEIGHT."`
}

// Run drafts the next epoch.
func (c *networkWeightCmd) Run(e *env) error {
	return c.change(e, c.Weights, "WEIGHT", func(f *network.File, name, weight string) error {
		n, err := strconv.ParseUint(weight, 10, 32)
		if err != nil {
			return fmt.Errorf("%q is not GATEWAY=WEIGHT", name+"="+weight)
		}
		return f.SetWeight(name, uint32(n))
	})
}

type networkKeyCmd struct {
	draftFlags
	Keys []string `arg:"" placeholder:"GATEWAY=PUBFILE" help:"Members and their new identity.pub, each as GATEWAY=PUBFILE: for a key that was lost or stolen."`
}

// Run drafts the next epoch.
func (c *networkKeyCmd) Run(e *env) error {
	return c.change(e, c.Keys, "PUBFILE", func(f *network.File, name, file string) error {
		key, err := gateway.ReadPublicKey(file)
		if err != nil {
			return fmt.Errorf("key of %s: %w", name, err)
		}
		return f.SetKey(name, network.PublicKey(key))
	})
}

type networkRenameCmd struct {
	draftFlags
	Names []string `arg:"" placeholder:"GATEWAY=NAME" help:"Members and their new names, each as GATEWAY=NAME. What they have attached keeps the old one."`
}

// Run drafts the next epoch.
func (c *networkRenameCmd) Run(e *env) error {
	return c.change(e, c.Names, "NAME", (*network.File).Rename)
}
