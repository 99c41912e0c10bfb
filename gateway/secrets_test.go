package gateway

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A key that is made at the first start is private, is the same at the next,
// and is never made anew for stores that another one signed.
func TestIdentityIsMadeOnce(t *testing.T) {
	s := Secret{"file", filepath.Join(t.TempDir(), "sub", "identity.key")}
	first, made, err := identity(s, false)
	if err != nil || !made {
		t.Fatalf("identity = made %v, %v; want one that was made", made, err)
	}
	info, err := os.Stat(s.Ref)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of the key is %v, %v; want 0600", info.Mode(), err)
	}
	if pub, err := os.ReadFile(strings.TrimSuffix(s.Ref, ".key") + ".pub"); err != nil || !bytes.Contains(pub, []byte("PUBLIC KEY")) {
		t.Errorf("public half: %q, %v", pub, err)
	}
	again, made, err := identity(s, true)
	if err != nil || made || !again.Equal(first) {
		t.Errorf("second start reads another key, %v", err)
	}
	if err := os.Remove(s.Ref); err != nil {
		t.Fatal(err)
	}
	if _, _, err := identity(s, true); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "put the key back") {
		t.Errorf("lost key beside stores: %v, want a refusal", err)
	}
	if _, err := os.Stat(s.Ref); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a new key was made beside stores of another")
	}
}

func TestSecretFileOfOthersIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("0123456789abcdef\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if tok, made, err := adminToken(Secret{"file", file}); tok != "0123456789abcdef" || made || err != nil {
		t.Errorf("adminToken = %q, %v, %v", tok, made, err)
	}
	if err := os.Chmod(file, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, _, err := adminToken(Secret{"file", file}); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a token that the group can read = %v, want a refusal", err)
	}
}

func TestSecretReferences(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("HEDGEROW_TEST_TOKEN", "0123456789abcdef")
	t.Setenv("HEDGEROW_TEST_LONG", strings.Repeat("x", maxSecret+1))
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	if err := os.WriteFile(filepath.Join(dir, "tok"), []byte("credential-of-systemd"), 0o440); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		ref, want, problem string
	}{
		{"env:HEDGEROW_TEST_TOKEN", "0123456789abcdef", ""},
		{"env:HEDGEROW_TEST_NONE", "", "HEDGEROW_TEST_NONE"},
		{"env:HEDGEROW_TEST_LONG", "", "longer than"},
		{"credential:tok", "credential-of-systemd", ""},
		{"file:" + dir, "", "not a regular file"},
	} {
		var s Secret
		if err := s.set(tt.ref); err != nil {
			t.Fatal(err)
		}
		tok, _, err := adminToken(s)
		if tok != tt.want || (err != nil) != (tt.problem != "") || err != nil && !strings.Contains(err.Error(), tt.problem) {
			t.Errorf("%s gives %q, %v; want %q, %q", tt.ref, tok, err, tt.want, tt.problem)
		}
	}
}

// A directory has one process; the next one is told which.
func TestLockDirAdmitsOne(t *testing.T) {
	dir := t.TempDir()
	first, err := lockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockDir(dir); !errors.Is(err, ErrLocked) {
		t.Errorf("second lock = %v, want ErrLocked", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := lockDir(dir)
	if err != nil {
		t.Fatalf("lock after the first was given back: %v", err)
	}
	_ = again.Close()
}

// Anything that is no key or token is refused without being shown.
func FuzzSecrets(f *testing.F) {
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n-----END PRIVATE KEY-----\n"))
	f.Add([]byte("0123456789abcdef\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := parseIdentity(b); err != nil && len(b) > 20 && strings.Contains(err.Error(), string(b)) {
			t.Errorf("the error of a key shows it: %v", err)
		}
		if tok, err := parseToken(b); err == nil && len(tok) < minToken {
			t.Errorf("parseToken(%q) = %q, want at least %d characters", b, tok, minToken)
		}
	})
}

// A power cut while a secret is made leaves no half of it under its name, and
// what it leaves does not hinder the next start.
func TestCreateFileIsWholeOrMissing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "identity.key")
	half := path + ".new"
	if err := os.WriteFile(half, []byte("half"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := createFile(path, 0o600, []byte("whole")); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
	if _, err := os.Stat(half); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is left: %v", half, err)
	}
	if err := createFile(path, 0o600, []byte("other")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("createFile over a file = %v, want ErrExist", err)
	}
	if got, err := os.ReadFile(path); string(got) != "whole" || err != nil {
		t.Errorf("content %q, %v; want whole", got, err)
	}
	if _, err := os.Stat(half); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is left: %v", half, err)
	}
}
