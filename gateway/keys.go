package gateway

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
)

// ReadPublicKey reads the public half of an identity key, such as identity.pub:
// one PEM block PUBLIC KEY with an Ed25519 key.
func ReadPublicKey(path string) (ed25519.PublicKey, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // nothing was written
	b, err := io.ReadAll(io.LimitReader(f, maxSecret))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	block, _ := pem.Decode(b)
	if block != nil && block.Type == "PRIVATE KEY" {
		return nil, fmt.Errorf("%s is the private key, which never leaves its gateway; give the public one, identity.pub", path)
	}
	if block == nil || block.Type != "PUBLIC KEY" {
		return nil, fmt.Errorf("%s is not a public key: it has no PEM block PUBLIC KEY", path)
	}
	k, err := x509.ParsePKIXPublicKey(block.Bytes)
	if key, ok := k.(ed25519.PublicKey); err == nil && ok {
		return key, nil
	}
	return nil, fmt.Errorf("%s is not an Ed25519 public key", path)
}

// ReadIdentity reads a private identity key: a path, or a secret as the
// configuration names one (file:PATH, env:NAME, credential:NAME). The error
// never holds the key.
func ReadIdentity(from string) (ed25519.PrivateKey, error) {
	s, err := secretOrPath(from)
	if err != nil {
		return nil, err
	}
	return readIdentity(s)
}

// ReadCredentials reads what a NATS cluster knows a client by, from where
// [ReadIdentity] would read a key; nil for "". The error never holds them.
func ReadCredentials(from string) ([]byte, error) {
	if from == "" {
		return nil, nil
	}
	s, err := secretOrPath(from)
	if err != nil {
		return nil, err
	}
	return credentials(s)
}

func secretOrPath(from string) (s Secret, err error) {
	if err = s.set(from); errors.Is(err, errLiteral) {
		return Secret{"file", from}, nil
	}
	return s, err
}

// MakeIdentity reads the private identity key at path, or makes one there, with
// its public half beside it, when there is no file; made tells which.
func MakeIdentity(path string) (key ed25519.PrivateKey, made bool, err error) {
	return identity(Secret{"file", path}, false)
}
