package payload

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/fxamacker/cbor/v2"

	"github.com/hedgerow-iot/hedgerow/batching/reading"
)

// cborMode is the strict decoder. It checks nesting and counts before it
// allocates, so that a short payload cannot claim a long array.
var cborMode = sync.OnceValue(func() cbor.DecMode {
	m, err := cbor.DecOptions{
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
		MaxNestedLevels:  MaxDepth,
		MaxArrayElements: MaxReadings,
		MaxMapPairs:      MaxReadings,
		IndefLength:      cbor.IndefLengthAllowed,
		BignumTag:        cbor.BignumTagForbidden,
	}.DecMode()
	if err != nil {
		panic(err) // the options above are constants
	}
	return m
})

// senmlLabels are the names of SenML's integer labels from -6 on (RFC 8428,
// section 6).
var senmlLabels = [...]string{"bs", "bv", "bu", "bt", "bn", "bver", "n", "u", "v", "vs", "vb", "s", "t", "ut", "vd"}

// parseCBOR reads the one data item that b holds. Members of a map are sorted
// by name; in an array of maps, integer keys are SenML's labels.
func parseCBOR(b []byte) (node, error) {
	var item any
	if err := cborMode().Unmarshal(b, &item); err != nil {
		return node{}, fmt.Errorf("broken CBOR: %w", err)
	}
	c := converter{}
	_, c.senml = item.([]any)
	return c.convert(item)
}

type converter struct {
	senml bool
	nodes int
}

func (c *converter) convert(item any) (node, error) {
	if c.nodes++; c.nodes > maxNodes {
		return node{}, fmt.Errorf("more than %d values", maxNodes)
	}
	switch x := item.(type) {
	case nil:
		return node{}, nil
	case map[any]any:
		return c.object(x)
	case []any:
		n := node{kind: isArray, members: make([]member, len(x))}
		for i := range x {
			var err error
			if n.members[i].node, err = c.convert(x[i]); err != nil {
				return node{}, err
			}
		}
		return n, nil
	}
	v, err := cborScalar(item)
	return node{kind: isScalar, value: v}, err
}

func (c *converter) object(x map[any]any) (node, error) {
	n := node{kind: isObject, members: make([]member, 0, len(x))}
	for key, item := range x {
		name, known, err := c.label(key)
		if err != nil {
			return node{}, err
		}
		if !known {
			continue
		}
		v, err := c.convert(item)
		if err != nil {
			return node{}, err
		}
		n.members = append(n.members, member{name, v})
	}
	slices.SortFunc(n.members, func(a, b member) int { return strings.Compare(a.name, b.name) })
	return n, checkMembers(n.members)
}

// label returns the name of a map's key. SenML's readers skip integer labels
// that they do not know.
func (c *converter) label(key any) (name string, known bool, err error) {
	if s, ok := key.(string); ok {
		return s, true, nil
	}
	if !c.senml {
		return "", false, errors.New("a CBOR map has a key that is not text")
	}
	switch k := key.(type) {
	case uint64:
		if k <= 8 {
			return senmlLabels[k+6], true, nil
		}
		return "", false, nil
	case int64:
		if k >= -6 && k < 0 {
			return senmlLabels[k+6], true, nil
		}
		return "", false, nil
	}
	return "", false, errors.New("a SenML label is neither text nor integer")
}

// cborScalar converts a data item that is neither map nor array.
func cborScalar(item any) (reading.Value, error) {
	switch x := item.(type) {
	case bool:
		return reading.Bool(x), nil
	case uint64:
		return reading.Uint(x), nil
	case int64:
		return reading.Int(x), nil
	case float32:
		return finite(float64(x))
	case float64:
		return finite(x)
	case string:
		return reading.String(x)
	case []byte:
		return reading.Bytes(x), nil
	case cbor.Tag:
		if f, ok := decimalFraction(x); ok {
			return finite(f)
		}
		return reading.Value{}, fmt.Errorf("CBOR tag %d", x.Number)
	}
	return reading.Value{}, errors.New("a CBOR item that no reading can hold")
}

func finite(f float64) (reading.Value, error) {
	v, err := reading.Float(f)
	if err != nil {
		return v, errors.New("a number is not finite")
	}
	return v, nil
}

// decimalFraction reads tag 4, [exponent, mantissa] (RFC 8949, section
// 3.4.4), which SenML recommends for times.
func decimalFraction(t cbor.Tag) (float64, bool) {
	pair, ok := t.Content.([]any)
	if t.Number != 4 || !ok || len(pair) != 2 {
		return 0, false
	}
	exponent, ok1 := cborInt(pair[0])
	mantissa, ok2 := cborInt(pair[1])
	if !ok1 || !ok2 {
		return 0, false
	}
	f, err := strconv.ParseFloat(strconv.FormatInt(mantissa, 10)+"e"+strconv.FormatInt(exponent, 10), 64)
	return f, err == nil
}

func cborInt(item any) (int64, bool) {
	switch x := item.(type) {
	case int64:
		return x, true
	case uint64:
		return int64(x), x <= math.MaxInt64
	}
	return 0, false
}
