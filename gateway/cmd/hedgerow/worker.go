package main

import (
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/hedgerow-iot/hedgerow/gateway"
	"github.com/hedgerow-iot/hedgerow/gateway/bus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/powfarm"
	"github.com/hedgerow-iot/hedgerow/powfarm/remote"
)

type workerCmd struct {
	NATS        string   `name:"nats" required:"" placeholder:"URL" help:"Where the gateways are reached, e.g. tls://10.0.0.8:4222 (repeat addresses with commas)."`
	CA          string   `name:"ca" placeholder:"FILE" help:"Certificates of the authority (PEM) of a NATS cluster, when the system does not know it."`
	Credentials string   `placeholder:"FILE" help:"This worker's credentials at a NATS cluster: a .creds file or the seed of an nkey; or env:NAME, credential:NAME."`
	Identity    string   `default:"worker.key" placeholder:"FILE" help:"Private key of this worker (default ${default}); made when it is not there."`
	Network     string   `placeholder:"FILE" xor:"net" help:"Network file: its members may ask. This or --genesis is needed."`
	Genesis     string   `placeholder:"HASH" xor:"net" help:"Hash of the network's first file, in the place of the file; with --gateway."`
	Gateway     []string `placeholder:"[NAME=]KEY" sep:"none" help:"A gateway that may ask (repeatable; default: all members). KEY is its public key, 0x and hex digits, or a file of it such as identity.pub."`
	Threads     int      `placeholder:"N" help:"Searches at once (default: all processors)."`
	Kernel      string   `default:"auto" help:"Kernel of the search."`
	Name        string   `help:"Name shown at the gateways (default: the host's name)."`
	JSON        bool     `name:"json" help:"Print what this worker is, and at the end what it did, as lines of JSON."`
}

// workerInfo is what a worker prints of itself.
type workerInfo struct {
	Name     string   `json:"name"`
	Key      string   `json:"key"`
	Kernel   string   `json:"kernel"`
	Threads  int      `json:"threads"`
	Gateways []string `json:"gateways"`
}

// Run searches for gateways until a signal.
func (c *workerCmd) Run(e *env) error {
	w, err := c.prepare()
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(e.stderr, nil))
	farm, err := powfarm.New(powfarm.Config{Workers: w.threads, Kernel: c.Kernel}, log)
	if err != nil {
		return usageError{err}
	}
	w.Kernel, w.Threads = farm.Stats().Kernel, w.threads
	if w.server.Key, err = c.identity(&w); err != nil {
		return err
	}
	if err := c.say(e, &w); err != nil {
		return err
	}
	w.nats.Key, w.nats.Log = w.server.Key, log
	if w.plain {
		log.Warn("the connection is encrypted only if the server insists; say tls://", "nats", c.NATS)
	}
	conn, err := bus.Dial(w.nats)
	if err != nil {
		return usageError{err}
	}
	defer conn.Close()
	w.server.Name, w.server.Kernel = w.Name, w.Kernel
	w.server.Rate = func() float64 { return farm.Stats().Rate() }
	server, err := remote.NewServer(w.server, conn, farm.For(powfarm.Telemetry), log)
	if err != nil {
		return usageError{err}
	}
	g, ctx := errgroup.WithContext(e.ctx)
	g.Go(func() error { return farm.Run(ctx) })
	g.Go(func() error { return server.Run(ctx) })
	if err := g.Wait(); err != nil {
		return err
	}
	st := server.Stats()
	if c.JSON {
		return json.NewEncoder(e.stdout).Encode(st)
	}
	log.Info("worker stopped", "requests", st.Requests, "found", st.Found, "cancelled", st.Cancelled, "expired", st.Expired, "invalid", st.Invalid)
	return nil
}

// workerSetup is what the flags come to.
type workerSetup struct {
	workerInfo
	peers   []remote.Peer
	threads int
	server  remote.ServerConfig
	nats    bus.Client
	plain   bool
}

