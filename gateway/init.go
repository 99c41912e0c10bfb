package gateway

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Names of what Init writes.
const (
	configName   = "hedgerow.yaml"
	identityName = "identity.key"
	tokenName    = "admin.token"
	// freshName is the marker that an identity has not been used: it stands
	// beside the key, outside the data directory and its backups, and goes at
	// the first start (consensus.md §8).
	freshName = "identity.fresh"
)

// configText is the configuration that Init writes.
const configText = `# Made by hedgerow init. Every key has a default; deploy/hedgerow.yaml lists
# them all, with comments. Check changes with: hedgerow check --config hedgerow.yaml
name: %s
data_dir: data
identity: file:identity.key
api: {token: file:admin.token}
`

// Init makes what a gateway of that name needs to start in dir: configuration,
// identity key with its public half, and admin token. What is there already is
// kept; made has the paths of what was not. The error is of type [Problems]
// when the name is not one.
func Init(dir, name string) (made []string, err error) {
	if !validName(name) {
		return nil, Problems{{File: "--name", Text: notAName(name)}}
	}
	path := func(name string) string { return filepath.Join(dir, name) }
	note := func(name string, isMade bool, err error) error {
		if isMade && err == nil {
			made = append(made, path(name))
		}
		return err
	}
	_, isMade, err := identity(Secret{"file", path(identityName)}, used(path("data")))
	if err := note(identityName, isMade, err); err != nil {
		return made, err
	}
	if isMade {
		if err := createFile(path(freshName), 0o600, nil); err != nil && !errors.Is(err, fs.ErrExist) {
			return made, fmt.Errorf("mark the identity key as new: %w", err)
		}
	}
	_, isMade, err = adminToken(Secret{"file", path(tokenName)})
	if err := note(tokenName, isMade, err); err != nil {
		return made, err
	}
	err = createFile(path(configName), 0o644, fmt.Appendf(nil, configText, name))
	if errors.Is(err, fs.ErrExist) {
		return made, nil
	}
	return made, note(configName, true, err)
}

// isFresh reports whether the marker of a new identity is there.
func isFresh(s Secret) bool {
	return s.Scheme == "file" && exists(filepath.Join(filepath.Dir(s.Ref), freshName))
}

// useIdentity removes the marker of a new identity, durably, before it votes.
func useIdentity(s Secret) error {
	if !isFresh(s) {
		return nil
	}
	dir := filepath.Dir(s.Ref)
	if err := os.Remove(filepath.Join(dir, freshName)); err != nil {
		return fmt.Errorf("remove the marker of a new identity key: %w", err)
	}
	return syncDir(dir)
}
