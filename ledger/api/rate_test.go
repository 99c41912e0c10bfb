package api

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
)

func TestRatesAreThoseOfTheLastTenSeconds(t *testing.T) {
	ordered := func(index uint32) ([]consensus.Entry, error) {
		if index == 3 {
			return nil, errors.New("not kept")
		}
		return make([]consensus.Entry, 10), nil
	}
	synctest.Test(t, func(t *testing.T) {
		var r rate
		for _, tt := range []struct {
			name   string
			pause  time.Duration
			blocks uint64
			index  uint32
			want   metrics
		}{
			{"nothing to compare with", 0, 1000, 2, metrics{}},
			{"50 blocks in 10 s, 2 milestones of which one is kept", 10 * time.Second, 1050, 4, metrics{5, 1, 20}},
			{"within the next ten seconds", time.Second, 1100, 9, metrics{5, 1, 20}},
			{"no block in 10 s", 9 * time.Second, 1050, 4, metrics{}},
			{"more milestones than are read", 10 * time.Second, 2050, 4 + 2*maxCounted, metrics{100, 2 * maxCounted, 2 * maxCounted}},
		} {
			time.Sleep(tt.pause)
			if got := r.observe(time.Now(), tt.blocks, tt.index, ordered); got != tt.want {
				t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
			}
		}
	})
}
