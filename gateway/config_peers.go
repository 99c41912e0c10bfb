package gateway

import (
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/hedgerow-iot/hedgerow/gateway/bus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

// maxPEM bounds a file of certificates, in bytes.
const maxPEM = 256 << 10

// peers checks the sections peers and powfarm.remote.
func (d *decoder) peers(c *Config) {
	p := &c.Peers
	switch p.Mode {
	case string(bus.Embedded):
		d.only(p.URL != "", "peers.url", "external")
		d.only(p.Credentials != (Secret{}), "peers.credentials", "external")
		if len(p.Routes) > 0 && p.Listen == "" {
			d.refuse("peers.routes", "needs peers.listen: the servers of a mesh dial one another; a gateway that cannot be dialled takes peers.mode: external and another gateway's peers.clients as peers.url")
		}
		d.routes(p.Routes)
	case string(bus.External):
		d.only(p.Listen != "", "peers.listen", "embedded")
		d.only(p.Clients != "", "peers.clients", "embedded")
		d.only(len(p.Routes) > 0, "peers.routes", "embedded")
		if p.URL == "" {
			d.refuse("peers.url", "is empty; mode external takes an address such as tls://nats.example.org:4222")
		} else {
			d.natsURLs(p.URL)
		}
	}
	d.peerTLS(p)
	if c.Powfarm.Remote.Serve && c.Powfarm.Workers == 0 {
		d.refuse("powfarm.remote.serve", "has no worker to lend: powfarm.workers is 0")
	}
	seen := map[string]int{}
	for i, text := range c.Powfarm.Remote.Workers {
		key := item(d, "powfarm.remote.workers", i)
		if _, err := parseKey(text); err != nil {
			d.refuse(key, "%v", err)
		} else if first, ok := seen[strings.ToLower(text)]; ok {
			d.refuse(key, "stands at powfarm.remote.workers[%d] already", first)
		} else {
			seen[strings.ToLower(text)] = i
		}
	}
}

// only refuses a key that belongs to the other mode.
func (d *decoder) only(given bool, key, mode string) {
	if given {
		d.refuse(key, "belongs to peers.mode: %s; take it out, or change the mode", mode)
	}
}

// item returns the key of a list's entry and sees to it that its place is
// known also when an override gave it.
func item(d *decoder, list string, i int) string {
	key := list + "[" + strconv.Itoa(i) + "]"
	if d.places[key] == (place{}) {
		d.places[key] = d.places[list]
	}
	return key
}

func (d *decoder) routes(routes []string) {
	seen := map[string]int{}
	for i, text := range routes {
		key := item(d, "peers.routes", i)
		host, err := natsAddress(text, "tls")
		if _, _, splitErr := splitAddress(host); err == nil && splitErr != nil {
			err = fmt.Errorf("%q has no port; write tls://host:port, such as tls://10.0.0.8:6222", clip(text))
		}
		switch first, twice := seen[host]; {
		case err != nil:
			d.refuse(key, "%v", err)
		case strings.HasPrefix(host, ":"):
			d.refuse(key, "%q has no host; write that of the other gateway", clip(text))
		case twice:
			d.refuse(key, "stands at peers.routes[%d] already", first)
		default:
			seen[host] = i
		}
	}
}

func (d *decoder) natsURLs(urls string) {
	for u := range strings.SplitSeq(urls, ",") {
		if err := checkNATS(u); err != nil {
			d.refuse("peers.url", "%v", err)
		}
	}
}

// CheckNATS says what is wrong with addresses of NATS servers, comma-separated,
// such as peers.url takes; plain reports whether one of them is on another
// machine and does not insist on TLS.
func CheckNATS(urls string) (plain bool, err error) {
	for u := range strings.SplitSeq(urls, ",") {
		if err := checkNATS(u); err != nil {
			return false, err
		}
	}
	return plainNATS(urls), nil
}

func checkNATS(u string) error {
	host, err := natsAddress(strings.TrimSpace(u), "tls", "nats")
	if err == nil && strings.Contains(host, ":") && !strings.HasSuffix(host, "]") {
		_, _, err = splitAddress(host)
	}
	if err == nil && strings.HasPrefix(host, ":") {
		err = fmt.Errorf("%q has no host", clip(u))
	}
	return err
}

// natsAddress returns what stands after one of the schemes. The error never
// quotes what may be a password.
func natsAddress(text string, schemes ...string) (host string, err error) {
	example := schemes[0] + "://10.0.0.8:4222"
	if strings.Contains(text, "@") {
		return "", errors.New("holds a user or password; write the address alone, such as " + example + ", and peers.credentials: file:PATH")
	}
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok {
		return "", fmt.Errorf("%q is not an address of a NATS server; did you mean %s://%s?", clip(text), schemes[0], clip(text))
	}
	for _, s := range schemes {
		if scheme != s {
			continue
		}
		u, err := url.Parse(text)
		if err != nil || u.Host == "" || u.Host != rest {
			return "", fmt.Errorf("%q is not an address of a NATS server; write it as %s", clip(text), example)
		}
		return rest, nil
	}
	return "", fmt.Errorf("%q does not begin with %s://; did you mean %s://%s?", clip(text), strings.Join(schemes, ":// or "), schemes[0], clip(rest))
}

// plainNATS reports whether one of the addresses is on another machine and does
// not insist on TLS.
func plainNATS(urls string) bool {
	for u := range strings.SplitSeq(urls, ",") {
		rest, plain := strings.CutPrefix(strings.TrimSpace(u), "nats://")
		host, _, err := net.SplitHostPort(rest)
		if err != nil {
			host = strings.Trim(rest, "[]")
		}
		if plain && !loopback(host) {
			return true
		}
	}
	return false
}

func (d *decoder) peerTLS(p *PeersConfig) {
	cert, key, ca := p.TLS.Certificate != "", p.TLS.Key != (Secret{}), p.TLS.CA != ""
	switch {
	case cert && !key:
		d.refuse("peers.tls.certificate", "needs peers.tls.key")
	case key && !cert:
		d.refuse("peers.tls.key", "needs peers.tls.certificate")
	case p.Mode == string(bus.Embedded) && cert && !ca:
		d.refuse("peers.tls.certificate", "needs peers.tls.ca, by which the other gateways are known; or leave the section empty")
	case p.Mode == string(bus.Embedded) && ca && !cert:
		d.refuse("peers.tls.ca", "needs peers.tls.certificate and peers.tls.key; or leave the section empty")
	}
}

// peerFiles looks at the files that the section peers names; none of them is
// made by the gateway.
func (d *decoder) peerFiles(c *Config) {
	p := &c.Peers
	if p.Credentials != (Secret{}) && !d.bad["peers.credentials"] {
		if _, err := credentials(p.Credentials); err != nil {
			d.refuse("peers.credentials", "%v", err)
		}
	}
	if p.TLS.CA != "" && !d.bad["peers.tls.ca"] {
		if _, err := ReadCA(string(p.TLS.CA)); err != nil {
			d.refuse("peers.tls.ca", "%v", err)
		}
	}
	if p.TLS.Certificate == "" || p.TLS.Key == (Secret{}) || d.bad["peers.tls.certificate"] || d.bad["peers.tls.key"] {
		return
	}
	if _, err := readPEM(string(p.TLS.Certificate)); err != nil {
		d.refuse("peers.tls.certificate", "%v", err)
	} else if _, err := keyPair(p.TLS); err != nil {
		d.refuse("peers.tls.key", "%v", err)
	}
}

// ReadCA reads the certificates of an authority, PEM; nil for "".
func ReadCA(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	b, err := readPEM(path)
	if err != nil {
		return nil, err
	}
	pool, err := bus.ParseCA(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return pool, nil
}

// credentials reads what an external cluster knows this gateway by; nil when
// there are none.
func credentials(s Secret) ([]byte, error) {
	if s == (Secret{}) {
		return nil, nil
	}
	b, err := s.Read()
	if err == nil {
		err = bus.CheckCredentials(b)
	}
	return b, err
}

// keyPair reads the certificate of this gateway.
func keyPair(t PeersTLS) (*tls.Certificate, error) {
	cert, err := readPEM(string(t.Certificate))
	if err != nil {
		return nil, err
	}
	key, err := t.Key.Read()
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("%s with its key: %w", t.Certificate, err)
	}
	return &pair, nil
}

func readPEM(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // nothing was written
	b, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	if err == nil && len(b) > maxPEM {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxPEM)
	}
	return b, err
}

