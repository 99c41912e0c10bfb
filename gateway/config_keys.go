package gateway

import (
	"fmt"
	"math"
	"reflect"
	"strings"
)

func isSection(v reflect.Value) bool {
	return v.Kind() == reflect.Struct && v.Type() != reflect.TypeFor[Secret]()
}

func fieldOf(v reflect.Value, name string) (reflect.Value, bool) {
	for i := range v.NumField() {
		if tag := v.Type().Field(i).Tag.Get("yaml"); tag == name && tag != "-" {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}

func keysOf(v reflect.Value) []string {
	var keys []string
	for i := range v.NumField() {
		if tag := v.Type().Field(i).Tag.Get("yaml"); tag != "-" {
			keys = append(keys, tag)
		}
	}
	return keys
}

func join(section, key string) string {
	if section == "" {
		return key
	}
	return section + "." + key
}

// suggest returns what the writer of an unknown key probably meant: the
// nearest key of the same section, or the place where a key of this name
// stands.
func suggest(section reflect.Value, path, name string) string {
	name = strings.ToLower(name)
	best, distance := "", math.MaxInt
	for _, key := range keysOf(section) {
		if n := editDistance(name, key); n < distance {
			best, distance = key, n
		}
	}
	var elsewhere []string
	each(reflect.ValueOf(new(Config)).Elem(), "", func(key string, _ reflect.Value, _ reflect.StructTag) {
		if strings.HasSuffix(key, "."+name) {
			elsewhere = append(elsewhere, key)
		}
	})
	switch {
	case distance <= max(1, len(best)/3) && (distance <= 1 || len(elsewhere) == 0):
		return fmt.Sprintf("; did you mean %s?", join(path, best))
	case len(elsewhere) > 0:
		return fmt.Sprintf("; did you mean %s?", strings.Join(elsewhere, " or "))
	}
	return "; known here: " + strings.Join(keysOf(section), ", ")
}

// each calls yield with every key that holds a value, in the order of the
// structs.
func each(v reflect.Value, path string, yield func(key string, v reflect.Value, tag reflect.StructTag)) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		switch name := f.Tag.Get("yaml"); {
		case name == "-":
		case isSection(v.Field(i)):
			each(v.Field(i), join(path, name), yield)
		default:
			yield(join(path, name), v.Field(i), f.Tag)
		}
	}
}

// editDistance counts the insertions, deletions, replacements and swaps of
// neighbours that turn a into b. Long keys are not compared: they are no slip
// of the hand.
func editDistance(a, b string) int {
	if len(a) > 64 {
		return math.MaxInt
	}
	rows := make([][]int, len(a)+1) // rows[i][j]: from the first i of a to the first j of b
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		for j := range rows[i] {
			switch {
			case i == 0 || j == 0:
				rows[i][j] = i + j
				continue
			case a[i-1] == b[j-1]:
				rows[i][j] = rows[i-1][j-1]
				continue
			}
			rows[i][j] = 1 + min(rows[i-1][j], rows[i][j-1], rows[i-1][j-1])
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], 1+rows[i-2][j-2])
			}
		}
	}
	return rows[len(a)][len(b)]
}

// eachValue calls yield with every key and its value as it is written in a
// file.
func eachValue(c *Config, yield func(key string, value any)) {
	each(reflect.ValueOf(c).Elem(), "", func(key string, v reflect.Value, _ reflect.StructTag) {
		switch x := v.Interface().(type) {
		case fmt.Stringer:
			yield(key, x.String())
		case Path:
			yield(key, string(x))
		default:
			yield(key, x)
		}
	})
}
