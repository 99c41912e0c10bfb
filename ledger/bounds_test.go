package ledger_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
	"github.com/hedgerow-iot/hedgerow/powfarm/curl"
)

// One zero trit makes the difference: the first size above a step of the
// proof of work, and the last below it.
func TestScoreIsEnoughFromTheTargetOn(t *testing.T) {
	n := testNetwork()
	n.MinPoWScore = 1
	l := start(t, ledger.Config{Network: n}, newMemory())
	for _, size := range []int{81, 82, 242, 243} {
		b := newBlock("", "", stardust.GenesisID)
		b.Payload = &stardust.TaggedData{Data: make([]byte, size-b.Size())}
		target := map[int]int{81: 4, 82: 5, 242: 5, 243: 5}[size] // 3^4 is 81
		for zeros, want := range map[int]error{target - 1: ledger.ErrScore, target: nil} {
			raw, err := b.AppendBinary(nil)
			if err != nil {
				t.Fatal(err)
			}
			for b.Nonce = 0; curl.Zeros(stardust.PoWDigest(raw), b.Nonce) != zeros; b.Nonce++ {
			}
			if _, err := l.Attach(t.Context(), b, nil); !errors.Is(err, want) {
				t.Errorf("Attach of %d bytes with %d zeros: %v, want %v", size, zeros, err, want)
			}
			stardust.SetNonce(raw, b.Nonce)
			if err := receive(t, l, raw); !errors.Is(err, want) {
				t.Errorf("Receive of %d bytes with %d zeros: %v, want %v", size, zeros, err, want)
			}
		}
	}
}

func TestTipsKeptAreBounded(t *testing.T) {
	const most = 5
	l := start(t, ledger.Config{MaxTips: most}, newMemory())
	for i := range 3 * most {
		if _, err := l.Attach(t.Context(), newBlock("", fmt.Sprint(i), stardust.GenesisID), nil); err != nil {
			t.Fatal(err)
		}
		if got, want := l.Stats().Tips, min(i+1, most); got != want {
			t.Errorf("%d tips after %d blocks, want %d", got, i+1, want)
		}
	}
}
