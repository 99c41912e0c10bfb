package main

import (
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/hedgerow-iot/hedgerow/gateway"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

type networkCmd struct {
	Create    networkCreateCmd `cmd:"" help:"Write the network file of a new network."`
	Add       networkAddCmd    `cmd:"" help:"Draft the next epoch, with more gateways."`
	Remove    networkRemoveCmd `cmd:"" help:"Draft the next epoch, without some gateways."`
	SetWeight networkWeightCmd `cmd:"" help:"Draft the next epoch, with other weights."`
	SetKey    networkKeyCmd    `cmd:"" help:"Draft the next epoch, with other identity keys."`
	Rename    networkRenameCmd `cmd:"" help:"Draft the next epoch, with other names of gateways."`
	Sign      networkSignCmd   `cmd:"" help:"Sign a draft with a gateway's or an operator's key."`
	Show      networkShowCmd   `cmd:"" help:"Show a network file, and who signed it."`
}

type networkCreateCmd struct {
	Name     string   `required:"" help:"Name of the network: letters, digits, dots, underscores and hyphens."`
	Out      string   `required:"" placeholder:"FILE" help:"Where to write the file; it must not be there yet."`
	Operator []string `placeholder:"PUBFILE=GATEWAY,…" sep:"none" help:"A key that may sign the next epochs for these gateways (repeatable)."`
	Gateways []string `arg:"" placeholder:"GATEWAY=PUBFILE[:WEIGHT]" help:"The members, each as GATEWAY=PUBFILE[:WEIGHT]: its identity.pub, and the weight of its votes (1)."`
}

// Run writes the genesis of a network.
func (c *networkCreateCmd) Run(e *env) error {
	gateways, err := members(c.Gateways)
	if err != nil {
		return err
	}
	f := network.Create(c.Name, gateways)
	if f.Operators, err = operators(c.Operator); err != nil {
		return err
	}
	if err := f.Validate(); err != nil {
		return usageError{err}
	}
	if _, err := os.Lstat(c.Out); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is there already: a network's first file is never written over", c.Out)
	}
	if err := f.Save(c.Out); err != nil {
		return err
	}
	return showNetwork(e.stdout, f, nil)
}

type networkSignCmd struct {
	Key      string `required:"" placeholder:"KEYFILE" help:"The private key of a gateway or operator of the epoch before: a path, env:NAME or credential:NAME."`
	Previous string `placeholder:"FILE" help:"The file of the epoch before: refuse a key that may not sign, and say what is lacking still."`
	File     string `arg:"" placeholder:"FILE" help:"The draft; the signature is added to it."`
}

// Run adds a signature to the file.
func (c *networkSignCmd) Run(e *env) error {
	f, err := network.Load(c.File)
	if err != nil {
		return err
	}
	key, err := gateway.ReadIdentity(c.Key)
	if err != nil {
		return err
	}
	if c.Previous != "" {
		return c.signAfter(e, f, key)
	}
	f.Sign(key)
	if err := f.Save(c.File); err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.stdout, "%s has %s now; hedgerow network show --previous FILE tells whether they suffice\n", c.File, count(uint64(len(f.Signatures)), "signature"))
	return err
}

// signAfter signs with a key that counts for the epoch before.
func (c *networkSignCmd) signAfter(e *env, f *network.File, key ed25519.PrivateKey) error {
	previous, err := network.Load(c.Previous)
	if err != nil {
		return err
	}
	public := network.PublicKey(key.Public().(ed25519.PublicKey))
	if len(previous.SignsFor(public)) == 0 {
		return fmt.Errorf("%s is not signed: the key %v is of no gateway and no operator of epoch %d (%s); those agree on the next one", c.File, public, previous.Epoch, c.Previous)
	}
	f.Sign(key)
	if err := f.Follows(previous); err != nil && !errors.Is(err, network.ErrUnsigned) {
		return fmt.Errorf("%s is not signed: %w", c.File, err)
	}
	if err := f.Save(c.File); err != nil {
		return err
	}
	return showApproval(e.stdout, f, previous)
}

type networkShowCmd struct {
	Previous string `placeholder:"FILE" help:"The file of the epoch before: check whether it is followed."`
	JSON     bool   `name:"json" help:"Print JSON."`
	File     string `arg:"" placeholder:"FILE" help:"The network file."`
}