// lonely says that the configuration names other gateways and the network file
// has none; "" when that is not so. f is nil when there is no file yet.
func lonely(c *Config, f *network.File) string {
	switch {
	case len(c.Peers.Routes) == 0 && c.Peers.Listen == "", f != nil && len(f.Gateways) > 1:
		return ""
	case f == nil:
		return "peers names other gateways, and there is no network file yet: the first start makes one of this gateway alone, which refuses them and is refused; join theirs first (hedgerow join)"
	}
	return "peers names other gateways, but the network file has this one alone: it refuses them and is refused; make a network file with all of them (hedgerow network create), and join it"
}

// Cautions says what a valid configuration is unlikely to mean, in words.
func Cautions(c Config) (all []string) {
	f, err := network.Load(c.networkPath())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil // not this configuration's fault
	}
	if text := lonely(&c, f); text != "" {
		all = append(all, text)
	}
	if c.Powfarm.Workers == 0 && !asksOthers(&c, f) {
		all = append(all, noProver)
	}
	return all
}

// asksOthers reports whether another box may search for this gateway: a worker
// or a member, one of which is enough.
func asksOthers(c *Config, f *network.File) bool {
	return c.Powfarm.Remote.Use && (len(c.Powfarm.Remote.Workers) > 0 || f != nil && len(f.Gateways) > 1)
}

const noProver = "powfarm.workers is 0 and no other box is asked (powfarm.remote): readings are stored and wait, in no block"

// parseKey reads an Ed25519 public key as network files write it.
func parseKey(text string) (ed25519.PublicKey, error) {
	digits, ok := strings.CutPrefix(text, "0x")
	b, err := hex.DecodeString(digits)
	if !ok || err != nil || len(b) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("%q is not a public key; write 0x and 64 hex digits", clip(text))
	}
	return b, nil
}
