package network

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
)

// Parse reads a network file. It is strict: every key must be there, none may
// be unknown or stand twice, and every value must be written the one way that
// gives the file's hash. The error wraps [ErrInvalid] and names the field;
// signatures are not verified.
func Parse(text []byte) (*File, error) {
	if len(text) > MaxFileSize {
		return nil, fmt.Errorf("%w: %d bytes, at most %d allowed", ErrInvalid, len(text), MaxFileSize)
	}
	written, err := parseTree(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	var f File
	if err := dec.Decode(&f); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, plain(err))
	}
	f.fill()
	// encoding/json takes keys in any case and leaves absent ones zero; the
	// hash would then be that of another file than the one written.
	if err := compareTrees("", written, f.tree()); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := f.Validate(); err != nil {
		return nil, err
	}
	return &f, nil
}

// Load reads the network file at path; see [Parse].
func Load(path string) (*File, error) {
	r, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read network file: %w", err)
	}
	defer r.Close()
	text, err := io.ReadAll(io.LimitReader(r, MaxFileSize+1))
	if err != nil {
		return nil, fmt.Errorf("read network file: %w", err)
	}
	f, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return f, nil
}

// Save writes the file to path with mode 0644, replacing what was there at
// once or not at all. It is durable when Save returns. An invalid file is not
// written.
func (f *File) Save(path string) error {
	if err := f.Validate(); err != nil {
		return err
	}
	c := *f
	c.fill()
	text, err := json.MarshalIndent(&c, "", "  ")
	if err != nil {
		return fmt.Errorf("encode network file: %w", err)
	}
	if err := replace(path, append(text, '\n')); err != nil {
		return fmt.Errorf("write network file: %w", err)
	}
	return nil
}

// replace puts a file with these bytes at path: temporary file, sync, rename,
// sync of the directory.
func replace(path string, text []byte) (err error) {
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, ".network-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			tmp.Close()
			os.Remove(tmp.Name())
		}
	}()
	if _, err = tmp.Write(text); err != nil {
		return err
	}
	if err = tmp.Chmod(0o644); err != nil {
		return err
	}
	if err = tmp.Sync(); err != nil {
		return err
	}
	if err = tmp.Close(); err != nil {
		return err
	}
	if err = os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// fill makes absent lists empty ones, so that they are written as [].
func (f *File) fill() {
	if f.Operators == nil {
		f.Operators = []Operator{}
	}
	if f.GenesisOutputs == nil {
		f.GenesisOutputs = []Output{}
	}
	if f.Signatures == nil {
		f.Signatures = []Signature{}
	}
}

// tree returns the file as [parseTree] returns its text.
func (f *File) tree() map[string]any {
	c := *f
	c.fill()
	text, err := json.Marshal(&c)
	if err != nil {
		panic(fmt.Sprintf("network: encode file: %v", err)) // only plain types inside
	}
	tree, err := parseTree(text)
	if err != nil {
		panic(fmt.Sprintf("network: read own encoding: %v", err))
	}
	return tree.(map[string]any)
}

// plain turns encoding/json's errors into the words of this package.
func plain(err error) error {
	var t *json.UnmarshalTypeError
	if !errors.As(err, &t) {
		return err
	}
	want := map[reflect.Type]string{
		reflect.TypeFor[PublicKey](): "a string of 0x and 64 lower-case hex digits",
		reflect.TypeFor[Bytes64]():   "a string of 0x and 128 lower-case hex digits",
		reflect.TypeFor[Amount]():    "a string of decimal digits, below 2^64",
		reflect.TypeFor[Duration]():  `a string such as "100ms" or "1s"`,
		reflect.TypeFor[string]():    "a string",
		reflect.TypeFor[uint32]():    "a number from 0 to 4294967295",
	}[t.Type]
	return fmt.Errorf("%s: %s stands there, want %s", t.Field, t.Value, cmp.Or(want, "another type"))
}
