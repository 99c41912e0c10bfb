package gateway

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The client libraries of npm follow a block of a running gateway to its
// milestone, by its answers and by its events.
func TestTheClientLibrariesOfNpmSeeABlockConfirmed(t *testing.T) {
	modules := os.Getenv("HEDGEROW_NODE_MODULES")
	node, err := exec.LookPath("node")
	if modules == "" || err != nil {
		const why = "needs node, and HEDGEROW_NODE_MODULES with the packages of ledger/api/testdata/iotajs/package.json"
		if os.Getenv("HEDGEROW_NO_SKIP") == "1" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	g := start(t, testSandbox(t, t.TempDir()))
	g.readings(0) // it serves
	cmd := exec.CommandContext(t.Context(), node, filepath.Join("testdata", "npm", "client.mjs"), "http://"+g.address("http"))
	out, err := cmd.CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "ok" {
		t.Errorf("client.mjs: %v\n%s", err, out)
	}
}
