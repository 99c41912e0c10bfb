package gateway

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/hedgerow-iot/hedgerow/powfarm"
)

// maxConfig bounds a configuration file, in bytes.
const maxConfig = 256 << 10

// Load reads the configuration file and lays the overrides (key.path=value)
// over it. Relative paths of the file are relative to it, those of overrides
// to the working directory. The error is of type [Problems] when the content
// is wrong, and then names everything that is.
func Load(file string, set []string) (Config, error) {
	f, err := os.Open(file)
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close() //nolint:errcheck // nothing was written
	text, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	c, err := Parse(file, text, set)
	c.File = file
	return c, err
}

// Parse is [Load] for a text that was read already; file is its name.
func Parse(file string, text []byte, set []string) (Config, error) {
	d, c := decode(file, text, set)
	if len(d.problems) > 0 {
		return c, d.sorted()
	}
	return c, nil
}

// Override lays --set overrides over a configuration that needs no file.
func Override(c Config, set []string) (Config, error) {
	d := newDecoder("default")
	d.finish(&c, set, "")
	if len(d.problems) > 0 {
		return c, d.sorted()
	}
	return c, nil
}

// decode returns what could be read of the text, and the decoder that holds
// the problems.
func decode(file string, text []byte, set []string) (*decoder, Config) {
	c, d := Default(), newDecoder(file)
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")) // some editors begin a file with it
	switch {
	case len(text) > maxConfig:
		d.problems = append(d.problems, Problem{File: file, Text: "the file is larger than " + Size(maxConfig).String()})
	case !utf8.Valid(text):
		d.problems = append(d.problems, Problem{File: file, Text: "the file is not UTF-8"})
	default:
		d.yaml(text, &c)
	}
	d.finish(&c, set, filepath.Dir(file))
	return d, c
}

// finish lays the overrides over c, checks it and resolves its paths.
func (d *decoder) finish(c *Config, set []string, base string) {
	for _, arg := range set {
		d.set(arg, c)
	}
	d.bounds(c)
	d.names(c)
	d.kernel(c)
	d.listeners(c)
	d.webSocket(&c.MQTT.WebSocket)
	d.peers(c)
	d.resolve(c, base)
}

// resolve makes the paths of the file relative to it.
func (d *decoder) resolve(c *Config, base string) {
	if base == "" {
		return
	}
	fromSet := func(key string) bool { return d.places[key].file == "--set" }
	each(reflect.ValueOf(c).Elem(), "", func(key string, v reflect.Value, _ reflect.StructTag) {
		switch p := v.Addr().Interface().(type) {
		case *Path:
			if !fromSet(key) {
				*p = p.relativeTo(base)
			}
		case *Secret:
			if p.Scheme == "file" && !fromSet(key) {
				p.Ref = string(Path(p.Ref).relativeTo(base))
			}
		}
	})
}

// refuse adds a problem with the value of key, once per key.
func (d *decoder) refuse(key, format string, args ...any) {
	if d.bad[key] {
		return
	}
	at, ok := d.places[key]
	if !ok {
		at = place{file: d.file}
	}
	d.problems = append(d.problems, Problem{at.file, at.line, at.column, key, fmt.Sprintf(format, args...)})
	d.bad[key] = true
}

// bounds checks the min, max and oneof tags.
func (d *decoder) bounds(c *Config) {
	each(reflect.ValueOf(c).Elem(), "", func(key string, v reflect.Value, tag reflect.StructTag) {
		if words := tag.Get("oneof"); words != "" && !slices.Contains(strings.Fields(words), v.String()) {
			d.refuse(key, "%q is none of %s%s", clip(v.String()), strings.Join(strings.Fields(words), ", "),
				nearest(v.String(), strings.Fields(words)))
		}
		if !v.CanInt() || tag.Get("min") == "" {
			return
		}
		if a, ok := v.Interface().(interface{ String() string }); ok && a.String() == "auto" {
			return
		}
		if v.Int() < bound(v, tag.Get("min")) || v.Int() > bound(v, tag.Get("max")) {
			d.refuse(key, "%v is out of bounds; it takes %s to %s", v.Interface(), tag.Get("min"), tag.Get("max"))
		}
	})
}

// bound parses a min or max tag as the type it bounds.
func bound(like reflect.Value, text string) int64 {
	v := reflect.New(like.Type()).Elem()
	if err := setScalar(v, text); err != nil {
		panic("bound in the configuration's tags: " + err.Error())
	}
	return v.Int()
}

func nearest(word string, words []string) string {
	for _, w := range words {
		if editDistance(strings.ToLower(word), w) <= 2 {
			return "; did you mean " + w + "?"
		}
	}
	return ""
}

func (d *decoder) names(c *Config) {
	if !validName(c.Name) {
		d.refuse("name", "%s", notAName(c.Name))
	}
	if c.DataDir == "" {
		d.refuse("data_dir", "is empty; it takes a directory")
	}
	if c.Identity.Scheme == "" {
		d.refuse("identity", "is empty; it takes file:PATH, env:NAME or credential:NAME")
	}
	if c.API.Token.Scheme == "" {
		d.refuse("api.token", "is empty; it takes file:PATH, env:NAME or credential:NAME")
	}
}

