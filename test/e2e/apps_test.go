package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const webApp = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: web, image: "registry.example/web:1"}]
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], storageClassName: "", volumeName: data, resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: data}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  claimRef: {namespace: web, name: data}
  hostPath: {path: /tmp/data}
`

// applications takes an app of the user's own through the layer: it is shown, made,
// awaited, kept, and removed only when its data may go.
func applications(t *testing.T, l *lab) {
	folder := filepath.Join(l.dir, "kubernetes/apps")
	write := func(name, text string) {
		file := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(folder); err != nil {
			t.Error(err)
		}
	})
	write("web/web.yaml", webApp)
	write("broken/app.yaml", "needs: [nobody]\n")
	const refusal = `app broken: kubernetes/apps/broken/app.yaml: needs: there is no app "nobody"`
	out := l.exit(3, "apps", "diff")
	if !strings.Contains(out, refusal) || !strings.Contains(out, "+ create Deployment web/web") {
		t.Errorf("one bad app, and apps diff says:\n%s", out)
	}
	if out := l.exit(3, "up", "--yes", "--layer", "apps"); !strings.Contains(out, refusal) {
		t.Errorf("one bad app, and up says:\n%s", out)
	}
	if err := os.RemoveAll(filepath.Join(folder, "broken")); err != nil {
		t.Fatal(err)
	}
	if changes := l.plan(0); len(changes) != 0 {
		t.Errorf("plan after up: %v", describe(changes))
	}
	list := l.exit(0, "apps", "list")
	t.Logf("apps list:\n%s", list)
	if !strings.Contains(list, "deployed") || !strings.Contains(list, "healthy") {
		t.Errorf("apps list:\n%s", list)
	}
	l.onMachine("server-1", "kubectl", "-n", "web", "scale", "deployment/web", "--replicas=3")
	// The number of replicas is not in the file: it is whoever's who sets it.
	if changes := l.plan(0); len(changes) != 0 {
		t.Errorf("plan after scaling: %v", describe(changes))
	}
	l.onMachine("server-1", "kubectl", "-n", "web", "set", "image", "deployment/web", "web=registry.example/web:2")
	t.Logf("drift:\n%s", l.exit(2, "apps", "diff"))
	if d := cmp.Diff([]string{"web: update Deployment web/web"}, describe(l.plan(2))); d != "" {
		t.Errorf("plan after a change by hand (-want +got):\n%s", d)
	}
	l.exit(0, "apps", "apply", "--yes", "web")
	if changes := l.plan(0); len(changes) != 0 {
		t.Errorf("plan after mending: %v", describe(changes))
	}
	if err := os.RemoveAll(filepath.Join(folder, "web")); err != nil {
		t.Fatal(err)
	}
	const lost = "PersistentVolumeClaim web/data"
	if out := l.exit(1, "up", "--yes"); !strings.Contains(out, "this would be lost for good, and --yes alone does not allow it: "+lost) {
		t.Errorf("--yes alone, and volumes are held:\n%s", out)
	}
	t.Logf("removal:\n%s", l.exit(2, "plan", "--layer", "apps"))
	l.exit(0, "up", "--yes", "--layer", "apps", "--delete-volumes")
	if changes := l.plan(0); len(changes) != 0 {
		t.Errorf("plan after removal: %v", describe(changes))
	}
	l.onMachine("server-1", "kubectl", "delete", "namespace", "web")
}
