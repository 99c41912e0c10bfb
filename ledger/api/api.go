// Package api serves the Tangle's own HTTP routes over what the ledger offers:
// health, routes, TIP-25 core (info, tips, blocks, metadata, milestones) and
// proofs of inclusion (INX-POI) in the form that existing client libraries use,
// including proof of work by the gateway for clients that send none. [Events]
// encodes the events of TIP-28 for a broker to carry.
//
// It knows HTTP and JSON, not the rules of the DAG: whether a block may be
// attached is for the ledger to say, and this package only chooses the words.
// It keeps no block, and only [Events.Run] starts goroutines. It does not
// authenticate: when the routes are not public, gateway puts the admin's guard
// in front.
//
// Requests are bounded before they cost anything: 1 MiB of body and few long
// ones, a number of submissions, of proof-of-work jobs and of proofs at a time,
// a time for each.
package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// A Ledger is the replica that is served. *ledger.Ledger is one.
type Ledger interface {
	Blocks
	Milestones
	Tips() []stardust.BlockID
	Attach(ctx context.Context, b *stardust.Block, runs [][2]uint64) (stardust.BlockID, error)
	Children(id stardust.BlockID) ([]stardust.BlockID, error)
	MinPoWScore() uint32
	Stats() ledger.Stats
}

// Blocks is what is known of single blocks.
type Blocks interface {
	Block(id stardust.BlockID) (raw []byte, err error)
	Metadata(id stardust.BlockID) (ledger.Metadata, error)
}

// Milestones is what the gateways agree.
type Milestones interface {
	Agreed() ledger.Agreed
	// Word says above which milestone all blocks have their bodies.
	Word() ledger.Word
	Milestone(index uint32) (ledger.Milestone, error)
	MilestoneIndex(id [32]byte) (uint32, error)
	Ordered(index uint32) ([]consensus.Entry, error)
}

var _ Ledger = (*ledger.Ledger)(nil)

// A TooManyError means that a client hands in more blocks than it may.
type TooManyError struct {
	Why   string
	After time.Duration // from now, when it may come again
}

// Error returns why, and when to come again.
func (e *TooManyError) Error() string {
	return fmt.Sprintf("too many blocks: %s; come again in %v", e.Why, e.After.Round(time.Second))
}

// A Prover finds nonces (TIP-12). powfarm.Client is one.
type Prover interface {
	Prove(ctx context.Context, digest [32]byte, zeros int) (nonce uint64, err error)
}

// Config describes a [Server]. Zero fields mean the default named.
type Config struct {
	Name    string        // of the software, in info; "hedgerow"
	Version string        // of the software, in info; "0.0.0"
	Network *network.File // the network served; required
	// NetworkOf returns the network file with this hash, of whatever epoch, or
	// nil. It is asked when a proof is validated. nil: only Network is known.
	NetworkOf func(hash [32]byte) *network.File
	// Routes are listed in /api/routes besides core/v2 and poi/v1.
	Routes []string
	// Health returns nil when the ledger can attach a block now; nil: always.
	Health func() error
	// Admit is asked before a submitted block is attached, with the client's
	// address, host and port. It may wait. A TooManyError is answered 429, one
	// that wraps ledger.ErrBusy 503. nil: everything is admitted.
	Admit func(ctx context.Context, remote string) error
	// PoWJobs bounds the blocks that wait for a nonce at the same time; more
	// are answered 503. 4. No client has more than half of them.
	PoWJobs int
	// Client tells whose a request is by its address. nil: all are one client's,
	// who then has them all.
	Client func(remote string) netip.Prefix
	// PoWTime bounds the search for one block. 2 minutes.
	PoWTime time.Duration
	// TipRefresh is how long a search goes on before newer tips are taken,
	// when it is the gateway that chooses the parents. 1 second.
	TipRefresh time.Duration
}

// Bounds that no configuration moves.
const (
	maxBody    = 1 << 20          // bytes of a submitted body, as Hornet has it
	smallBody  = 128 << 10        // bytes of a body that holds any block
	maxLarge   = 4                // longer bodies in memory at a time
	maxSubmits = 32               // blocks in work, searching or not
	maxProofs  = 4                // proofs of inclusion in work
	bodyTime   = 10 * time.Second // to send a body
	answerTime = 10 * time.Second // to write an answer after a search
	retryAfter = 5 * time.Second  // what a refused client is told
)

