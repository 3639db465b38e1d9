package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/sirupsen/logrus"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/k3lab/k3lab/standin/internal/datadir"
	"github.com/k3lab/k3lab/standin/internal/datastore"
	"github.com/k3lab/k3lab/standin/internal/flags"
	"github.com/k3lab/k3lab/standin/internal/join"
	"github.com/k3lab/k3lab/standin/internal/options"
	"github.com/k3lab/k3lab/standin/internal/snapshotfiles"
	"github.com/k3lab/k3lab/standin/internal/token"
)

// localServer is where the server on this machine answers.
const localServer = "https://127.0.0.1:6443"

// apiTimeout bounds what a command asks of the API.
const apiTimeout = 30 * time.Second

type snapshotCommand struct {
	values *flags.Values
	dir    datadir.Dir
	into   string
	node   string
}

func etcdSnapshot(ctx context.Context, args []string) error {
	name, args, err := subcommand("etcd-snapshot", args, "save", "ls", "list", "l", "delete", "prune")
	if err != nil {
		return err
	}
	values, rest, err := options.ParseSnapshot(args)
	if err != nil {
		return err
	}
	if values.Bool("s3") {
		return errors.New("the k3lab stand-in keeps snapshots on the server only, not in S3")
	}
	c := snapshotCommand{values: values, dir: datadir.New(values.String("data-dir")), into: values.String("dir"), node: values.String("node-name")}
	if c.into == "" {
		c.into = c.dir.Snapshots()
	}
	if c.node == "" {
		host, err := os.Hostname()
		if err != nil {
			return err
		}
		c.node = strings.ToLower(host)
	}
	if err := c.reachServer(ctx); err != nil {
		return err
	}
	switch name {
	case "save":
		return c.save(ctx, rest)
	case "delete":
		return c.remove(ctx, rest)
	case "prune":
		if _, err := datastore.Prune(c.into, values.String("name"), values.Int("snapshot-retention")); err != nil {
			return err
		}
		return c.sync(ctx)
	default:
		return c.list()
	}
}

// reachServer refuses without a running server and its token: with K3s the server
// does what the command asks for.
func (c snapshotCommand) reachServer(ctx context.Context) error {
	text, err := os.ReadFile(c.dir.Server("token"))
	if err != nil {
		return err
	}
	_, err = join.Dial(ctx, localServer, strings.TrimSpace(string(text)), token.UserServer)
	return err
}

func (c snapshotCommand) save(ctx context.Context, rest []string) error {
	if len(rest) > 0 {
		return errors.New("this command does not take any arguments")
	}
	if !c.dir.EtcdInitialized() {
		return fmt.Errorf("etcd database not found in %s", c.dir.Etcd())
	}
	if _, err := datastore.Save(ctx, c.dir, c.into, c.values.String("name"), c.node); err != nil {
		return err
	}
	return c.sync(ctx)
}

func (c snapshotCommand) remove(ctx context.Context, names []string) error {
	if len(names) == 0 {
		return errors.New("no snapshots given for removal")
	}
	for _, name := range names {
		if name != filepath.Base(name) {
			return fmt.Errorf("%q is not the name of a snapshot", name)
		}
		err := os.Remove(filepath.Join(c.into, name))
		if errors.Is(err, os.ErrNotExist) {
			logrus.Warnf("Snapshot %s not found.", name)
			continue
		}
		if err != nil {
			return err
		}
		logrus.Infof("Snapshot %s deleted.", name)
	}
	return c.sync(ctx)
}

// sync lists the files in the cluster. The files are what counts, so an API
// that does not answer is only a warning.
func (c snapshotCommand) sync(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	config, err := clientcmd.BuildConfigFromFlags("", c.dir.Cred("supervisor.kubeconfig"))
	if err != nil {
		return err
	}
	files, err := snapshotfiles.New(config, c.node)
	if err != nil {
		return err
	}
	if err := files.Sync(ctx, c.into); err != nil {
		logrus.Warnf("Failed to list snapshots in the cluster: %v", err)
	}
	return nil
}

func (c snapshotCommand) list() error {
	snapshots, err := datastore.List(c.into)
	if err != nil {
		return err
	}
	switch format := strings.ToLower(c.values.String("output")); format {
	case "json":
		return c.listObjects(snapshots)
	case "":
	default:
		return fmt.Errorf("invalid output format: %s", format)
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 1, ' ', 0)
	fmt.Fprintln(table, "Name\tLocation\tSize\tCreated")
	for _, s := range snapshots {
		fmt.Fprintf(table, "%s\t%s\t%d\t%s\n", s.Name, s.Location(), s.Size, s.Created.Format(time.RFC3339))
	}
	return table.Flush()
}

// listObjects prints the snapshots as the list of objects they are in the
// cluster.
func (c snapshotCommand) listObjects(snapshots []datastore.Snapshot) error {
	items := []any{}
	for _, s := range snapshots {
		items = append(items, map[string]any{
			"apiVersion": "k3s.cattle.io/v1", "kind": "ETCDSnapshotFile", "metadata": map[string]any{},
			"spec":   map[string]any{"location": s.Location(), "nodeName": c.node, "snapshotName": s.Name},
			"status": map[string]any{"creationTime": s.Created.UTC().Format(time.RFC3339), "readyToUse": true, "size": strconv.FormatInt(s.Size, 10)},
		})
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"apiVersion": "v1", "kind": "List", "metadata": map[string]any{}, "items": items})
}
