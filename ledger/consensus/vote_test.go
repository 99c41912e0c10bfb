package consensus

import (
	"bytes"
	"errors"
	"testing"

	"go.uber.org/goleak"

	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// What ParseVote accepts encodes back to the same bytes: one content has one
// form, hence one block id.
func FuzzParseVote(f *testing.F) {
	v := Vote{Claim: Claim{Epoch: 3, Gateway: 2, Round: 9, Seen: 7, Merges: 1}, HasSelf: true, SelfIndex: 1, TimeMs: 5}
	f.Add(v.AppendBinary(nil))
	f.Add([]byte{})
	f.Add(make([]byte, voteLen))
	f.Fuzz(func(t *testing.T, in []byte) {
		v, err := ParseVote(in)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("ParseVote(%x): %v wraps no sentinel", in, err)
			}
			return
		}
		if out := v.AppendBinary(nil); !bytes.Equal(in, out) {
			t.Errorf("encoded %x, parsed from %x", out, in)
		}
	})
}

func TestParseVoteRefuses(t *testing.T) {
	good := (&Vote{Claim: Claim{Round: 1, Seen: 1}, HasSelf: true, SelfIndex: 2}).AppendBinary(nil)
	for _, tt := range []struct {
		name   string
		change func(b []byte) []byte
	}{
		{"a byte more", func(b []byte) []byte { return append(b, 0) }},
		{"a byte less", func(b []byte) []byte { return b[1:] }},
		{"an unknown flag", func(b []byte) []byte { b[5] |= 2; return b }},
		{"a self index without self", func(b []byte) []byte { b[5] = 0; return b }},
		{"a self index beyond the parents of any block", func(b []byte) []byte { b[6] = 8; return b }},
		{"nine merges", func(b []byte) []byte { b[19] = 9; return b }},
	} {
		if v, err := ParseVote(tt.change(bytes.Clone(good))); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %+v, %v, want ErrInvalid", tt.name, v, err)
		}
	}
	if _, err := ParseVote(good); err != nil {
		t.Errorf("control: %v", err)
	}
}

// The signature covers the parents, the network and all of the data.
func TestDecodeRefusesWhatTheGatewayDidNotSign(t *testing.T) {
	s := newTestState(t, 4)
	a, b := stardust.BlockID{1}, stardust.BlockID{2}
	v := Vote{Claim: Claim{Gateway: 1, Round: 1, Seen: 2}, TimeMs: 77}
	blk := v.Block(simKey(1), s.genesis, []stardust.BlockID{a, b})
	data := blk.Payload.(*stardust.TaggedData).Data
	with := func(parents []stardust.BlockID, nonce uint64, change func(d []byte)) *stardust.Block {
		d := bytes.Clone(data)
		change(d)
		return &stardust.Block{Version: 2, Parents: parents, Nonce: nonce,
			Payload: &stardust.TaggedData{Tag: []byte(TagVote), Data: d}}
	}
	same := func([]byte) {}
	for _, tt := range []struct {
		name string
		blk  *stardust.Block
		err  error
	}{
		{"as signed", blk, nil},
		{"other parents", with([]stardust.BlockID{a}, 0, same), ErrInvalid},
		{"a nonce", with(blk.Parents, 1, same), ErrInvalid},
		{"another round", with(blk.Parents, 0, func(d []byte) { d[7]++ }), ErrInvalid},
		{"another time", with(blk.Parents, 0, func(d []byte) { d[20]++ }), ErrInvalid},
		{"another gateway", with(blk.Parents, 0, func(d []byte) { d[4] = 2 }), ErrInvalid},
		{"no such gateway", with(blk.Parents, 0, func(d []byte) { d[4] = 4 }), ErrInvalid},
		{"a self parent beyond its parents", with(blk.Parents, 0, func(d []byte) { d[5], d[6] = 1, 2 }), ErrInvalid},
		{"a later epoch", with(blk.Parents, 0, func(d []byte) { d[0] = 1 }), ErrFutureEpoch},
		{"another network", v.Block(simKey(1), [32]byte{9}, blk.Parents), ErrInvalid},
		{"a signature cut short", with(blk.Parents, 0, func(d []byte) { d[voteLen-1] ^= 1 }), ErrInvalid},
	} {
		if _, err := s.Epochs().Decode(stardust.BlockID{}, tt.blk); !errors.Is(err, tt.err) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.err)
		}
	}
}
