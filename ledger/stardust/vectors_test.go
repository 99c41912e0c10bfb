package stardust

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// vectors reads a file of testdata into v.
func vectors(t testing.TB, file string, v any) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.TrimPrefix(s, "0x"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

type validBlock struct {
	Name, Serialized string
	BlockID          BlockID
	JSON             json.RawMessage
	MinedForScore    uint32
	Pow              struct {
		PowDigest     string
		Size          int
		TrailingZeros int
		Score         float64
	}
}

func validBlocks(t testing.TB) []validBlock {
	var f struct{ Blocks []validBlock }
	vectors(t, "blocks.json", &f)
	if len(f.Blocks) != 8 {
		t.Fatalf("%d blocks, want 8", len(f.Blocks))
	}
	return f.Blocks
}

type suspectBlock struct {
	Name, Reason, Serialized string
	MustReject               bool
	Score                    float64
}

func suspectBlocks(t testing.TB) (blocks []suspectBlock, minScore uint32) {
	var f struct {
		Blocks             []suspectBlock
		ProtocolParameters struct{ MinPowScore uint32 }
	}
	vectors(t, "invalid_blocks.json", &f)
	if len(f.Blocks) != 22 {
		t.Fatalf("%d blocks, want 22", len(f.Blocks))
	}
	return f.Blocks, f.ProtocolParameters.MinPowScore
}

func TestValidBlocksHaveTheGivenBytesIdAndJSON(t *testing.T) {
	for _, tt := range validBlocks(t) {
		t.Run(tt.Name, func(t *testing.T) {
			raw := unhex(t, tt.Serialized)
			b, err := ParseBlock(raw)
			if err != nil {
				t.Fatalf("ParseBlock(%x): %v", raw, err)
			}
			if out, err := b.AppendBinary(nil); err != nil || !bytes.Equal(out, raw) {
				t.Errorf("AppendBinary = %x, %v; want %x", out, err, raw)
			}
			if b.Size() != len(raw) {
				t.Errorf("Size = %d, want %d", b.Size(), len(raw))
			}
			if id, err := b.ID(); err != nil || id != tt.BlockID || IDOf(raw) != id {
				t.Errorf("ID = %v, %v; want %v", id, err, tt.BlockID)
			}
			var fromJSON Block
			if err := json.Unmarshal(tt.JSON, &fromJSON); err != nil || !reflect.DeepEqual(&fromJSON, b) {
				t.Errorf("from JSON %+v, %v; want %+v", fromJSON, err, b)
			}
			checkJSON(t, b, tt.JSON)
			if d := PoWDigest(raw); tt.Pow.PowDigest != "" && !bytes.Equal(d[:], unhex(t, tt.Pow.PowDigest)) {
				t.Errorf("PoWDigest = %x, want %s", d, tt.Pow.PowDigest)
			}
			if !MeetsScore(tt.Pow.TrailingZeros, len(raw), tt.MinedForScore) {
				t.Errorf("%d zeros do not meet score %d at %d bytes", tt.Pow.TrailingZeros, tt.MinedForScore, len(raw))
			}
		})
	}
}

// checkJSON tells whether b is written as want says, whatever the order.
func checkJSON(t *testing.T, b *Block, want []byte) {
	t.Helper()
	got, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	var g, w any
	if err := json.Unmarshal(got, &g); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(want, &w); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(g, w) {
		t.Errorf("JSON = %s, want %s", got, want)
	}
}

// The score of the file gives the zeros back: 3^zeros = score * size.
func TestInvalidBlocksAreRefusedByDecoderOrScore(t *testing.T) {
	blocks, minScore := suspectBlocks(t)
	for _, tt := range blocks {
		t.Run(tt.Name, func(t *testing.T) {
			raw := unhex(t, tt.Serialized)
			zeros := -1
			if len(raw) > 0 {
				zeros = int(math.Round(math.Log(tt.Score*float64(len(raw))) / math.Log(3)))
			}
			_, err := ParseBlock(raw)
			refused := err != nil || !MeetsScore(zeros, len(raw), minScore)
			if refused != tt.MustReject {
				t.Errorf("refused %v (%v, %d zeros), want %v: %s", refused, err, zeros, tt.MustReject, tt.Reason)
			}
			byScore := tt.Name == "pow score too low"
			if tt.MustReject && !byScore && err == nil {
				t.Errorf("ParseBlock(%x) accepts it: %s", raw, tt.Reason)
			}
		})
	}
}

func TestNetworkIDsAreThoseOfTheNames(t *testing.T) {
	var f struct {
		NetworkIDs []struct {
			NetworkID   uint64 `json:",string"`
			NetworkName string
		}
	}
	vectors(t, "network.json", &f)
	if len(f.NetworkIDs) == 0 {
		t.Fatal("no network ids")
	}
	for _, tt := range f.NetworkIDs {
		if got := NetworkID(tt.NetworkName); got != tt.NetworkID {
			t.Errorf("NetworkID(%q) = %d, want %d", tt.NetworkName, got, tt.NetworkID)
		}
	}
}

func TestTIPExamplesHoldLiterally(t *testing.T) {
	var f struct {
		TIP4 struct {
			Leaves []string
			Root   string
		} `json:"TIP-4"`
		TIP12 struct{ Message, PowDigest string } `json:"TIP-12"`
		TIP24 struct{ Bytes, BlockID string }     `json:"TIP-24"`
	}
	vectors(t, "tips_examples.json", &f)
	var leaves [][]byte
	for _, l := range f.TIP4.Leaves {
		leaves = append(leaves, unhex(t, l))
	}
	if root := MerkleRoot(leaves); len(leaves) != 7 || !bytes.Equal(root[:], unhex(t, f.TIP4.Root)) {
		t.Errorf("root of %d leaves = %x, want %s", len(leaves), root, f.TIP4.Root)
	}
	if d := PoWDigest(unhex(t, f.TIP12.Message)); !bytes.Equal(d[:], unhex(t, f.TIP12.PowDigest)) {
		t.Errorf("PoWDigest = %x, want %s", d, f.TIP12.PowDigest)
	}
	b, err := ParseBlock(unhex(t, f.TIP24.Bytes))
	if err != nil {
		t.Fatal(err)
	}
	if id, err := b.ID(); err != nil || !bytes.Equal(id[:], unhex(t, f.TIP24.BlockID)) {
		t.Errorf("ID = %v, %v; want %s", id, err, f.TIP24.BlockID)
	}
}
