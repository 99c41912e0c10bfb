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
			p.broken, p.hasty, p.cunning, p.twin, p.parts = supportTwo, false, true, false, true
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
	} {
		t.Run(tt.name, func(t *testing.T) {
			for seed := uint64(1); seed <= 500; seed++ {
				p := tt.plan(seed)
				if err := newSim(p).run(); err != nil {
					t.Logf("caught with seed %d: %v", seed, firstLine(err))
					return
				}
			}
			t.Error("not caught within 500 seeds")
		})
	}
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
