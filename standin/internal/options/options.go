// Package options reads K3s's settings: configuration files, flags and
// environment, in K3s's order of precedence, into plain structs.
package options

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sirupsen/logrus"

	"github.com/k3lab/k3lab/standin/internal/confargs"
	"github.com/k3lab/k3lab/standin/internal/datadir"
	"github.com/k3lab/k3lab/standin/internal/flags"
)

// Node is what servers and agents have in common.
type Node struct {
	Name        string
	IP          string
	ExternalIP  string
	Labels      []string
	Taints      []string
	Dir         datadir.Dir
	Token       string
	ServerURL   string
	LBPort      int
	KubeletArgs []string
	ProxyArgs   []string
	// ProtectKernel refuses a kernel that is not set as kubelet wants it.
	ProtectKernel bool
	// Args is the whole command line with the configuration files expanded;
	// the node-args annotation shows it.
	Args []string
}

// Server is a server's settings.
type Server struct {
	Node
	Port              int
	BindAddress       string
	AdvertiseAddress  string
	AgentToken        string
	TLSSANs           []string
	ClusterCIDR       string
	ServiceCIDR       string
	NodePorts         string
	ClusterDNS        string
	ClusterDomain     string
	FlannelBackend    string
	Kubeconfig        string
	KubeconfigMode    os.FileMode
	ClusterInit       bool
	ClusterReset      bool
	RestorePath       string
	SecretsEncryption bool
	DisableAgent      bool
	DisableKubeProxy  bool
	DisableCCM        bool
	DisableScheduler  bool
	DisableHelm       bool
	APIServerArgs     []string
	ControllerArgs    []string
	SchedulerArgs     []string
	EtcdArgs          []string
	Snapshots         Snapshots
	ExposeEtcdMetrics bool
}

// Snapshots says when and where snapshots of the datastore are taken.
type Snapshots struct {
	Disabled  bool
	Name      string
	Cron      string
	Retention int
	Dir       string
}

// expand returns a command's arguments with the configuration files' first.
//
// As the node-args annotation shows them, they hold unknown keys of a server's
// file, too, which are otherwise skipped.
func expand(command string, defs []flags.Def, args []string) (known, shown []string, err error) {
	fromFiles, err := confargs.Expand(args, datadir.ConfigFile)
	if err != nil {
		return nil, nil, err
	}
	shown = append([]string{command}, append(slices.Clone(fromFiles), args...)...)
	if command != "agent" {
		fromFiles = flags.Strip(defs, fromFiles, func(name string) {
			logrus.Warnf("Unknown flag %s found in config.yaml, skipping\n", name)
		})
	}
	return append(fromFiles, args...), shown, nil
}

// ParseServer reads the settings of `k3s server`.
func ParseServer(args []string) (*Server, error) {
	all, shown, err := expand("server", ServerDefs, args)
	if err != nil {
		return nil, err
	}
	values, rest, err := flags.Parse(ServerDefs, all)
	if err != nil {
		return nil, err
	}
	if err := noMore("server", rest); err != nil {
		return nil, err
	}
	if values.String("datastore-endpoint") != "" {
		return nil, fmt.Errorf("datastore-endpoint: the k3lab stand-in has embedded etcd only")
	}
	node, err := parseNode(values, shown)
	if err != nil {
		return nil, err
	}
	s := &Server{
		Node:              *node,
		Port:              values.Int("https-listen-port"),
		BindAddress:       values.String("bind-address"),
		AdvertiseAddress:  values.String("advertise-address"),
		TLSSANs:           values.List("tls-san"),
		ClusterCIDR:       first(values.List("cluster-cidr"), "10.42.0.0/16"),
		ServiceCIDR:       first(values.List("service-cidr"), "10.43.0.0/16"),
		NodePorts:         values.String("service-node-port-range"),
		ClusterDNS:        first(values.List("cluster-dns"), ""),
		ClusterDomain:     values.String("cluster-domain"),
		FlannelBackend:    values.String("flannel-backend"),
		Kubeconfig:        values.String("write-kubeconfig"),
		ClusterInit:       values.Bool("cluster-init"),
		ClusterReset:      values.Bool("cluster-reset"),
		RestorePath:       values.String("cluster-reset-restore-path"),
		SecretsEncryption: values.Bool("secrets-encryption"),
		DisableAgent:      values.Bool("disable-agent"),
		DisableKubeProxy:  values.Bool("disable-kube-proxy"),
		DisableCCM:        values.Bool("disable-cloud-controller"),
		DisableScheduler:  values.Bool("disable-scheduler"),
		DisableHelm:       values.Bool("disable-helm-controller"),
		APIServerArgs:     values.Raw("kube-apiserver-arg"),
		ControllerArgs:    values.Raw("kube-controller-manager-arg"),
		SchedulerArgs:     values.Raw("kube-scheduler-arg"),
		EtcdArgs:          values.Raw("etcd-arg"),
		ExposeEtcdMetrics: values.Bool("etcd-expose-metrics"),
		Snapshots: Snapshots{
			Disabled:  values.Bool("etcd-disable-snapshots"),
			Name:      values.String("etcd-snapshot-name"),
			Cron:      values.String("etcd-snapshot-schedule-cron"),
			Retention: values.Int("etcd-snapshot-retention"),
			Dir:       values.String("etcd-snapshot-dir"),
		},
	}
	return s, s.complete(values)
}

