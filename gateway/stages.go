package gateway

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/batching/archive"
	"github.com/hedgerow-iot/hedgerow/batching/journal"
	"github.com/hedgerow-iot/hedgerow/batching/reading"
	"github.com/hedgerow-iot/hedgerow/gateway/admin"
	"github.com/hedgerow-iot/hedgerow/gateway/bus"
	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/api"
	"github.com/hedgerow-iot/hedgerow/ledger/peer"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
	"github.com/hedgerow-iot/hedgerow/powfarm"
	"github.com/hedgerow-iot/hedgerow/powfarm/remote"
	"github.com/hedgerow-iot/hedgerow/protocols"
	"github.com/hedgerow-iot/hedgerow/protocols/coap"
	"github.com/hedgerow-iot/hedgerow/protocols/mqtt"
)

// stages are what Run runs; coap is nil when nothing listens for it. The bus is
// opened and closed by the gateway.
type stages struct {
	journal                *journal.Journal
	ledger                 *ledger.Ledger
	archive                *archive.Archive
	bus                    *bus.Bus
	peers                  *peer.Peers
	epochs                 *epochs
	events                 *api.Events
	farm                   *powfarm.Farm
	pool                   *remote.Pool   // nil: no workers on other boxes are asked
	lend                   *remote.Server // nil: the farm is not lent
	restorer               *restorer      // nil: the ledger has its marks
	batching               *batching.Stage
	mqttIntake, coapIntake *protocols.Intake
	mqtt                   *mqtt.Broker
	coap                   *coap.Server
	admin                  *admin.Handler
	http                   *httpServer
}

// newStages builds the stages in the order in which they need each other.
func newStages(g *Gateway) (s *stages, err error) {
	cfg, log := &g.cfg, g.log
	s = &stages{journal: g.stores.journal, bus: g.bus}
	if err := s.tangleStages(g); err != nil {
		return nil, err
	}
	s.farm, err = powfarm.New(powfarm.Config{Workers: int(cfg.Powfarm.Workers), Kernel: cfg.Powfarm.Kernel}, log.With("stage", "powfarm"))
	if err != nil {
		return nil, err
	}
	if err := s.remoteStages(g); err != nil {
		return nil, err
	}
	s.epochs.prover = s.prover(powfarm.Urgent)
	if s.restorer, err = newRestorer(s, g); err != nil {
		return nil, storeError(err)
	}
	var restore func(context.Context) (uint64, error)
	if s.restorer != nil {
		restore = s.restorer.restore
	}
	s.batching, err = batching.New(batching.Config{
		Gateway: cfg.Name, Key: g.home.key, Genesis: g.home.network.GenesisHash(),
		Linger: linger(cfg.Journal.Linger), MaxAge: duration(cfg.Batching.MaxAge),
		TipRefresh: duration(cfg.Powfarm.TipRefresh), MaxReadings: cfg.Batching.MaxReadings,
		Target: int(cfg.Batching.Target), Clock: newClock(), Restore: restore,
		Attached:  func(runs [][2]uint64, block stardust.BlockID) { s.admin.Attached(runs, block) },
		Transient: transient, Outdated: outdated, Stopped: stopped, Log: log.With("stage", "batching"),
	}, s.journal, s.prover(powfarm.Telemetry), s.ledger)
	if err != nil {
		return nil, err
	}
	if err := s.fronts(g); err != nil {
		return nil, err
	}
	handler, err := s.handler(g)
	if err != nil {
		return nil, err
	}
	s.http = newHTTPServer(g.sockets.http, handler, log.With("stage", "http"))
	return s, nil
}

// linger says never where the file says zero; zero is batching's default.
func linger(d Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return duration(d)
}

// transient are the errors of farm and ledger that pass by themselves.
func transient(err error) bool {
	return errors.Is(err, powfarm.ErrBusy) || errors.Is(err, powfarm.ErrNoWorkers) || errors.Is(err, ledger.ErrBusy)
}

// outdated is the error for a parent that was a tip: the ledger drops votes of a
// gateway that is found to have signed two of one round.
func outdated(err error) bool { return errors.Is(err, ledger.ErrUnknownParent) }

// stopped are the errors that only say that another stage is stopping.
func stopped(err error) bool {
	return errors.Is(err, powfarm.ErrClosed) || errors.Is(err, ledger.ErrClosed)
}

