// Package datastore runs this server's member of the embedded etcd cluster:
// the process, joining and leaving, snapshots, and the reset to one member.
package datastore

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	"sigs.k8s.io/yaml"

	"github.com/k3lab/k3lab/standin/internal/datadir"
)

// Local is where every component of a server reaches its own member.
const Local = "https://127.0.0.1:2379"

// Member is what this server's etcd process is started with.
type Member struct {
	Dir  datadir.Dir
	Name string
	IP   string
	// InitialCluster is empty for a member that is already in its cluster.
	InitialCluster string
	Joining        bool
	ForceNew       bool
	ExposeMetrics  bool
	Args           []string
}

// PeerURL is where other members reach the member at an address.
func PeerURL(ip string) string { return "https://" + net.JoinHostPort(ip, "2380") }

// ClientURL is where clients on other machines reach it.
func ClientURL(ip string) string { return "https://" + net.JoinHostPort(ip, "2379") }

// WriteConfig writes etcd's own configuration file, where K3s has it too.
func (m Member) WriteConfig() (string, error) {
	state := "new"
	if m.Joining {
		state = "existing"
	}
	metrics := "http://127.0.0.1:2381"
	if m.ExposeMetrics {
		metrics = "http://" + net.JoinHostPort(m.IP, "2381") + "," + metrics
	}
	config := map[string]any{
		"name":                        m.Name,
		"data-dir":                    m.Dir.Etcd(),
		"listen-client-urls":          ClientURL(m.IP) + "," + Local,
		"listen-peer-urls":            PeerURL(m.IP) + "," + PeerURL("127.0.0.1"),
		"listen-metrics-urls":         metrics,
		"advertise-client-urls":       ClientURL(m.IP),
		"initial-advertise-peer-urls": PeerURL(m.IP),
		"initial-cluster":             m.InitialCluster,
		"initial-cluster-state":       state,
		"heartbeat-interval":          300,
		"election-timeout":            3000,
		"snapshot-count":              10000,
		"log-outputs":                 []string{"stderr"},
		"log-level":                   "warn",
		"logger":                      "zap",
		"force-new-cluster":           m.ForceNew,
		// Servers join as learners, who cannot cost a quorum: no need to wait
		// until the last one has been connected for five seconds.
		"strict-reconfig-check": false,
		// Left out of the file, it would be zero: every request a warning.
		"warning-unary-request-duration": time.Second,
		"client-transport-security":      security(m.Dir, "server-ca.crt", "server-client"),
		"peer-transport-security":        security(m.Dir, "peer-ca.crt", "peer-server-client"),
		// The stand-in's machines die by having their processes killed, never
		// by losing power: what the kernel has taken is safe, and five
		// machines need not wait for one disk.
		"unsafe-no-fsync": true,
	}
	for _, arg := range m.Args {
		key, value, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		config[key] = typed(value)
	}
	data, err := yaml.Marshal(config)
	if err != nil {
		return "", err
	}
	file := m.Dir.Etcd("config")
	return file, datadir.WriteFile(file, data, 0o600)
}

func security(dir datadir.Dir, ca, leaf string) map[string]any {
	return map[string]any{
		"cert-file":        dir.TLS("etcd", leaf+".crt"),
		"key-file":         dir.TLS("etcd", leaf+".key"),
		"trusted-ca-file":  dir.TLS("etcd", ca),
		"client-cert-auth": true,
	}
}

// typed gives an etcd-arg the type its configuration file wants.
func typed(value string) any {
	if i, err := strconv.ParseInt(value, 10, 64); err == nil {
		return i
	}
	if b, err := strconv.ParseBool(value); err == nil {
		return b
	}
	return value
}

// Serve is the etcd process: it runs until a signal or a fault ends it. A
// member that finds itself removed from the cluster leaves a tombstone, by
// which the next start knows that its data are worthless.
func Serve(configFile string) error {
	config, err := embed.ConfigFromFile(configFile)
	if err != nil {
		return err
	}
	config.GRPCAdditionalServerOptions = []grpc.ServerOption{grpc.ChainUnaryInterceptor(survive)}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	etcd, err := start(config)
	if err != nil {
		return fmt.Errorf("starting etcd: %w", err)
	}
	select {
	case <-signals:
		etcd.Close()
		return nil
	case err = <-etcd.Err():
	case <-etcd.Server.StopNotify():
	}
	cluster, ok := etcd.Server.Cluster().(interface{ IsIDRemoved(types.ID) bool })
	if ok && cluster.IsIDRemoved(etcd.Server.MemberID()) {
		tombstone := datadir.WriteFile(config.Dir+"/"+tombstoneName, nil, 0o600)
		return fmt.Errorf("this member has been removed from the etcd cluster (tombstone written: %t)", tombstone == nil)
	}
	return fmt.Errorf("etcd stopped: %w", err)
}

// survive turns a panic in a request into its failure. Asked for its status
// between its removal and its end, a member panics, and then leaves no
// tombstone.
func survive(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (response any, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = grpcstatus.Errorf(codes.Internal, "panic: %v", r)
		}
	}()
	return handle(ctx, request)
}

const (
	// announceTime is how long a member that knows its leader usually needs,
	// many times over, to announce itself.
	announceTime = 1500 * time.Millisecond
	// envAgain marks the second start of a process.
	envAgain = "K3LAB_STANDIN_ETCD_AGAIN"
)

// start starts etcd. A member that joins announces itself through the leader
// and serves nobody until it sees its announcement arrive. If it arrives as part
// of a snapshot, it is not recognised, and repeated only after eleven seconds.
// The process starting anew repeats it at once; a clean stop first would wait
// for those eleven seconds too.
func start(config *embed.Config) (*embed.Etcd, error) {
	etcd, err := embed.StartEtcd(config)
	if err != nil || os.Getenv(envAgain) != "" || announced(etcd.Server) {
		return etcd, err
	}
	return nil, syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), envAgain+"=1"))
}

// announced waits for a member's announcement. One that has stopped, or has no
// leader to announce itself to, is left alone.
func announced(server *etcdserver.EtcdServer) bool {
	late := time.NewTimer(announceTime)
	defer late.Stop()
	select {
	case <-server.ReadyNotify():
		return true
	case <-server.StopNotify():
		return true
	case <-late.C:
		return server.Leader() == 0
	}
}
