package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching/reading"
	"github.com/hedgerow-iot/hedgerow/gateway/admin"
	"github.com/hedgerow-iot/hedgerow/ledger/api"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/powfarm"
)

// Bounds of the HTTP server. Handlers that stream extend the write time of
// their own answer.
const (
	maxHTTPConns  = 256
	maxHTTPShare  = 128 // of them from one IPv4 address or IPv6 /64: nobody takes all
	maxHTTPHeader = 16 << 10
	maxHTTPBody   = 1 << 20
	httpHeader    = 5 * time.Second
	httpRead      = 30 * time.Second
	httpWrite     = 60 * time.Second
	httpIdle      = 60 * time.Second
	httpStop      = 5 * time.Second // for requests in flight, once it stops
)

// httpServer serves the API on one listener.
type httpServer struct {
	listener net.Listener
	server   *http.Server
}

func newHTTPServer(l net.Listener, h http.Handler, log *slog.Logger) *httpServer {
	return &httpServer{
		listener: share(limit(l, maxHTTPConns), maxHTTPShare),
		server: &http.Server{
			Handler: http.MaxBytesHandler(h, maxHTTPBody), MaxHeaderBytes: maxHTTPHeader,
			ReadHeaderTimeout: httpHeader, ReadTimeout: httpRead, WriteTimeout: httpWrite, IdleTimeout: httpIdle,
			ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug), // what clients do wrong
		},
	}
}

// shared closes what one address opens beyond its share of a listener's
// connections, so that others, and the health check, still find one.
type shared struct {
	net.Listener
	most int
	mu   sync.Mutex
	from map[netip.Prefix]int // open connections
}

func share(l net.Listener, most int) *shared {
	return &shared{Listener: l, most: most, from: make(map[netip.Prefix]int)}
}

func (s *shared) Accept() (net.Conn, error) {
	for {
		c, err := s.Listener.Accept()
		if err != nil {
			return nil, err
		}
		source := admin.SourceOf(c.RemoteAddr().String())
		if s.enter(source) {
			return &slotConn{Conn: c, free: func() { s.leave(source) }}, nil
		}
		_ = c.Close() // surplus
	}
}

func (s *shared) enter(source netip.Prefix) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.from[source] >= s.most {
		return false
	}
	s.from[source]++
	return true
}

func (s *shared) leave(source netip.Prefix) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.from[source]--; s.from[source] == 0 {
		delete(s.from, source)
	}
}

// run serves until ctx ends, then lets requests in flight end for a while and
// cuts the rest off.
func (s *httpServer) run(ctx context.Context) error {
	s.server.BaseContext = func(net.Listener) context.Context { return context.WithoutCancel(ctx) }
	served := make(chan error, 1)
	go func() { served <- s.server.Serve(s.listener) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), httpStop)
	defer cancel()
	if err := s.server.Shutdown(stop); err != nil {
		_ = s.server.Close()
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// handler is everything that is served over HTTP: the admin's routes and, for
// every other path, the protocol's.
func (s *stages) handler(g *Gateway) (http.Handler, error) {
	cfg := &g.cfg
	src := admin.Sources{
		Journal: s.journal, Stage: s.batching, Ledger: s.ledger, Farm: s.farm, Archive: s.archive,
		Peers: s.peers, Bus: s.bus, Updates: s.epochs,
		Milestones: s.milestones, Trouble: s.trouble,
		FrontEnds: s.frontEnds, CheckJournal: s.journal, CheckLedger: g.stores.ledger,
		Backup: &copier{cfg, g.stores, g.epochs.current},
	}
	if s.pool != nil {
		src.Remote = s.pool
	}
	var err error
	s.admin, err = admin.New(admin.Config{
		Name: cfg.Name, Version: version, Token: g.home.token, Network: s.epochs.current,
		Settings:  func() any { return settings(cfg) },
		Listeners: func() []admin.Listener { return adminListeners(g.sockets.named) },
		Warnings: func() []admin.Alarm {
			return slices.Concat(warnings(cfg), metNobody(cfg, s.epochs.current()), s.epochs.alarms(), s.restoring(), s.recovering())
		},
		Clock: newClock(),
	}, src, g.log.With("stage", "admin"))
	if err != nil {
		return nil, err
	}
	tangle, err := s.tangle(g)
	if err != nil {
		return nil, err
	}
	core := tangle.forToken(s.admin, cfg.API.Public)
	mux := http.NewServeMux()
	mux.Handle("/api/hedgerow/", s.admin)
	mux.Handle("/metrics", s.admin)
	mux.Handle("/ready", s.admin)
	mux.Handle("/health", tangle.guests) // tells one bit, to load balancers without token
	mux.Handle("/", core)
	return mux, nil
}

// milestones returns the last milestone that each of the others told of.
func (s *stages) milestones() map[string]uint32 {
	told := map[string]uint32{}
	for _, m := range s.peers.Stats().Members {
		if m.Told {
			told[m.Name] = m.Milestone
		}
	}
	return told
}

func (s *stages) trouble() admin.Trouble {
	t := s.ledger.Trouble()
	return admin.Trouble{Equivocators: t.Equivocators, Conflict: t.Conflict}
}

// A tangle is the protocol's routes, for the site and for everybody else: what
// the site hands in is searched first and has no rate.
type tangle struct{ site, guests http.Handler }

func (s *stages) tangle(g *Gateway) (t tangle, err error) {
	cfg := &g.cfg
	third := cfg.API.ThirdParty
	serve := func(c api.Config, pow bool, p powfarm.Priority) (http.Handler, error) {
		c.Routes = []string{"mqtt/v1"}
		c.Version, c.Network, c.NetworkOf, c.Health = version, g.home.network, s.ledger.Network, s.ledger.Ready
		c.TipRefresh = duration(cfg.Powfarm.TipRefresh)
		var prover api.Prover
		if pow && (cfg.Powfarm.Workers != 0 || s.pool != nil) {
			prover = s.prover(p)
		}
		return api.New(c, s.ledger, prover, g.log.With("stage", "api"))
	}
	if t.site, err = serve(api.Config{}, true, powfarm.Urgent); err != nil {
		return t, err
	}
	room := guestRoom(int64(cfg.Ledger.Retention.MaxDisk), g.stores.ledger.DiskBytes)
	t.guests, err = serve(api.Config{
		Admit: newBudget(third.Rate, room).enter, Client: admin.SourceOf,
	}, third.PoW, powfarm.Guest)
	if err != nil {
		return t, err
	}
	return tangle{s.withEvents(t.site), s.withEvents(t.guests)}, nil
}

// withEvents adds the WebSocket for events (TIP-28) to the protocol's routes.
// Who has the token has no more of it than others.
func (s *stages) withEvents(routes http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/api/mqtt/v1", s.mqtt.GuestEvents())
	mux.Handle("/", routes)
	return mux
}

// forToken returns the routes for requests with a bearer token and, when they
// are public, for those without. A wrong token is refused either way: it would
// be guessed here otherwise.
func (t tangle) forToken(adm *admin.Handler, public bool) http.Handler {
	site := adm.Require(t.site)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scheme, _, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		if public && !strings.EqualFold(scheme, "Bearer") {
			t.guests.ServeHTTP(w, r)
			return
		}
		site.ServeHTTP(w, r)
	})
}

