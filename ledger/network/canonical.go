package network

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"unicode/utf8"
)

// maxDepth is how deep arrays and objects may nest in a network file.
const maxDepth = 8

// maxExact is the largest integer that every JSON reader takes exactly.
const maxExact = 1<<53 - 1

// appendCanonical appends the canonical JSON (RFC 8785) of a tree of
// map[string]any, []any, string, bool, nil and int64 within ±maxExact, the
// only types a network file holds. Keys are ASCII, for which the order by
// bytes is the order by UTF-16 code units that the RFC asks for.
func appendCanonical(dst []byte, v any) []byte {
	switch v := v.(type) {
	case map[string]any:
		dst = append(dst, '{')
		for i, key := range slices.Sorted(maps.Keys(v)) {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendString(dst, key)
			dst = append(dst, ':')
			dst = appendCanonical(dst, v[key])
		}
		return append(dst, '}')
	case []any:
		dst = append(dst, '[')
		for i, e := range v {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendCanonical(dst, e)
		}
		return append(dst, ']')
	case string:
		return appendString(dst, v)
	case int64:
		return strconv.AppendInt(dst, v, 10)
	case bool:
		return strconv.AppendBool(dst, v)
	case nil:
		return append(dst, "null"...)
	}
	panic(fmt.Sprintf("network: no canonical form of a %T", v))
}

// appendString escapes exactly what RFC 8785 §3.2.2.2 escapes.
func appendString(dst []byte, s string) []byte {
	const short = "btn_fr" // of \x08 to \x0d; \x0b has none
	dst = append(dst, '"')
	for _, c := range []byte(s) {
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c >= 0x08 && c <= 0x0d && c != 0x0b:
			dst = append(dst, '\\', short[c-0x08])
		case c < 0x20:
			dst = fmt.Appendf(dst, `\u%04x`, c)
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '"')
}

// parseTree reads one JSON value and nothing after it. It refuses what could
// be read in two ways: repeated keys, numbers that are no exact integers,
// invalid UTF-8; and non-ASCII keys.
func parseTree(text []byte) (any, error) {
	if !utf8.Valid(text) {
		return nil, errors.New("not valid UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	v, err := parseValue(dec, "", 0)
	if err != nil {
		return nil, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("something follows the JSON value")
	}
	return v, nil
}

func parseValue(dec *json.Decoder, at string, depth int) (any, error) {
	tok, err := next(dec, at)
	if err != nil {
		return nil, err
	}
	if depth > maxDepth {
		return nil, fmt.Errorf("%snested deeper than %d", prefix(at), maxDepth)
	}
	switch tok := tok.(type) {
	case json.Delim:
		if tok == '{' {
			return parseObject(dec, at, depth)
		}
		return parseArray(dec, at, depth)
	case json.Number:
		n, err := strconv.ParseInt(tok.String(), 10, 64)
		if err != nil || n > maxExact || n < -maxExact || strconv.FormatInt(n, 10) != tok.String() {
			return nil, fmt.Errorf("%s%.40s is not an integer up to 2^53", prefix(at), tok)
		}
		return n, nil
	}
	return tok, nil // string, bool, nil
}

// next returns the next token, or an error that says where it should be.
func next(dec *json.Decoder, at string) (json.Token, error) {
	tok, err := dec.Token()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("%sJSON at byte %d: %w", prefix(at), dec.InputOffset(), err)
	}
	return tok, nil
}

func parseObject(dec *json.Decoder, at string, depth int) (any, error) {
	out := map[string]any{}
	for dec.More() {
		tok, err := next(dec, at)
		if err != nil {
			return nil, err
		}
		key := tok.(string)
		for _, c := range []byte(key) {
			if c < 0x20 || c > 0x7e {
				return nil, fmt.Errorf("%skey %.40q is not plain ASCII", prefix(at), key)
			}
		}
		path := join(at, key)
		if _, twice := out[key]; twice {
			return nil, fmt.Errorf("%s: stands there twice", path)
		}
		if out[key], err = parseValue(dec, path, depth+1); err != nil {
			return nil, err
		}
	}
	_, err := next(dec, at)
	return out, err
}

func parseArray(dec *json.Decoder, at string, depth int) (any, error) {
	out := []any{}
	for dec.More() {
		v, err := parseValue(dec, fmt.Sprintf("%s[%d]", at, len(out)), depth+1)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	_, err := next(dec, at)
	return out, err
}

// compareTrees returns nil if both trees are equal, or names the first place
// where what is written differs from what it means.
func compareTrees(at string, written, meant any) error {
	switch m := meant.(type) {
	case map[string]any:
		w, ok := written.(map[string]any)
		if !ok {
			return fmt.Errorf("%swant an object", prefix(at))
		}
		for _, key := range slices.Sorted(maps.Keys(m)) {
			if _, ok := w[key]; !ok {
				return fmt.Errorf("%s: missing", join(at, key))
			}
		}
		for _, key := range slices.Sorted(maps.Keys(w)) {
			if _, ok := m[key]; !ok {
				return fmt.Errorf("%s: unknown key", join(at, key))
			}
			if err := compareTrees(join(at, key), w[key], m[key]); err != nil {
				return err
			}
		}
		return nil
	case []any:
		w, ok := written.([]any)
		if !ok || len(w) != len(m) {
			return fmt.Errorf("%swant an array", prefix(at))
		}
		for i := range m {
			if err := compareTrees(fmt.Sprintf("%s[%d]", at, i), w[i], m[i]); err != nil {
				return err
			}
		}
		return nil
	}
	if written != meant {
		return fmt.Errorf("%swrite %s", prefix(at), appendCanonical(nil, meant))
	}
	return nil
}

func join(at, key string) string {
	if at == "" {
		return key
	}
	return at + "." + key
}

func prefix(at string) string {
	if at == "" {
		return ""
	}
	return at + ": "
}
