package network

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/blake2b"
)

var testKey = ed25519.PublicKey(bytes.Repeat([]byte{0xab}, 32))

// canonicalOfOne is the canonical JSON of NewOfOne("site-1", "barn-7", testKey)
// without signatures, written by hand after RFC 8785.
const canonicalOfOne = `{"bech32Hrp":"hdg","byzantineWeight":0,"dataRoundInterval":"1s","epoch":0,` +
	`"gateways":[{"name":"barn-7","publicKey":"0xabababababababababababababababababababababababababababababababab","weight":1}],` +
	`"genesis":"","genesisOutputs":[],"idHorizon":500000,"minPowScore":100,"networkName":"site-1","operators":[],"previous":"",` +
	`"roundInterval":"100ms","snapshotEvery":1000,"tokenSupply":"1000000000000","vByteCost":100}`

func TestHashIsOverTheCanonicalFormWithoutSignatures(t *testing.T) {
	f := NewOfOne("site-1", "barn-7", testKey)
	want := blake2b.Sum256([]byte("hedgerow-net-1" + canonicalOfOne))
	if got := f.Hash(); got != want {
		t.Errorf("Hash = %x, want %x", got, want)
	}
	f.Signatures = []Signature{{PublicKey: PublicKey(testKey)}}
	if got := f.Hash(); got != want {
		t.Errorf("with a signature Hash = %x, want %x", got, want)
	}
	f.MinPoWScore++
	if f.Hash() == want {
		t.Error("another score has the same hash")
	}
}

func TestManyGatewaysTakeASlowerPace(t *testing.T) {
	for n, want := range map[int]time.Duration{1: 100 * time.Millisecond, 20: 100 * time.Millisecond, 21: time.Second, 50: time.Second} {
		var all []Gateway
		for i := range n {
			all = append(all, Gateway{Name: fmt.Sprint("g", i), PublicKey: PublicKey{byte(i + 1)}, Weight: 1})
		}
		f := Create("site", all)
		if got := time.Duration(f.RoundInterval); got != want || f.Validate() != nil {
			t.Errorf("%d gateways have a round every %v, want %v: %v", n, got, want, f.Validate())
		}
	}
}

func TestNetworkOfOneIsItsOwnQuorum(t *testing.T) {
	f := NewOfOne("hedgerow-test", "barn-7", testKey)
	if err := f.Validate(); err != nil {
		t.Error(err)
	}
	if i, ok := f.Index(testKey); i != 0 || !ok {
		t.Errorf("Index = %d, %v", i, ok)
	}
	if _, ok := f.Index(make([]byte, 32)); ok {
		t.Error("a foreign key has an index")
	}
	if got := f.NetworkID(); got != 2041566403370821071 { // vectors/network.json
		t.Errorf("NetworkID = %d", got)
	}
}

// The table of consensus.md §1.
func TestQuorum(t *testing.T) {
	for n, want := range map[int]uint64{1: 1, 2: 2, 3: 2, 4: 3, 5: 4, 6: 4, 7: 5, 10: 7, 15: 10, 50: 34} {
		var gateways []Gateway
		for i := range n {
			gateways = append(gateways, Gateway{Name: fmt.Sprint(i), PublicKey: PublicKey{byte(i + 1)}, Weight: 1})
		}
		f := Create("n", gateways)
		if err := f.Validate(); err != nil {
			t.Error(err)
		}
		if got := f.Quorum(); got != want {
			t.Errorf("quorum of %d is %d, want %d", n, got, want)
		}
	}
}

func TestSaveAndLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "network.json")
	if err := os.WriteFile(path, []byte("what was there before"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := NewOfOne("site-1", "barn-7", testKey)
	f.Operators = []Operator{{PublicKey: PublicKey{1}, Gateways: []string{"barn-7"}}}
	f.Signatures = []Signature{{PublicKey: PublicKey{2}, Signature: Bytes64{3}}}
	if err := f.Save(path); err != nil {
		t.Fatal(err)
	}
	got, err := Load(path)
	if err != nil || !reflect.DeepEqual(got, f) || got.Hash() != f.Hash() {
		t.Errorf("Load = %+v, %v; want %+v", got, err, f)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("mode is %v, %v", info.Mode(), err)
	}
	if files, err := os.ReadDir(filepath.Dir(path)); err != nil || len(files) != 1 {
		t.Errorf("files left behind: %v, %v", files, err)
	}
}

func TestAnInvalidFileIsNotSaved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "network.json")
	if err := NewOfOne("a name with spaces", "barn-7", testKey).Save(path); !errors.Is(err, ErrInvalid) {
		t.Errorf("Save = %v, want ErrInvalid", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("file: %v", err)
	}
	if _, err := Load(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Load = %v, want ErrNotExist", err)
	}
}

// valid is a file with every list filled; tests replace parts of its text.
func valid(t testing.TB) string {
	f := NewOfOne("site-1", "barn-7", testKey)
	f.Gateways = append(f.Gateways, Gateway{Name: "silo-2", PublicKey: PublicKey{2}, Weight: 3})
	f.Operators = []Operator{{PublicKey: PublicKey{1}, Gateways: []string{"barn-7"}}}
	f.Signatures = []Signature{{PublicKey: PublicKey{2}, Signature: Bytes64{3}}}
	path := filepath.Join(t.TempDir(), "network.json")
	if err := f.Save(path); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestParseNamesTheFieldThatIsWrong(t *testing.T) {
	good := valid(t)
	if _, err := Parse([]byte(good)); err != nil {
		t.Fatal(err)
	}
	key := "0x" + hex.EncodeToString(testKey)
	for _, tt := range []struct{ old, new, want string }{
		{`"site-1"`, `""`, "networkName: 0 characters"},
		{`"site-1"`, `"site 1"`, "networkName: \"site 1\" has ' '"},
		{`"site-1"`, `7`, "networkName: number stands there, want a string"},
		{`"networkName"`, `"networkname"`, "networkName: missing"},
		{`"networkName"`, `"network"`, `unknown field "network"`},
		{`"epoch": 0,`, ``, "epoch: missing"},
		{`"epoch": 0`, `"epoch": 0, "epoch": 0`, "epoch: stands there twice"},
		{`"epoch": 0`, `"epoch": -1`, "epoch: number -1 stands there, want a number from 0"},
		{`"epoch": 0`, `"epoch": 1e0`, "epoch: 1e0 is not an integer"},
		{`"epoch": 0`, `"epoch": 1`, "genesis: epoch 1 needs the hash"},
		{`"epoch": 0`, `"epoch": null`, "epoch: write 0"},
		{`"previous": ""`, `"previous": "0x00"`, "previous, genesis: epoch 0 has no file before it"},
		{`"barn-7"`, `"barn/7"`, "gateways[0].name: \"barn/7\" has '/'"},
		{`"silo-2"`, `"barn-7"`, `gateways[1].name: "barn-7" is that of gateways[0]`},
		{key, "0x" + strings.ToUpper(key[2:]), "gateways.publicKey: "},
		{key, key[:64], "want a string of 0x and 64 lower-case hex digits"},
		{key, "0x02" + strings.Repeat("00", 31), "gateways[1].publicKey: silo-2 has the key of barn-7"},
		{key, "0x" + strings.Repeat("00", 32), "gateways[0].publicKey: missing"},
		{`"weight": 3`, `"weight": 0`, "gateways[1].weight: 0, want 1 to"},
		{`"weight": 3`, `"weight": 3, "voice": 2`, `unknown field "voice"`},
		{"[\n        \"barn-7\"", "[\"barn-8\"", `operators[0].gateways[0]: "barn-8" is not a gateway`},
		{`"100ms"`, `"0.1s"`, `roundInterval: write "100ms"`},
		{`"100ms"`, `"soon"`, `roundInterval: "soon" stands there, want a string such as "100ms"`},
		{`"100ms"`, `"1ms"`, "roundInterval: 1ms, want 10ms to 1h"},
		{`"1s"`, `"50ms"`, "dataRoundInterval: 50ms, want roundInterval (100ms) to 1h"},
		{`"hdg"`, `"HDG"`, "bech32Hrp:"},
		{`"1000000000000"`, `1000000000000`, "tokenSupply: number stands there, want a string of decimal digits"},
		{`"1000000000000"`, `"1e12"`, `tokenSupply: "1e12" stands there`},
		{`"1000000000000"`, `"0"`, "tokenSupply: 0"},
		{`"1000000000000"`, `"01"`, `tokenSupply: write "1"`},
		{`"genesisOutputs": []`, `"genesisOutputs": [{"address": "hdg1x", "amount": "1"}]`, "genesisOutputs: 1 listed"},
		{`"genesisOutputs": []`, `"genesisOutputs": {}`, "genesisOutputs: object stands there"},
		{`"genesisOutputs": []`, `"genesisOutputs": ` + strings.Repeat("[", 100) + strings.Repeat("]", 100), "nested deeper"},
		{"}\n", "}\n{}", "something follows"},
		{"}\n", "", "JSON at byte"},
		{"}\n", "}" + strings.Repeat(" ", MaxFileSize), "at most 262144 allowed"},
		{`"site-1"`, "\"\xff\"", "not valid UTF-8"},
		{`{`, `{"schlüssel": 1,`, "is not plain ASCII"},
	} {
		i := strings.Index(good, tt.old)
		if tt.old == "}\n" {
			i = len(good) - 2
		}
		if i < 0 {
			t.Fatalf("%q is not in the file", tt.old)
		}
		text := good[:i] + tt.new + good[i+len(tt.old):]
		if _, err := Parse([]byte(text)); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s instead of %s: %v\nwant %s", tt.new[:min(40, len(tt.new))], tt.old, err, tt.want)
		}
	}
}