// kernel refuses one that this machine cannot run.
func (d *decoder) kernel(c *Config) {
	usable := append([]string{powfarm.AutoKernel}, powfarm.Kernels()...)
	if !slices.Contains(usable, c.Powfarm.Kernel) {
		d.refuse("powfarm.kernel", "%s does not run on this machine; usable are %s", clip(c.Powfarm.Kernel), strings.Join(usable, ", "))
	}
}

func notAName(s string) string {
	return fmt.Sprintf("%q is not a name: it takes 1 to 32 letters, digits, dots, underscores and hyphens", clip(s))
}

// validName reports whether s can name a gateway (contract §2).
func validName(s string) bool {
	if len(s) < 1 || len(s) > 32 {
		return false
	}
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._-", r) {
			return false
		}
	}
	return true
}

// A listenKey is one address that the configuration opens; insecureKey is
// empty for one that is always encrypted.
type listenKey struct{ key, network, address, insecureKey string }

// listens returns every address of the configuration, in its order.
func (c *Config) listens() []listenKey {
	var all []listenKey
	for i, a := range c.MQTT.Listen {
		all = append(all, listenKey{"mqtt.listen[" + strconv.Itoa(i) + "]", "tcp", a, "mqtt.insecure"})
	}
	for i, a := range c.MQTT.WebSocket.Listen {
		all = append(all, listenKey{"mqtt.websocket.listen[" + strconv.Itoa(i) + "]", "tcp", a, "mqtt.insecure"})
	}
	for i, a := range c.CoAP.Listen {
		all = append(all, listenKey{"coap.listen[" + strconv.Itoa(i) + "]", "udp", a, "coap.insecure"})
	}
	all = append(all, listenKey{"api.listen", "tcp", c.API.Listen, "api.insecure"})
	if c.Peers.Listen != "" {
		all = append(all, listenKey{"peers.listen", "tcp", c.Peers.Listen, ""})
	}
	if c.Peers.Clients != "" {
		all = append(all, listenKey{"peers.clients", "tcp", c.Peers.Clients, ""})
	}
	return all
}

func (d *decoder) listeners(c *Config) {
	insecure := map[string]bool{
		"mqtt.insecure": c.MQTT.Insecure, "coap.insecure": c.CoAP.Insecure, "api.insecure": c.API.Insecure,
	}
	taken := map[string]string{}
	for _, l := range c.listens() {
		if list, _, ok := strings.Cut(l.key, "["); ok && d.places[l.key] == (place{}) {
			d.places[l.key] = d.places[list] // of an override
		}
		host, port, err := splitAddress(l.address)
		if err != nil {
			d.refuse(l.key, "%v", err)
			continue
		}
		same := l.network + "/" + net.JoinHostPort(host, strconv.Itoa(port))
		if other, ok := taken[same]; ok && port != 0 {
			d.refuse(l.key, "%s stands at %s already", l.address, other)
		}
		taken[same] = cmp.Or(taken[same], l.key)
		if l.insecureKey != "" && !loopback(host) && !insecure[l.insecureKey] {
			d.refuse(l.key, "%s is reachable from other machines without encryption; listen on 127.0.0.1 or say %s: true", l.address, l.insecureKey)
		}
	}
}

// webSocket checks what requests for a WebSocket are compared with.
func (d *decoder) webSocket(c *WebSocketConfig) {
	if u, err := url.ParseRequestURI(c.Path); err != nil || u.Path != c.Path || path.Clean(c.Path) != c.Path {
		d.refuse("mqtt.websocket.path", "%q is not a path; write one such as /mqtt", clip(c.Path))
	}
	for i, origin := range c.Origins {
		key := "mqtt.websocket.origins[" + strconv.Itoa(i) + "]"
		if d.places[key] == (place{}) {
			d.places[key] = d.places["mqtt.websocket.origins"] // of an override
		}
		u, err := url.Parse(origin)
		if origin != "*" && (err != nil || u.Host == "" || u.Scheme+"://"+u.Host != origin || strings.ToLower(origin) != origin) {
			d.refuse(key, "%q is not an origin; write scheme://host or scheme://host:port in lower case, or * for any", clip(origin))
		}
	}
}

// splitAddress takes host:port apart; an empty host is every address.
func splitAddress(s string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, fmt.Errorf("%q is not an address; write host:port, such as 127.0.0.1:1883 or [::1]:1883", clip(s))
	}
	port, err = strconv.Atoi(text)
	if err != nil || port < 0 || port > 65535 || text[0] == '+' {
		return "", 0, fmt.Errorf("%q has no port from 0 to 65535 after the last colon", clip(s))
	}
	if _, err := netip.ParseAddr(host); err != nil && strings.ContainsAny(host, ": /\x00") || len(host) > 253 {
		return "", 0, fmt.Errorf("%q has no host before the last colon", clip(s))
	}
	return host, port, nil
}

// loopback reports whether only this machine reaches a listener on host.
func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}
