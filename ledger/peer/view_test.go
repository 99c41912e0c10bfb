package peer_test

import (
	"maps"
	"sync"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

// A view stands in for what a ledger knows of the agreement.
type view struct {
	mu    sync.Mutex // guards what follows
	word  ledger.Word
	heard map[network.PublicKey]ledger.Word
	times map[network.PublicKey]int // heard
}

// view returns the gateway's, which counts from its next start on.
func (s *site) view(name string) *view {
	if s.views[name] == nil {
		s.views[name] = &view{heard: map[network.PublicKey]ledger.Word{}, times: map[network.PublicKey]int{}}
	}
	return s.views[name]
}

func (v *view) say(w ledger.Word) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.word = w
}

// from returns the last word heard of a gateway, and how many were.
func (v *view) from(key []byte) (w ledger.Word, times int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.heard[network.PublicKey(key)], v.times[network.PublicKey(key)]
}

func (v *view) all() map[network.PublicKey]ledger.Word {
	v.mu.Lock()
	defer v.mu.Unlock()
	return maps.Clone(v.heard)
}

func (v *view) Word() ledger.Word {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.word
}

func (v *view) Hear(from network.PublicKey, w ledger.Word) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.heard[from] = w
	v.times[from]++
}

func (v *view) Certify([]consensus.Signature) error { return nil }

func (v *view) Signatures(uint32, uint32, int) ([]consensus.Signature, error) { return nil, nil }
