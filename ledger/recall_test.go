package ledger_test

import (
	"crypto/ed25519"
	"fmt"
	"testing"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// An equivocator's votes are forgotten, except what they prove and tell, but a
// block that refers to one of them is still taken.
func TestForgottenVotesAreRecalled(t *testing.T) {
	var gateways []network.Gateway
	for i := range 4 {
		gateways = append(gateways, network.Gateway{
			Name: fmt.Sprint("g", i), PublicKey: network.PublicKey(testKey(i).Public().(ed25519.PublicKey)), Weight: 1,
		})
	}
	file := network.Create("test", gateways)
	l := start(t, ledger.Config{Network: file}, newMemory())
	vote := func(g uint8, seen, timeMs uint64, parent stardust.BlockID) (stardust.BlockID, []byte) {
		v := consensus.Vote{Claim: consensus.Claim{Gateway: g, Round: 1, Seen: seen}, TimeMs: timeMs}
		raw, err := v.Block(testKey(int(g)), file.Hash(), []stardust.BlockID{parent}).AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		return stardust.IDOf(raw), raw
	}
	var ids []stardust.BlockID
	var raws [][]byte
	for i := range 20 {
		id, raw := vote(0, 1, uint64(i+1), stardust.GenesisID)
		ids, raws = append(ids, id), append(raws, raw)
	}
	take := func(raws ...[]byte) {
		t.Helper()
		out, err := l.Receive(t.Context(), incoming("other", raws...))
		if err != nil {
			t.Fatal(err)
		}
		for i, o := range out {
			if o.Err != nil || len(o.Missing) > 0 {
				t.Errorf("vote %d: %v, missing %v", i, o.Err, o.Missing)
			}
		}
	}
	take(raws...)
	if told, _ := l.AllTips(100); len(told) > 2 {
		t.Errorf("%d votes of the equivocator are told of, want one and the genesis", len(told))
	}
	child, raw := vote(1, 3, 1, ids[10])
	take(raw)
	if ok, err := l.Has(child); !ok || err != nil {
		t.Errorf("the vote that refers to a forgotten one is not there: %v", err)
	}
}