func adminListeners(named []Listener) []admin.Listener {
	out := make([]admin.Listener, len(named))
	for i, l := range named {
		out[i] = admin.Listener{Protocol: l.Protocol, Address: l.Address}
	}
	return out
}

// warnings are what the configuration allows although it is not safe.
func warnings(cfg *Config) []admin.Alarm {
	var all []admin.Alarm
	add := func(name, text string) { all = append(all, admin.Alarm{Name: name, Text: text}) }
	for _, l := range cfg.listens() {
		if host, _, err := splitAddress(l.address); err == nil && l.insecureKey != "" && !loopback(host) {
			add("plain_listener", l.key+": "+l.address+" is reachable from other machines without encryption")
		}
	}
	if cfg.Home != "" {
		return all // the sandbox says what it is
	}
	if plainNATS(cfg.Peers.URL) {
		add("plain_nats", "peers.url: messages to the NATS server can be read on the way; write tls://")
	}
	if cfg.MQTT.Anonymous {
		add("anonymous_devices", "mqtt.anonymous: devices are admitted without login")
	}
	if cfg.CoAP.Anonymous {
		add("anonymous_devices", "coap.anonymous: devices are admitted without login")
	}
	return all
}

// metNobody is the alarm of a gateway that looks for others in a network of one.
func metNobody(cfg *Config, f *network.File) []admin.Alarm {
	if text := lonely(cfg, f); text != "" {
		return []admin.Alarm{{Name: "network_of_one", Text: text}}
	}
	return nil
}

// frontEnds are the figures of the protocols that are served.
func (s *stages) frontEnds() []admin.FrontEnd {
	var all []admin.FrontEnd
	st, in := s.mqtt.Stats(), s.mqttIntake.Stats()[reading.SourceMQTT]
	all = append(all, admin.FrontEnd{
		Protocol: "mqtt", Clients: st.Connections, Messages: in.Accepted, Readings: in.Readings,
		Unmapped: st.Published - min(st.Published, st.Mapped), Undecodable: in.Undecodable, Panics: st.Panics,
		Duplicates: s.mqttIntake.Duplicates(),
		Refused: map[string]uint64{
			"busy": in.Busy, "too_large": in.TooLarge, "not_allowed": in.NotAllowed, "no_reading": in.NoReading,
			"bad_name": in.BadName, "login": st.Denied, "connections": st.Surplus, "oversized": st.Oversized,
			"no_connect": st.Unconnected, "slow_connection": st.SlowCloses, "slow_subscriber": st.SlowSkips, "not_retained": st.Unretained,
			"event": st.LostEvents,
		},
	})
	if s.coap != nil {
		st, in := s.coap.Stats(), s.coapIntake.Stats()[reading.SourceCoAP]
		all = append(all, admin.FrontEnd{
			Protocol: "coap", Clients: st.Endpoints, Messages: in.Accepted, Readings: in.Readings, Undecodable: in.Undecodable, Panics: st.Panics,
			Duplicates: s.coapIntake.Duplicates(),
			Refused: map[string]uint64{
				"busy": in.Busy, "too_large": in.TooLarge, "not_allowed": in.NotAllowed, "no_reading": in.NoReading,
				"bad_name": in.BadName, "malformed": st.Malformed, "over_limit": st.OverLimit,
			},
		})
	}
	return all
}

// settings is the configuration as the admin may see it: keys as in the file,
// secrets only as references.
func settings(cfg *Config) map[string]any {
	tree := map[string]any{}
	eachValue(cfg, func(key string, value any) {
		at := tree
		for {
			section, rest, ok := strings.Cut(key, ".")
			if !ok {
				break
			}
			next, _ := at[section].(map[string]any)
			if next == nil {
				next = map[string]any{}
				at[section] = next
			}
			at, key = next, rest
		}
		at[key] = value
	})
	return tree
}