// Run shows the file. It fails when the epoch before is given and not followed.
func (c *networkShowCmd) Run(e *env) error {
	f, err := network.Load(c.File)
	if err != nil {
		return err
	}
	var previous *network.File
	if c.Previous != "" {
		if previous, err = network.Load(c.Previous); err != nil {
			return err
		}
	}
	if c.JSON {
		err = json.NewEncoder(e.stdout).Encode(networkJSON(f, previous))
	} else {
		err = showNetwork(e.stdout, f, previous)
	}
	if err == nil && previous != nil {
		err = f.Follows(previous)
	}
	return err
}

// networkJSON is what show --json prints: the file and what follows from it.
func networkJSON(f, previous *network.File) map[string]any {
	hash := f.Hash()
	out := map[string]any{
		"file": f, "hash": "0x" + hex.EncodeToString(hash[:]), "weight": f.Weight(), "quorum": f.Quorum(),
	}
	if previous != nil {
		a, err := f.Approved(previous)
		out["signedBy"], out["signedWeight"], out["neededWeight"] = append([]string{}, a.Gateways...), a.Weight, a.Needed
		if err == nil {
			err = f.Follows(previous)
		}
		out["follows"] = err == nil
		if err != nil {
			out["reason"] = err.Error()
		}
	}
	return out
}

func showNetwork(w io.Writer, f, previous *network.File) error {
	hash := f.Hash()
	fmt.Fprintf(w, "network %s, epoch %d\nhash    0x%x\n", f.NetworkName, f.Epoch, hash)
	fmt.Fprintf(w, "NATS    %s\n", network.SubjectPrefix(f.GenesisHash())) // what its subjects begin with
	fmt.Fprintf(w, "quorum  %d of weight %d, of which %d may be faulty or hostile\n\n", f.Quorum(), f.Weight(), f.ByzantineWeight)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "GATEWAY\tWEIGHT\tIDENTITY KEY")
	for _, g := range f.Gateways {
		fmt.Fprintf(t, "%s\t%d\t%v\n", g.Name, g.Weight, g.PublicKey)
	}
	if len(f.Operators) > 0 {
		fmt.Fprintln(t, "\nOPERATOR FOR\t\tKEY")
		for _, o := range f.Operators {
			fmt.Fprintf(t, "%s\t\t%v\n", strings.Join(o.Gateways, ", "), o.PublicKey)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if previous == nil {
		return nil
	}
	fmt.Fprintln(w)
	return showApproval(w, f, previous)
}

// showApproval prints who of the epoch before has signed.
func showApproval(w io.Writer, f, previous *network.File) error {
	a, err := f.Approved(previous)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "signed for epoch %d by %s: weight %d, needed %d\n", previous.Epoch, names(a.Gateways), a.Weight, a.Needed)
	for _, key := range a.Others {
		fmt.Fprintf(w, "not counted: the signature of %v, which is of no gateway and no operator of epoch %d\n", key, previous.Epoch)
	}
	return nil
}

func names(list []string) string {
	if len(list) == 0 {
		return "nobody"
	}
	return strings.Join(list, ", ")
}

// members reads GATEWAY=PUBFILE[:WEIGHT].
func members(texts []string) (all []network.Gateway, err error) {
	for _, text := range texts {
		name, file, ok := strings.Cut(text, "=")
		if !ok || name == "" || file == "" {
			return nil, usagef("%q is not GATEWAY=PUBFILE[:WEIGHT], such as barn-7=barn-7.pub", text)
		}
		g := network.Gateway{Name: name, Weight: 1}
		if i := strings.LastIndexByte(file, ':'); i >= 0 {
			if n, err := strconv.ParseUint(file[i+1:], 10, 32); err == nil {
				g.Weight, file = uint32(n), file[:i]
			}
		}
		key, err := gateway.ReadPublicKey(file)
		if err != nil {
			return nil, fmt.Errorf("key of %s: %w", name, err)
		}
		copy(g.PublicKey[:], key)
		all = append(all, g)
	}
	return all, nil
}

// operators reads PUBFILE=GATEWAY,…
func operators(texts []string) (all []network.Operator, err error) {
	all = []network.Operator{}
	for _, text := range texts {
		file, list, ok := strings.Cut(text, "=")
		if !ok || file == "" || list == "" {
			return nil, usagef("%q is not PUBFILE=GATEWAY,…, such as owner.pub=barn-7,barn-8", text)
		}
		key, err := gateway.ReadPublicKey(file)
		if err != nil {
			return nil, fmt.Errorf("operator's key: %w", err)
		}
		all = append(all, network.Operator{PublicKey: network.PublicKey(key), Gateways: strings.Split(list, ",")})
	}
	return all, nil
}
