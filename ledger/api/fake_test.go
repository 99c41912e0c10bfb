package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
	"github.com/hedgerow-iot/hedgerow/powfarm/curl"
)

// A fakeLedger keeps blocks in memory and checks what the real one checks of
// a single block.
type fakeLedger struct {
	*Chain
	minScore uint32

	mu     sync.Mutex // guards what follows
	blocks map[stardust.BlockID][]byte
	order  []stardust.BlockID // of arrival
	tips   []stardust.BlockID
	err    error         // what Attach returns, if not nil
	more   chan struct{} // closed when a block arrives
}

func newFakeLedger(minScore uint32) *fakeLedger {
	return &fakeLedger{Chain: NewChain(1, minScore), minScore: minScore, blocks: map[stardust.BlockID][]byte{}, tips: []stardust.BlockID{stardust.GenesisID}, more: make(chan struct{})}
}

func (l *fakeLedger) setTips(ids ...stardust.BlockID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tips = ids
}

func (l *fakeLedger) Tips() []stardust.BlockID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.tips)
}

func (l *fakeLedger) MinPoWScore() uint32 { return l.minScore }

func (l *fakeLedger) Stats() ledger.Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return ledger.Stats{Blocks: uint64(len(l.blocks)), Tips: len(l.tips)}
}

func (l *fakeLedger) Attach(_ context.Context, b *stardust.Block, _ [][2]uint64) (stardust.BlockID, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return stardust.GenesisID, l.err
	}
	raw, err := b.AppendBinary(nil)
	if err != nil {
		return stardust.GenesisID, fmt.Errorf("%w: %w", ledger.ErrInvalid, err)
	}
	if err := ledger.CheckScore(raw, l.minScore); err != nil {
		return stardust.GenesisID, err
	}
	for _, p := range b.Parents {
		if _, ok := l.blocks[p]; !ok && p != stardust.GenesisID {
			return stardust.GenesisID, fmt.Errorf("%w: %v", ledger.ErrUnknownParent, p)
		}
	}
	return l.put(raw), nil
}

// put stores a block. l.mu is held.
func (l *fakeLedger) put(raw []byte) stardust.BlockID {
	id := stardust.IDOf(raw)
	l.blocks[id] = raw
	l.order = append(l.order, id)
	close(l.more)
	l.more = make(chan struct{})
	return id
}

func (l *fakeLedger) Position() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return uint64(len(l.order))
}

func (l *fakeLedger) Wait(ctx context.Context, after uint64) error {
	for {
		l.mu.Lock()
		at, more := uint64(len(l.order)), l.more
		l.mu.Unlock()
		if at > after {
			return nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (l *fakeLedger) Order(after uint64, yield func(uint64, stardust.BlockID) bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	for i, id := range l.order[after:] {
		if !yield(after+uint64(i)+1, id) {
			break
		}
	}
	return nil
}

func (l *fakeLedger) Block(id stardust.BlockID) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	raw, ok := l.blocks[id]
	if !ok {
		return nil, fmt.Errorf("%w: %v", ledger.ErrNotFound, id)
	}
	return raw, nil
}

func (l *fakeLedger) Metadata(id stardust.BlockID) (ledger.Metadata, error) {
	if id == stardust.GenesisID {
		return ledger.Metadata{Solid: true}, nil
	}
	raw, err := l.Block(id)
	if err != nil {
		return ledger.Metadata{}, err
	}
	b, err := stardust.ParseBlock(raw)
	m := ledger.Metadata{Parents: b.Parents, Solid: true}
	l.Describe(id, &m)
	return m, err
}

func (l *fakeLedger) Children(id stardust.BlockID) ([]stardust.BlockID, error) {
	if _, err := l.Metadata(id); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var ids []stardust.BlockID
	for child, raw := range l.blocks {
		if b, err := stardust.ParseBlock(raw); err == nil && slices.Contains(b.Parents, id) {
			ids = append(ids, child)
		}
	}
	return ids, nil
}

// A proverFunc is a Prover.
type proverFunc func(ctx context.Context, digest [32]byte, zeros int) (uint64, error)

func (f proverFunc) Prove(ctx context.Context, digest [32]byte, zeros int) (uint64, error) {
	return f(ctx, digest, zeros)
}

// search tries nonces one by one.
func search(ctx context.Context, digest [32]byte, zeros int) (uint64, error) {
	for nonce := uint64(1); ctx.Err() == nil; nonce++ {
		if curl.Zeros(digest, nonce) >= zeros {
			return nonce, nil
		}
	}
	return 0, ctx.Err()
}

// newTest returns a server over a fake ledger.
func newTest(t testing.TB, cfg Config, l *fakeLedger, p Prover) *Server {
	t.Helper()
	cfg.Network = l.File
	s, err := New(cfg, l, p, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// call sends one request; header is "Name: value" lines.
func call(h http.Handler, method, path, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

const isJSON, isBytes = "Content-Type: application/json", "Content-Type: application/vnd.iota.serializer-v1"

// errorText returns the message of an error answer, and fails if it is not in
// the form that clients read.
func errorText(t testing.TB, w *httptest.ResponseRecorder) string {
	t.Helper()
	var got struct {
		Error struct{ Code, Message string }
	}
	dec := json.NewDecoder(w.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&got); err != nil {
		t.Fatalf("status %d, body is no error form: %v", w.Code, err)
	}
	if _, err := dec.Token(); err != io.EOF {
		t.Errorf("status %d, something follows the error form", w.Code)
	}
	if got.Error.Code != fmt.Sprint(w.Code) || got.Error.Message == "" {
		t.Errorf("status %d has error form %+v", w.Code, got)
	}
	return got.Error.Message
}

// block returns the bytes of a block with a nonce that suffices.
func block(t testing.TB, minScore uint32, data string, parents ...stardust.BlockID) []byte {
	t.Helper()
	if len(parents) == 0 {
		parents = []stardust.BlockID{stardust.GenesisID}
	}
	b := stardust.Block{Version: stardust.ProtocolVersion, Parents: parents,
		Payload: &stardust.TaggedData{Tag: []byte("test"), Data: []byte(data)}}
	raw, err := b.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	nonce, err := search(t.Context(), stardust.PoWDigest(raw), stardust.TargetZeros(len(raw), minScore))
	if err != nil {
		t.Fatal(err)
	}
	stardust.SetNonce(raw, nonce)
	return raw
}
