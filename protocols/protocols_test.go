package protocols

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/batching/reading"
	"github.com/hedgerow-iot/hedgerow/protocols/payload"
)

func TestMapTopic(t *testing.T) {
	for _, tt := range []struct {
		topic  string
		want   Target
		mapped bool
		bad    bool
	}{
		{"readings/probe-3/temp", Target{"probe-3", "temp"}, true, false},
		{"readings/probe-3", Target{"probe-3", ""}, true, false},
		{"readings/größe 1/naïve", Target{"größe 1", "naïve"}, true, false},
		{"readings/a/b/c", Target{}, false, false},
		{"readings", Target{}, false, false},
		{"Readings/a/b", Target{}, false, false},
		{"/readings/a/b", Target{}, false, false},
		{"zigbee2mqtt/a", Target{}, false, false},
		{"readings/", Target{}, true, true},
		{"readings/a/", Target{}, true, true},
		{"readings//b", Target{}, true, true},
		{"readings/a+/b", Target{}, true, true},
		{"readings/a\xff/b", Target{}, true, true},
		{"readings/a\x00/b", Target{}, true, true},
		{"readings/a/b\n", Target{}, true, true},
		{"readings/" + strings.Repeat("d", 64) + "/" + strings.Repeat("n", 128), Target{strings.Repeat("d", 64), strings.Repeat("n", 128)}, true, false},
		{"readings/" + strings.Repeat("d", 65) + "/n", Target{}, true, true},
		{"readings/d/" + strings.Repeat("n", 129), Target{}, true, true},
	} {
		got, mapped, err := MapTopic(tt.topic)
		if mapped != tt.mapped || (err != nil) != tt.bad || err == nil && got != tt.want || err != nil && !errors.Is(err, ErrName) {
			t.Errorf("MapTopic(%q) = %+v, %v, %v; want %+v, %v, error %v", tt.topic, got, mapped, err, tt.want, tt.mapped, tt.bad)
		}
		segments := strings.Split(tt.topic, "/")
		if got2, mapped2, err2 := MapPath(segments); mapped2 != mapped || got2 != got && err == nil || (err2 == nil) != (err == nil) {
			t.Errorf("MapPath(%q) = %+v, %v, %v; MapTopic says %+v, %v, %v", segments, got2, mapped2, err2, got, mapped, err)
		}
	}
}

// A target that is mapped without an error can be submitted.
func FuzzMapTopic(f *testing.F) {
	f.Add("readings/a/b")
	f.Add("readings/a")
	f.Fuzz(func(t *testing.T, topic string) {
		target, mapped, err := MapTopic(topic)
		if err != nil && !errors.Is(err, ErrName) || err != nil && !mapped {
			t.Fatalf("MapTopic(%q) = %v, %v", topic, mapped, err)
		}
		if mapped && err == nil {
			name := target.Name
			if name == "" {
				name = rawName
			}
			r := reading.Reading{Device: target.Device, Name: name, Value: reading.Int(1)}
			if err := r.Validate(); err != nil {
				t.Fatalf("MapTopic(%q) = %+v: %v", topic, target, err)
			}
		}
	})
}

func TestTopicLimits(t *testing.T) {
	for _, tt := range []struct {
		topic    string
		topicOK  bool
		filterOK bool
	}{
		{"a/b", true, true},
		{"/", true, true},
		{"", false, false},
		{"a/+", false, true},
		{"a/#", false, true},
		{"#", false, true},
		{"a/b+", false, false},
		{"a/#/b", false, false},
		{"a\x00", false, false},
		{"a\xff", false, false},
		{strings.Repeat("a", 512), true, true},
		{strings.Repeat("a", 513), false, false},
		{strings.Repeat("/", 15), true, true},
		{strings.Repeat("/", 16), false, false},
	} {
		if err := CheckTopic(tt.topic); (err == nil) != tt.topicOK {
			t.Errorf("CheckTopic(%q) = %v", tt.topic, err)
		}
		if err := CheckFilter(tt.topic); (err == nil) != tt.filterOK {
			t.Errorf("CheckFilter(%q) = %v", tt.topic, err)
		}
	}
}