// complete fills in what follows from other settings and refuses what
// contradicts itself.
func (s *Server) complete(values *flags.Values) error {
	var err error
	if s.AgentToken, err = secret(values, "agent-token"); err != nil {
		return err
	}
	if s.KubeconfigMode, err = parseMode(values.String("write-kubeconfig-mode")); err != nil {
		return err
	}
	if s.Kubeconfig == "" {
		s.Kubeconfig = datadir.AdminKubeconfig
	}
	if s.AdvertiseAddress == "" {
		s.AdvertiseAddress = s.IP
	}
	if s.Snapshots.Dir == "" {
		s.Snapshots.Dir = s.Dir.Snapshots()
	}
	if s.ClusterDNS == "" {
		if s.ClusterDNS, err = nthAddress(s.ServiceCIDR, 10); err != nil {
			return fmt.Errorf("service-cidr: %w", err)
		}
	}
	if s.RestorePath != "" && !s.ClusterReset {
		return fmt.Errorf("invalid flag use; --cluster-reset required with --cluster-reset-restore-path")
	}
	return nil
}

// ParseAgent reads the settings of `k3s agent`.
func ParseAgent(args []string) (*Node, error) {
	all, shown, err := expand("agent", AgentDefs, args)
	if err != nil {
		return nil, err
	}
	values, rest, err := flags.Parse(AgentDefs, all)
	if err != nil {
		return nil, err
	}
	if err := noMore("agent", rest); err != nil {
		return nil, err
	}
	node, err := parseNode(values, shown)
	if err != nil {
		return nil, err
	}
	if node.Token == "" {
		return nil, fmt.Errorf("--token is required")
	}
	if node.ServerURL == "" {
		return nil, fmt.Errorf("--server is required")
	}
	return node, nil
}

// ParseSnapshot reads the flags of `k3s etcd-snapshot` and returns them with
// the arguments that follow.
func ParseSnapshot(args []string) (*flags.Values, []string, error) {
	all, _, err := expand("etcd-snapshot", SnapshotDefs, args)
	if err != nil {
		return nil, nil, err
	}
	return flags.Parse(SnapshotDefs, all)
}

func parseNode(values *flags.Values, args []string) (*Node, error) {
	if values.Bool("debug") {
		logrus.SetLevel(logrus.DebugLevel)
	}
	n := &Node{
		Name:        values.String("node-name"),
		IP:          first(values.List("node-ip"), ""),
		ExternalIP:  first(values.List("node-external-ip"), ""),
		Labels:      values.List("node-label"),
		Taints:      values.List("node-taint"),
		Dir:         datadir.New(values.String("data-dir")),
		ServerURL:   strings.TrimSuffix(values.String("server"), "/"),
		LBPort:      values.Int("lb-server-port"),
		KubeletArgs: values.Raw("kubelet-arg"),
		ProxyArgs:   values.Raw("kube-proxy-arg"),
		Args:        args,

		ProtectKernel: values.Bool("protect-kernel-defaults"),
	}
	var err error
	if n.Token, err = secret(values, "token"); err != nil {
		return nil, err
	}
	if n.Name, err = nodeName(n.Name, values.Bool("with-node-id")); err != nil {
		return nil, err
	}
	if n.IP == "" {
		if n.IP, err = defaultAddress(values.String("flannel-iface")); err != nil {
			return nil, err
		}
	}
	if n.ServerURL != "" && !strings.HasPrefix(n.ServerURL, "https://") {
		return nil, fmt.Errorf("invalid server url: %q: only https:// URLs are supported", n.ServerURL)
	}
	if abs, err := filepath.Abs(string(n.Dir)); err == nil {
		n.Dir = datadir.Dir(abs)
	}
	return n, nil
}

// secret reads a token given directly or by the file that --NAME-file names.
func secret(values *flags.Values, name string) (string, error) {
	if text := values.String(name); text != "" {
		return text, nil
	}
	file := values.String(name + "-file")
	if file == "" {
		return "", nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(data)), nil
}

func noMore(command string, rest []string) error {
	if len(rest) > 0 {
		return fmt.Errorf("%s takes no arguments, got %q", command, rest)
	}
	return nil
}

func first(values []string, otherwise string) string {
	if len(values) > 0 {
		return values[0]
	}
	return otherwise
}
