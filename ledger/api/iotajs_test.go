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
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/store"
	"github.com/hedgerow-iot/hedgerow/powfarm"
)

// serve returns the address of a server over a real ledger and a real farm.
func serve(t *testing.T) string {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	net := network.NewOfOne("hedgerow-test", "barn-7", make([]byte, 32))
	net.MinPoWScore = 2 // the client's proof of work makes about a thousand tries a second
	st, err := store.Open(t.TempDir(), store.Options{Log: log, Reserve: 1})
	if err != nil {
		t.Fatal(err)
	}
	l, err := ledger.New(ledger.Config{Network: net, Log: log}, st)
	if err != nil {
		t.Fatal(err)
	}
	farm, err := powfarm.New(powfarm.Config{Workers: 1}, log)
	if err != nil {
		t.Fatal(err)
	}
	h, err := api.New(api.Config{Network: net}, l, farm.For(powfarm.Guest), log)
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
