package ledger_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
	"github.com/hedgerow-iot/hedgerow/ledger/store"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// A dag is a drawing turned into blocks: in "g -> a b; a b -> c" a and b
// approve the genesis g, and c approves a and b. Tag and data of a block are
// its name.
type dag struct {
	t      testing.TB
	order  []string // names as drawn: parents before children
	blocks map[string]*stardust.Block
	raws   map[string][]byte
	ids    map[string]stardust.BlockID
	names  map[stardust.BlockID]string
}

func draw(t testing.TB, text string) *dag {
	t.Helper()
	d := &dag{
		t:      t,
		blocks: map[string]*stardust.Block{}, raws: map[string][]byte{},
		ids:   map[string]stardust.BlockID{"g": stardust.GenesisID},
		names: map[stardust.BlockID]string{stardust.GenesisID: "g"},
	}
	for step := range strings.SplitSeq(text, ";") {
		parents, children, ok := strings.Cut(step, "->")
		if !ok {
			t.Fatalf("%q: no arrow", step)
		}
		var ids []stardust.BlockID
		for name := range strings.FieldsSeq(parents) {
			id, ok := d.ids[name]
			if !ok {
				t.Fatalf("%q: %s is not drawn yet", step, name)
			}
			ids = append(ids, id)
		}
		for name := range strings.FieldsSeq(children) {
			d.add(name, newBlock(name, name, ids...))
		}
	}
	return d
}

func newBlock(tag, data string, parents ...stardust.BlockID) *stardust.Block {
	return &stardust.Block{
		Version: stardust.ProtocolVersion,
		Parents: stardust.SortParents(slices.Clone(parents)),
		Payload: &stardust.TaggedData{Tag: []byte(tag), Data: []byte(data)},
	}
}

func (d *dag) add(name string, b *stardust.Block) {
	d.t.Helper()
	raw, err := b.AppendBinary(nil)
	if err != nil {
		d.t.Fatalf("block %s: %v", name, err)
	}
	id := stardust.IDOf(raw)
	d.order = append(d.order, name)
	d.blocks[name], d.raws[name], d.ids[name], d.names[id] = b, raw, id, name
}

// named returns the sorted names of the ids in one string.
func (d *dag) named(ids []stardust.BlockID) string {
	var names []string
	for _, id := range ids {
		names = append(names, d.names[id])
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// attach attaches the blocks with these names, all without names.
func (d *dag) attach(l *ledger.Ledger, names ...string) {
	d.t.Helper()
	if len(names) == 0 {
		names = d.order
	}
	for _, name := range names {
		if _, err := l.Attach(d.t.Context(), d.blocks[name], nil); err != nil {
			d.t.Fatalf("attach %s: %v", name, err)
		}
	}
}

// receive hands one block in as another gateway's and returns why it was
// refused.
func receive(t testing.TB, l *ledger.Ledger, raw []byte) error {
	t.Helper()
	out, err := l.Receive(t.Context(), incoming("other", raw))
	if err != nil {
		return err
	}
	return out[0].Err
}

// incoming are blocks that a gateway sent.
func incoming(from string, raws ...[]byte) (in []ledger.Incoming) {
	for _, raw := range raws {
		in = append(in, ledger.Incoming{From: from, Raw: raw})
	}
	return in
}

// testNetwork asks for no proof of work.
func testNetwork() *network.File {
	f := network.NewOfOne("test", "gw", []byte("an Ed25519 key has 32 bytes, yes"))
	f.MinPoWScore = 0
	return f
}

// start runs a ledger over the store until the test ends.
func start(t testing.TB, cfg ledger.Config, s ledger.Store) *ledger.Ledger {
	t.Helper()
	if cfg.Network == nil {
		cfg.Network = testNetwork()
	}
	l, err := ledger.New(cfg, s)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return l
}

// open opens a store on disk, which is checked and closed when the test ends.
func open(t testing.TB, dir string) *store.Store {
	t.Helper()
	s, err := openPlain(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Check(context.Background()); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func openPlain(dir string) (*store.Store, error) {
	return store.Open(dir, store.Options{Reserve: 1})
}
