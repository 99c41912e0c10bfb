// Package admin serves what the people who run a gateway ask it: state,
// readings, blocks and configuration under /api/hedgerow/v1, metrics for
// Prometheus and whether it is ready (contract.md §5).
//
// It reads what the stages offer, and changes nothing but that it hands network
// files of the next epoch on. While [Handler.Run] runs
// it follows them, too, for counts and events. It holds no store, no
// socket and no configuration file; the HTTP server around it is gateway's,
// and the Tangle's own routes are ledger/api's.
//
// All of /api/hedgerow/v1 wants the admin token as a bearer. No cookie is set
// or read, and no other origin is let in, so a page in a browser can do
// nothing in its user's name. Metrics and readiness are open and tell numbers
// only. Every answer is bounded, or streamed with bounded memory.
package admin

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/batching/journal"
	"github.com/hedgerow-iot/hedgerow/batching/reading"
	"github.com/hedgerow-iot/hedgerow/gateway/bus"
	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/peer"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
	"github.com/hedgerow-iot/hedgerow/powfarm"
	"github.com/hedgerow-iot/hedgerow/powfarm/remote"
)

// A Journal holds the readings. *journal.Journal is one.
type Journal interface {
	Get(seq uint64) (reading.Reading, error)
	Latest(device, after string, limit int) (rs []reading.Reading, next string, err error)
	History(q journal.Query) (rs []reading.Reading, next string, err error)
	// Read returns up to limit readings in order, from number from on.
	Read(from uint64, limit int) ([]reading.Reading, error)
	Stats() journal.Stats
}

// A Stage brings readings to the Tangle. *batching.Stage is one.
type Stage interface {
	State(seq uint64) (batching.State, stardust.BlockID, error)
	Stats() batching.Stats
	Ready() error
	// WaitStored returns the number that the next reading will get once that is
	// above before, or the error of ctx.
	WaitStored(ctx context.Context, before uint64) (next uint64, err error)
}

// A Ledger holds the replica. *ledger.Ledger is one.
type Ledger interface {
	Replica
	Agreement
}

// A Replica has the blocks, and says in which the readings of this gateway
// stand.
type Replica interface {
	Tagged(tag []byte, limit int, cursor string) (ids []stardust.BlockID, next string, err error)
	Digest() ([32]byte, error)
	// Ready returns nil if a block can be stored now, or why not.
	Ready() error
	Stats() ledger.Stats
	// MarksFrom yields the marks in ascending order of numbers, beginning with
	// the one that contains from or the first above it, until yield returns
	// false; yield may call the other methods.
	MarksFrom(from uint64, yield func(run [2]uint64, block stardust.BlockID) bool) error
	// Position is that of the last block, Wait returns once there is one after a
	// position, and Blocks yields those after it.
	Position() uint64
	Wait(ctx context.Context, after uint64) error
	Blocks(after uint64, yield func(position uint64, id stardust.BlockID, raw []byte, attached time.Time) bool) error
}

// An Agreement is what the gateways agree on. Errors about what is not known
// wrap ledger.ErrNotFound.
type Agreement interface {
	// Progress returns how far they agree on a block.
	Progress(id stardust.BlockID) (ledger.Progress, error)
	// Agreed returns how far they agree, and WaitAgreed that once it is more
	// than before, or the error of ctx.
	Agreed() ledger.Agreed
	WaitAgreed(ctx context.Context, before ledger.Agreed) (ledger.Agreed, error)
	// Word returns what this gateway tells the others of its part.
	Word() ledger.Word
	// WaitApproved returns blocks that were approved after a position, which
	// counts approvals, and the position to go on from; some may be left out.
	WaitApproved(ctx context.Context, after uint64) (ids []stardust.BlockID, position uint64, err error)
	Milestone(index uint32) (ledger.Milestone, error)
	// Ordered returns the blocks that a milestone orders.
	Ordered(index uint32) ([]consensus.Entry, error)
}

// A Farm searches nonces. *powfarm.Farm is one.
type Farm interface {
	Stats() powfarm.Stats
}

// A Peers knows the other gateways of the network. *peer.Peers is one.
type Peers interface {
	Stats() peer.Stats
}

// A Bus is the connection with them. *bus.Bus is one.
type Bus interface {
	Status() bus.Status
}

// A Remote has workers on other boxes search. *remote.Pool is one.
type Remote interface {
	Workers() []remote.Worker
	Refused() uint64
}

var (
	_ Journal = (*journal.Journal)(nil)
	_ Stage   = (*batching.Stage)(nil)
	_ Ledger  = (*ledger.Ledger)(nil)
	_ Farm    = (*powfarm.Farm)(nil)
	_ Peers   = (*peer.Peers)(nil)
	_ Bus     = (*bus.Bus)(nil)
	_ Remote  = (*remote.Pool)(nil)
)

