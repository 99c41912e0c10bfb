package gateway

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// A Problem is one thing that is wrong with a configuration.
type Problem struct {
	File         string // as it was named, or "--set"
	Line, Column int    // from 1; 0 when the value comes from --set or a default
	Key          string // dotted path, empty for a problem of the whole file
	Text         string
}

// String returns file:line:column: key.path: text.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	b.WriteString(": ")
	if p.Key != "" {
		b.WriteString(p.Key + ": ")
	}
	b.WriteString(p.Text)
	return b.String()
}

// Problems is the error of a configuration: everything that is wrong with it,
// in the order of the file.
type Problems []Problem

// Error returns one line per problem.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// setter is implemented by pointers to the scalar types of the configuration.
type setter interface{ set(text string) error }

// A place is where a value was given.
type place struct {
	file         string
	line, column int
}

// A decoder fills a Config and collects problems instead of stopping at one.
type decoder struct {
	file     string
	problems Problems
	places   map[string]place // where each key was given
	bad      map[string]bool  // keys whose value was refused already
}

func newDecoder(file string) *decoder {
	return &decoder{file: file, places: map[string]place{}, bad: map[string]bool{}}
}

// maxDepth bounds the brackets and indentation that the parser, which
// recurses, is given.
const maxDepth = 32

// yaml fills c from the text of the file.
func (d *decoder) yaml(text []byte, c *Config) {
	if err := checkDepth(text); err != nil {
		d.problems = append(d.problems, Problem{File: d.file, Text: err.Error()})
		return
	}
	file, err := parser.ParseBytes(text, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		p := Problem{File: d.file, Text: err.Error()}
		if ye := yaml.Error(nil); errors.As(err, &ye) && ye.GetToken() != nil {
			p.Text = ye.GetMessage()
			p.Line, p.Column = ye.GetToken().Position.Line, ye.GetToken().Position.Column
		}
		d.problems = append(d.problems, p)
		return
	}
	for i, doc := range file.Docs {
		switch {
		case doc.Body == nil:
		case i > 0:
			d.problem(doc.Body, "", "the file holds a second document; write everything in one")
		default:
			d.section(doc.Body, "", reflect.ValueOf(c).Elem())
		}
	}
}

// checkDepth refuses nesting no configuration needs.
func checkDepth(text []byte) error {
	depth := 0
	for _, b := range text {
		switch b {
		case '[', '{':
			depth++
		case ']', '}':
			depth = max(0, depth-1)
		}
		if depth > maxDepth {
			return fmt.Errorf("brackets are nested more than %d deep", maxDepth)
		}
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		if indent := len(line) - len(strings.TrimLeft(line, " -?:")); indent > 8*maxDepth {
			return fmt.Errorf("a line is indented by more than %d columns", 8*maxDepth)
		}
	}
	return nil
}

func (d *decoder) problem(n ast.Node, key, format string, args ...any) {
	p := Problem{File: d.file, Key: key, Text: fmt.Sprintf(format, args...)}
	if n != nil && n.GetToken() != nil && n.GetToken().Position != nil {
		p.Line, p.Column = n.GetToken().Position.Line, n.GetToken().Position.Column
	}
	d.problems = append(d.problems, p)
	d.bad[key] = true
}

// section fills the struct v from a mapping.
func (d *decoder) section(n ast.Node, key string, v reflect.Value) {
	if _, ok := n.(*ast.NullNode); ok || n == nil {
		return // "mqtt:" with everything below it commented out
	}
	m, ok := n.(*ast.MappingNode)
	if !ok {
		d.problem(n, key, "want a section with keys below it, got %s", describe(n))
		return
	}
	seen := map[string]bool{}
	for _, entry := range m.Values {
		name, ok := scalarText(entry.Key)
		if !ok || entry.Key.IsMergeKey() {
			d.problem(entry.Key, key, "want a plain key, got %s", describe(entry.Key))
			continue
		}
		path := join(key, strings.Map(printable, clip(name)))
		field, ok := fieldOf(v, name)
		switch {
		case !ok:
			d.problem(entry.Key, path, "unknown key%s", suggest(v, key, name))
		case seen[name]:
			d.problem(entry.Key, path, "the key stands twice in this section")
		case isSection(field):
			d.section(entry.Value, path, field)
		default:
			pos := entry.Value.GetToken().Position
			d.places[path] = place{d.file, pos.Line, pos.Column}
			d.value(entry.Value, path, field)
		}
		seen[name] = true
	}
}

// value fills one key.
func (d *decoder) value(n ast.Node, key string, v reflect.Value) {
	if v.Kind() == reflect.Slice {
		d.list(n, key, v)
		return
	}
	text, ok := scalarText(n)
	if !ok {
		d.problem(n, key, "want %s, got %s", kindName(v), describe(n))
		return
	}
	_, isString := n.(*ast.StringNode)
	_, isLiteral := n.(*ast.LiteralNode)
	_, isInt := n.(*ast.IntegerNode)
	_, isBool := n.(*ast.BoolNode)
	switch v.Interface().(type) {
	case bool:
		ok = isBool
	case int:
		ok = isInt
	case Size, AutoInt, AutoSize:
		ok = isInt || isString
	case Duration:
		ok = isString || text == "0"
	case Secret:
		if !isString && !isLiteral { // never shows the value, whatever its type
			d.problem(n, key, "%v", errLiteral)
			return
		}
	default:
		ok = isString || isLiteral
	}
	if !ok {
		d.problem(n, key, "want %s, got %s%s", kindName(v), describe(n), spellingHint(v, text))
		return
	}
	if err := setScalar(v, text); err != nil {
		d.problem(n, key, "%v", err)
	}
}

