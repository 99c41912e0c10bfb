package gateway

import (
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/hedgerow-iot/hedgerow/"

// A row says what a package may import besides the standard library: ours,
// as paths below the module, and others' modules. Both are closed lists.
type row struct {
	ours   string
	others string
}

// edges is the import table of the repository: imports run the way the
// reading runs, protocols → batching → ledger/stardust, and only gateway
// knows both ends of an interface. It lists what is imported, no more and no
// less. A new edge is a change of design; argue it in the commit. Tests may
// import more.
func edges() map[string]row {
	const (
		badger = "github.com/dgraph-io/badger/v4"
		sys    = "golang.org/x/sys"
		sync   = "golang.org/x/sync"
		crypto = "golang.org/x/crypto"
		cbor   = "github.com/fxamacker/cbor/v2"
		coap   = "github.com/plgd-dev/go-coap/v3"
		nats   = "github.com/nats-io/nats.go"
	)
	return map[string]row{
		"batching/reading": {"", ""},
		"ledger/stardust":  {"", crypto + " filippo.io/edwards25519"},
		"powfarm/curl":     {"", sys},

		"ledger/network":   {"ledger/stardust", crypto},
		"ledger/consensus": {"ledger/stardust ledger/network", crypto},
		"ledger":           {"ledger/stardust ledger/network ledger/consensus powfarm/curl", crypto},
		"ledger/store":     {"ledger ledger/stardust ledger/network ledger/consensus", badger + " " + sys},
		"ledger/api":       {"ledger ledger/stardust ledger/network ledger/consensus", ""},
		"ledger/peer":      {"ledger ledger/stardust ledger/network ledger/consensus", nats + " " + crypto + " " + sync},

		"powfarm":        {"powfarm/curl", sys},
		"powfarm/remote": {"powfarm powfarm/curl", nats + " " + crypto},

		"batching/envelope": {"batching/reading ledger/stardust", cbor + " github.com/veraison/go-cose github.com/klauspost/compress " + crypto},
		"batching":          {"batching/reading batching/envelope ledger/stardust", sync},
		"batching/journal":  {"batching batching/reading", badger + " " + sys},
		"batching/archive":  {"batching/reading batching/envelope ledger/stardust", ""},

		"protocols/payload": {"batching/reading", cbor},
		"protocols":         {"protocols/payload batching batching/reading", ""},
		"protocols/mqtt":    {"protocols protocols/payload batching batching/reading", "github.com/mochi-mqtt/server/v2 github.com/gorilla/websocket"},
		"protocols/coap":    {"protocols protocols/payload batching batching/reading", coap + " " + sync + " " + sys},

		"gateway/admin":  {"gateway/bus batching batching/reading batching/journal batching/archive powfarm powfarm/remote ledger ledger/consensus ledger/stardust ledger/network ledger/peer", "github.com/prometheus/client_golang"},
		"gateway/backup": {"", ""},
		"gateway/bus":    {"", nats + " github.com/nats-io/nats-server/v2 github.com/nats-io/nkeys"},
		"gateway": {"gateway/admin gateway/backup gateway/bus protocols protocols/mqtt protocols/coap " +
			"batching batching/reading batching/journal batching/archive powfarm powfarm/remote " +
			"ledger ledger/stardust ledger/network ledger/consensus ledger/store ledger/peer ledger/api",
			"github.com/goccy/go-yaml " + sys + " " + sync},
		"gateway/cmd/hedgerow": {"gateway gateway/bus batching batching/reading ledger ledger/stardust ledger/network ledger/store powfarm powfarm/curl powfarm/remote",
			"github.com/alecthomas/kong " + sync + " " + sys},
	}
}

func TestImportsRunTheWayTheReadingRuns(t *testing.T) {
	table := edges()
	all := importsByPackage(t)
	for pkg, imports := range all {
		allowed, ok := table[pkg]
		if !ok {
			t.Errorf("%s has no row in the import table", pkg)
			continue
		}
		for imp, file := range imports {
			ours, isOurs := strings.CutPrefix(imp, module)
			switch {
			case isOurs && !slices.Contains(strings.Fields(allowed.ours), ours):
				t.Errorf("%s: %s imports %s, which the table does not allow", file, pkg, ours)
			case !isOurs && strings.Contains(imp, ".") && !inModules(imp, strings.Fields(allowed.others)):
				t.Errorf("%s: %s imports %s, which the table does not allow", file, pkg, imp)
			case imp == "C":
				t.Errorf("%s: %s imports C, but the binary is static", file, pkg)
			}
		}
	}
	for pkg, allowed := range table {
		imports, ok := all[pkg]
		if !ok {
			t.Errorf("the import table has a row of %s, which is not there", pkg)
			continue
		}
		for ours := range strings.FieldsSeq(allowed.ours) {
			if imports[module+ours] == "" {
				t.Errorf("the import table allows %s to import %s, which it does not", pkg, ours)
			}
		}
		for m := range strings.FieldsSeq(allowed.others) {
			if !slices.ContainsFunc(slices.Collect(maps.Keys(imports)), func(imp string) bool { return inModules(imp, []string{m}) }) {
				t.Errorf("the import table allows %s to import %s, which it does not", pkg, m)
			}
		}
	}
}

// Whatever the table says: of a reading's way, nothing looks back at what
// comes before it.
func TestNothingLooksBack(t *testing.T) {
	way := []string{"gateway", "protocols", "batching", "ledger"}
	for pkg, imports := range importsByPackage(t) {
		at := slices.IndexFunc(way, func(room string) bool { return inModules(pkg, []string{room}) })
		for imp, file := range imports {
			ours, isOurs := strings.CutPrefix(imp, module)
			for _, room := range way[:max(0, at)] {
				if isOurs && inModules(ours, []string{room}) {
					t.Errorf("%s: %s imports %s, which comes before it", file, pkg, ours)
				}
			}
		}
	}
}

// What serves HTTP stands apart from what decides. A WebSocket begins with an
// HTTP request, so the MQTT front end is among the servers.
func TestOnlyServersImportNetHTTP(t *testing.T) {
	for pkg, imports := range importsByPackage(t) {
		if file, ok := imports["net/http"]; ok && pkg != "ledger/api" && pkg != "protocols/mqtt" && !strings.HasPrefix(pkg, "gateway") {
			t.Errorf("%s: %s imports net/http", file, pkg)
		}
	}
}

func TestTopLevelIsFixed(t *testing.T) {
	allowed := strings.Fields("gateway protocols batching ledger powfarm deploy go.mod go.sum Dockerfile README.md LICENSE SECURITY.md")
	entries, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		name := e.Name()
		if !strings.HasPrefix(name, ".") && !slices.Contains(allowed, name) && !ignored(name) {
			t.Errorf("%s stands at the top level; allowed are %v", name, allowed)
		}
	}
}

// ignored reports what .gitignore keeps out of the repository.
func ignored(name string) bool {
	return name == "hedgerow" || name == "hedgerow-data" || name == "dist" ||
		strings.HasSuffix(name, ".test") || strings.HasSuffix(name, ".prof")
}

func inModules(imp string, modules []string) bool {
	return slices.ContainsFunc(modules, func(m string) bool {
		return imp == m || strings.HasPrefix(imp, m+"/")
	})
}

// importsByPackage returns, for every package below the module, what its
// files other than tests import and one file that does.
func importsByPackage(t *testing.T) map[string]map[string]string {
	t.Helper()
	all := map[string]map[string]string{}
	err := filepath.WalkDir("..", func(file string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := e.Name()
		if e.IsDir() && file != ".." && (strings.HasPrefix(name, ".") || name == "testdata" || name == "node_modules" || ignored(name) && path.Dir(filepath.ToSlash(file)) == "..") {
			return fs.SkipDir
		}
		if e.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		pkg := strings.TrimPrefix(path.Dir(filepath.ToSlash(file)), "../")
		if all[pkg] == nil {
			all[pkg] = map[string]string{}
		}
		for _, spec := range f.Imports {
			imp, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			all[pkg][imp] = file
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
