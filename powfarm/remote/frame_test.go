package remote

import (
	"bytes"
	"crypto/ed25519"
	"testing"
)

func TestKeysHaveOneText(t *testing.T) {
	k := peer("w").Key
	if got, err := ParseKey(k.String()); err != nil || got != k {
		t.Errorf("ParseKey(%s) = %v, %v", k, got, err)
	}
	for _, s := range []string{"", k.String()[2:], k.String()[:65], k.String() + "0", "0x" + string(bytes.Repeat([]byte("zz"), 32))} {
		if _, err := ParseKey(s); err == nil {
			t.Errorf("ParseKey(%q) is accepted", s)
		}
	}
}

func TestFramesHaveTheirSizes(t *testing.T) {
	from := peer("w").Key
	for kind, body := range map[byte][]byte{
		kindHello:  appendHello(from, &hello{name: "barn-7", kernel: "avx512"}),
		kindSearch: appendRequest(from, &request{}),
		kindCancel: appendCancel(from, requestID{}),
		kindAnswer: appendAnswer(from, &answer{result: resultFound}),
	} {
		raw := sign(key("w"), genesis, Key{}, body)
		if k, f, err := kindOf(raw); err != nil || k != kind || f != from || !signed(genesis, Key{}, raw) {
			t.Errorf("frame of kind %d is read as kind %d of %v: %v", kind, k, f, err)
		}
	}
}

// What is accepted encodes to the bytes it was read from.
func FuzzFrames(f *testing.F) {
	from := peer("w").Key
	for _, body := range [][]byte{
		appendHello(from, &hello{session: 1, stamp: 2, rate: 3, most: 4, leaving: true, slots: 5, queued: 6, name: "barn-7", kernel: "avx512"}),
		appendRequest(from, &request{id: requestID{1}, stamp: 2, digest: [32]byte{3}, zeros: 4, priority: 5, millis: 6}),
		appendCancel(from, requestID{7}),
		appendAnswer(from, &answer{requestID{8}, resultExpired, 9}),
	} {
		f.Add(sign(key("w"), genesis, Key{}, body))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		kind, from, err := kindOf(raw)
		if err != nil {
			return
		}
		signed(genesis, Key{}, raw)
		var body []byte
		switch kind {
		case kindHello:
			h, err := parseHello(raw)
			if err != nil {
				return
			}
			body = appendHello(from, &h)
		case kindSearch:
			r := parseRequest(raw)
			body = appendRequest(from, &r)
		case kindCancel:
			body = appendCancel(from, parseCancel(raw))
		case kindAnswer:
			a, err := parseAnswer(raw)
			if err != nil {
				return
			}
			body = appendAnswer(from, &a)
		}
		if got := raw[:len(raw)-ed25519.SignatureSize]; !bytes.Equal(got, body) {
			t.Errorf("kind %d: encoded\n%x, parsed from\n%x", kind, body, got)
		}
	})
}