func TestCanonicalForm(t *testing.T) {
	for in, want := range map[string]string{
		` { "b" : [ 1 , true , null ] , "a" : "x" } `:  `{"a":"x","b":[1,true,null]}`,
		`"\u00e4\u20ac\ud83d\ude00"`:                   `"ä€😀"`,
		`"\u0000\b\t\n\u000b\f\r\u001f\u007f\"\\\/<>"`: "\"\\u0000\\b\\t\\n\\u000b\\f\\r\\u001f\x7f\\\"\\\\/<>\"",
		`-9007199254740991`:                            `-9007199254740991`,
		`{"a1":0,"a":0,"A":0,"a.b":0}`:                 `{"A":0,"a":0,"a.b":0,"a1":0}`,
		`[]`:                                           `[]`,
		`{}`:                                           `{}`,
	} {
		tree, err := parseTree([]byte(in))
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if got := string(appendCanonical(nil, tree)); got != want {
			t.Errorf("%s is %s, want %s", in, got, want)
		}
	}
}

// What Parse takes is saved so that it is read back as the same file, and its
// hash is that of the text itself.
func FuzzParse(f *testing.F) {
	f.Add([]byte(valid(f)))
	f.Add([]byte(strings.TrimSuffix(canonicalOfOne, "}") + `,"signatures":[]}`))
	f.Add([]byte(`{"gateways":[null]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		file, err := Parse(text)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("Parse = %v, want ErrInvalid", err)
			}
			return
		}
		tree, err := parseTree(text)
		if err != nil {
			t.Fatal(err)
		}
		delete(tree.(map[string]any), "signatures")
		if want := blake2b.Sum256(appendCanonical([]byte("hedgerow-net-1"), tree)); file.Hash() != want {
			t.Errorf("Hash = %x, that of the text is %x", file.Hash(), want)
		}
	})
}
