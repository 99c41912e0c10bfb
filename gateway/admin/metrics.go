package admin

import (
	"fmt"
	"maps"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/batching/journal"
	"github.com/hedgerow-iot/hedgerow/batching/reading"
	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/powfarm"
	"github.com/hedgerow-iot/hedgerow/powfarm/remote"
)

// registry returns what /metrics shows: the stages' figures and those of the
// process.
func (h *Handler) registry() (*prometheus.Registry, error) {
	r := prometheus.NewRegistry()
	for _, c := range []prometheus.Collector{
		newCollector(h), newPeerCollector(h), newAgreedCollector(h), newUpdateCollector(h),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return r, nil
}

// figures are everybody's figures at one scrape.
type figures struct {
	journal journal.Stats
	stage   batching.Stats
	ledger  ledger.Stats
	farm    powfarm.Stats
	workers []remote.Worker
	refused uint64 // messages of remote proof of work
	front   []FrontEnd
	ready   bool
	clock   reading.Clock
}

// A collector asks the stages when Prometheus asks it; it keeps nothing.
type collector struct {
	h          *Handler
	simple     []simple
	searches   *prometheus.Desc
	refused    *prometheus.Desc
	front      []frontMetric
	priorities []priorityMetric
	kernels    []kernelMetric
	histograms []histogram
	info       *prometheus.Desc
}

type (
	simple struct {
		desc  *prometheus.Desc
		kind  prometheus.ValueType
		value func(*figures) float64
	}
	frontMetric struct {
		desc  *prometheus.Desc
		kind  prometheus.ValueType
		value func(*FrontEnd) float64
	}
	priorityMetric struct {
		desc  *prometheus.Desc
		kind  prometheus.ValueType
		value func(*powfarm.Stats, powfarm.Priority) float64
	}
	kernelMetric struct {
		desc  *prometheus.Desc
		value func(*powfarm.KernelStats) float64
	}
	histogram struct {
		desc  *prometheus.Desc
		value func(*figures) batching.Histogram
	}
)

const (
	counter = prometheus.CounterValue
	gauge   = prometheus.GaugeValue
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("hedgerow_"+name, help, labels, nil)
}

func newCollector(h *Handler) *collector {
	return &collector{
		h:    h,
		info: desc("build_info", "1, with the version of the program and the kernel of its proof of work.", "version", "kernel"),
		simple: []simple{
			{desc("ready", "1 if a reading can be acknowledged now."), gauge, func(f *figures) float64 { return number(f.ready) }},
			{desc("clock_quality", "Quality of the clock: 0 good, 1 unsure, 2 bad."), gauge, func(f *figures) float64 { return float64(f.clock) }},
			{desc("readings_acked_total", "Readings made durable and acknowledged."), counter, func(f *figures) float64 { return float64(f.stage.Acked) }},
			{desc("packets_duplicate_total", "Packets recognised as sent again and not stored again."), counter, func(f *figures) float64 { return float64(f.stage.Duplicates) }},
			{desc("packets_refused_total", "Packets that could not be stored: busy, full or stopping."), counter, func(f *figures) float64 { return float64(f.stage.Refused) }},
			{desc("intake_waiting_readings", "Readings taken in and not durable yet."), gauge, func(f *figures) float64 { return float64(f.stage.Waiting) }},
			{desc("readings_attached_total", "Readings attached to the Tangle."), counter, func(f *figures) float64 { return float64(f.stage.Attached) }},
			{desc("batches_sealed_total", "Batches sealed."), counter, func(f *figures) float64 { return float64(f.stage.Batches) }},
			{desc("batch_retries_total", "Errors of proof of work and ledger that passed by themselves."), counter, func(f *figures) float64 { return float64(f.stage.Retries) }},
			{desc("batch_tip_refreshes_total", "Searches begun again with newer parents."), counter, func(f *figures) float64 { return float64(f.stage.Refreshes) }},
			{desc("journal_bytes", "Bytes of the journal on disk."), gauge, func(f *figures) float64 { return float64(f.journal.DiskBytes) }},
			{desc("journal_readings", "Readings kept in the journal."), gauge, func(f *figures) float64 { return float64(f.journal.Readings) }},
			{desc("journal_trimmed_readings_total", "Readings that left the journal by age or size."), counter, func(f *figures) float64 { return float64(f.journal.Trimmed) }},
			{desc("disk_free_bytes", "Free bytes of the disk under the stores."), gauge, func(f *figures) float64 { return float64(f.journal.FreeBytes) }},
			{desc("ledger_blocks", "Solid blocks in the replica whose bodies are kept."), gauge, func(f *figures) float64 { return float64(f.ledger.Blocks) }},
			{desc("ledger_tips", "Blocks that no other approves."), gauge, func(f *figures) float64 { return float64(f.ledger.Tips) }},
			{desc("ledger_pruned_blocks", "Blocks of the replica whose bodies are kept no more."), gauge, func(f *figures) float64 { return float64(f.ledger.Pruned) }},
			{desc("ledger_held_blocks", "Blocks whose parents are missing."), gauge, func(f *figures) float64 { return float64(f.ledger.Held) }},
			{desc("ledger_refused_blocks_total", "Invalid blocks."), counter, func(f *figures) float64 { return float64(f.ledger.Refused) }},
			{desc("ledger_dropped_blocks_total", "Blocks with missing parents given up to make room."), counter, func(f *figures) float64 { return float64(f.ledger.Dropped) }},
			{desc("gossip_wrong_signatures_total", "Signatures of milestones that were wrong, or of no member."), counter, func(f *figures) float64 { return float64(f.ledger.BadSignatures) }},
			{desc("votes_total", "Votes of this gateway."), counter, func(f *figures) float64 { return float64(f.ledger.Votes) }},
			{desc("votes_parked", "Votes of the next epoch that wait for it to begin here."), gauge, func(f *figures) float64 { return float64(f.ledger.Parked) }},
			{desc("pow_workers", "Proof-of-work workers."), gauge, func(f *figures) float64 { return float64(f.farm.Workers) }},
			{desc("pow_wrong_total", "Nonces of a kernel that the check refused."), counter, func(f *figures) float64 { return float64(f.farm.Wrong) }},
			{desc("pow_preemptions_total", "Times that a worker left a search for a more important or an older one."), counter, func(f *figures) float64 { return float64(f.farm.Preempted) }},
			{desc("pow_withdrawn_total", "Searches ended by their callers: gone, or back with newer parents."), counter, func(f *figures) float64 { return float64(f.farm.Withdrawn) }},
			{desc("pow_refused_total", "Searches refused because the queue of their priority was full."), counter, func(f *figures) float64 { return float64(f.farm.Refused) }},
			{desc("pow_remote_workers", "Workers on other boxes that announced themselves lately."), gauge, func(f *figures) float64 { return float64(f.alive()) }},
			{desc("pow_remote_given_total", "Searches that workers on other boxes were asked for."), counter, func(f *figures) float64 { return float64(f.remote().Given) }},
			{desc("pow_remote_messages_refused_total", "Messages about remote proof of work that were forged, replayed or garbage."), counter, func(f *figures) float64 { return float64(f.refused) }},
		},
		searches: desc("pow_remote_ended_total", "Searches of workers on other boxes that ended, by how.", "end"),
		priorities: []priorityMetric{
			{desc("pow_queued", "Blocks whose nonces are searched or wait for a worker.", "priority"), gauge, func(f *powfarm.Stats, p powfarm.Priority) float64 { return float64(f.Queued[p]) }},
			{desc("pow_queue_age_seconds", "Time since the oldest of them came.", "priority"), gauge, func(f *powfarm.Stats, p powfarm.Priority) float64 { return f.Age[p].Seconds() }},
			{desc("pow_proven_total", "Nonces found.", "priority"), counter, func(f *powfarm.Stats, p powfarm.Priority) float64 { return float64(f.Proven[p]) }},
		},
		kernels: []kernelMetric{
			{desc("pow_tries_total", "Nonces tried.", "kernel"), func(k *powfarm.KernelStats) float64 { return float64(k.Tries) }},
			{desc("pow_expected_tries_total", "Nonces that as many finds take on average; a lasting drift from those tried means a broken kernel.", "kernel"), func(k *powfarm.KernelStats) float64 { return k.Expected }},
			{desc("pow_searching_seconds_total", "Time that workers spent searching, summed.", "kernel"), func(k *powfarm.KernelStats) float64 { return k.Searching.Seconds() }},
		},
		refused: desc("messages_refused_total", "Messages and connections turned away, by protocol and reason.", "protocol", "reason"),
		front: []frontMetric{
			{desc("clients", "MQTT connections and CoAP endpoints.", "protocol"), gauge, func(f *FrontEnd) float64 { return float64(f.Clients) }},
			{desc("readings_received_total", "Readings in those messages.", "protocol"), counter, func(f *FrontEnd) float64 { return float64(f.Readings) }},
			{desc("messages_total", "Messages handed on to be stored, repetitions included.", "protocol"), counter, func(f *FrontEnd) float64 { return float64(f.Messages) }},
			{desc("messages_unmapped_total", "Messages that mean no reading: ordinary broker traffic.", "protocol"), counter, func(f *FrontEnd) float64 { return float64(f.Unmapped) }},
			{desc("messages_undecodable_total", "Messages stored raw because their payload could not be decoded.", "protocol"), counter, func(f *FrontEnd) float64 { return float64(f.Undecodable) }},
			{desc("panics_guarded_total", "Panics that ended one connection or request and nothing else.", "protocol"), counter, func(f *FrontEnd) float64 { return float64(f.Panics) }},
		},
		histograms: []histogram{
			{desc("commit_seconds", "Time to make a group of packets durable."), func(f *figures) batching.Histogram { return f.stage.Commit }},
			{desc("commit_packets", "Packets in a group made durable together."), func(f *figures) batching.Histogram { return f.stage.Group }},
			{desc("attach_seconds", "Time from sealing a batch to its attachment."), func(f *figures) batching.Histogram { return f.stage.Attach }},
		},
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	out <- c.info
	out <- c.refused
	out <- c.searches
	for _, m := range c.simple {
		out <- m.desc
	}
	for _, m := range c.front {
		out <- m.desc
	}
	for _, m := range c.priorities {
		out <- m.desc
	}
	for _, m := range c.kernels {
		out <- m.desc
	}
	for _, m := range c.histograms {
		out <- m.desc
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	f := c.h.figures()
	out <- prometheus.MustNewConstMetric(c.info, gauge, 1, c.h.cfg.Version, f.farm.Kernel)
	for _, m := range c.simple {
		out <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value(f))
	}
	all := f.remote()
	for end, n := range map[string]uint64{
		"found": all.Found, "wrong": all.Wrong, "timed_out": all.TimedOut, "lost": all.Lost,
		"expired": all.Expired, "refused": all.Refused, "cancelled": all.Cancelled,
	} {
		out <- prometheus.MustNewConstMetric(c.searches, counter, float64(n), end)
	}
	for i := range f.front {
		fe := &f.front[i]
		for _, m := range c.front {
			out <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value(fe), fe.Protocol)
		}
		for _, reason := range slices.Sorted(maps.Keys(fe.Refused)) {
			out <- prometheus.MustNewConstMetric(c.refused, counter, float64(fe.Refused[reason]), fe.Protocol, reason)
		}
	}
	for _, m := range c.priorities {
		for p := range powfarm.Priority(powfarm.Priorities) {
			out <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value(&f.farm, p), p.String())
		}
	}
	for _, m := range c.kernels {
		for i := range f.farm.Kernels {
			k := &f.farm.Kernels[i]
			out <- prometheus.MustNewConstMetric(m.desc, counter, m.value(k), k.Name)
		}
	}
	for _, m := range c.histograms {
		out <- constHistogram(m.desc, m.value(f))
	}
}

