package gateway

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	maxSecret = 16 << 10 // bytes of a secret, whatever it is
	minToken  = 16       // characters of a token
)

// Read returns the secret, at most 16 KiB. The error wraps [fs.ErrNotExist]
// when the file is missing and never holds the secret. A file
// that others can read is refused, unless it is root's and we are not: then
// root decided who reads it, as container secrets do.
func (s Secret) Read() ([]byte, error) {
	switch s.Scheme {
	case "env":
		v, ok := os.LookupEnv(s.Ref)
		if !ok {
			return nil, fmt.Errorf("environment variable %s is not set", s.Ref)
		}
		if len(v) > maxSecret {
			return nil, fmt.Errorf("environment variable %s is longer than %d bytes", s.Ref, maxSecret)
		}
		return []byte(v), nil
	case "credential":
		dir := os.Getenv("CREDENTIALS_DIRECTORY")
		if dir == "" {
			return nil, fmt.Errorf("credential %s: CREDENTIALS_DIRECTORY is not set; start under systemd with LoadCredential=%s:PATH", s.Ref, s.Ref)
		}
		return readSecretFile(filepath.Join(dir, s.Ref), false)
	}
	return readSecretFile(s.Ref, true)
}

func readSecretFile(path string, private bool) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // nothing was written
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	if private && info.Mode().Perm()&0o077 != 0 {
		st, ok := info.Sys().(*syscall.Stat_t)
		if rootsOwn := ok && st.Uid == 0 && os.Geteuid() != 0; !rootsOwn {
			return nil, fmt.Errorf("%s can be read by others (mode %04o); run: chmod 600 %s", path, info.Mode().Perm(), path)
		}
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err == nil && len(b) > maxSecret {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxSecret)
	}
	return b, err
}

// createFile writes a file that did not exist and returns once it is durable.
// A power cut leaves it whole or missing; what may be left beside it, named
// .new, the next call replaces. The error wraps [fs.ErrExist] when the file
// exists.
func createFile(path string, mode fs.FileMode, content []byte) error {
	if err := makeDir(filepath.Dir(path)); err != nil {
		return err
	}
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	defer os.Remove(tmp) //nolint:errcheck // it is gone, or the next call does it
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("create %s: %w", path, err)
	}
	// A link never replaces a file, as a rename would.
	if err = os.Link(tmp, path); err != nil && !exists(path) {
		err = os.Rename(tmp, path) // a file system without links
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// makeDir makes a directory for its owner only, and those above it that are
// missing, and returns once they are durable.
func makeDir(dir string) error {
	dir = filepath.Clean(dir)
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := makeDir(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !exists(filepath.Join(dir, ".")) {
		return err
	}
	return syncDir(parent)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// adminToken returns the admin token; made is true when this call created it.
func adminToken(s Secret) (tok string, made bool, err error) {
	b, err := s.Read()
	if errors.Is(err, fs.ErrNotExist) && s.Scheme == "file" {
		raw := make([]byte, 32)
		_, _ = rand.Read(raw) // never fails
		tok = base64.RawURLEncoding.EncodeToString(raw)
		if err := createFile(s.Ref, 0o600, []byte(tok+"\n")); err != nil {
			return "", false, fmt.Errorf("make the admin token: %w", err)
		}
		return tok, true, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("read the admin token: %w", err)
	}
	tok, err = parseToken(b)
	return tok, false, err
}

func parseToken(b []byte) (string, error) {
	tok := strings.TrimSpace(string(b))
	switch {
	case len(tok) < minToken:
		return "", fmt.Errorf("the admin token has %d characters, it needs at least %d", len(tok), minToken)
	case strings.ContainsFunc(tok, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", errors.New("the admin token holds characters outside printable ASCII")
	}
	return tok, nil
}

// identity returns the gateway's key; made is true when this call created it.
// A missing file is not made when used is true: the stores then belong to a
// key that is gone, and a new one would not be theirs.
func identity(s Secret, used bool) (key ed25519.PrivateKey, made bool, err error) {
	key, err = readIdentity(s)
	switch missing := errors.Is(err, fs.ErrNotExist); {
	case missing && s.Scheme == "file" && !used:
		key, err = makeIdentity(s.Ref)
		return key, err == nil, err
	case missing && used:
		return nil, false, fmt.Errorf("%w; the data directory holds stores made with it: put the key back, or start with an empty data directory", err)
	}
	return key, false, err
}

// readIdentity reads a key that must be there.
func readIdentity(s Secret) (ed25519.PrivateKey, error) {
	b, err := s.Read()
	if err != nil {
		return nil, fmt.Errorf("read the identity key: %w", err)
	}
	key, err := parseIdentity(b)
	if err != nil {
		return nil, fmt.Errorf("read the identity key %v: %w", s, err)
	}
	return key, nil
}

func parseIdentity(b []byte) (ed25519.PrivateKey, error) {
	block, rest := pem.Decode(b)
	if block == nil || block.Type != "PRIVATE KEY" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("not one PEM block PRIVATE KEY; make one with: openssl genpkey -algorithm ed25519")
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("not a PKCS #8 private key")
	}
	key, ok := k.(ed25519.PrivateKey)
	if !ok {
		return nil, errors.New("not an Ed25519 key; make one with: openssl genpkey -algorithm ed25519")
	}
	return key, nil
}

func makeIdentity(path string) (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, fmt.Errorf("make the identity key: %w", err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("make the identity key: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("make the identity key: %w", err)
	}
	if err := createFile(path, 0o600, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})); err != nil {
		return nil, fmt.Errorf("make the identity key: %w", err)
	}
	pub := strings.TrimSuffix(path, ".key") + ".pub"
	err = createFile(pub, 0o644, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("make the public half of the identity key: %w", err)
	}
	return key, nil
}
