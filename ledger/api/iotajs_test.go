package api_test

import (
	"context"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/api"
	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
	"github.com/hedgerow-iot/hedgerow/ledger/store"
	"github.com/hedgerow-iot/hedgerow/powfarm"
)

// A confirming ledger is a real one in which every block that is attached is
// confirmed and certified at once.
type confirming struct {
	*ledger.Ledger
	chain *api.Chain
}

func (c confirming) Attach(ctx context.Context, b *stardust.Block, runs [][2]uint64) (stardust.BlockID, error) {
	id, err := c.Ledger.Attach(ctx, b, runs)
	if err == nil {
		c.chain.Confirm(consensus.Entry{ID: id})
		c.chain.Certify()
	}
	return id, err
}

func (c confirming) Metadata(id stardust.BlockID) (ledger.Metadata, error) {
	m, err := c.Ledger.Metadata(id)
	c.chain.Describe(id, &m)
	return m, err
}

func (c confirming) Agreed() ledger.Agreed { return c.chain.Agreed() }
func (c confirming) Milestone(index uint32) (ledger.Milestone, error) {
	return c.chain.Milestone(index)
}
func (c confirming) MilestoneIndex(id [32]byte) (uint32, error)      { return c.chain.MilestoneIndex(id) }
func (c confirming) Ordered(index uint32) ([]consensus.Entry, error) { return c.chain.Ordered(index) }

// serve returns the address of a server over a confirming ledger and a real farm.
func serve(t *testing.T) string {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	chain := api.NewChain(1, 2) // the client's proof of work makes about a thousand tries a second
	st, err := store.Open(t.TempDir(), store.Options{Log: log, Reserve: 1})
	if err != nil {
		t.Fatal(err)
	}
	l, err := ledger.New(ledger.Config{Network: chain.File, Log: log}, st)
	if err != nil {
		t.Fatal(err)
	}
	farm, err := powfarm.New(powfarm.Config{Workers: 1}, log)
	if err != nil {
		t.Fatal(err)
	}
	h, err := api.New(api.Config{Network: chain.File}, confirming{l, chain}, farm.For(powfarm.Guest), log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	for _, run := range []func(context.Context) error{l.Run, farm.Run} {
		running.Go(func() {
			if err := run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	srv := httptest.NewServer(h)
	t.Cleanup(func() {
		srv.Close()
		cancel()
		running.Wait()
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return srv.URL
}

func TestTheClientLibraryOfNpmWorks(t *testing.T) {
	modules := os.Getenv("HEDGEROW_NODE_MODULES")
	node, err := exec.LookPath("node")
	if modules == "" || err != nil {
		const why = "needs node, and HEDGEROW_NODE_MODULES with the packages of testdata/iotajs/package.json"
		if os.Getenv("HEDGEROW_NO_SKIP") == "1" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	cmd := exec.CommandContext(t.Context(), node, filepath.Join("testdata", "iotajs", "client.mjs"), serve(t))
	out, err := cmd.CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "ok" {
		t.Errorf("client.mjs: %v\n%s", err, out)
	}
}