// prepare checks the flags. Every error is one of the command line.
func (c *workerCmd) prepare() (w workerSetup, err error) {
	if w.server.Genesis, w.peers, err = c.gateways(); err != nil {
		return w, usageError{err}
	}
	peers := w.peers
	w.server.Gateways = func() []remote.Peer { return peers }
	for _, g := range peers {
		w.Gateways = append(w.Gateways, strings.TrimPrefix(g.Name+" "+g.Key.String(), " "))
	}
	if c.Threads < 0 || c.Threads > 1024 {
		return w, usagef("--threads takes 1 to 1024, or 0 for all processors")
	}
	if w.threads = c.Threads; w.threads == 0 {
		w.threads = runtime.GOMAXPROCS(0) // it has the box to itself
	}
	if w.Name = c.Name; w.Name == "" {
		if w.Name, err = os.Hostname(); err != nil {
			return w, usagef("the host has no name (%w); say --name", err)
		}
	}
	if err := remote.CheckName(w.Name); err != nil {
		return w, usagef("--name: %w", err)
	}
	return w, c.connection(&w)
}

// connection says how the gateways are reached. Their own servers are known by
// their keys; those of a cluster by its authority.
func (c *workerCmd) connection(w *workerSetup) (err error) {
	w.server.Prefix = network.SubjectPrefix(w.server.Genesis)
	w.nats = bus.Client{URL: c.NATS, Name: w.Name, Network: w.server.Prefix}
	if w.plain, err = gateway.CheckNATS(c.NATS); err != nil {
		return usagef("--nats: %w", err)
	}
	if w.nats.TLS.CA, err = gateway.ReadCA(c.CA); err != nil {
		return usagef("--ca: %w", err)
	}
	if w.nats.Credentials, err = gateway.ReadCredentials(c.Credentials); err != nil {
		return usagef("--credentials: %w", err)
	}
	if c.CA != "" || c.Credentials != "" {
		return nil
	}
	for _, g := range w.peers {
		w.nats.Servers = append(w.nats.Servers, g.Key[:])
	}
	return nil
}

// gateways returns the network's genesis hash and who may ask.
func (c *workerCmd) gateways() (genesis [32]byte, all []remote.Peer, err error) {
	for _, text := range c.Gateway {
		p, err := parseGateway(text)
		if err != nil {
			return genesis, nil, fmt.Errorf("--gateway: %w", err)
		}
		all = append(all, p)
	}
	if c.Network == "" && c.Genesis == "" {
		return genesis, nil, errors.New("say --network FILE, or --genesis HASH with --gateway")
	}
	if c.Network == "" {
		digits, ok := strings.CutPrefix(c.Genesis, "0x")
		if n, err := hex.Decode(genesis[:], []byte(digits[:min(len(digits), 64)])); !ok || err != nil || n != 32 || len(digits) != 64 {
			return genesis, nil, fmt.Errorf("--genesis: %.80q is not 0x and 64 hex digits", c.Genesis)
		}
		if len(all) == 0 {
			return genesis, nil, errors.New("--genesis does not say who may ask: name the gateways with --gateway, or give --network")
		}
		return genesis, all, nil
	}
	f, err := network.Load(c.Network)
	if err != nil {
		return genesis, nil, err
	}
	if len(all) == 0 {
		for _, g := range f.Gateways {
			all = append(all, remote.Peer{Name: g.Name, Key: remote.Key(g.PublicKey)})
		}
	}
	return f.GenesisHash(), all, nil
}

func parseGateway(text string) (p remote.Peer, err error) {
	if name, rest, ok := strings.Cut(text, "="); ok {
		p.Name, text = name, rest
	}
	if strings.HasPrefix(text, "0x") {
		p.Key, err = remote.ParseKey(text)
		return p, err
	}
	key, err := gateway.ReadPublicKey(text)
	if err != nil {
		return p, err
	}
	p.Key = remote.Key(key)
	return p, nil
}

// identity reads or makes the worker's key.
func (c *workerCmd) identity(w *workerSetup) (ed25519.PrivateKey, error) {
	key, _, err := gateway.MakeIdentity(c.Identity)
	if err != nil {
		return nil, err
	}
	w.Key = remote.Key(key.Public().(ed25519.PublicKey)).String()
	return key, nil
}

// say prints what the gateways' admins need to know.
func (c *workerCmd) say(e *env, w *workerSetup) error {
	if c.JSON {
		return json.NewEncoder(e.stdout).Encode(w.workerInfo)
	}
	_, err := fmt.Fprintf(e.stdout, "worker %s: kernel %s on %d threads, for %s\n"+
		"Its public key; a gateway uses it once it stands in powfarm.remote.workers there:\n%s\n",
		w.Name, w.Kernel, w.Threads, strings.Join(w.Gateways, ", "), w.Key)
	return err
}