func (d *decoder) list(n ast.Node, key string, v reflect.Value) {
	if _, ok := n.(*ast.NullNode); ok {
		v.Set(reflect.MakeSlice(v.Type(), 0, 0))
		return
	}
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		d.problem(n, key, "want a list such as [\"127.0.0.1:1883\"], got %s", describe(n))
		return
	}
	items := make([]string, 0, len(seq.Values))
	for i, item := range seq.Values {
		text, ok := item.(*ast.StringNode)
		if !ok {
			d.problem(item, key+"["+strconv.Itoa(i)+"]", "want text, got %s", describe(item))
			continue
		}
		pos := item.GetToken().Position
		d.places[key+"["+strconv.Itoa(len(items))+"]"] = place{d.file, pos.Line, pos.Column}
		items = append(items, text.Value)
	}
	v.Set(reflect.ValueOf(items))
}

// set applies one --set key.path=value.
func (d *decoder) set(arg string, c *Config) {
	path, text, ok := strings.Cut(arg, "=")
	bad := func(format string, args ...any) {
		d.problems = append(d.problems, Problem{File: "--set", Key: path, Text: fmt.Sprintf(format, args...)})
		d.bad[path] = true
	}
	if !ok {
		path = strings.Map(printable, clip(path))
		bad("want key.path=value")
		return
	}
	v, parent := reflect.ValueOf(c).Elem(), ""
	for name := range strings.SplitSeq(path, ".") {
		if !isSection(v) {
			bad("%s is a value, nothing stands below it", parent)
			return
		}
		field, ok := fieldOf(v, name)
		if !ok {
			bad("unknown key%s", suggest(v, parent, name))
			return
		}
		v, parent = field, join(parent, name)
	}
	if isSection(v) {
		bad("is a section; set one of its keys: %s", strings.Join(keysOf(v), ", "))
		return
	}
	for place := range d.places { // of a list in the file that this replaces
		if strings.HasPrefix(place, path+"[") {
			delete(d.places, place)
		}
	}
	d.places[path] = place{file: "--set"}
	if v.Kind() == reflect.Slice {
		items := []string{}
		for item := range strings.SplitSeq(text, ",") {
			if item = strings.TrimSpace(item); item != "" {
				items = append(items, item)
			}
		}
		v.Set(reflect.ValueOf(items))
		return
	}
	if err := setScalar(v, text); err != nil {
		bad("%v", err)
	}
}

// setScalar parses text into v, whatever the source.
func setScalar(v reflect.Value, text string) error {
	if s, ok := v.Addr().Interface().(setter); ok {
		return s.set(text)
	}
	switch v.Kind() {
	case reflect.Bool:
		if text != "true" && text != "false" {
			return fmt.Errorf("want true or false, got %q", clip(text))
		}
		v.SetBool(text == "true")
	case reflect.Int:
		n, err := strconv.ParseInt(text, 10, 0)
		if err != nil {
			return fmt.Errorf("%q is not a whole number", clip(text))
		}
		v.SetInt(n)
	case reflect.String:
		v.SetString(text)
	default:
		return fmt.Errorf("no value of type %s is known", v.Type())
	}
	return nil
}

// scalarText returns the text of a scalar as it was written, without quotes.
func scalarText(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return strings.TrimRight(n.Value.Value, "\n"), true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value, true
	}
	return "", false
}

// describe names what stands in the file, without quoting it.
func describe(n ast.Node) string {
	switch n.(type) {
	case *ast.NullNode:
		return "nothing"
	case *ast.StringNode, *ast.LiteralNode:
		return "text"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number"
	case *ast.BoolNode:
		return "true or false"
	case *ast.SequenceNode:
		return "a list"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a section"
	case *ast.AnchorNode, *ast.AliasNode, *ast.MergeKeyNode:
		return "an anchor or alias, which this file does not know"
	case *ast.TagNode:
		return "a tag, which this file does not know"
	}
	return "something else"
}

func kindName(v reflect.Value) string {
	switch v.Interface().(type) {
	case bool:
		return "true or false"
	case int:
		return "a whole number"
	case Size:
		return "a size such as 256KiB"
	case AutoSize:
		return "auto or a size such as 8KiB"
	case AutoInt:
		return "auto or a whole number"
	case Rate:
		return "a rate such as 1/s or 30/m"
	case Duration:
		return "a duration such as 5ms, 10s or 400d"
	case Secret:
		return "file:PATH, env:NAME or credential:NAME"
	}
	return "text"
}

// spellingHint helps whoever wrote a name that YAML takes for a number, or a
// truth that it takes for a name.
func spellingHint(v reflect.Value, text string) string {
	switch v.Kind() {
	case reflect.String:
		return "; write it in quotes"
	case reflect.Bool:
		switch strings.ToLower(text) {
		case "true", "false":
			return "; write it without quotes"
		case "yes", "y", "on":
			return "; write true"
		case "no", "n", "off":
			return "; write false"
		}
	}
	return ""
}

// printable keeps control characters of a file out of the terminal.
func printable(r rune) rune {
	if unicode.IsPrint(r) {
		return r
	}
	return unicode.ReplacementChar
}

// sorted returns the problems in the order of the file, those of --set last.
func (d *decoder) sorted() Problems {
	slices.SortStableFunc(d.problems, func(a, b Problem) int {
		return cmp.Or(
			cmp.Compare(btoi(a.File == "--set"), btoi(b.File == "--set")),
			cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return d.problems
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
