// Command hedgerow runs and asks an edge gateway that bridges MQTT and CoAP
// devices to the Tangle.
//
// It turns arguments, signals and terminals into calls and an exit code: 0
// done, 1 the thing failed or is invalid, 2 usage or configuration, 3 store
// damaged or newer than the program. What runs stands in package gateway.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/hedgerow-iot/hedgerow/gateway"
)

// Exit codes of the contract.
const (
	exitFailed = 1
	exitUsage  = 2
	exitStore  = 3
)

// cli is the command line: one field per command.
type cli struct {
	Run      runCmd      `cmd:"" help:"Run the gateway."`
	Demo     demoCmd     `cmd:"" help:"Run a sandbox with simulated sensors over MQTT and CoAP."`
	Init     initCmd     `cmd:"" help:"Make configuration, identity and admin token of a new gateway."`
	Check    checkCmd    `cmd:"" help:"Check a configuration and what it names; lists everything that is wrong."`
	Readings readingsCmd `cmd:"" help:"List or export stored readings."`
	Tail     tailCmd     `cmd:"" help:"Show readings as they are stored."`
	Join     joinCmd     `cmd:"" help:"Make this gateway a member of a network, or take its next epoch."`
	Network  networkCmd  `cmd:"" help:"Write, change, sign and show network files."`
	Worker   workerCmd   `cmd:"" help:"Search proof of work for gateways on other boxes."`
	Backup   backupCmd   `cmd:"" help:"Copy a gateway into one file, while it runs or not."`
	Restore  restoreCmd  `cmd:"" help:"Put a backup into an empty data directory."`
	Status   statusCmd   `cmd:"" help:"Show how a running gateway is."`
	Doctor   doctorCmd   `cmd:"" help:"Examine clock, disk, ports, keys and stores; says what to do."`
	Fsck     fsckCmd     `cmd:"" hidden:""`
	Bench    benchCmd    `cmd:"" help:"Measure what this machine can hold."`
	Health   healthCmd   `cmd:"" help:"Ask a running gateway whether it can acknowledge a reading now."`
	Version  versionCmd  `cmd:"" help:"Print the version."`
}

// env is what a command works with besides its flags.
type env struct {
	ctx    context.Context // ends at the first signal that stops
	now    <-chan struct{} // closed at the second
	stdout io.Writer
	stderr io.Writer
}

// usageError is an error of the command line: exit code 2.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

// printed is an error that the command has printed in a form of its own.
type printed struct{ error }

func (p printed) Unwrap() error { return p.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func main() {
	ctx, now := signals()
	os.Exit(command(&env{ctx: ctx, now: now, stdout: os.Stdout, stderr: os.Stderr}, os.Args[1:]))
}

// command runs one command line and returns the exit code.
func command(e *env, args []string) (code int) {
	var c cli
	exited := false
	parser, err := kong.New(&c, kong.Name("hedgerow"),
		kong.Description("An edge gateway that bridges MQTT and CoAP devices to the Tangle."),
		kong.UsageOnError(), kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Writers(e.stdout, e.stderr), kong.Bind(e),
		kong.Exit(func(int) { exited = true })) // only help exits
	if err != nil {
		panic(err) // the struct above is wrong
	}
	k, err := parser.Parse(args)
	switch {
	case exited:
		return 0
	case err != nil:
		return e.report(usageError{fmt.Errorf("%w; see hedgerow --help", err)})
	}
	return e.report(k.Run(e))
}

// report prints the error and returns the exit code that it stands for.
func (e *env) report(err error) int {
	if err == nil {
		return 0
	}
	var (
		problems gateway.Problems
		said     printed
	)
	isProblems := errors.As(err, &problems)
	switch {
	case errors.As(err, &said):
	case isProblems:
		fmt.Fprintln(e.stderr, problems.Error())
	default:
		e.printError(err)
		if errors.Is(err, gateway.ErrStore) {
			fmt.Fprintln(e.stderr, "hedgerow doctor, with the same --config or --data, says what to do; --repair replaces a damaged ledger")
		}
	}
	var usage usageError
	switch {
	case isProblems, errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, gateway.ErrStore):
		return exitStore
	}
	return exitFailed
}

func (e *env) printError(err error) {
	for i, line := range strings.Split(err.Error(), "\n") {
		if i == 0 {
			line = "hedgerow: " + line
		}
		fmt.Fprintln(e.stderr, line)
	}
}

// signals returns a context that ends at the first SIGINT, SIGTERM or SIGHUP
// and a channel that closes at the second. SIGHUP is a terminal that was
// closed; nohup has it ignored.
func signals() (context.Context, <-chan struct{}) {
	ctx, stop := context.WithCancel(context.Background())
	now := make(chan struct{})
	got := make(chan os.Signal, 2)
	signal.Notify(got, syscall.SIGINT, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) {
		signal.Notify(got, syscall.SIGHUP)
	}
	go func() { // lives as long as the process
		<-got
		stop()
		<-got
		close(now)
	}()
	return ctx, now
}
