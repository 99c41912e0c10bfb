package peer

import (
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

// HavePatience is how long Synced waits for a member that brings nothing, before
// Run.
func (p *Peers) HavePatience(d time.Duration) { p.synced.patience = d }

// Who has the blocks of a quorum waits for a member as long as it may be honest:
// until it has had its turn, and while it brings something.
func TestAMemberIsWaitedForWhileItBringsSomething(t *testing.T) {
	const seconds = 2 * int(patienceAll*patience/time.Second)
	for name, tt := range map[string]struct {
		walk func(m *member, second int)
		want int // second in which it is over
	}{
		"never walked":                         {func(*member, int) {}, 600},
		"walked in vain":                       {func(m *member, n int) { m.turn(n%10 == 0, 0) }, 130},
		"walked in vain, and late":             {func(m *member, n int) { m.turn(n >= 200 && n%10 == 0, 0) }, 320},
		"brings a page in 110 s":               {func(m *member, n int) { m.turn(n%10 == 0, uint64(n/110)) }, 600},
		"brings some pages, and no more":       {func(m *member, n int) { m.turn(n%10 == 0, uint64(min(n, 300))) }, 430},
		"claims that it was walked to its end": {func(m *member, n int) { m.turn(n == 0, 0); m.frontier.position = 0 }, 120},
	} {
		t.Run(name, func(t *testing.T) {
			var w waiting
			m, began := newMember(network.Gateway{Name: "m"}), time.Now()
			m.frontier.position = 1 << 40
			for n := range seconds {
				tt.walk(m, n)
				if !w.isOver(m, began.Add(time.Duration(n)*time.Second), patience) {
					continue
				}
				if n != tt.want {
					t.Errorf("it is over after %d s, want %d", n, tt.want)
				}
				return
			}
			t.Error("it is waited for for ever")
		})
	}
}

// turn is a walk that begins, if it does, and the place up to which the member
// was followed.
func (m *member) turn(begins bool, at uint64) {
	if m.cursor.at = at; begins {
		m.walked = m.walked.Add(time.Second)
	}
}
