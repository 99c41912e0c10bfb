package gateway

import (
	"crypto/ed25519"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

// Check reads a configuration like [Load] and looks at the files that it
// names; it opens no store and makes nothing. Files that the first start
// makes may be missing. The error is of type [Problems] when something is
// wrong with what was read.
func Check(file string, set []string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // nothing was written
	text, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return err
	}
	d, c := decode(file, text, set)
	d.files(&c)
	if len(d.problems) > 0 {
		return d.sorted()
	}
	return nil
}

// files looks at what the configuration names. Keys that are wrong already
// name nothing.
func (d *decoder) files(c *Config) {
	var key ed25519.PrivateKey
	if !d.bad["identity"] {
		d.secret("identity", c.Identity, func(b []byte) (err error) {
			key, err = parseIdentity(b)
			return err
		})
		if key == nil && used(string(c.DataDir)) { // a missing one is not made then
			_, _, err := identity(c.Identity, true)
			d.refuse("identity", "%v", err)
		}
	}
	if !d.bad["api.token"] {
		d.secret("api.token", c.API.Token, func(b []byte) error { _, err := parseToken(b); return err })
	}
	if info, err := os.Stat(string(c.DataDir)); err == nil && !info.IsDir() {
		d.refuse("data_dir", "%s is not a directory", c.DataDir)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.refuse("data_dir", "%v", err)
	}
	d.peerFiles(c)
	if !d.bad["network"] && (c.Network != "" || !d.bad["data_dir"]) {
		d.network(c, key)
	}
}

// network looks at the network file, that in the data directory too if the
// first start has made it; key is nil when it is not known.
func (d *decoder) network(c *Config, key ed25519.PrivateKey) {
	path := c.networkPath()
	f, err := network.Load(path)
	named := err == nil && slices.ContainsFunc(f.Gateways, func(g network.Gateway) bool { return g.Name == c.Name })
	switch {
	case err != nil && c.Network == "" && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)):
		return // not made yet, or the gateway's own business
	case err != nil && c.Network == "":
		d.refuse("data_dir", "%v", err)
	case err != nil:
		d.refuse("network", "%v", err)
	case key == nil && !named:
		d.refuse("name", "%s has no gateway %s", path, c.Name)
	case key != nil:
		if err := checkMemberOnce(string(c.DataDir), f, c.Name, key.Public().(ed25519.PublicKey), path); err != nil && named {
			d.refuse("identity", "%v", err)
		} else if err != nil {
			d.refuse("name", "%v", err)
		}
	}
}

func (d *decoder) secret(key string, s Secret, parse func([]byte) error) {
	b, err := s.Read()
	switch {
	case s.Scheme == "file" && errors.Is(err, fs.ErrNotExist):
		return // the first start makes it
	case err == nil:
		err = parse(b)
	}
	if err != nil {
		d.refuse(key, "%v", err)
	}
}
