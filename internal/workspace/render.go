package workspace

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"github.com/goccy/go-yaml"
	"github.com/google/renameio/v2"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/fault"
)

//go:embed all:templates
var templates embed.FS

// Where the templates of settings files lie: those of a new lab, and those of
// one that was there before.
const (
	newSettings      = "templates/settings/"
	importedSettings = "templates/imported/"
)

// render returns every file of the workspace by its path.
func render(e example, opts Options) (map[string][]byte, error) {
	values, err := e.fill(opts)
	if err != nil {
		return nil, err
	}
	files, err := renderFiles(values, newSettings)
	if err != nil {
		return nil, err
	}
	if opts.Sandbox != nil && !e.metal {
		files[sandboxCA] = opts.Sandbox.CAPEM
	}
	return files, valid(files)
}

// renderFiles fills the settings files in from the first of the folders that has
// a template for it.
func renderFiles(values any, folders ...string) (map[string][]byte, error) {
	files := map[string][]byte{}
	where := map[string]string{"templates/files/gitignore": ".gitignore", "templates/files/envrc": ".envrc"}
	for _, file := range config.Files {
		for _, folder := range folders {
			name := folder + filepath.Base(file)
			text, err := templates.ReadFile(name)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err == nil {
				files[file], err = fill(name, text, values)
			}
			if err != nil {
				return nil, err
			}
			break
		}
	}
	err := fs.WalkDir(templates, "templates", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || strings.HasPrefix(path, newSettings) || strings.HasPrefix(path, importedSettings) {
			return err
		}
		text, err := templates.ReadFile(path)
		if err != nil {
			return err
		}
		target, named := where[path]
		if !named {
			target = strings.TrimPrefix(strings.TrimPrefix(path, "templates/"), "files/")
		}
		files[target] = text
		return nil
	})
	return files, err
}

func fill(name string, text []byte, values any) ([]byte, error) {
	t, err := template.New(name).Funcs(template.FuncMap{"json": inJSON, "nested": nested}).Parse(string(text))
	if err != nil {
		return nil, fmt.Errorf("template %s: %w", name, err)
	}
	var out bytes.Buffer
	if err := t.Execute(&out, values); err != nil {
		return nil, fmt.Errorf("template %s: %w", name, err)
	}
	return out.Bytes(), nil
}

// inJSON is a value on one line; JSON is YAML. Nothing is an empty list.
func inJSON(v any) (string, error) {
	if list, ok := v.([]string); ok && list == nil {
		return "[]", nil
	}
	text, err := json.Marshal(v)
	return string(text), err
}

// nested is a mapping to follow its key and colon: below it, indented, or {} where
// it is empty.
func nested(indent int, v map[string]any) (string, error) {
	if len(v) == 0 {
		return " {}", nil
	}
	text, err := yaml.MarshalWithOptions(v, yaml.IndentSequence(true))
	if err != nil {
		return "", err
	}
	pad := "\n" + strings.Repeat(" ", indent)
	return pad + strings.ReplaceAll(strings.TrimRight(string(text), "\n"), "\n", pad), nil
}

// valid checks the settings as k3lab validate would, before they are written:
// the name and the keys in them come from the user.
func valid(files map[string][]byte) error {
	dir, err := os.MkdirTemp("", "k3lab-init-")
	if err != nil {
		return fmt.Errorf("workspace: %w", err)
	}
	defer os.RemoveAll(dir)
	if err := write(Dir{dir}, files, slices.Sorted(maps.Keys(files))); err != nil {
		return err
	}
	_, problems := config.Load(dir)
	return problems.Err()
}

// missing returns the files that are not there, or with force those that differ
// too, sorted.
func missing(d Dir, files map[string][]byte, force bool) ([]string, error) {
	var todo, differ []string
	for path, text := range files {
		there, err := os.ReadFile(d.Path(path))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			todo = append(todo, path)
		case err != nil:
			return nil, fmt.Errorf("workspace: %w", err)
		case !bytes.Equal(there, text):
			todo, differ = append(todo, path), append(differ, path)
		}
	}
	slices.Sort(todo)
	slices.Sort(differ)
	if len(differ) > 0 && !force {
		return nil, fault.New(fault.Failed, d.Root(), "k3lab init --force, which overwrites them",
			"these files are there already and differ: %s", strings.Join(differ, ", "))
	}
	return todo, nil
}

func write(d Dir, files map[string][]byte, which []string) error {
	for _, path := range which {
		if err := os.MkdirAll(filepath.Dir(d.Path(path)), 0o755); err != nil {
			return fmt.Errorf("workspace: %w", err)
		}
		if err := renameio.WriteFile(d.Path(path), files[path], 0o644); err != nil {
			return fmt.Errorf("workspace: %w", err)
		}
	}
	return nil
}
