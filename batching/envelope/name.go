package envelope

import (
	"fmt"
	"strings"
)

// The SenML name of a record is {gateway}:{device}:{name}. Bytes outside
// SenML's alphabet (RFC 8428 §4.5.1), the underscore of a literal "_x", and a
// colon in the device (which would end it) are written _xHH, so that every
// name has one form and can be taken apart again.

const hexDigits = "0123456789ABCDEF"

// appendName appends the SenML name of a reading.
func appendName(dst []byte, gateway, device, name string) []byte {
	dst = appendEscaped(dst, gateway, true)
	dst = append(dst, ':')
	dst = appendEscaped(dst, device, true)
	dst = append(dst, ':')
	return appendEscaped(dst, name, false)
}

// splitName takes a SenML name apart. It accepts more than appendName makes:
// callers compare.
func splitName(s string) (gateway, device, name string, err error) {
	parts := strings.SplitN(s, ":", 3)
	if len(parts) != 3 {
		return "", "", "", fmt.Errorf("%w: name %.80q is not gateway:device:name", ErrRecord, s)
	}
	for i, part := range parts {
		if parts[i], err = unescape(part); err != nil {
			return "", "", "", err
		}
	}
	return parts[0], parts[1], parts[2], nil
}

func appendEscaped(dst []byte, s string, colon bool) []byte {
	for i := range len(s) {
		c := s[i]
		switch {
		case !inAlphabet(c), c == ':' && colon, c == '_' && i+1 < len(s) && s[i+1] == 'x':
			dst = append(dst, '_', 'x', hexDigits[c>>4], hexDigits[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

func unescape(s string) (string, error) {
	i := strings.Index(s, "_x")
	if i < 0 {
		return s, nil
	}
	out := make([]byte, 0, len(s))
	for ; i >= 0; i = strings.Index(s, "_x") {
		out = append(out, s[:i]...)
		if len(s) < i+4 {
			return "", fmt.Errorf("%w: name ends within %q", ErrRecord, s[i:])
		}
		high, low := strings.IndexByte(hexDigits, s[i+2]), strings.IndexByte(hexDigits, s[i+3])
		if high < 0 || low < 0 {
			return "", fmt.Errorf("%w: %q in a name is not _xHH", ErrRecord, s[i:i+4])
		}
		out = append(out, byte(high<<4|low))
		s = s[i+4:]
	}
	return string(append(out, s...)), nil
}

// inAlphabet says whether c may stand in a SenML name.
func inAlphabet(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return c == '-' || c == ':' || c == '.' || c == '/' || c == '_'
}
