package bus

import (
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"sync"
	"sync/atomic"
	"time"
)

// penalty is how long a refused key waits for its answer. A server dials again
// within a tenth of a second.
const penalty = time.Second

// certificate returns a self-signed certificate of the key. Whoever knows the
// key looks at nothing else of it.
func certificate(name string, key ed25519.PrivateKey) (tls.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: name},
		DNSNames:     []string{"hedgerow"},
		NotBefore:    time.Unix(0, 0), // boxes without a clock start there
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(nil, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make a certificate of the identity key: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// keyOf returns the Ed25519 key that the other side has proved to hold, nil
// for another kind of key.
func keyOf(state tls.ConnectionState) ed25519.PublicKey {
	if len(state.PeerCertificates) == 0 {
		return nil
	}
	key, _ := state.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
	return key
}

// pins decides who may connect by key.
type pins struct {
	members func() []Member
	former  func(ed25519.PublicKey) string // nil: nobody knows
	refused refusals
	closing <-chan struct{}
	sources *sources                          // of those that were let in, or are dialled; nil without a listener
	server  atomic.Pointer[ed25519.PublicKey] // of the server we are client of, nil if an authority vouched for it
}

// refusals are the handshakes with keys that may not connect.
type refusals struct {
	mu    sync.Mutex // guards what follows
	count uint64
	last  time.Time
	why   string
}

func (r *refusals) note(why error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count++
	r.last, r.why = time.Now(), why.Error()
}

func (r *refusals) tell(s *Status) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s.Refused, s.RefusedAt, s.RefusedWhy = r.count, r.last, r.why
}

func (p *pins) isMember(key ed25519.PublicKey) bool {
	for _, m := range p.members() {
		if len(key) > 0 && key.Equal(m.Key) {
			return true
		}
	}
	return false
}

// verify returns a check of the server that we dial, for
// [tls.Config.VerifyConnection].
func (p *pins) verify(allowed func(ed25519.PublicKey) bool) func(tls.ConnectionState) error {
	return func(state tls.ConnectionState) error {
		key := keyOf(state)
		if allowed(key) {
			return nil
		}
		err := p.unknownKey(key)
		p.refused.note(err)
		p.wait()
		return err
	}
}

// wait is for a refused key: see penalty.
func (p *pins) wait() {
	timer := time.NewTimer(penalty)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.closing:
	}
}

// mutual returns the configuration of an end where both sides are known by
// their keys. Chains, names and times do not matter: the key is the identity.
func (p *pins) mutual(cert tls.Certificate, allowed func(ed25519.PublicKey) bool) *tls.Config {
	return p.gate(&tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{cert},
		ClientAuth:             tls.RequireAnyClientCert,
		InsecureSkipVerify:     true, // VerifyConnection does it
		VerifyConnection:       p.verify(allowed),
		SessionTicketsDisabled: true,
	}, allowed)
}

// authority returns the configuration of routes whose certificates are the
// operator's own.
func authority(t TLS) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{*t.Certificate},
		ClientAuth:             tls.RequireAndVerifyClientCert,
		RootCAs:                t.CA,
		ClientCAs:              t.CA,
		SessionTicketsDisabled: true,
	}
}

// publicChain reports whether the system's authorities vouch for the server by
// the name under which it was dialled.
func publicChain(state tls.ConnectionState) bool {
	if state.ServerName == "" || len(state.PeerCertificates) == 0 {
		return false // an address proves nothing here
	}
	others := x509.NewCertPool()
	for _, c := range state.PeerCertificates[1:] {
		others.AddCert(c)
	}
	_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{DNSName: state.ServerName, Intermediates: others})
	return err == nil
}