// access is who may connect over one protocol. Until there is a device
// registry it is everybody or nobody.
type access interface {
	protocols.Registry
	protocols.ACL
}

func accessFor(cfg *Config, anonymous bool) access {
	switch {
	case cfg.Home != "":
		return protocols.AnonymousFrom(true)
	case anonymous:
		return protocols.AnonymousFrom(false)
	}
	return protocols.DenyAll{}
}

// admitNobody returns the protocols that are listened for in vain.
func admitNobody(cfg *Config) (protocols []string) {
	if cfg.Home != "" {
		return nil
	}
	if len(cfg.MQTT.Listen)+len(cfg.MQTT.WebSocket.Listen) > 0 && !cfg.MQTT.Anonymous {
		protocols = append(protocols, "mqtt")
	}
	if len(cfg.CoAP.Listen) > 0 && !cfg.CoAP.Anonymous {
		protocols = append(protocols, "coap")
	}
	return protocols
}

// fronts builds the front ends. The broker is there without a listener, too:
// events are served on the API's.
func (s *stages) fronts(g *Gateway) error {
	cfg, log := &g.cfg, g.log
	mqttAccess, coapAccess := accessFor(cfg, cfg.MQTT.Anonymous), accessFor(cfg, cfg.CoAP.Anonymous)
	intake := func(acl protocols.ACL) (*protocols.Intake, error) {
		return protocols.NewIntake(protocols.IntakeConfig{Sink: s.batching, ACL: acl, Log: log.With("stage", "intake")})
	}
	in, err := intake(mqttAccess)
	if err != nil {
		return err
	}
	l, web := cfg.MQTT.Limits, cfg.MQTT.WebSocket
	s.mqttIntake = in
	s.mqtt, err = mqtt.New(mqtt.Config{
		Listeners: g.sockets.mqtt,
		WebSocket: mqtt.WebSocket{Listeners: g.sockets.webSocket, Path: web.Path, Origins: web.Origins},
		Events:    tangleEvents{s},
		Drain:     duration(cfg.Shutdown.Drain), Log: log.With("stage", "mqtt"),
		Limits: mqtt.Limits{
			Packet: int(l.Packet), PacketBeforeLogin: int(min(l.PacketBeforeLogin, l.Packet)),
			Connections: l.Connections, PerAddress: l.PerAddress, Inflight: l.Inflight,
			ConnectTimeout: duration(l.ConnectTimeout),
		},
	}, in, mqttAccess, mqttAccess)
	if err != nil {
		return err
	}
	if len(g.sockets.coap) > 0 {
		in, err := intake(coapAccess)
		if err != nil {
			return err
		}
		s.coapIntake = in
		s.coap, err = coap.New(coap.Config{
			Conns: g.sockets.coap, Registry: coapAccess, ACL: coapAccess, Gateway: cfg.Name,
			Limits: coap.Limits{Body: int(cfg.CoAP.Limits.Body), Endpoints: cfg.CoAP.Limits.Endpoints},
			Log:    log.With("stage", "coap"),
		}, in, lastValues{s.journal})
		if err != nil {
			return err
		}
	}
	return nil
}

// servers are the stages that take things in, and what answers about them.
func (s *stages) servers() []server {
	all := []server{{"http", s.http.run}, {"admin", s.admin.Run}, {"mqtt", s.mqtt.Run}, {"events", s.events.Run}}
	if s.coap != nil {
		all = append(all, server{"coap", s.coap.Run})
	}
	return all
}

// below are the stages that the batching stage works with, and those that work
// with them.
func (s *stages) below() []func(context.Context) error {
	all := []func(context.Context) error{
		s.farm.Run, s.ledger.Run, s.journal.Run, s.archive.Run, s.bus.Run, s.peers.Run, s.epochs.run,
	}
	if s.pool != nil {
		all = append(all, s.pool.Run)
	}
	if s.lend != nil {
		all = append(all, s.lend.Run)
	}
	return all
}

// lastValues gives the front ends the journal's last values in their words.
type lastValues struct{ journal *journal.Journal }

func (l lastValues) Last(device, name string) (reading.Reading, error) {
	r, err := l.journal.Last(device, name)
	if errors.Is(err, journal.ErrNotFound) {
		return r, fmt.Errorf("%w: %w", protocols.ErrNotFound, err)
	}
	return r, err
}
