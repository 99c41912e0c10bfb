package archive

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hedgerow-iot/hedgerow/batching/envelope"
	"github.com/hedgerow-iot/hedgerow/batching/reading"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreTopFunction("github.com/dgraph-io/badger/v4.(*DB).monitorCache"),
		goleak.IgnoreTopFunction("github.com/dgraph-io/ristretto/v2/z.(*AllocatorPool).freeupAllocators"))
}

// A memoryIndex is an Index without a disk.
type memoryIndex struct {
	mu     sync.RWMutex
	values map[string][]byte
	writes int
	fail   func(write int) error // what a write answers before it does anything
}

func newMemoryIndex() *memoryIndex { return &memoryIndex{values: map[string][]byte{}} }

func (m *memoryIndex) Write(keys, values [][]byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.writes++
	if m.fail != nil {
		if err := m.fail(m.writes); err != nil {
			return err
		}
	}
	if size := len(bytes.Join(keys, nil)) + len(bytes.Join(values, nil)); size > 1<<20 || len(keys) > 8192 {
		return fmt.Errorf("%d keys, %d bytes", len(keys), size)
	}
	for i, k := range keys {
		if values[i] == nil {
			delete(m.values, string(k))
		} else {
			m.values[string(k)] = append([]byte{}, values[i]...)
		}
	}
	return nil
}

func (m *memoryIndex) Get(key []byte) ([]byte, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.values[string(key)], nil
}

func (m *memoryIndex) Scan(prefix, from []byte, reverse bool, yield func(key, value []byte) bool) error {
	for _, k := range m.keys(prefix, from, reverse) {
		v, _ := m.Get([]byte(k))
		if !yield([]byte(k), v) {
			break
		}
	}
	return nil
}

func (m *memoryIndex) keys(prefix, from []byte, reverse bool) (keys []string) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for k := range m.values {
		if strings.HasPrefix(k, string(prefix)) && (from == nil || !reverse && k >= string(from) || reverse && k <= string(from)) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	if reverse {
		slices.Reverse(keys)
	}
	return keys
}

func (m *memoryIndex) copy() *memoryIndex {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return &memoryIndex{values: maps.Clone(m.values)}
}

// A memoryStream is a Stream of blocks that were put into it.
type memoryStream struct {
	mu     sync.Mutex
	blocks [][]byte // of the positions 1, 2, 3…; nil: not kept any more
	more   chan struct{}
}

func newMemoryStream() *memoryStream { return &memoryStream{more: make(chan struct{})} }

// put adds blocks and returns the position of the last.
func (s *memoryStream) put(raws ...[]byte) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blocks = append(s.blocks, raws...)
	close(s.more)
	s.more = make(chan struct{})
	return uint64(len(s.blocks))
}

func (s *memoryStream) drop(position uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blocks[position-1] = nil
}

func (s *memoryStream) Blocks(after uint64, yield func(uint64, stardust.BlockID, []byte, time.Time) bool) error {
	for {
		s.mu.Lock()
		var raw []byte
		for raw == nil && after < uint64(len(s.blocks)) {
			raw = s.blocks[after]
			after++
		}
		s.mu.Unlock()
		if raw == nil || !yield(after, stardust.IDOf(raw), raw, time.Time{}) {
			return nil
		}
	}
}

func (s *memoryStream) Wait(ctx context.Context, after uint64) error {
	for {
		s.mu.Lock()
		n, more := len(s.blocks), s.more
		s.mu.Unlock()
		if after < uint64(n) {
			return nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// A signer makes the blocks of one gateway.
type signer struct {
	name        string
	key         ed25519.PrivateKey
	genesis     [32]byte
	incarnation [8]byte
	secrets     byte
}

var genesis = [32]byte{1, 2, 3}

func newSigner(name string, seed byte) *signer {
	return &signer{
		name: name, key: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, 32)),
		genesis: genesis, incarnation: [8]byte{seed},
	}
}

func (s *signer) public() ed25519.PublicKey { return s.key.Public().(ed25519.PublicKey) }

func (s *signer) member() Member { return Member{s.name, s.public()} }

func (s *signer) seal(t testing.TB, rs ...reading.Reading) []byte {
	t.Helper()
	sealer, err := envelope.NewSealer(s.name, s.key, s.genesis, s.incarnation)
	if err != nil {
		t.Fatal(err)
	}
	s.secrets++
	data, err := sealer.Seal([16]byte{s.secrets}, rs)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// block returns a block with a batch of rs.
func (s *signer) block(t testing.TB, rs ...reading.Reading) []byte {
	t.Helper()
	return wrap(t, envelope.Tag(s.name), s.seal(t, rs...), 0)
}

// wrap puts tagged data into a block; another nonce makes it another block.
func wrap(t testing.TB, tag, data []byte, nonce uint64) []byte {
	t.Helper()
	b := stardust.Block{
		Version: stardust.ProtocolVersion, Parents: []stardust.BlockID{stardust.GenesisID},
		Payload: &stardust.TaggedData{Tag: tag, Data: data}, Nonce: nonce,
	}
	raw, err := b.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// one is a reading of a number.
func one(seq uint64, received int64, device, name string, value int64) reading.Reading {
	return reading.Reading{Seq: seq, Device: device, Name: name, Value: reading.Int(value), Received: received}
}

// run returns readings of the numbers first to last, a millisecond apart from
// their number on.
func run(first, last uint64) (rs []reading.Reading) {
	for seq := first; seq <= last; seq++ {
		rs = append(rs, one(seq, int64(seq), fmt.Sprintf("probe-%d", seq%7), "temperature", int64(seq)))
	}
	return rs
}

func config(members ...*signer) Config {
	names := sha256.New()
	for _, m := range members {
		fmt.Fprintf(names, "%s %x ", m.name, m.public())
	}
	return Config{
		Genesis: genesis, Network: func() [32]byte { return [32]byte(names.Sum(nil)) }, Transient: func(err error) bool { return errors.Is(err, errBusy) },
		Members: func() (all []Member) {
			for _, m := range members {
				all = append(all, m.member())
			}
			return all
		},
	}
}

var (
	errBusy = errors.New("busy")
	errCut  = errors.New("cut")
)

func open(t testing.TB, stream Stream, index Index, members ...*signer) *Archive {
	t.Helper()
	a, err := New(config(members...), stream, index)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// all writes what the stream has and does not wait for more.
func (a *Archive) all(ctx context.Context) error {
	if err := a.prepare(ctx); err != nil {
		return err
	}
	for {
		g := a.newGroup()
		if err := a.collect(ctx, g); err != nil {
			return err
		}
		if g.position == a.position {
			return nil
		}
		if err := a.write(ctx, g); err != nil {
			return err
		}
	}
}

func index(t testing.TB, a *Archive) {
	t.Helper()
	if err := a.all(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// history reads all pages of a query.
func history(t testing.TB, a *Archive, q Query) (items []Item) {
	t.Helper()
	for range 100_000 {
		page, next, err := a.History(q)
		if err != nil {
			t.Fatal(err)
		}
		if items = append(items, page...); next == "" {
			return items
		}
		if next == q.Cursor {
			t.Fatalf("cursor %q leads to itself", next)
		}
		q.Cursor = next
	}
	t.Fatal("pages do not end")
	return nil
}

// ids writes items as gateway/number.
func ids(items []Item) string {
	var out []string
	for _, i := range items {
		out = append(out, fmt.Sprintf("%s/%d", i.Gateway, i.Reading.Seq))
	}
	return strings.Join(out, " ")
}
