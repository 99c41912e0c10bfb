package gateway

import (
	"errors"
	"io"
	"io/fs"
	"os"

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
	if !d.bad["identity"] {
		d.secret("identity", c.Identity, func(b []byte) error { _, err := parseIdentity(b); return err })
	}
	if !d.bad["api.token"] {
		d.secret("api.token", c.API.Token, func(b []byte) error { _, err := parseToken(b); return err })
	}
	if info, err := os.Stat(string(c.DataDir)); err == nil && !info.IsDir() {
		d.refuse("data_dir", "%s is not a directory", c.DataDir)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.refuse("data_dir", "%v", err)
	}
	if c.Network == "" || d.bad["network"] {
		return
	}
	f, err := network.Load(string(c.Network))
	if err != nil {
		d.refuse("network", "%v", err)
		return
	}
	for _, g := range f.Gateways {
		if g.Name == c.Name {
			return
		}
	}
	d.refuse("name", "%s has no gateway %s", c.Network, c.Name)
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
