package scripts

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMachines plays what goes wrong with real machines. The scripts share one
// sandbox and one workspace and run in this order: each leaves the lab as it
// should be, and the next begins there.
func TestMachines(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("real machines need root")
	}
	if os.Getenv("K3LAB_K3S_BINARY") == "" {
		t.Skip("K3LAB_K3S_BINARY is not set (try: make test)")
	}
	needMirror(t)
	path, shared := binary(t), t.TempDir()
	p := testscript.Params{RequireUniqueNames: true, Cmds: commands(), Setup: func(env *testscript.Env) error {
		own(env, path, filepath.Join(shared, "home"), filepath.Join(shared, "sandboxes"))
		env.Setenv("LAB", filepath.Join(shared, "lab"))
		env.Setenv("KEY", filepath.Join(shared, "me"))
		return os.MkdirAll(env.Getenv("HOME"), 0o700)
	}}
	t.Cleanup(func() {
		sandboxes := filepath.Join(shared, "sandboxes")
		vars := append(os.Environ(), "HOME="+filepath.Join(shared, "home"), "K3LAB_SANDBOX_DIR="+sandboxes)
		if err := sandboxesDown(vars, sandboxes); err != nil {
			t.Error(err)
		}
	})
	for _, name := range []string{"wrong_checksum", "never_boots", "disk_full", "wrong_key", "host_key_changed"} {
		script := p
		script.Files = []string{filepath.Join("testdata/machines", name+".txtar")}
		if !t.Run(name, func(t *testing.T) { sequentially(t, script) }) {
			return // the lab is not as the next one needs it
		}
	}
}

// sequentially runs a script to its end before it returns; testscript.Run would
// let it run beside the next.
func sequentially(t *testing.T, p testscript.Params) {
	t.Helper()
	testscript.RunT(inOrder{t}, p)
}

// inOrder is a test whose scripts do not run side by side.
type inOrder struct{ *testing.T }

func (inOrder) Parallel()     {}
func (inOrder) Verbose() bool { return testing.Verbose() }
func (o inOrder) Run(name string, f func(testscript.T)) {
	o.T.Run(name, func(t *testing.T) { f(inOrder{t}) })
}
