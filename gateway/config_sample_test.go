package gateway

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"strings"
	"testing"
)

//nolint:gochecknoglobals // a flag of the test binary
var update = flag.Bool("update", false, "write the sample configuration and its manual anew")

// The sample and the manual are generated from the doc comments of config.go;
// this checks that they are current. Bring them up to date with
// go test ./gateway -run Sample -update.
func TestSampleConfigurationIsCurrent(t *testing.T) {
	docs := fieldDocs(t)
	for file, want := range map[string][]byte{
		"../deploy/hedgerow.yaml":         sample(docs),
		"../deploy/docs/configuration.md": manual(docs),
	} {
		if *update {
			if err := os.WriteFile(file, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what config.go says; run: go test ./gateway -run Sample -update", file)
		}
	}
}

// What the sample says are the defaults.
func TestSampleConfigurationHoldsTheDefaults(t *testing.T) {
	text := sample(fieldDocs(t))
	got, err := Parse("/etc/hedgerow/hedgerow.yaml", text, nil)
	if err != nil {
		t.Fatalf("the sample is refused:\n%v", err)
	}
	want, err := Parse("/etc/hedgerow/hedgerow.yaml", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the sample gives\n%+v\nwant the defaults\n%+v", got, want)
	}
}

// fieldDocs returns the doc comment of every field, by "Struct.Field".
func fieldDocs(t *testing.T) map[string]string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "config.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	docs := map[string]string{}
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		if st, ok := spec.Type.(*ast.StructType); ok {
			for _, field := range st.Fields.List {
				key := spec.Name.Name + "." + field.Names[0].Name
				docs[key] = strings.TrimSpace(field.Doc.Text())
				if docs[key] == "" {
					t.Errorf("%s has no doc comment", key)
				}
			}
		}
		return false
	})
	return docs
}

func sample(docs map[string]string) []byte {
	var b bytes.Buffer
	b.WriteString(`# Configuration of hedgerow: every key with its default.
#
# An empty file is a valid configuration; keep what you change. Check it with
#   hedgerow check --config hedgerow.yaml
# Relative paths are relative to this file. Secrets never stand here: write
# file:PATH, env:NAME or credential:NAME (systemd). Sizes take KiB, MiB, GiB
# and TiB, durations ms, s, m, h and d.
`)
	sampleSection(&b, docs, reflect.ValueOf(Default()), 0)
	return b.Bytes()
}

func sampleSection(b *bytes.Buffer, docs map[string]string, v reflect.Value, depth int) {
	indent := strings.Repeat("  ", depth)
	for i := range v.NumField() {
		f := v.Type().Field(i)
		key := f.Tag.Get("yaml")
		if key == "-" {
			continue
		}
		if depth == 0 {
			b.WriteByte('\n')
		}
		doc := docs[v.Type().Name()+"."+f.Name]
		if b := bounds(f.Tag); b != "" {
			doc += "\n(" + b + ")"
		}
		for line := range strings.SplitSeq(doc, "\n") {
			fmt.Fprintf(b, "%s# %s\n", indent, line)
		}
		if isSection(v.Field(i)) {
			fmt.Fprintf(b, "%s%s:\n", indent, key)
			sampleSection(b, docs, v.Field(i), depth+1)
			continue
		}
		fmt.Fprintf(b, "%s%s: %s\n", indent, key, yamlValue(v.Field(i)))
	}
}

func yamlValue(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case []string:
		quoted := make([]string, len(x))
		for i, s := range x {
			quoted[i] = fmt.Sprintf("%q", s)
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	case Path:
		if x == "" {
			return `""`
		}
		return string(x)
	case Secret:
		if x == (Secret{}) {
			return `""`
		}
	case string:
		if x == "" || strings.Contains(x, ":") {
			return fmt.Sprintf("%q", x)
		}
	}
	return fmt.Sprint(v.Interface())
}

// bounds says in words what a field's tags allow.
func bounds(tag reflect.StructTag) string {
	if words := tag.Get("oneof"); words != "" {
		return strings.Join(strings.Fields(words), ", ")
	}
	if tag.Get("min") != "" {
		return tag.Get("min") + " to " + tag.Get("max")
	}
	return ""
}

func manual(docs map[string]string) []byte {
	var b bytes.Buffer
	b.WriteString(`# Configuration

Generated from the comments in ` + "`gateway/config.go`" + `; the sample is
[deploy/hedgerow.yaml](../hedgerow.yaml). Every key has a default: an empty file
is a valid configuration. ` + "`hedgerow check --config FILE`" + ` lists everything that is
wrong with a file at once. ` + "`--set key.path=value`" + ` of ` + "`run` and `check`" + ` overrides a
key; lists are comma-separated. Relative paths are relative to the file.
Changes take effect at the next start.

| key | default | takes | |
|---|---|---|---|
`)
	structs := map[string]string{} // section path to its Go type
	manualTypes(reflect.TypeFor[Config](), "", structs)
	c := Default()
	each(reflect.ValueOf(&c).Elem(), "", func(key string, v reflect.Value, tag reflect.StructTag) {
		section, last := "", key
		if i := strings.LastIndexByte(key, '.'); i >= 0 {
			section, last = key[:i], key[i+1:]
		}
		doc := docs[structs[section]+"."+goName(structs, section, last)]
		takes := bounds(tag)
		if takes == "" {
			takes = kindName(v)
			if v.Kind() == reflect.Slice {
				takes = "a list"
			}
		}
		fmt.Fprintf(&b, "| `%s` | `%s` | %s | %s |\n", key, yamlValue(v), takes, strings.ReplaceAll(doc, "\n", " "))
	})
	return b.Bytes()
}

func manualTypes(t reflect.Type, path string, into map[string]string) {
	into[path] = t.Name()
	for f := range t.Fields() {
		if key := f.Tag.Get("yaml"); key != "-" && f.Type.Kind() == reflect.Struct && f.Type != reflect.TypeFor[Secret]() {
			manualTypes(f.Type, join(path, key), into)
		}
	}
}

// goName returns the Go field of a key in a section.
func goName(structs map[string]string, section, key string) string {
	t := reflect.TypeFor[Config]()
	for name := range strings.SplitSeq(section, ".") {
		for field := range t.Fields() {
			if name != "" && field.Tag.Get("yaml") == name {
				t = field.Type
				break
			}
		}
	}
	for field := range t.Fields() {
		if field.Tag.Get("yaml") == key {
			return field.Name
		}
	}
	return ""
}