func TestAnonymousAccess(t *testing.T) {
	for _, tt := range []struct {
		remote       string
		loopbackOnly bool
		ok           bool
	}{
		{"127.0.0.1", true, true},
		{"::1", true, true},
		{"::ffff:127.0.0.1", true, true},
		{"192.0.2.1", true, false},
		{"192.0.2.1", false, true},
	} {
		_, err := AnonymousFrom(tt.loopbackOnly).Authenticate(Credentials{Remote: netip.MustParseAddr(tt.remote)})
		if (err == nil) != tt.ok || err != nil && !errors.Is(err, ErrNotAllowed) {
			t.Errorf("AnonymousFrom(%v) admits %s: %v", tt.loopbackOnly, tt.remote, err)
		}
	}
	if _, err := (DenyAll{}).Authenticate(Credentials{Remote: netip.MustParseAddr("::1")}); !errors.Is(err, ErrNotAllowed) {
		t.Errorf("DenyAll admits: %v", err)
	}
	a := AnonymousFrom(true)
	for topic, ok := range map[string]bool{
		"home/door": true, "block": true, "blocks": false, "blocks/tagged-data": false, "milestone-info/latest": false,
		"receipts": false, "$SYS/broker": false,
	} {
		if got := a.MayPublish(Device{}, topic); got != ok {
			t.Errorf("MayPublish(%q) = %v", topic, got)
		}
	}
	for filter, ok := range map[string]bool{
		"#": true, "blocks": true, "$SYS/#": false, "$share/g/a/#": true, "$share/g/$SYS/#": false, "$share/g": false,
	} {
		if got := a.MaySubscribe(Device{}, filter); got != ok {
			t.Errorf("MaySubscribe(%q) = %v", filter, got)
		}
	}
}

func TestDigestKeepsPartsApart(t *testing.T) {
	if Digest([]byte("ab"), []byte("c")) == Digest([]byte("a"), []byte("bc")) {
		t.Error("parts run together")
	}
	long := make([]byte, 4096)
	if Digest(long) == Digest(long[1:]) {
		t.Error("two long parts have one digest")
	}
	// Keys are kept on disk: this value must not change.
	if got := fmt.Sprintf("%x", Digest([]byte("coap"), []byte{1})); got != "e16575923c8c4ec75695b2e18d635328" {
		t.Errorf("Digest = %s", got)
	}
}

// A taker keeps what it is given.
type taker struct {
	got []batching.Submission
	err error
}

func (s *taker) Lead(batching.Leader) bool { return false }

func (s *taker) Submit(sub batching.Submission) (*batching.Receipt, error) {
	if s.err != nil {
		return nil, s.err
	}
	s.got = append(s.got, sub)
	r, resolve := batching.NewReceipt()
	resolve(1, nil)
	return r, nil
}

var now = time.Date(2026, 11, 22, 10, 15, 4, 0, time.UTC)

