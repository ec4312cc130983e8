package callbridge_test

import (
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// parsePackage parses the files of the package, without its tests.
func parsePackage(t *testing.T) *doc.Package {
	t.Helper()
	names := must[[]string](t)(filepath.Glob("*.go"))
	set := token.NewFileSet()
	var files []*ast.File
	for _, name := range names {
		if !strings.HasSuffix(name, "_test.go") {
			files = append(files, must[*ast.File](t)(parser.ParseFile(set, name, nil, parser.ParseComments)))
		}
	}
	return must[*doc.Package](t)(doc.NewFromFiles(set, files, "callbridge"))
}

func TestDocumentationSaysSomethingOfEverythingExported(t *testing.T) {
	p := parsePackage(t)
	check := func(name, text string) {
		if ast.IsExported(name[strings.LastIndex(name, ".")+1:]) && strings.TrimSpace(text) == "" {
			t.Errorf("%s has no comment", name)
		}
	}
	functions := func(prefix string, all []*doc.Func) {
		for _, it := range all {
			if !strings.HasPrefix(it.Name, "callbridge_go_") { // exported to C, not to Go
				check(prefix+it.Name, it.Doc)
			}
		}
	}
	if !strings.HasPrefix(p.Doc, "Package callbridge ") {
		t.Errorf("the package has no comment")
	}
	functions("", p.Funcs)
	for _, it := range p.Types {
		check(it.Name, it.Doc)
		functions("", it.Funcs)
		functions(it.Name+".", it.Methods)
	}
}

func TestDocumentationNamesEveryConstructor(t *testing.T) {
	readme := string(must[[]byte](t)(os.ReadFile("README.md")))
	for _, it := range parsePackage(t).Types {
		for _, constructor := range it.Funcs {
			if strings.HasPrefix(constructor.Name, "New") {
				contains(t, readme, constructor.Name)
			}
		}
	}
}
