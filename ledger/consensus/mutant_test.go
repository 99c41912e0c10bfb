package consensus

import (
	"strings"
	"testing"
)

// Each broken variant of §15 is caught within 500 seeds: the checks would
// notice.
func TestMutantsAreCaught(t *testing.T) {
	notShort(t)
	for _, tt := range []struct {
		name string
		plan func(seed uint64) plan
	}{
		{"a quorum of half the weight", func(seed uint64) plan {
			p := planOf(4, seed)
			p.broken, p.parts, p.agreement, p.disks = halfQuorum, true, true, false
			return p
		}},
		{"Byzantine weight above B", func(seed uint64) plan {
			p := planOf(4, seed)
			p.weights, p.byzantine, p.parts, p.updates = []uint32{1, 1, 1, 1}, []int{0, 1}, true, false
			p.agreement, p.twin, p.split, p.flicker, p.crashes, p.disks = true, true, true, false, false, false
			return p
		}},
		{"restore without the recovery rule", func(seed uint64) plan {
			p := planOf(4, seed)
			p.byzantine, p.twin, p.disks, p.noRule, p.updates = nil, false, true, true, false
			return p
		}},
		{"supporting two proposals", func(seed uint64) plan {
			p := planOf(4, seed)
			p.weights, p.byzantine, p.updates = []uint32{1, 1, 1, 1}, []int{int(seed % 4)}, false
			p.broken, p.hasty, p.cunning, p.twin, p.parts = supportTwo, true, true, false, true
			p.flicker, p.crashes, p.disks, p.loss, p.slow, p.chaosFor = true, false, false, 0.02, 100, 8_000
			return p
		}},
		{"any later vote certifies", func(seed uint64) plan {
			p := planOf(4, seed)
			p.broken, p.parts, p.hasty, p.agreement, p.flicker = anyCertifies, true, true, true, true
			p.weights, p.byzantine, p.updates, p.crashes, p.disks, p.chaosFor = []uint32{1, 1, 1, 1}, nil, false, false, false, 15_000
			return p
		}},
		{"rounds from a pruned cone", func(seed uint64) plan {
			p := planOf(4, seed)
			p.broken = forgetPruned
			return p
		}},
		{"validity by the replica's epoch", func(seed uint64) plan {
			p := planOf(4, seed)
			p.broken, p.updates = replicaEpochRules, true
			return p
		}},
		{"milestones signed before they are durable", func(seed uint64) plan {
			p := contradiction(seed)
			p.early = true
			return p
		}},
		{"a median without weights", func(seed uint64) plan {
			p := planOf(7, seed)
			p.weights, p.byzantine = []uint32{3, 3, 3, 1, 1, 1, 1}, []int{3, 4, 5, 6}
			p.broken, p.updates, p.twin, p.chaosFor = equalMedian, false, false, 2_000
			return p
		}},
		{"no depth rule", func(seed uint64) plan {
			p := planOf(4, seed)
			p.broken = anyDepth
			return goDeep(p)
		}},
		{"a depth rule that stops everybody", func(seed uint64) plan {
			p := planOf(4, seed)
			p.broken = strictDepth
			return goDeep(p)
		}},
		{"forgetting what equivocators tell", func(seed uint64) plan {
			p := planOf(4, seed)
			p.weights, p.byzantine = []uint32{1, 1, 1, 1}, []int{int(seed % 4)}
			p.broken, p.parts, p.loss, p.silent, p.twin, p.updates = evictOpen, true, 0.2, true, false, true
			return p
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for seed := uint64(1); seed <= 500; seed++ {
				p := tt.plan(seed)
				p.flood = false
				p.deep, p.certs = p.broken == anyDepth || p.broken == strictDepth, p.only != ""
				if err := newSim(p).run(); err != nil {
					t.Logf("caught with seed %d: %v", seed, firstLine(err))
					return
				}
			}
			t.Error("not caught within 500 seeds")
		})
	}
}

// contradiction is a schedule in which more than B of the weight is Byzantine,
// so that replicas derive different milestones, and power fails while they are
// written. Only what a gateway signs counts.
func contradiction(seed uint64) plan {
	p := planOf(4, seed)
	p.weights, p.byzantine, p.parts, p.updates = []uint32{1, 1, 1, 1}, []int{0, 1}, true, false
	p.twin, p.split, p.flicker, p.crashes, p.disks, p.flood, p.deep = true, true, false, false, false, false, false
	p.certs, p.only = true, "§5 once"
	return p
}

// Whatever the others do, a gateway that signs durable milestones signs one of
// each index.
func TestDurableMilestonesAreSignedOnce(t *testing.T) {
	notShort(t)
	for seed := uint64(1); seed <= 60; seed++ {
		if err := newSim(contradiction(seed)).run(); err != nil {
			t.Fatalf("seed %d: %v", seed, firstLine(err))
		}
	}
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
