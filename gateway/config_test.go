package gateway

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// Everything that is wrong is named at once, each with its place and key.
func TestParseNamesEveryProblemAtOnce(t *testing.T) {
	text := `name: "barn 7"
data_dri: /var/lib/hedgerow
log: {level: loud}
mqtt:
  listen: ["0.0.0.0:1883", "localhost"]
  anonymos: true
  limits:
    packet: huge
    connections: 0
coap: 7
journal:
  linger: 5
  retention: 400 days
api:
  token: s3cret-s3cret-s3cret
  listen: 14265
journal: {}
`
	want := []string{
		`f.yaml:1:7: name: "barn 7" is not a name: it takes 1 to 32 letters, digits, dots, underscores and hyphens`,
		`f.yaml:2:1: data_dri: unknown key; did you mean data_dir?`,
		`f.yaml:3:14: log.level: "loud" is none of debug, info, warn, error`,
		`f.yaml:5:12: mqtt.listen[0]: 0.0.0.0:1883 is reachable from other machines without encryption; listen on 127.0.0.1 or say mqtt.insecure: true`,
		`f.yaml:5:28: mqtt.listen[1]: "localhost" is not an address; write host:port, such as 127.0.0.1:1883 or [::1]:1883`,
		`f.yaml:6:3: mqtt.anonymos: unknown key; did you mean mqtt.anonymous?`,
		`f.yaml:8:13: mqtt.limits.packet: "huge" is not a size; write bytes or a unit, such as 256KiB, 16MiB or 2GiB`,
		`f.yaml:9:18: mqtt.limits.connections: 0 is out of bounds; it takes 1 to 100000`,
		`f.yaml:10:7: coap: want a section with keys below it, got a number`,
		`f.yaml:12:11: journal.linger: want a duration such as 5ms, 10s or 400d, got a number`,
		`f.yaml:13:14: journal.retention: "400 days" is not a duration; write a number and a unit, such as 5ms, 10s, 2h or 400d`,
		`f.yaml:15:10: api.token: a secret never stands in the configuration; write file:PATH, env:NAME or credential:NAME`,
		`f.yaml:16:11: api.listen: want text, got a number; write it in quotes`,
		`f.yaml:17:1: journal: the key stands twice in this section`,
		`--set: powfarm.workers: "many" is neither auto nor a number`,
		`--set: mqtt: is a section; set one of its keys: listen, websocket, anonymous, insecure, limits`,
	}
	_, err := Parse("f.yaml", []byte(text), []string{"powfarm.workers=many", "mqtt=1"})
	var ps Problems
	if !errors.As(err, &ps) {
		t.Fatalf("Parse = %v, want Problems", err)
	}
	got := strings.Split(ps.Error(), "\n")
	for _, w := range want {
		if !strings.Contains(ps.Error()+"\n", w+"\n") {
			t.Errorf("missing: %s", w)
		}
	}
	if len(got) != len(want) {
		t.Errorf("got %d problems, want %d:\n%s", len(got), len(want), ps)
	}
}

// A secret that was written into the file is refused without showing it.
func TestParseNeverPrintsALiteralSecret(t *testing.T) {
	for _, text := range []string{
		"api: {token: hunter2hunter2hunter2}", "identity: hunter2", "api: {token: 8472947294729472}",
		"api:\n  token: |\n    hunter2hunter2\n", "api: {token: [hunter2]}", "identity: file:", "identity: {key: hunter2}",
	} {
		_, err := Parse("f.yaml", []byte(text), []string{"api.token=hunter2"})
		if err == nil || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "8472") {
			t.Errorf("Parse(%q) = %v, want a refusal that does not quote the value", text, err)
		}
	}
}

