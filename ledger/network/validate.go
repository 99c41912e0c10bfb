package network

import (
	"fmt"
	"time"
)

// Validate returns nil or what is wrong with the file, naming the field. It
// does not look at signatures. The error wraps [ErrInvalid].
func (f *File) Validate() error {
	for _, check := range []func() error{
		f.checkEpoch, f.checkGateways, f.checkOperators, f.checkParameters, f.checkSignatures,
	} {
		if err := check(); err != nil {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
	}
	return nil
}

func (f *File) checkEpoch() error {
	if err := checkName(f.NetworkName, maxNetworkName); err != nil {
		return fmt.Errorf("networkName: %w", err)
	}
	if f.Epoch == 0 {
		if f.Previous != "" || f.Genesis != "" {
			return fmt.Errorf("previous, genesis: epoch 0 has no file before it")
		}
		return nil
	}
	var hash [32]byte
	if err := parseHex(hash[:], []byte(f.Genesis)); err != nil {
		return fmt.Errorf("genesis: epoch %d needs the hash of the file of epoch 0: %w", f.Epoch, err)
	}
	if err := parseHex(hash[:], []byte(f.Previous)); err != nil {
		return fmt.Errorf("previous: epoch %d needs the hash of the file before it: %w", f.Epoch, err)
	}
	return nil
}

func (f *File) checkGateways() error {
	if n := len(f.Gateways); n < 1 || n > MaxGateways {
		return fmt.Errorf("gateways: %d listed, want 1 to %d", n, MaxGateways)
	}
	names, keys := map[string]int{}, map[PublicKey]int{}
	for i, g := range f.Gateways {
		at := fmt.Sprintf("gateways[%d]", i)
		if err := checkName(g.Name, maxGatewayName); err != nil {
			return fmt.Errorf("%s.name: %w", at, err)
		}
		if g.PublicKey == (PublicKey{}) {
			return fmt.Errorf("%s.publicKey: missing", at)
		}
		if g.Weight < 1 || g.Weight > maxWeight {
			return fmt.Errorf("%s.weight: %d, want 1 to %d", at, g.Weight, maxWeight)
		}
		if j, taken := names[g.Name]; taken {
			return fmt.Errorf("%s.name: %q is that of gateways[%d]", at, g.Name, j)
		}
		if j, taken := keys[g.PublicKey]; taken {
			return fmt.Errorf("%s.publicKey: %s has the key of %s", at, g.Name, f.Gateways[j].Name)
		}
		names[g.Name], keys[g.PublicKey] = i, i
	}
	return nil
}

func (f *File) checkOperators() error {
	if n := len(f.Operators); n > MaxOperators {
		return fmt.Errorf("operators: %d listed, at most %d allowed", n, MaxOperators)
	}
	known := map[string]bool{}
	for _, g := range f.Gateways {
		known[g.Name] = true
	}
	keys := map[PublicKey]int{}
	for i, o := range f.Operators {
		at := fmt.Sprintf("operators[%d]", i)
		if o.PublicKey == (PublicKey{}) {
			return fmt.Errorf("%s.publicKey: missing", at)
		}
		if j, taken := keys[o.PublicKey]; taken {
			return fmt.Errorf("%s.publicKey: is that of operators[%d]", at, j)
		}
		keys[o.PublicKey] = i
		if n := len(o.Gateways); n < 1 || n > len(f.Gateways) {
			return fmt.Errorf("%s.gateways: %d named, want 1 to %d", at, n, len(f.Gateways))
		}
		named := map[string]bool{}
		for j, name := range o.Gateways {
			if !known[name] || named[name] {
				return fmt.Errorf("%s.gateways[%d]: %.40q is not a gateway or named twice", at, j, name)
			}
			named[name] = true
		}
	}
	return nil
}

func (f *File) checkParameters() error {
	const most = Duration(time.Hour)
	switch {
	case f.RoundInterval < Duration(10*time.Millisecond) || f.RoundInterval > most:
		return fmt.Errorf("roundInterval: %v, want 10ms to 1h", time.Duration(f.RoundInterval))
	case f.DataRoundInterval < f.RoundInterval || f.DataRoundInterval > most:
		return fmt.Errorf("dataRoundInterval: %v, want roundInterval (%v) to 1h",
			time.Duration(f.DataRoundInterval), time.Duration(f.RoundInterval))
	case uint64(f.ByzantineWeight) > f.mostByzantine():
		return fmt.Errorf("byzantineWeight: %d, want less than a third of the gateways' weight, %d", f.ByzantineWeight, f.Weight())
	case f.IDHorizon < 1000:
		return fmt.Errorf("idHorizon: %d, want at least 1000", f.IDHorizon)
	case f.SnapshotEvery < 1 || f.SnapshotEvery > f.IDHorizon:
		return fmt.Errorf("snapshotEvery: %d, want 1 to idHorizon (%d)", f.SnapshotEvery, f.IDHorizon)
	case f.TokenSupply == 0:
		return fmt.Errorf("tokenSupply: 0, want at least 1")
	case len(f.GenesisOutputs) > 0:
		return fmt.Errorf("genesisOutputs: %d listed, but this version moves no value", len(f.GenesisOutputs))
	}
	return checkHRP(f.Bech32HRP)
}

func (f *File) checkSignatures() error {
	if n := len(f.Signatures); n > maxSignatures {
		return fmt.Errorf("signatures: %d listed, at most %d allowed", n, maxSignatures)
	}
	keys := map[PublicKey]int{}
	for i, s := range f.Signatures {
		if j, taken := keys[s.PublicKey]; taken {
			return fmt.Errorf("signatures[%d].publicKey: is that of signatures[%d]", i, j)
		}
		keys[s.PublicKey] = i
	}
	return nil
}

// checkHRP takes what clients take as an address prefix: 1 to 16 lower-case
// letters (BIP-173 would allow more).
func checkHRP(s string) error {
	if len(s) < 1 || len(s) > 16 {
		return fmt.Errorf("bech32Hrp: %d characters, want 1 to 16", len(s))
	}
	for _, c := range []byte(s) {
		if c < 'a' || c > 'z' {
			return fmt.Errorf("bech32Hrp: %q has %q, want lower-case letters", s, c)
		}
	}
	return nil
}

func checkName(s string, most int) error {
	if len(s) < 1 || len(s) > most {
		return fmt.Errorf("%d characters, want 1 to %d", len(s), most)
	}
	for _, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '_', c == '-':
		default:
			return fmt.Errorf("%.80q has %q, want letters, digits, '.', '_', '-'", s, c)
		}
	}
	return nil
}
