package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/hedgerow-iot/hedgerow/gateway"
)

const defaultHome = "hedgerow-data"

type runCmd struct {
	Config  string   `placeholder:"FILE" xor:"how" help:"Configuration file; this or --sandbox."`
	Sandbox bool     `xor:"how" help:"No configuration: a network of one on loopback, devices without login."`
	Data    string   `placeholder:"DIR" help:"Directory of the sandbox (default ./hedgerow-data)."`
	Set     []string `placeholder:"KEY=VALUE" sep:"none" help:"Override a key of the configuration (repeatable; lists comma-separated)."`
}

// Run runs the gateway until a signal or a failure.
func (c *runCmd) Run(e *env) error {
	if c.Config == "" && !c.Sandbox {
		return usagef("say --config FILE, or --sandbox")
	}
	if c.Data != "" && !c.Sandbox {
		return usagef("--data goes with --sandbox; a configuration says data_dir")
	}
	cfg, err := c.configuration()
	if err != nil {
		return err
	}
	log := newLog(cfg, e.stderr)
	if err := gateway.Meet(e.ctx, cfg, log); e.ctx.Err() != nil {
		return nil // it was stopped while it waited
	} else if err != nil {
		return err
	}
	g, err := gateway.New(cfg, log)
	if err != nil {
		return err
	}
	if c.Sandbox {
		printSandbox(e.stdout, g)
	}
	running, stop := context.WithCancel(e.ctx)
	var resting sync.WaitGroup
	resting.Go(func() { gateway.Rest(running) })
	defer resting.Wait()
	defer stop()
	return g.Run(e.ctx, e.now)
}

func (c *runCmd) configuration() (gateway.Config, error) {
	if c.Sandbox {
		return sandboxConfig(c.Data, c.Set)
	}
	// What it names is looked at too, before anything is made.
	if err := gateway.Check(c.Config, c.Set); err != nil {
		return gateway.Config{}, usageError{err}
	}
	return gateway.Load(c.Config, c.Set)
}

// sandboxConfig is the configuration of a sandbox with its overrides.
func sandboxConfig(home string, set []string) (gateway.Config, error) {
	if home == "" {
		home = defaultHome
	}
	cfg, err := gateway.Override(gateway.Sandbox(home), set)
	if err != nil {
		return cfg, usageError{err}
	}
	return cfg, nil
}

func newLog(cfg gateway.Config, w io.Writer) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(cfg.Log.Level)) // one of four words
	opts := &slog.HandlerOptions{Level: level}
	if cfg.Log.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// printSandbox says where the sandbox listens and gives lines to paste.
func printSandbox(w io.Writer, g *gateway.Gateway) {
	cfg := g.Config()
	var b strings.Builder
	fmt.Fprintf(&b, "hedgerow sandbox, data in %s\n\n", cfg.Home)
	var mqtt, coap, http string
	for _, l := range g.Listeners() {
		note := ""
		if l.Instead != "" {
			note = fmt.Sprintf("   (%s is taken)", l.Instead)
		}
		label := map[string]string{"mqtt": "MQTT", "websocket": "MQTT over WebSocket", "coap": "CoAP", "http": "HTTP"}[l.Protocol]
		fmt.Fprintf(&b, "  %-5s %s%s\n", label, l.Address, note)
		switch {
		case l.Protocol == "mqtt" && mqtt == "":
			mqtt = l.Address
		case l.Protocol == "coap" && coap == "":
			coap = l.Address
		case l.Protocol == "http":
			http = l.Address
		}
	}
	b.WriteString("\nTry it from another terminal:\n\n")
	if host, port, err := net.SplitHostPort(mqtt); err == nil {
		fmt.Fprintf(&b, "  mosquitto_pub -h %s -p %s -q 1 -t readings/probe-1/temperature -m 21.5\n", host, port)
	}
	if coap != "" {
		fmt.Fprintf(&b, "  %s -m put -e 48 coap://%s/readings/probe-2/humidity\n", coapProgram(), coap)
	}
	token, err := filepath.Abs(cfg.API.Token.Ref)
	if err != nil || cfg.API.Token.Scheme != "file" {
		token = cfg.API.Token.Ref
	}
	fmt.Fprintf(&b, "  curl -H \"Authorization: Bearer $(cat %s)\" http://%s/api/hedgerow/v1/readings\n", shellQuote(token), http)
	b.WriteString("\nStop with Ctrl-C.\n")
	_, _ = io.WriteString(w, b.String()) // a closed stdout does not stop the gateway
}

// coapProgram returns the name under which libcoap's client is installed here:
// distributions add the TLS library that it was built with.
func coapProgram() string {
	for _, name := range []string{"coap-client", "coap-client-notls", "coap-client-openssl", "coap-client-gnutls"} {
		if _, err := exec.LookPath(name); err == nil {
			return name
		}
	}
	return "coap-client"
}

// shellQuote quotes a path for a POSIX shell when it needs it.
func shellQuote(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool {
		return !strings.ContainsRune("/._-+=:,", r) && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