func TestParseValues(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		set        []string
		get        func(Config) any
		want       any
		problem    string // part of the error, empty when there is none
	}{
		{"size in KiB", "mqtt: {limits: {packet: 64KiB}}", nil, func(c Config) any { return c.MQTT.Limits.Packet }, Size(64 << 10), ""},
		{"size in bytes", "mqtt: {limits: {packet: 65536}}", nil, func(c Config) any { return c.MQTT.Limits.Packet }, Size(64 << 10), ""},
		{"size overflow", "journal: {max_disk: 99999999TiB}", nil, nil, nil, "is not a size"},
		{"negative size", "journal: {max_disk: -1GiB}", nil, nil, nil, "is not a size"},
		{"days", "journal: {retention: 30d}", nil, func(c Config) any { return c.Journal.Retention }, Duration(30 * 24 * time.Hour), ""},
		{"composed duration", "batching: {max_age: 1m30s}", nil, func(c Config) any { return c.Batching.MaxAge }, Duration(90 * time.Second), ""},
		{"negative duration", "batching: {max_age: -1s}", nil, nil, nil, "is not a duration"},
		{"endless duration", "journal: {retention: 1e300d}", nil, nil, nil, "is not a duration"},
		{"not a number of days", "journal: {retention: NaNd}", nil, nil, nil, "is not a duration"},
		{"workers auto", "powfarm: {workers: auto}", nil, func(c Config) any { return c.Powfarm.Workers }, AutoInt(Auto), ""},
		{"workers none", "powfarm: {workers: 0}", nil, func(c Config) any { return c.Powfarm.Workers }, AutoInt(0), ""},
		{"target", "batching: {target: 8KiB}", nil, func(c Config) any { return c.Batching.Target }, AutoSize(8 << 10), ""},
		{"target too large", "batching: {target: 1MiB}", nil, nil, nil, "it takes 1KiB to 32KiB"},
		{"rate", "api: {third_party: {rate: 90/m}}", nil, func(c Config) any { return c.API.ThirdParty.Rate }, Rate(5400), ""},
		{"no rate", "api: {third_party: {rate: none}}", nil, func(c Config) any { return c.API.ThirdParty.Rate }, Rate(0), ""},
		{"rate without unit", "api: {third_party: {rate: 5}}", nil, nil, nil, "want a rate such as"},
		{"rate of another unit", "api: {third_party: {rate: 5/d}}", nil, nil, nil, "is not a rate"},
		{"rate of nothing", "api: {third_party: {rate: 0/s}}", nil, nil, nil, "is not a rate"},
		{"endless rate", "api: {third_party: {rate: 9999999999999999/s}}", nil, nil, nil, "is not a rate"},
		{"true in quotes", `mqtt: {anonymous: "true"}`, nil, nil, nil, "want true or false, got text; write it without quotes"},
		{"yes", "mqtt: {anonymous: yes}", nil, nil, nil, "want true or false, got text; write true"},
		{"off", "api: {public: Off}", nil, nil, nil, "want true or false, got text; write false"},
		{"empty section", "mqtt:\n", nil, func(c Config) any { return c.MQTT.Listen }, []string{"127.0.0.1:1883"}, ""},
		{"empty list", "mqtt: {listen: []}", nil, func(c Config) any { return len(c.MQTT.Listen) }, 0, ""},
		{"any interface when said", "mqtt: {listen: [\":1883\"], insecure: true}", nil, func(c Config) any { return c.MQTT.Listen }, []string{":1883"}, ""},
		{"any interface", "coap: {listen: [\":5683\"]}", nil, nil, nil, "coap.insecure: true"},
		{"api beyond loopback", "api: {listen: \"10.0.0.1:80\"}", nil, nil, nil, "api.insecure: true"},
		{"IPv6 loopback", "coap: {listen: [\"[::1]:5683\"]}", nil, func(c Config) any { return c.CoAP.Listen }, []string{"[::1]:5683"}, ""},
		{"one address twice", "mqtt: {listen: [\"127.0.0.1:14265\"]}", nil, nil, nil, "stands at mqtt.listen[0] already"},
		{"port out of range", "api: {listen: \"127.0.0.1:65536\"}", nil, nil, nil, "no port from 0 to 65535"},
		{"second document", "name: a\n---\nname: b\n", nil, nil, nil, "second document"},
		{"alias", "name: &n a\n", nil, nil, nil, "anchor or alias"},
		{"tag", "name: !!str a\n", nil, nil, nil, "a tag"},
		{"syntax", "mqtt: {listen: [\n", nil, nil, nil, "f.yaml:1:"},
		{"brackets", strings.Repeat("[", 1000), nil, nil, nil, "nested"},
		{"not UTF-8", "name: \xff\n", nil, nil, nil, "not UTF-8"},
		{"key of another section", "linger: 5ms\n", nil, nil, nil, "did you mean journal.linger?"},
		{"set wins", "name: a\n", []string{"name=b"}, func(c Config) any { return c.Name }, "b", ""},
		{"set list", "", []string{"mqtt.listen=127.0.0.1:1, 127.0.0.1:2"}, func(c Config) any { return c.MQTT.Listen }, []string{"127.0.0.1:1", "127.0.0.1:2"}, ""},
		{"set empty list", "", []string{"coap.listen="}, func(c Config) any { return len(c.CoAP.Listen) }, 0, ""},
		{"set without value", "", []string{"name"}, nil, nil, "--set: name: want key.path=value"},
		{"set below a value", "", []string{"name.first=a"}, nil, nil, "name is a value"},
		{"set unknown", "", []string{"mqt.listen=a"}, nil, nil, "did you mean mqtt?"},
		{"set bad address", "", []string{"mqtt.listen=0.0.0.0:1"}, nil, nil, "--set: mqtt.listen[0]:"},
		{"relative path", "data_dir: data\n", nil, func(c Config) any { return c.DataDir }, Path("/etc/x/data"), ""},
		{"relative secret", "api: {token: file:t}\n", nil, func(c Config) any { return c.API.Token }, Secret{"file", "/etc/x/t"}, ""},
		{"set path stays", "", []string{"data_dir=data"}, func(c Config) any { return c.DataDir }, Path("data"), ""},
		{"swapped letters", "nmae: a\n", nil, nil, nil, "did you mean name?"},
		{"capital key", "MQTT: {}\n", nil, nil, nil, "did you mean mqtt?"},
		{"capital key of another section", "Linger: 5ms\n", nil, nil, nil, "did you mean journal.linger?"},
		{"capital word", "log: {level: INFO}\n", nil, nil, nil, "did you mean info?"},
		{"byte order mark", "\xef\xbb\xbfname: b\r\n", nil, func(c Config) any { return c.Name }, "b", ""},
		{"credential path", "identity: credential:../x\n", nil, nil, nil, "not a path"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := "f.yaml"
			if tt.problem == "" {
				file = "/etc/x/f.yaml"
			}
			c, err := Parse(file, []byte(tt.text), tt.set)
			if tt.problem != "" {
				if err == nil || !strings.Contains(err.Error(), tt.problem) {
					t.Fatalf("Parse(%q, %q) = %v, want %q", clip(tt.text), tt.set, err, tt.problem)
				}
				return
			}
			if err != nil {
				t.Fatalf("Parse(%q, %q): %v", tt.text, tt.set, err)
			}
			if got := tt.get(c); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("Parse(%q, %q) gives %v, want %v", tt.text, tt.set, got, tt.want)
			}
		})
	}
}

func TestLoadBoundsTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f.yaml")
	if err := os.WriteFile(file, []byte(strings.Repeat("# x\n", maxConfig)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(file, nil); err == nil || !strings.Contains(err.Error(), "larger than 256KiB") {
		t.Errorf("Load of a file of 1 MiB = %v, want a refusal", err)
	}
}

// Any text is either refused with problems or gives a configuration whose
// printed values parse back to themselves; nothing panics.
func TestRateIsWrittenWithTheSmallestNumber(t *testing.T) {
	for r, want := range map[Rate]string{0: "none", 1: "1/h", 60: "1/m", 90: "90/h", 3600: "1/s", 5400: "90/m", 36000: "10/s"} {
		if r.String() != want {
			t.Errorf("%d/h = %v, want %s", int64(r), r, want)
		}
		var back Rate
		if err := back.set(want); err != nil || back != r {
			t.Errorf("%s = %d/h, %v, want %d/h", want, int64(back), err, int64(r))
		}
	}
	if got := Rate(7200).every(); got != time.Second/2 {
		t.Errorf("2/s is one in %v", got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("name: barn-7\nmqtt: {listen: [\"127.0.0.1:1883\"], limits: {packet: 64KiB}}\n"), "journal.linger=5ms")
	f.Add([]byte("api:\n  token: file:x\n  public: false\n"), "powfarm.workers=auto")
	f.Add([]byte("a: &x [*x]\n? b\n: |\n  c\n---\n"), "mqtt.listen=a,b")
	f.Fuzz(func(t *testing.T, text []byte, set string) {
		c, err := Parse("/etc/x/f.yaml", text, []string{set})
		if err != nil {
			if ps := (Problems)(nil); !errors.As(err, &ps) || len(ps) == 0 {
				t.Errorf("Parse(%q, %q) = %T %v, want Problems", text, set, err, err)
			}
			return
		}
		each(reflect.ValueOf(&c).Elem(), "", func(key string, v reflect.Value, _ reflect.StructTag) {
			s, ok := v.Interface().(interface{ String() string })
			if !ok {
				return
			}
			again := reflect.New(v.Type()).Elem()
			if err := setScalar(again, s.String()); err != nil || again.Interface() != v.Interface() {
				t.Errorf("%s: %v is printed as %s, which reads as %v, %v", key, v.Interface(), s, again.Interface(), err)
			}
		})
	})
}