func constHistogram(desc *prometheus.Desc, v batching.Histogram) prometheus.Metric {
	cumulative := make(map[float64]uint64, len(v.Bounds))
	var n uint64
	for i, bound := range v.Bounds {
		n += v.Counts[i]
		cumulative[bound] = n
	}
	return prometheus.MustNewConstHistogram(desc, v.Count(), v.Sum, cumulative)
}

// figures asks every stage.
func (h *Handler) figures() *figures {
	f := &figures{
		journal: h.src.Journal.Stats(), stage: h.src.Stage.Stats(),
		ledger: h.src.Ledger.Stats(), farm: h.src.Farm.Stats(),
		workers: h.src.Remote.Workers(), refused: h.src.Remote.Refused(),
		front: h.src.FrontEnds(), ready: h.src.Stage.Ready() == nil,
	}
	_, f.clock = h.cfg.Clock()
	return f
}

// alive counts the workers on other boxes that are there.
func (f *figures) alive() (n int) {
	for i := range f.workers {
		if f.workers[i].Alive {
			n++
		}
	}
	return n
}

// remote returns the counts of all workers on other boxes together.
func (f *figures) remote() (sum remote.Worker) {
	for i := range f.workers {
		w := &f.workers[i]
		sum.Given += w.Given
		sum.Found += w.Found
		sum.Wrong += w.Wrong
		sum.TimedOut += w.TimedOut
		sum.Lost += w.Lost
		sum.Expired += w.Expired
		sum.Refused += w.Refused
		sum.Cancelled += w.Cancelled
	}
	return sum
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
