package k3s

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

const snapshotDir = serverDir + "db/snapshots"

var snapshotFiles = schema.GroupVersionResource{Group: "k3s.cattle.io", Version: "v1", Resource: "etcdsnapshotfiles"}

// save makes a snapshot and returns its name.
func save(t *testing.T, m *machine, args ...string) string {
	t.Helper()
	r := m.k3s(t, append([]string{"etcd-snapshot", "save"}, args...)...)
	found := regexp.MustCompile(`level=info msg="Snapshot (\S+) saved\."`).FindStringSubmatch(r.stdout + r.stderr)
	if r.code != 0 || found == nil {
		t.Fatalf("etcd-snapshot save: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	return found[1]
}

func onDisk(t *testing.T, m *machine) []string {
	t.Helper()
	entries, err := os.ReadDir(m.path(snapshotDir))
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

func snapshots(t *testing.T, c *cluster) {
	m := c.first
	name := save(t, m)
	info, err := os.Stat(filepath.Join(m.path(snapshotDir), name))
	if err != nil {
		t.Fatal(err)
	}
	t.Run("file", func(t *testing.T) {
		matches(t, "name", name, `^on-demand-server-1-\d{10}$`)
		if info.Mode() != 0o600 {
			t.Errorf("mode %v, want 0600", info.Mode())
		}
	})
	location := "file://" + snapshotDir + "/" + name
	t.Run("object", func(t *testing.T) {
		api := m.clients(t)
		soon(t, "object", func() error {
			list, err := api.dynamic.Resource(snapshotFiles).List(t.Context(), metav1.ListOptions{})
			if err != nil {
				return err
			}
			if len(list.Items) != 1 {
				return fmt.Errorf("%d objects, want 1", len(list.Items))
			}
			object := list.Items[0]
			status, _ := object.Object["status"].(map[string]any)
			delete(status, "creationTime")
			got := map[string]any{"spec": object.Object["spec"], "status": status, "labels": object.GetLabels()}
			want := map[string]any{
				"spec":   map[string]any{"location": location, "nodeName": "server-1", "snapshotName": name},
				"status": map[string]any{"readyToUse": true, "size": strconv.FormatInt(info.Size(), 10)},
				"labels": map[string]string{"etcd.k3s.cattle.io/snapshot-storage-node": "server-1"},
			}
			matches(t, "object name", object.GetName(), `^local-`+name+`-[0-9a-f]{6}$`)
			if diff := cmp.Diff(want, got); diff != "" {
				return errors.New(diff)
			}
			return nil
		})
	})
	t.Run("table", func(t *testing.T) {
		r := m.k3s(t, "etcd-snapshot", "ls")
		matches(t, "stdout", r.stdout, `^Name +Location +Size +Created *\n`+name+` +`+regexp.QuoteMeta(location)+
			fmt.Sprintf(` +%d +`, info.Size())+`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ *\n$`)
		matches(t, "stderr", r.stderr, `level=warning msg="Unknown flag --cluster-init found in config.yaml, skipping\\n"`)
	})
	t.Run("json", func(t *testing.T) {
		var list struct {
			Items []struct {
				Spec struct{ SnapshotName, NodeName, Location string }
			}
		}
		if err := json.Unmarshal([]byte(m.ok(t, "etcd-snapshot", "ls", "--output", "json")), &list); err != nil {
			t.Fatal(err)
		}
		if len(list.Items) != 1 || list.Items[0].Spec.SnapshotName != name || list.Items[0].Spec.Location != location {
			t.Errorf("got %+v", list)
		}
	})
	t.Run("prune", func(t *testing.T) {
		save(t, m, "--name", "pruned")
		wait(t, "the next second, as names count them", func() error {
			kept := save(t, m, "--name", "pruned")
			if names := onDisk(t, m); len(names) < 3 {
				return fmt.Errorf("have %q after %s", names, kept)
			}
			return nil
		})
		before := onDisk(t, m)
		r := m.k3s(t, "etcd-snapshot", "prune", "--name", "pruned", "--snapshot-retention", "1")
		if r.code != 0 {
			t.Errorf("exit code %d", r.code)
		}
		matches(t, "output", r.stdout+r.stderr, `level=info msg="Snapshot pruned-server-1-\d+ deleted\."`)
		want := []string{before[0], before[len(before)-1]} // of its own name, and the newest
		if diff := cmp.Diff(want, onDisk(t, m)); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("delete", func(t *testing.T) {
		for _, gone := range onDisk(t, m) {
			r := m.k3s(t, "etcd-snapshot", "delete", gone)
			matches(t, "output", r.stdout+r.stderr, `level=info msg="Snapshot `+gone+` deleted\."`)
		}
		if left := onDisk(t, m); len(left) != 0 {
			t.Errorf("left on disk: %q", left)
		}
		r := m.k3s(t, "etcd-snapshot", "delete", "no-such-snapshot")
		matches(t, "output", r.stdout+r.stderr, `level=warning msg="Snapshot no-such-snapshot not found\."`)
		if r.code != 0 {
			t.Errorf("exit code %d of deleting what is not there, want 0", r.code)
		}
		api := m.clients(t)
		soon(t, "no object", func() error {
			list, err := api.dynamic.Resource(snapshotFiles).List(t.Context(), metav1.ListOptions{})
			if err == nil && len(list.Items) != 0 {
				err = fmt.Errorf("%d objects left", len(list.Items))
			}
			return err
		})
	})
}

// restore takes the cluster of three back to a snapshot.
func restore(t *testing.T, c *cluster) {
	mark(t, c.first, "before")
	name := save(t, c.first)
	mark(t, c.first, "after")
	for _, m := range []*machine{c.agent, c.third, c.second, c.first} {
		c.processes[m].stop(t)
	}

	reset := c.first.start(t, "server", "--cluster-reset", "--cluster-reset-restore-path="+snapshotDir+"/"+name)
	reset.waitEnd(t)
	matches(t, "log of the reset", reset.tail(40), `Managed etcd cluster membership has been reset, restart without --cluster-reset flag now`)

	c.launch(t, c.first, "server").waitReady(t)
	wait(t, "marks", func() error {
		if got := marks(t, c.first); got != "before" {
			return fmt.Errorf("have %q, want before", got)
		}
		return nil
	})
	agent := c.launch(t, c.agent, "agent")
	for _, m := range []*machine{c.second, c.third} { // each joins through the one before
		m.remove(t, serverDir+"db")
		c.launch(t, m, "server").waitReady(t)
	}
	agent.waitReady(t)
	waitNodes(t, c.second, "agent-1", "server-1", "server-2", "server-3")
	waitVoters(t, c.second, "server-1", "server-2", "server-3")
}

// mark leaves something in the cluster to be found again.
func mark(t *testing.T, m *machine, name string) {
	t.Helper()
	_, err := m.clients(t).CoreV1().ConfigMaps("default").Create(t.Context(),
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "mark-" + name}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

func marks(t *testing.T, m *machine) string {
	t.Helper()
	list, err := m.clients(t).CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		return err.Error()
	}
	var names []string
	for _, object := range list.Items {
		if name, ok := strings.CutPrefix(object.Name, "mark-"); ok {
			names = append(names, name)
		}
	}
	return strings.Join(names, " ")
}
