package protocols

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hedgerow-iot/hedgerow/batching/reading"
)

// Limits of a topic or topic filter.
const (
	MaxTopic  = 512 // bytes
	MaxLevels = 16
)

// readingsRoot is the first level of every built-in mapping, as a topic and
// as a path.
const readingsRoot = "readings"

// A Target says whose readings a message holds.
type Target struct {
	Device string
	Name   string // "" when the payload names its readings itself
}

// MapTopic applies the built-in mapping (contract, "MQTT"): readings/{device}
// and readings/{device}/{name}. mapped is false for ordinary broker traffic.
// The error wraps [ErrName] when the topic has the shape of a mapped one but
// its device or name break their limits; such a message is refused rather
// than forwarded, because its sender believes it stored.
func MapTopic(topic string) (t Target, mapped bool, err error) {
	rest, ok := strings.CutPrefix(topic, readingsRoot+"/")
	if !ok {
		return Target{}, false, nil
	}
	device, name, named := strings.Cut(rest, "/")
	if strings.Contains(name, "/") {
		return Target{}, false, nil
	}
	t = Target{Device: device, Name: name}
	if named && name == "" {
		return t, true, fmt.Errorf("%w: topic ends in /", ErrName)
	}
	return t, true, t.check()
}

// MapPath applies the built-in mapping to the decoded segments of a path:
// /readings/{device} and /readings/{device}/{name}. mapped is false when the
// path is none of these; the error is as for [MapTopic].
func MapPath(segments []string) (t Target, mapped bool, err error) {
	if len(segments) < 2 || len(segments) > 3 || segments[0] != readingsRoot {
		return Target{}, false, nil
	}
	t.Device = segments[1]
	if len(segments) == 3 {
		t.Name = segments[2]
		if t.Name == "" {
			return t, true, fmt.Errorf("%w: path ends in /", ErrName)
		}
	}
	return t, true, t.check()
}

// check keeps to the limits of readings and to what can stand in one level of
// a topic, so that a device has the same name over every protocol.
func (t Target) check() error {
	if err := checkLevel("device", t.Device, reading.MaxDevice); err != nil {
		return err
	}
	if t.Name == "" {
		return nil
	}
	return checkLevel("name", t.Name, reading.MaxName)
}

func checkLevel(part, s string, most int) error {
	switch {
	case s == "":
		return fmt.Errorf("%w: %s is empty", ErrName, part)
	case len(s) > most:
		return fmt.Errorf("%w: %s has %d bytes, at most %d", ErrName, part, len(s), most)
	case !utf8.ValidString(s):
		return fmt.Errorf("%w: %s is not UTF-8", ErrName, part)
	case strings.ContainsAny(s, "/+#"):
		return fmt.Errorf("%w: %s holds one of / + #", ErrName, part)
	case strings.ContainsFunc(s, unicode.IsControl):
		return fmt.Errorf("%w: %s holds a control character", ErrName, part)
	}
	return nil
}

// CheckTopic checks that a topic to publish on keeps to MQTT's rules (UTF-8,
// no NUL, no wildcard, not empty) and to our limits. The error wraps
// [ErrName].
func CheckTopic(topic string) error {
	if strings.ContainsAny(topic, "+#") {
		return fmt.Errorf("%w: topic holds a wildcard", ErrName)
	}
	return CheckFilter(topic)
}

// CheckFilter checks the same of a topic filter, in which wildcards may stand
// for whole levels only. The error wraps [ErrName].
func CheckFilter(filter string) error {
	switch {
	case filter == "":
		return fmt.Errorf("%w: topic is empty", ErrName)
	case len(filter) > MaxTopic:
		return fmt.Errorf("%w: topic has %d bytes, at most %d", ErrName, len(filter), MaxTopic)
	case !utf8.ValidString(filter):
		return fmt.Errorf("%w: topic is not UTF-8", ErrName)
	case strings.ContainsRune(filter, 0):
		return fmt.Errorf("%w: topic holds a NUL", ErrName)
	case strings.Count(filter, "/")+1 > MaxLevels:
		return fmt.Errorf("%w: topic has more than %d levels", ErrName, MaxLevels)
	}
	for rest, more := filter, true; more; {
		var level string
		level, rest, more = strings.Cut(rest, "/")
		if len(level) > 1 && strings.ContainsAny(level, "+#") || level == "#" && more {
			return fmt.Errorf("%w: misplaced wildcard in topic filter", ErrName)
		}
	}
	return nil
}

// IsEventTopic tells whether a topic belongs to the gateway's own events
// (TIP-28), on which no device may publish.
func IsEventTopic(topic string) bool {
	first, _, _ := strings.Cut(topic, "/")
	switch first {
	case "blocks", "block-metadata", "milestone-info", "milestones", "outputs", "transactions", "receipts":
		return true
	}
	return false
}
