package api

import (
	"net/http"
	"strconv"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// The answer to info. Strict clients want exactly these fields (TIP-25).
type (
	info struct {
		Name      string     `json:"name"`
		Version   string     `json:"version"`
		Status    infoStatus `json:"status"`
		Versions  []int      `json:"supportedProtocolVersions"`
		Protocol  protocol   `json:"protocol"`
		Pending   []struct{} `json:"pendingProtocolParameters"`
		BaseToken baseToken  `json:"baseToken"`
		Metrics   metrics    `json:"metrics"`
		Features  []string   `json:"features"`
	}
	infoStatus struct {
		IsHealthy          bool      `json:"isHealthy"`
		LatestMilestone    milestone `json:"latestMilestone"`
		ConfirmedMilestone milestone `json:"confirmedMilestone"`
		PruningIndex       uint32    `json:"pruningIndex"`
	}
	milestone struct {
		Index     uint32               `json:"index"`
		Timestamp uint32               `json:"timestamp"`
		ID        stardust.MilestoneID `json:"milestoneId"`
	}
	protocol struct {
		Version       int    `json:"version"`
		NetworkName   string `json:"networkName"`
		Bech32HRP     string `json:"bech32Hrp"`
		MinPoWScore   uint32 `json:"minPowScore"`
		BelowMaxDepth int    `json:"belowMaxDepth"`
		Rent          rent   `json:"rentStructure"`
		TokenSupply   string `json:"tokenSupply"`
	}
	rent struct {
		VByteCost       uint32 `json:"vByteCost"`
		VByteFactorData int    `json:"vByteFactorData"`
		VByteFactorKey  int    `json:"vByteFactorKey"`
	}
	baseToken struct {
		Name            string `json:"name"`
		TickerSymbol    string `json:"tickerSymbol"`
		Unit            string `json:"unit"`
		Decimals        int    `json:"decimals"`
		UseMetricPrefix bool   `json:"useMetricPrefix"`
	}
	metrics struct {
		BlocksPerSecond     float64 `json:"blocksPerSecond"`
		ReferencedPerSecond float64 `json:"referencedBlocksPerSecond"`
		ReferencedRate      float64 `json:"referencedRate"`
	}
)

// belowMaxDepth is how many milestones back a parent may lie (TIP-22).
const belowMaxDepth = 15

// info answers what a client needs to know before it makes a block. A milestone
// is confirmed as soon as it is known, so that the latest and the confirmed one
// are the same; index 0 of no id stands for the genesis. The pruning index is the
// last one of which a block, perhaps only a vote, has lost its body.
func (s *Server) info(w http.ResponseWriter, _ *http.Request) {
	n, agreed := s.cfg.Network, s.ledger.Agreed()
	last := milestone{agreed.Milestone, agreed.Timestamp, agreed.ID}
	features := []string{}
	if s.prover != nil {
		features = append(features, "PoW") // the reference node's word for it
	}
	writeJSON(w, http.StatusOK, info{
		Name: s.cfg.Name, Version: s.cfg.Version,
		Status:   infoStatus{IsHealthy: s.cfg.Health() == nil, LatestMilestone: last, ConfirmedMilestone: last, PruningIndex: s.ledger.Word().Whole},
		Versions: []int{stardust.ProtocolVersion},
		Protocol: protocol{
			Version: stardust.ProtocolVersion, NetworkName: n.NetworkName, Bech32HRP: n.Bech32HRP,
			MinPoWScore: s.ledger.MinPoWScore(), BelowMaxDepth: belowMaxDepth,
			Rent:        rent{VByteCost: n.VByteCost, VByteFactorData: 1, VByteFactorKey: 10},
			TokenSupply: strconv.FormatUint(uint64(n.TokenSupply), 10),
		},
		Pending:   []struct{}{},
		BaseToken: baseToken{Name: "Hedgerow", TickerSymbol: "HDG", Unit: "HDG", Decimals: 6},
		Metrics:   s.rate.observe(time.Now(), s.ledger.Stats().Blocks, agreed.Milestone, s.ledger.Ordered),
		Features:  features,
	})
}
