package admin

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/peer"
)

// An agreedCollector shows what the gateways agree on, and how far this one's
// readings have come.
type agreedCollector struct {
	h          *Handler
	simple     []agreedMetric
	backlog    *prometheus.Desc
	age        *prometheus.Desc
	peers      *prometheus.Desc
	histograms []agreedHistogram
}

type (
	agreedMetric struct {
		desc  *prometheus.Desc
		kind  prometheus.ValueType
		value func(*agreement) float64
	}
	agreedHistogram struct {
		desc  *prometheus.Desc
		value func(*agreement) batching.Histogram
	}
)

// agreement are the figures at one scrape.
type agreement struct {
	agreed ledger.Agreed
	word   ledger.Word
	quorum quorum
	totals agreedTotals
	peers  peer.Stats
}

func newAgreedCollector(h *Handler) *agreedCollector {
	return &agreedCollector{
		h: h,
		simple: []agreedMetric{
			{desc("milestone_index", "Index of the last milestone; 0: there is none yet."), gauge, func(a *agreement) float64 { return float64(a.agreed.Milestone) }},
			{desc("round", "Highest round of votes in the epoch; its growth is the pace of the agreement."), gauge, func(a *agreement) float64 { return float64(slices.Max(append([]uint32{0}, a.word.Highest...))) }},
			{desc("milestone_certified_index", "Index of the milestone up to which all have the signatures of a quorum."), gauge, func(a *agreement) float64 { return float64(a.agreed.Certified) }},
			{desc("quorum_needed", "Weight of gateways that confirm together."), gauge, func(a *agreement) float64 { return float64(a.quorum.Needed) }},
			{desc("quorum_up", "Weight of the gateways that are up, this one included."), gauge, func(a *agreement) float64 { return float64(a.quorum.Up) }},
			{desc("blocks_approved_total", "Blocks of any kind and gateway that a quorum voted above."), counter, func(a *agreement) float64 { return float64(a.totals.approved) }},
			{desc("blocks_confirmed_total", "Blocks of any kind and gateway that a milestone ordered."), counter, func(a *agreement) float64 { return float64(a.totals.ordered) }},
		},
		backlog: desc("backlog_readings", "Durable readings on their way, by the state they are in.", "state"),
		age:     desc("milestone_age_seconds", "Time since the last milestone. It grows while nothing waits to be confirmed, too."),
		peers:   desc("peer_milestone_lag", "Milestones that the gateway is behind this one; below 0, ahead of it.", "peer"),
		histograms: []agreedHistogram{
			{desc("confirm_seconds", "Time from the attachment of a batch to its milestone."), func(a *agreement) batching.Histogram { return a.totals.confirm }},
			{desc("certify_seconds", "Time from the attachment of a batch to the certificate of its milestone."), func(a *agreement) batching.Histogram { return a.totals.certify }},
		},
	}
}

// Describe implements prometheus.Collector.
func (c *agreedCollector) Describe(out chan<- *prometheus.Desc) {
	for _, m := range c.simple {
		out <- m.desc
	}
	for _, m := range c.histograms {
		out <- m.desc
	}
	out <- c.backlog
	out <- c.age
	out <- c.peers
}

// Collect implements prometheus.Collector.
func (c *agreedCollector) Collect(out chan<- prometheus.Metric) {
	h := c.h
	a := &agreement{agreed: h.src.Ledger.Agreed(), word: h.src.Ledger.Word(), totals: h.progress.stats(), peers: h.src.Peers.Stats()}
	a.quorum = h.quorum(&a.peers)
	for _, m := range c.simple {
		out <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value(a))
	}
	for _, m := range c.histograms {
		out <- constHistogram(m.desc, m.value(a))
	}
	b := h.progress.backlog(h.src.Stage.Stats().Backlog)
	for state, n := range map[batching.State]uint64{
		batching.Stored: b.Stored, batching.Batched: b.Batched, batching.Attached: b.Attached, approved: b.Approved, confirmed: b.Confirmed,
	} {
		out <- prometheus.MustNewConstMetric(c.backlog, gauge, float64(n), string(state))
	}
	if a.agreed.Timestamp != 0 {
		age := time.Since(time.Unix(int64(a.agreed.Timestamp), 0))
		out <- prometheus.MustNewConstMetric(c.age, gauge, max(0, age.Seconds()))
	}
	for _, p := range h.peerLines(&a.peers) {
		if p.MilestoneLag != nil {
			out <- prometheus.MustNewConstMetric(c.peers, gauge, float64(*p.MilestoneLag), p.Name)
		}
	}
}