// A Server answers the routes. It may be used concurrently.
type Server struct {
	cfg     Config
	hash    [32]byte // of cfg.Network
	ledger  Ledger
	prover  Prover // nil: clients bring their own proof of work
	log     *slog.Logger
	mux     *http.ServeMux
	large   chan struct{} // a token per body beyond smallBody
	submits chan struct{} // a token per block in work
	proofs  chan struct{} // a token per proof of inclusion in work
	jobs    *jobs
	rate    rate
	orders  orders
}

// New returns the handler of /health, /api/routes, /api/core/v2/ and
// /api/poi/v1/; any other path is answered 404. A nil prover means that this gateway searches no
// nonces for others.
func New(cfg Config, l Ledger, p Prover, log *slog.Logger) (*Server, error) {
	if cfg.Network == nil {
		return nil, errors.New("api needs the network file")
	}
	if cfg.PoWJobs < 0 || cfg.PoWTime < 0 || cfg.TipRefresh < 0 {
		return nil, fmt.Errorf("api limits are %d jobs, %v, %v; want none below 0", cfg.PoWJobs, cfg.PoWTime, cfg.TipRefresh)
	}
	cfg.Name = cmp.Or(cfg.Name, "hedgerow")
	cfg.Version = cmp.Or(cfg.Version, "0.0.0")
	cfg.PoWTime = cmp.Or(cfg.PoWTime, 2*time.Minute)
	cfg.TipRefresh = cmp.Or(cfg.TipRefresh, time.Second)
	if cfg.Health == nil {
		cfg.Health = func() error { return nil }
	}
	if cfg.NetworkOf == nil {
		cfg.NetworkOf = func([32]byte) *network.File { return nil }
	}
	if cfg.Admit == nil {
		cfg.Admit = func(context.Context, string) error { return nil }
	}
	s := &Server{
		cfg: cfg, hash: cfg.Network.Hash(), ledger: l, prover: p, log: log, mux: http.NewServeMux(),
		large:   make(chan struct{}, maxLarge),
		submits: make(chan struct{}, maxSubmits),
		proofs:  make(chan struct{}, maxProofs),
		jobs:    newJobs(cmp.Or(cfg.PoWJobs, 4), cfg.Client),
	}
	for path, m := range map[string]methods{
		"/health":                                  {"GET": s.health},
		"/api/routes":                              {"GET": s.routes},
		"/api/core/v2/info":                        {"GET": s.info},
		"/api/core/v2/tips":                        {"GET": s.tips},
		"/api/core/v2/blocks":                      {"POST": s.submit},
		"/api/core/v2/blocks/{id}":                 {"GET": s.block},
		"/api/core/v2/blocks/{id}/metadata":        {"GET": s.metadata},
		"/api/core/v2/blocks/{id}/children":        {"GET": s.children},
		"/api/core/v2/milestones/{id}":             {"GET": s.milestoneByID},
		"/api/core/v2/milestones/by-index/{index}": {"GET": s.milestoneByIndex},
		"/api/poi/v1/create/{id}":                  {"GET": s.createProof},
		"/api/poi/v1/validate":                     {"POST": s.validateProof},
	} {
		s.mux.Handle(path, m)
	}
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, http.StatusNotFound, "no route "+r.URL.Path+" in this version; see /api/routes")
	})
	return s, nil
}

// ServeHTTP answers one request. Pages of any origin may read the answers and
// submit blocks, as client libraries in browsers do: nothing here depends on
// who asks, and no cookie is ever set or read.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Expose-Headers", "Location, Retry-After")
	h.Set("X-Content-Type-Options", "nosniff")
	s.mux.ServeHTTP(w, r)
}

// methods answers the methods of one path, and the others 405.
type methods map[string]http.HandlerFunc

// ServeHTTP answers HEAD as GET (net/http drops the body) and OPTIONS with
// what a browser asks before it sends a request to another origin.
func (m methods) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	if h, ok := m[method]; ok {
		h(w, r)
		return
	}
	allow := "GET, HEAD, OPTIONS"
	if m[http.MethodGet] == nil {
		allow = "POST, OPTIONS"
	}
	w.Header().Set("Allow", allow)
	if method != http.MethodOptions {
		writeError(w, http.StatusMethodNotAllowed, "method "+method+" not allowed here, only "+allow)
		return
	}
	h := w.Header()
	h.Set("Access-Control-Allow-Methods", allow)
	h.Set("Access-Control-Allow-Headers", "Accept, Authorization, Content-Type")
	h.Set("Access-Control-Max-Age", "86400")
	w.WriteHeader(http.StatusNoContent)
}
