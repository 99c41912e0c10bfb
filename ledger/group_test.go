package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// queued attaches the blocks at the same time to a ledger that starts to run
// once all of them wait, and returns the answers.
func queued(t *testing.T, s ledger.Store, blocks []*stardust.Block, runs func(i int) [][2]uint64) []error {
	l, err := ledger.New(ledger.Config{Network: testNetwork()}, s)
	if err != nil {
		t.Fatal(err)
	}
	answers := make([]error, len(blocks))
	ctx, cancel := context.WithCancel(t.Context())
	for i, b := range blocks {
		go func() { _, answers[i] = l.Attach(ctx, b, runs(i)) }()
		synctest.Wait() // keeps their order
	}
	done := make(chan error)
	go func() { done <- l.Run(ctx) }()
	synctest.Wait()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run = %v", err)
	}
	return answers
}

func TestWhatWaitsIsStoredInOneCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, commits := newMemory(), 0
		s.refuse = func() error { commits++; return nil }
		var blocks []*stardust.Block
		for i := range 600 {
			blocks = append(blocks, newBlock("", fmt.Sprint(i), stardust.GenesisID))
		}
		for i, err := range queued(t, s, blocks, func(int) [][2]uint64 { return nil }) {
			if err != nil {
				t.Errorf("block %d: %v", i, err)
			}
		}
		if commits != 3 { // of at most 256 blocks
			t.Errorf("%d commits for 600 blocks, want 3", commits)
		}
	})
}

func TestBlocksOfOneCommitMayReferToEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newMemory()
		d := chain(t, 100)
		var blocks []*stardust.Block
		for _, name := range d.order {
			blocks = append(blocks, d.blocks[name])
		}
		blocks = append(blocks, blocks[50]) // and repeat each other
		for i, err := range queued(t, s, blocks, func(int) [][2]uint64 { return nil }) {
			if err != nil {
				t.Errorf("block %d: %v", i, err)
			}
		}
		if n, _, _, _ := s.Count(); n != 100 {
			t.Errorf("%d blocks stored, want 100", n)
		}
	})
}

func TestNoReadingStandsInTwoBlocksOfOneCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newMemory()
		d := draw(t, "g -> a b c")
		runs := [][][2]uint64{{{1, 5}}, {{5, 6}}, {{6, 9}}}
		blocks := []*stardust.Block{d.blocks["a"], d.blocks["b"], d.blocks["c"]}
		answers := queued(t, s, blocks, func(i int) [][2]uint64 { return runs[i] })
		if answers[0] != nil || !errors.Is(answers[1], ledger.ErrMarked) || answers[2] != nil {
			t.Errorf("answers are %v", answers)
		}
		if got := marks(t, s, 0); got != "1-5, 6-9" {
			t.Errorf("marks are %s", got)
		}
	})
}

func TestGroupsAreBoundedInBytesAndIndexEntries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, commits := newMemory(), 0
		s.refuse = func() error { commits++; return nil }
		var blocks []*stardust.Block
		for i := range 20 { // 20 x 30 KB do not fit 512 KiB
			blocks = append(blocks, newBlock("", fmt.Sprint(i, string(make([]byte, 30_000))), stardust.GenesisID))
		}
		queued(t, s, blocks, func(int) [][2]uint64 { return nil })
		if commits != 2 {
			t.Errorf("%d commits for 600 KB, want 2", commits)
		}
		commits = 0
		blocks = nil
		for i := range 3 {
			blocks = append(blocks, newBlock("runs", fmt.Sprint(i), stardust.GenesisID))
		}
		for i, err := range queued(t, s, blocks, func(i int) (runs [][2]uint64) {
			for r := range uint64(ledger.MaxRuns) {
				runs = append(runs, [2]uint64{uint64(i)<<32 | 2*r, uint64(i)<<32 | 2*r})
			}
			return runs
		}) {
			if err != nil {
				t.Errorf("block %d: %v", i, err)
			}
		}
		if commits != 3 {
			t.Errorf("%d commits for three blocks with %d runs each, want 3", commits, ledger.MaxRuns)
		}
	})
}