// Sources are the stages that are asked; Journal to Bus are required.
// Their methods are called concurrently.
type Sources struct {
	Journal Journal
	Stage   Stage
	Ledger  Ledger
	Farm    Farm
	Archive Archive
	Peers   Peers
	Bus     Bus
	Remote  Remote  // nil: no worker elsewhere is used
	Updates Updates // nil: no network file is taken
	// FrontEnds returns the figures of each protocol that is served.
	FrontEnds func() []FrontEnd
	// CheckJournal and CheckLedger read the stores whole for POST check, one
	// at a time; nil for both: there is no such route.
	CheckJournal, CheckLedger Checker
	// Backup is what GET backup streams; nil: there is no such route.
	Backup Backup
	// Milestones returns the index of the last milestone that each of the other
	// gateways told of, by name; nil: they do not tell.
	Milestones func() map[string]uint32
	// Trouble returns what is wrong with the agreement of the gateways; nil:
	// nobody looks.
	Trouble func() Trouble
}

// Trouble is what is wrong with the agreement: evidence that gateways break its
// rules.
type Trouble struct {
	Equivocators []string // names of the members that signed two votes of one round
	// Conflict is the index of a milestone of which more weight than may be
	// Byzantine signed another one than this gateway derived; 0: none.
	Conflict uint32
}

// A FrontEnd is what one protocol has counted since the start.
type FrontEnd struct {
	Protocol    string `json:"protocol"` // mqtt or coap
	Clients     int    `json:"clients"`  // connections or endpoints now
	Messages    uint64 `json:"messages"` // that were handed on to be stored, repetitions included
	Readings    uint64 `json:"readings"` // in them
	Undecodable uint64 `json:"undecodable"`
	Unmapped    uint64 `json:"unmapped"` // messages that mean no reading: ordinary broker traffic
	Panics      uint64 `json:"panics"`   // that ended one connection or request and nothing else
	// Duplicates counts, by device, messages that were answered again and not
	// stored again; those of devices beyond the first 1000 stand under "".
	Duplicates map[string]uint64 `json:"duplicates,omitempty"`
	// Refused counts messages and connections that were turned away, by a
	// reason of one or two words.
	Refused map[string]uint64 `json:"refused,omitempty"`
}

// A Listener is an address that is listened on.
type Listener struct {
	Protocol string `json:"protocol"` // mqtt, websocket, coap, http, routes or clients
	Address  string `json:"address"`
}

// An Alarm is something that somebody should look at.
type Alarm struct {
	Name string `json:"name"` // constant, lower case
	Text string `json:"text"`
}

// Config describes a [Handler]. Zero fields mean the default named.
type Config struct {
	Name    string // of this gateway; required
	Version string // of the program
	Token   string // required; 16 bytes at least
	// Network returns the network file whose members the gateway works with;
	// required.
	Network func() *network.File
	// Settings returns the configuration in force as it may be shown, without
	// secrets; it must encode as JSON. Nil: an empty object.
	Settings func() any
	// Listeners returns what is listened on.
	Listeners func() []Listener
	// Warnings returns what the configuration allows although it is not safe.
	Warnings func() []Alarm
	// Clock tells the time and how far to trust it; nil: the system's, unsure.
	Clock func() (time.Time, reading.Clock)
}

// A Handler answers the routes. It may be used concurrently.
type Handler struct {
	cfg     Config
	src     Sources
	log     *slog.Logger
	started time.Time
	guard   *guard
	mux     *http.ServeMux
	digest  digests
	hub     *hub
	// progress follows the blocks of this gateway.
	progress *progress
	exports  chan struct{} // a token per stream in progress
	// checking holds a token while the stores are checked.
	checking chan struct{}
	copying  chan struct{} // a token while a backup is taken
	updates  refusedUpdates
}

const minToken = 16

