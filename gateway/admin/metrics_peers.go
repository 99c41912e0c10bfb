package admin

import (
	"maps"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hedgerow-iot/hedgerow/batching/archive"
	"github.com/hedgerow-iot/hedgerow/gateway/bus"
	"github.com/hedgerow-iot/hedgerow/ledger/peer"
)

// A federation is what the gateways share, at one scrape.
type federation struct {
	peers   peer.Stats
	bus     bus.Status
	archive archive.Stats
}

// up counts the other gateways that are heard of.
func (f *federation) up() (n int) {
	for i := range f.peers.Members {
		if f.peers.Members[i].Up {
			n++
		}
	}
	return n
}

// A peerCollector asks the peers, the bus and the archive when Prometheus asks
// it. Peers are the members of a network file, so their labels are bounded.
type peerCollector struct {
	h       *Handler
	simple  []federationMetric
	peers   []peerMetric
	results *prometheus.Desc
	refused *prometheus.Desc
	foreign *prometheus.Desc
}

type (
	federationMetric struct {
		desc  *prometheus.Desc
		kind  prometheus.ValueType
		value func(*federation) float64
	}
	peerMetric struct {
		desc  *prometheus.Desc
		kind  prometheus.ValueType
		value func(*peer.Member) float64
	}
)

func newPeerCollector(h *Handler) *peerCollector {
	return &peerCollector{
		h: h,
		simple: []federationMetric{
			{desc("peers", "Other gateways of the network."), gauge, func(f *federation) float64 { return float64(len(f.peers.Members)) }},
			{desc("peers_up", "Other gateways that were heard of lately."), gauge, func(f *federation) float64 { return float64(f.up()) }},
			{desc("gossip_sent_frames_total", "Frames of new blocks sent to the other gateways."), counter, func(f *federation) float64 { return float64(f.peers.Sent) }},
			{desc("gossip_unsent_blocks_total", "New blocks that found no room to wait for being sent; the others fetch them."), counter, func(f *federation) float64 { return float64(f.peers.Unsent) }},
			{desc("gossip_strange_frames_total", "Frames, answers and signatures that are of no gateway of the network."), counter, func(f *federation) float64 { return float64(f.peers.Strange) }},
			{desc("gossip_unsent_signatures_total", "Own signatures of milestones that found no room to wait for being sent; the others ask for them."), counter, func(f *federation) float64 { return float64(f.peers.SignaturesUnsent) }},
			{desc("gossip_unread_signatures_total", "Signatures of milestones that the replica had no time for; it asks for them again."), counter, func(f *federation) float64 { return float64(f.peers.SignaturesUnread) }},
			{desc("peers_wanted_blocks", "Missing blocks that the other gateways are asked for."), gauge, func(f *federation) float64 { return float64(f.peers.Wanted) }},
			{desc("bus_connected", "1 if there is a connection with a NATS server."), gauge, func(f *federation) float64 { return number(f.bus.Connected) }},
			{desc("bus_routes", "Routes with the servers of other gateways."), gauge, func(f *federation) float64 { return float64(len(f.bus.Routes)) }},
			{desc("bus_clients", "Members and workers connected at peers.clients."), gauge, func(f *federation) float64 { return float64(f.bus.Clients) }},
			{desc("bus_handshakes_refused_total", "Handshakes with keys that may not connect."), counter, func(f *federation) float64 { return float64(f.bus.Refused) }},
			{desc("archive_position", "Blocks of the replica, in its order, that were looked at for batches."), gauge, func(f *federation) float64 { return float64(f.archive.Position) }},
			{desc("archive_batches", "Batches of all gateways that are indexed."), gauge, func(f *federation) float64 { return float64(f.archive.Batches) }},
			{desc("archive_readings", "Readings in them that count."), gauge, func(f *federation) float64 { return float64(f.archive.Readings) }},
			{desc("archive_duplicate_readings_total", "Readings that stood in an earlier block already."), counter, func(f *federation) float64 { return float64(f.archive.Duplicates) }},
			{desc("archive_conflicting_readings_total", "Readings signed with a number that stands in an earlier block with other content."), counter, func(f *federation) float64 { return float64(f.archive.Conflicts) }},
			{desc("archive_waiting_blocks", "Batches whose gateway or key no network file has named yet; 10000 at most."), gauge, func(f *federation) float64 { return float64(f.archive.Waiting) }},
			{desc("archive_alarms", "Blocks kept as evidence of such readings."), gauge, func(f *federation) float64 { return float64(f.archive.Alarms) }},
		},
		peers: []peerMetric{
			{desc("peer_up", "1 if the gateway was heard of lately.", "peer"), gauge, func(m *peer.Member) float64 { return number(m.Up) }},
			{desc("peer_lag_blocks", "Blocks of the gateway that may be missing here.", "peer"), gauge, func(m *peer.Member) float64 { return float64(m.Behind) }},
			{desc("peer_score", "Standing of the gateway, 0 to 1; at 0 it is not listened to for a while.", "peer"), gauge, func(m *peer.Member) float64 { return m.Standing }},
			{desc("peer_shunned", "1 if the gateway is not listened to.", "peer"), gauge, func(m *peer.Member) float64 { return number(!m.ShunnedUntil.IsZero()) }},
			{desc("peer_unanswered_total", "Requests to the gateway without an answer.", "peer"), counter, func(m *peer.Member) float64 { return float64(m.Unanswered) }},
			{desc("peer_served_bytes_total", "Bytes of answers to the gateway.", "peer"), counter, func(m *peer.Member) float64 { return float64(m.Served) }},
		},
		results: desc("peer_blocks_total", "Blocks that came from the gateway, by what they were.", "peer", "result"),
		refused: desc("peer_refused_total", "Frames, requests and blocks of the gateway, or in its name, that were not taken, by reason.", "peer", "reason"),
		foreign: desc("archive_refused_blocks_total", "Blocks under a gateway's tag that are none of its batches, by reason.", "reason"),
	}
}

// Describe implements prometheus.Collector.
func (c *peerCollector) Describe(out chan<- *prometheus.Desc) {
	for _, m := range c.simple {
		out <- m.desc
	}
	for _, m := range c.peers {
		out <- m.desc
	}
	out <- c.results
	out <- c.refused
	out <- c.foreign
}

// Collect implements prometheus.Collector.
func (c *peerCollector) Collect(out chan<- prometheus.Metric) {
	f := &federation{c.h.src.Peers.Stats(), c.h.src.Bus.Status(), c.h.src.Archive.Stats()}
	for _, m := range c.simple {
		out <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value(f))
	}
	for _, reason := range slices.Sorted(maps.Keys(f.archive.Refused)) {
		out <- prometheus.MustNewConstMetric(c.foreign, counter, float64(f.archive.Refused[reason]), reason)
	}
	for i := range f.peers.Members {
		m := &f.peers.Members[i]
		for _, p := range c.peers {
			out <- prometheus.MustNewConstMetric(p.desc, p.kind, p.value(m), m.Name)
		}
		for result, n := range map[string]uint64{"new": m.New, "duplicate": m.Duplicates, "held": m.Held, "useless": m.Useless, "invalid": m.Invalid, "unsupported": m.Unsupported} {
			out <- prometheus.MustNewConstMetric(c.results, counter, float64(n), m.Name, result)
		}
		for reason, n := range map[string]uint64{
			"malformed": m.Malformed, "replayed": m.Replayed, "forged": m.Forged, "limited": m.Limited, "shunned": m.Shunned,
		} {
			out <- prometheus.MustNewConstMetric(c.refused, counter, float64(n), m.Name, reason)
		}
	}
}
