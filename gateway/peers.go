package gateway

import (
	"crypto/ed25519"
	"fmt"
	"log/slog"

	"github.com/hedgerow-iot/hedgerow/gateway/bus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

// busConfig is the section peers, with the files that it names.
func busConfig(cfg *Config, key ed25519.PrivateKey, w whoIs, log *slog.Logger) (bus.Config, error) {
	c := bus.Config{
		Mode: bus.Mode(cfg.Peers.Mode), Gateway: cfg.Name, Key: key,
		Network: w.subjects, Members: func() []bus.Member { return members(w.pinned()) }, Former: w.former,
		Listen: cfg.Peers.Listen, Routes: cfg.Peers.Routes, Clients: cfg.Peers.Clients, URL: cfg.Peers.URL,
		Log: log,
	}
	var err error
	if c.Workers, err = remoteWorkers(cfg); err != nil {
		return c, err
	}
	if c.Credentials, err = credentials(cfg.Peers.Credentials); err != nil {
		return c, fmt.Errorf("read peers.credentials: %w", err)
	}
	if c.TLS, err = peersTLS(cfg.Peers.TLS); err != nil {
		return c, fmt.Errorf("read peers.tls: %w", err)
	}
	return c, nil
}

// whoIs says who may connect.
type whoIs struct {
	subjects string                         // what those of the network begin with
	pinned   func() []network.Gateway       // who may connect now
	former   func(ed25519.PublicKey) string // name of who may not any more; nil
}

// theMembers is for a network file that stays in force.
func theMembers(f *network.File) whoIs {
	return whoIs{subjects: subjects(f), pinned: func() []network.Gateway { return f.Gateways }}
}

// openBus opens the NATS connection of the section peers.
func openBus(cfg *Config, key ed25519.PrivateKey, w whoIs, log *slog.Logger) (*bus.Bus, error) {
	c, err := busConfig(cfg, key, w, log)
	if err != nil {
		return nil, err
	}
	b, err := bus.Open(c)
	if err != nil {
		return nil, fmt.Errorf("open the connection with peers: %w", err)
	}
	return b, nil
}

// subjects is what the NATS subjects of a network begin with.
func subjects(f *network.File) string { return network.SubjectPrefix(f.GenesisHash()) }

// busListeners are the addresses that the bus listens on.
func busListeners(b *bus.Bus) (all []Listener) {
	routes, clients := b.Addresses()
	if routes != nil {
		all = append(all, Listener{Protocol: "routes", Address: routes.String()})
	}
	if clients != nil {
		all = append(all, Listener{Protocol: "clients", Address: clients.String()})
	}
	return all
}

func members(gateways []network.Gateway) []bus.Member {
	all := make([]bus.Member, len(gateways))
	for i, g := range gateways {
		all[i] = bus.Member{Name: g.Name, Key: g.PublicKey[:]}
	}
	return all
}

// remoteWorkers returns the keys of powfarm.remote.workers.
func remoteWorkers(cfg *Config) ([]ed25519.PublicKey, error) {
	var keys []ed25519.PublicKey
	for _, text := range cfg.Powfarm.Remote.Workers {
		key, err := parseKey(text)
		if err != nil {
			return nil, fmt.Errorf("powfarm.remote.workers: %w", err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

func peersTLS(t PeersTLS) (c bus.TLS, err error) {
	if t.Certificate != "" {
		if c.Certificate, err = keyPair(t); err != nil {
			return c, err
		}
	}
	c.CA, err = ReadCA(string(t.CA))
	return c, err
}
