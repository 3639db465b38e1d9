package scripts

import (
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "write what cmp compares anew")

func TestOffline(t *testing.T) {
	testscript.Run(t, params(t, "testdata/offline"))
}

func TestAPI(t *testing.T) {
	needMirror(t)
	testscript.Run(t, params(t, "testdata/api"))
}

func TestLayouts(t *testing.T) {
	needMirror(t)
	testscript.Run(t, params(t, "testdata/layouts"))
}

func needMirror(t *testing.T) {
	t.Helper()
	if os.Getenv("K3LAB_PROVIDER_MIRROR") == "" {
		t.Skip("K3LAB_PROVIDER_MIRROR is not set (try: make test)")
	}
}

// params are what every script gets: a home, a place for sandboxes and the
// binary, all of its own, so that scripts run side by side.
func params(t *testing.T, dir string) testscript.Params {
	t.Helper()
	path := binary(t)
	return testscript.Params{
		Dir: dir, UpdateScripts: *update, RequireUniqueNames: true, Cmds: commands(),
		Setup: func(env *testscript.Env) error {
			home := filepath.Join(env.WorkDir, ".home")
			own(env, path, home, filepath.Join(env.WorkDir, ".sandboxes"))
			env.Defer(func() {
				if err := sandboxesDown(env.Vars, env.Getenv("K3LAB_SANDBOX_DIR")); err != nil {
					t.Error(err)
				}
			})
			return os.Mkdir(home, 0o700)
		},
	}
}

// binary is a directory with k3lab in it, to be searched first.
func binary(t *testing.T) string {
	t.Helper()
	bin := os.Getenv("K3LAB_BIN")
	if bin == "" {
		t.Skip("K3LAB_BIN is not set (try: make test)")
	}
	dir := t.TempDir()
	if err := os.Symlink(bin, filepath.Join(dir, "k3lab")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func own(env *testscript.Env, path, home, sandboxes string) {
	env.Setenv("PATH", path+string(os.PathListSeparator)+os.Getenv("PATH"))
	env.Setenv("HOME", home)
	env.Setenv("K3LAB_SANDBOX_DIR", sandboxes)
	for _, name := range []string{"K3LAB_BIN", "K3LAB_PROVIDER_MIRROR", "K3LAB_K3S_BINARY", "K3LAB_TERRAFORM", "K3LAB_DEBIAN_MIRROR"} {
		if value := os.Getenv(name); value != "" {
			env.Setenv(name, value)
		}
	}
	env.Values[rememberedKey{}] = map[string]map[string]string{}
}

// sandboxesDown removes every sandbox in a directory.
func sandboxesDown(vars []string, dir string) error {
	found, err := filepath.Glob(filepath.Join(dir, "*", "sandbox.json"))
	for _, file := range found {
		cmd := exec.Command(os.Getenv("K3LAB_BIN"), "sandbox", "down", filepath.Base(filepath.Dir(file)))
		cmd.Env = vars
		if out, downErr := cmd.CombinedOutput(); downErr != nil {
			err = errors.Join(err, downErr, errors.New(string(out)))
		}
	}
	return err
}
