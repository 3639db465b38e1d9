package workspace

import (
	"bytes"
	"crypto/rand"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"github.com/google/renameio/v2"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/secrets"
)

//go:embed all:templates
var templates embed.FS

// Options says what Init writes.
type Options struct {
	Example    string // one of Examples
	LabName    string
	PublicKeys []string // lines of authorized_keys
	Force      bool     // overwrite files that differ
	Sandbox    *Sandbox // fit the settings to this sandbox; nil: to a usual home network
}

// Result says what Init did.
type Result struct {
	Files   []string // written, relative to the workspace
	Notices []string
}

// Init writes a workspace. A file that is there and differs is left alone and
// all such files are named in the error, unless Force is set; then nothing else
// is written either. Running it again changes nothing.
func Init(d Dir, opts Options) (*Result, error) {
	e, err := exampleNamed(opts.Example)
	if err != nil {
		return nil, err
	}
	files, err := render(e, opts)
	if err != nil {
		return nil, err
	}
	result := &Result{}
	if result.Files, err = write(d, files, opts.Force); err != nil {
		return nil, err
	}
	if err := result.initSecrets(d, opts); err != nil {
		return nil, err
	}
	return result, result.initGit(d)
}

// render returns every file of the workspace by its path.
func render(e example, opts Options) (map[string][]byte, error) {
	values, err := e.fill(opts)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	where := map[string]string{
		"templates/settings/nodes.yaml":   "terraform/vars/nodes.yaml",
		"templates/settings/network.yaml": "terraform/vars/network.yaml",
		"templates/settings/proxmox.yaml": "terraform/vars/proxmox.yaml",
		"templates/settings/all.yaml":     "ansible/group_vars/all.yaml",
		"templates/files/gitignore":       ".gitignore",
		"templates/files/envrc":           ".envrc",
	}
	err = fs.WalkDir(templates, "templates", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
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
		if strings.HasPrefix(path, "templates/settings/") {
			if text, err = fill(path, text, values); err != nil {
				return err
			}
		}
		files[target] = text
		return nil
	})
	if opts.Sandbox != nil && !e.metal {
		files["terraform/ca/sandbox.pem"] = opts.Sandbox.CAPEM
	}
	return files, err
}

func fill(name string, text []byte, values settings) ([]byte, error) {
	t, err := template.New(name).Parse(string(text))
	if err != nil {
		return nil, fmt.Errorf("template %s: %w", name, err)
	}
	var out bytes.Buffer
	if err := t.Execute(&out, values); err != nil {
		return nil, fmt.Errorf("template %s: %w", name, err)
	}
	return out.Bytes(), nil
}

// write writes the files that are missing, or with force those that differ too.
func write(d Dir, files map[string][]byte, force bool) ([]string, error) {
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
	for _, path := range todo {
		if err := os.MkdirAll(filepath.Dir(d.Path(path)), 0o755); err != nil {
			return nil, fmt.Errorf("workspace: %w", err)
		}
		if err := renameio.WriteFile(d.Path(path), files[path], 0o644); err != nil {
			return nil, fmt.Errorf("workspace: %w", err)
		}
	}
	return todo, nil
}

// initSecrets generates what the lab needs and keeps what is there.
func (r *Result) initSecrets(d Dir, opts Options) error {
	if err := os.MkdirAll(d.Path(".k3lab"), 0o700); err != nil {
		return fmt.Errorf("workspace: %w", err)
	}
	store, err := secrets.Open(d.Root())
	if err != nil {
		return err
	}
	if _, err := store.Ensure(randomToken, "k3s_token"); err != nil {
		return err
	}
	if opts.Sandbox != nil {
		if err := store.Set(secrets.NewValue(opts.Sandbox.Token), "proxmox_api_tokens", "sandbox"); err != nil {
			return err
		}
	}
	if file, made := store.KeyFile(); made {
		r.Notices = append(r.Notices, "Your age key is new: "+file+". Back it up: without it "+secrets.FileName+" cannot be read.")
	}
	return nil
}

func randomToken() (string, error) {
	b := make([]byte, 32)
	if _, err := rand.Read(b); err != nil {
		return "", err
	}
	return hex.EncodeToString(b), nil
}

// initGit makes the workspace a git repository. Committing is the user's.
func (r *Result) initGit(d Dir) error {
	if _, err := os.Stat(d.Path(".git")); err == nil {
		return nil
	}
	if _, err := exec.LookPath("git"); err != nil {
		r.Notices = append(r.Notices, "git is not installed, so this is no git repository yet.")
		return nil //nolint:nilerr // said in the notice
	}
	if out, err := exec.Command("git", "init", "--quiet", d.Root()).CombinedOutput(); err != nil { //nolint:noctx // it takes milliseconds
		return fmt.Errorf("git init: %s", strings.TrimSpace(string(out)))
	}
	return nil
}
