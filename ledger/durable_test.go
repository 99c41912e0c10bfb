package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

func TestManySendersAtOnce(t *testing.T) {
	l := start(t, ledger.Config{}, open(t, t.TempDir()))
	const senders, each = 16, 40
	var wg sync.WaitGroup
	for s := range senders {
		wg.Go(func() {
			for i := range each {
				seq := uint64(s*each+i) * 3
				b := newBlock(fmt.Sprint("sender", s), fmt.Sprint(i), l.Tips()...)
				id, err := l.Attach(t.Context(), b, [][2]uint64{{seq, seq + 1}})
				if err != nil {
					t.Errorf("sender %d: %v", s, err)
					return
				}
				if _, err := l.Block(id); err != nil { // read your write
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	n := 0
	if err := l.MarksFrom(0, func([2]uint64, stardust.BlockID) bool { n++; return true }); err != nil || n != senders*each {
		t.Errorf("%d marks, %v; want %d", n, err, senders*each)
	}
	for s := range senders {
		ids, next, err := l.Tagged(fmt.Append(nil, "sender", s), each, "")
		if len(ids) != each || next != "" || err != nil {
			t.Errorf("sender %d has %d blocks, %q, %v", s, len(ids), next, err)
		}
	}
	if st := l.Stats(); st.Blocks != senders*each || st.Duplicates != 0 || st.Refused != 0 {
		t.Errorf("Stats = %+v", st)
	}
}

func TestARestartFindsTheSameReplica(t *testing.T) {
	dir := t.TempDir()
	d := draw(t, "g -> a b; a -> c; c g -> e f")
	s, err := openPlain(dir)
	if err != nil {
		t.Fatal(err)
	}
	l, err := ledger.New(ledger.Config{Network: testNetwork()}, s)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- l.Run(ctx) }()
	d.attach(l)
	before := l.Stats()
	digest, err := l.Digest()
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := errors.Join(<-done, s.Close()); err != nil {
		t.Fatal(err)
	}

	l = start(t, ledger.Config{}, open(t, dir))
	after := l.Stats()
	if got, err := l.Digest(); got != digest || err != nil || digest != digestOf(d) {
		t.Errorf("digest %x after, %x before, %v", got, digest, err)
	}
	if after.Tips != 3 || after.Blocks != before.Blocks || !after.LastAttached.Equal(before.LastAttached) {
		t.Errorf("Stats = %+v, before %+v", after, before)
	}
	d.attach(l) // all known
	if n := l.Stats().Duplicates; n != 5 {
		t.Errorf("%d duplicates, want 5", n)
	}
}

// Blocks of 200 bytes, attached durably by 64 senders at a time.
func BenchmarkAttach(b *testing.B) {
	l := start(b, ledger.Config{}, open(b, b.TempDir()))
	var n atomic.Uint64
	data := string(make([]byte, 80))
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			i := n.Add(1)
			block := newBlock("hedgerow/bench", fmt.Sprint(data, i), l.Tips()...)
			if _, err := l.Attach(context.Background(), block, [][2]uint64{{2 * i, 2 * i}}); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