func newIntake(t testing.TB, s Sink, acl ACL) *Intake {
	t.Helper()
	in, err := NewIntake(IntakeConfig{Sink: s, ACL: acl, Log: slog.New(slog.DiscardHandler), Clock: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func TestIntake(t *testing.T) {
	open := AnonymousFrom(true)
	for _, tt := range []struct {
		what    string
		acl     ACL
		sinkErr error
		m       Message
		want    string // name=value of each reading, with !error
		err     error
	}{
		{"scalar", open, nil, Message{Target: Target{"d", "t"}, Payload: []byte("21.5")}, "t=21.5", nil},
		{"fields", open, nil, Message{Target: Target{"d", ""}, Payload: []byte(`{"a":1,"b":"x"}`)}, "a=1 b=x", nil},
		{"undecodable on a name", open, nil, Message{Target: Target{"d", "t"}, Payload: []byte("{x")}, "t=e3g= !broken JSON at byte 1", nil},
		{"undecodable on a device", open, nil, Message{Target: Target{"d", ""}, Payload: []byte{0xff}}, "raw=/w== !text is not UTF-8", nil},
		{"undecodable above 28 KiB", open, nil, Message{Target: Target{"d", "t"}, Format: payload.CBOR, Payload: make([]byte, batching.MaxRaw+1)}, "", ErrTooLarge},
		{"text of 8 KiB and a byte", open, nil, Message{Target: Target{"d", "t"}, Payload: []byte(strings.Repeat("x", reading.MaxText+1))}, "", ErrTooLarge},
		{"empty", open, nil, Message{Target: Target{"d", "t"}}, "", ErrNoReading},
		{"only null", open, nil, Message{Target: Target{"d", ""}, Payload: []byte(`{"a":null}`)}, "", ErrNoReading},
		{"not allowed", DenyAll{}, nil, Message{Target: Target{"d", "t"}, Payload: []byte("1")}, "", ErrNotAllowed},
		{"bad device", open, nil, Message{Target: Target{"", "t"}, Payload: []byte("1")}, "", ErrName},
		{"busy", open, batching.ErrBusy, Message{Target: Target{"d", "t"}, Payload: []byte("1")}, "", batching.ErrBusy},
	} {
		t.Run(tt.what, func(t *testing.T) {
			s := &taker{err: tt.sinkErr}
			in := newIntake(t, s, tt.acl)
			tt.m.Source = reading.SourceCoAP
			_, err := in.Submit(tt.m)
			var got []string
			for _, sub := range s.got {
				for _, r := range sub.Readings {
					text := r.Name + "=" + r.Value.Text()
					if r.Err != "" {
						text += " !" + r.Err
					}
					if r.Source != reading.SourceCoAP || r.Device != "d" {
						t.Errorf("reading %+v", r)
					}
					got = append(got, text)
				}
			}
			if joined := strings.Join(got, " "); joined != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("Submit = %v, stored %q; want %v, %q", err, joined, tt.err, tt.want)
			}
			c := in.Stats()[reading.SourceCoAP]
			refused := c.Busy + c.TooLarge + c.NotAllowed + c.NoReading + c.BadName
			if c.Accepted+refused != 1 || (refused == 1) != (tt.err != nil) || c.Readings != uint64(len(got)) {
				t.Errorf("stats %+v", c)
			}
		})
	}
}

func TestDeviceTimeIsKeptOnlyWhenSane(t *testing.T) {
	for in, want := range map[string]int64{
		`{"v":1,"t":1577836800}`:                                      1577836800000,
		`{"v":1,"t":1577836799.999}`:                                  0,
		`{"v":1,"t":0}`:                                               0,
		`{"v":1,"t":"1970-01-01T00:00:09Z"}`:                          0,
		fmt.Sprintf(`{"v":1,"t":%d}`, now.Add(24*time.Hour).Unix()):   now.Add(24 * time.Hour).UnixMilli(),
		fmt.Sprintf(`{"v":1,"t":%d}`, now.Add(24*time.Hour).Unix()+1): 0,
	} {
		s := &taker{}
		if _, err := newIntake(t, s, AnonymousFrom(true)).Submit(Message{Target: Target{"d", "t"}, Payload: []byte(in)}); err != nil {
			t.Fatal(err)
		}
		if got := s.got[0].Readings[0].Time; got != want {
			t.Errorf("%s has time %d, want %d", in, got, want)
		}
	}
}

// What the intake accepts is within the limits of readings, whatever it is
// given.
func FuzzIntake(f *testing.F) {
	f.Add("d", "t", []byte("21.5"), uint8(0))
	f.Add("d", "", []byte(`[{"n":"a","v":1}]`), uint8(4))
	f.Fuzz(func(t *testing.T, device, name string, body []byte, format uint8) {
		s := &taker{}
		_, err := newIntake(t, s, AnonymousFrom(true)).Submit(Message{
			Target: Target{device, name}, Payload: body, Format: payload.Format(format % 6),
		})
		if (err == nil) != (len(s.got) == 1) {
			t.Fatalf("Submit = %v with %d packets", err, len(s.got))
		}
		if err != nil && !utf8.ValidString(err.Error()) {
			t.Fatalf("error is not UTF-8: %q", err)
		}
		for _, sub := range s.got {
			for _, r := range sub.Readings {
				if err := r.Validate(); err != nil || len(r.Value.AsString()) > reading.MaxText {
					t.Fatalf("accepted %+v: %v", r, err)
				}
			}
		}
	})
}
