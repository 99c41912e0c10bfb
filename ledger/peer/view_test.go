package peer_test

import (
	"crypto/ed25519"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// A view stands in for what a ledger knows of the agreement.
type view struct {
	mu    sync.Mutex // guards what follows
	word  ledger.Word
	heard map[network.PublicKey]ledger.Word
	times map[network.PublicKey]int // heard

	quorum     int
	signatures map[uint32][]consensus.Signature
	doubts     map[network.PublicKey]consensus.Signature // of the next call
	wrong      uint64
}

// view returns the gateway's, which counts from its next start on.
func (s *site) view(name string) *view {
	if s.views[name] == nil {
		s.views[name] = &view{heard: map[network.PublicKey]ledger.Word{}, times: map[network.PublicKey]int{},
			quorum: int(s.file.Quorum()), signatures: map[uint32][]consensus.Signature{}}
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

// milestone is the id of the one with this index, which all replicas derive.
func milestone(index uint32) [32]byte {
	return [32]byte(stardust.IDOf(fmt.Append(nil, "milestone ", index)))
}

// Certify keeps what is right of milestones that the word names.
func (v *view) Certify(all []consensus.Signature) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, s := range all {
		if !ed25519.Verify(s.PublicKey[:], s.Milestone[:], s.Signature[:]) || s.Milestone != milestone(s.Index) {
			v.wrong++
			continue
		}
		known := slices.ContainsFunc(v.signatures[s.Index], func(o consensus.Signature) bool { return o.PublicKey == s.PublicKey })
		if !known && s.Index <= v.word.Milestone {
			v.signatures[s.Index] = append(v.signatures[s.Index], s)
		}
	}
	v.count()
	return nil
}

// count brings the word up to the signatures. The caller holds mu.
func (v *view) count() {
	for v.word.Certified < v.word.Milestone && len(v.signatures[v.word.Certified+1]) >= v.quorum {
		v.word.Certified++
	}
}

func (v *view) Contradict(*consensus.Essence, consensus.Signature) error { return nil }

func (v *view) Doubts() map[network.PublicKey]consensus.Signature {
	v.mu.Lock()
	defer v.mu.Unlock()
	doubts := v.doubts
	v.doubts = nil
	return doubts
}

func (v *view) Signatures(from, to uint32, most int) (all []consensus.Signature, _ error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for i := from; i <= min(to, v.word.Milestone); i++ {
		if all = append(all, v.signatures[i]...); len(all) >= most {
			return all[:most], nil
		}
	}
	return all, nil
}

// derive makes the milestones up to last known and signed with the keys.
func (v *view) derive(last uint32, keys ...ed25519.PrivateKey) (signed []consensus.Signature) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for v.word.Milestone < last {
		v.word.Milestone++
		i := v.word.Milestone
		for _, key := range keys {
			v.signatures[i] = append(v.signatures[i], consensus.SignMilestone(key, i, milestone(i)))
		}
		signed = append(signed, v.signatures[i]...)
	}
	v.count()
	return signed
}

// refused returns how many wrong signatures came.
func (v *view) refused() uint64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.wrong
}

func (v *view) certified() uint32 { return v.Word().Certified }