// New returns the handler of /api/hedgerow/v1/, /metrics and /ready; any
// other path is answered 404.
func New(cfg Config, src Sources, log *slog.Logger) (*Handler, error) {
	switch {
	case cfg.Name == "" || cfg.Network == nil:
		return nil, errors.New("admin needs the gateway's name and the network file")
	case len(cfg.Token) < minToken:
		return nil, errors.New("admin token is shorter than 16 bytes")
	case src.Journal == nil || src.Stage == nil || src.Ledger == nil || src.Farm == nil ||
		src.Archive == nil || src.Peers == nil || src.Bus == nil:
		return nil, errors.New("admin needs journal, stage, ledger, farm, archive, peers and bus")
	}
	cfg.Version = cmp.Or(cfg.Version, "unknown")
	if cfg.Clock == nil {
		cfg.Clock = func() (time.Time, reading.Clock) { return time.Now(), reading.ClockUnsure }
	}
	if cfg.Settings == nil {
		cfg.Settings = func() any { return struct{}{} }
	}
	if src.Remote == nil {
		src.Remote = noRemote{}
	}
	if src.FrontEnds == nil {
		src.FrontEnds = func() []FrontEnd { return nil }
	}
	if src.Milestones == nil {
		src.Milestones = func() map[string]uint32 { return nil }
	}
	if src.Trouble == nil {
		src.Trouble = func() Trouble { return Trouble{} }
	}
	h := &Handler{
		cfg: cfg, src: src, log: log, started: time.Now(),
		guard: newGuard(cfg.Token, time.Now), mux: http.NewServeMux(),
		exports: make(chan struct{}, maxExports), checking: make(chan struct{}, 1), copying: make(chan struct{}, 1),
		hub: newHub(map[string]func() uint64{
			eventReading: func() uint64 { return src.Journal.Stats().Next }, eventBlock: src.Ledger.Position,
		}),
	}
	h.progress = newProgress(src.Ledger, h.tellState)
	registry, err := h.registry()
	if err != nil {
		return nil, err
	}
	api := http.NewServeMux()
	for path, answer := range map[string]http.HandlerFunc{
		"status":                h.status,
		"readings":              h.readings,
		"readings/{name}/{seq}": h.reading,
		"latest":                h.latest,
		"blocks":                h.blocks,
		"peers":                 h.peers,
		"workers":               h.workers,
		"alarms":                h.alarmsNow,
		"config":                h.config,
		"network":               h.network,
		"events":                h.events,
	} {
		all := methods{http.MethodGet: answer}
		if path == "network" && src.Updates != nil {
			all[http.MethodPost] = h.postNetwork
		}
		api.Handle(prefix+path, all)
	}
	if src.CheckJournal != nil && src.CheckLedger != nil {
		api.Handle(prefix+"check", methods{http.MethodPost: h.check})
	}
	if src.Backup != nil {
		api.Handle(prefix+"backup", methods{http.MethodGet: h.backup})
	}
	api.HandleFunc("/", notFound)
	h.mux.Handle(prefix, h.guard.require(api))
	h.mux.Handle("/metrics", methods{http.MethodGet: promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		MaxRequestsInFlight: 4, Timeout: 10 * time.Second,
	}).ServeHTTP})
	h.mux.Handle("/ready", methods{http.MethodGet: h.ready})
	h.mux.HandleFunc("/", notFound)
	return h, nil
}

// prefix is where the routes with token begin.
const prefix = "/api/hedgerow/v1/"

// ServeHTTP answers one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

// Require puts the admin token in front of another handler: the Tangle's routes
// for the site. The waiting after wrong tokens is that handler's own: who sends
// them there does not keep anybody from the admin routes.
func (h *Handler) Require(next http.Handler) http.Handler {
	return newGuard(h.cfg.Token, time.Now).require(next)
}

func notFound(w http.ResponseWriter, r *http.Request) {
	writeError(w, http.StatusNotFound, "no route "+r.URL.Path+" in this version")
}

// ready answers 200 only if a reading could be acknowledged now.
func (h *Handler) ready(w http.ResponseWriter, _ *http.Request) {
	// Anybody may ask, and the whole reason names directories; status, which
	// wants the token, has it.
	switch err := h.src.Stage.Ready(); {
	case errors.Is(err, batching.ErrBusy):
		writeError(w, http.StatusServiceUnavailable, batching.ErrBusy.Error())
		return
	case errors.Is(err, batching.ErrClosed):
		writeError(w, http.StatusServiceUnavailable, batching.ErrClosed.Error())
		return
	case err != nil:
		writeError(w, http.StatusServiceUnavailable, "not ready")
		return
	}
	writeJSON(w, http.StatusOK, map[string]bool{"ready": true})
}

func (h *Handler) config(w http.ResponseWriter, r *http.Request) {
	if q := parseQuery(r.URL.RawQuery); q.err != nil {
		writeError(w, http.StatusBadRequest, q.err.Error())
		return
	}
	writeJSON(w, http.StatusOK, h.cfg.Settings())
}

// fault answers for a stage that could not be asked.
func (h *Handler) fault(w http.ResponseWriter, r *http.Request, doing string, err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	h.log.Error("admin request not answered", "doing", doing, "err", err)
	writeError(w, http.StatusInternalServerError, doing+": the gateway's log says why")
}
