package gateway

import (
	"go/parser"
	"go/token"
	"io/fs"
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
// knows both ends of an interface. A new edge is a change of design; argue it
// in the commit. Tests may import more.
func edges() map[string]row {
	const (
		badger = "github.com/dgraph-io/badger/v4"
		sys    = "golang.org/x/sys"
		sync   = "golang.org/x/sync"
		crypto = "golang.org/x/crypto"
		cbor   = "github.com/fxamacker/cbor/v2"
		coap   = "github.com/plgd-dev/go-coap/v3"
	)
	return map[string]row{
		"batching/reading": {},
		"ledger/stardust":  {"", crypto},
		"powfarm/curl":     {"", ""},

		"ledger/network": {"ledger/stardust", crypto},
		"ledger":         {"ledger/stardust ledger/network powfarm/curl", sync + " " + crypto},
		"ledger/store":   {"ledger ledger/stardust", badger + " " + sys},
		"ledger/api":     {"ledger ledger/stardust ledger/network powfarm/curl", ""},

		"powfarm": {"powfarm/curl", sync + " " + sys},

		"batching/envelope": {"batching/reading ledger/stardust", cbor + " github.com/veraison/go-cose github.com/klauspost/compress " + crypto},
		"batching":          {"batching/reading batching/envelope ledger/stardust", sync},
		"batching/journal":  {"batching batching/reading", badger + " " + sys + " " + cbor + " " + crypto},

		"protocols/payload": {"batching/reading", cbor},
		"protocols":         {"protocols/payload batching batching/reading", crypto},
		"protocols/mqtt":    {"protocols protocols/payload batching batching/reading", "github.com/mochi-mqtt/server/v2 " + sync + " " + crypto},
		"protocols/coap":    {"protocols protocols/payload batching batching/reading", coap + " " + sync + " " + crypto},

		"gateway/admin": {"batching batching/reading batching/journal powfarm ledger ledger/stardust ledger/network", "github.com/prometheus/client_golang"},
		"gateway": {"gateway/admin protocols protocols/payload protocols/mqtt protocols/coap " +
			"batching batching/reading batching/journal batching/envelope powfarm " +
			"ledger ledger/stardust ledger/network ledger/store ledger/api",
			"github.com/goccy/go-yaml " + sys + " " + sync},
		"gateway/cmd/hedgerow": {"gateway batching batching/reading batching/journal powfarm " +
			"ledger ledger/stardust ledger/network ledger/store",
			"github.com/alecthomas/kong " + sync + " " + sys},
	}
}

func TestImportsRunTheWayTheReadingRuns(t *testing.T) {
	table := edges()
	for pkg, imports := range importsByPackage(t) {
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
			}
		}
	}
}

// What serves HTTP stands apart from what decides.
func TestOnlyServersImportNetHTTP(t *testing.T) {
	for pkg, imports := range importsByPackage(t) {
		if file, ok := imports["net/http"]; ok && pkg != "ledger/api" && !strings.HasPrefix(pkg, "gateway") {
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
