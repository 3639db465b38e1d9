package kubelet

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-helpers/node/util/sysctl"
	"k8s.io/kubernetes/cmd/kubelet/app/options"
	kubeletconfig "k8s.io/kubernetes/pkg/kubelet/apis/config"
	"k8s.io/kubernetes/pkg/kubelet/apis/config/validation"
)

// parseFlags reads kubelet's arguments as kubelet itself does, so that one it
// does not know, or a value it refuses, ends this node as it ends a real one.
func parseFlags(args []string) (*kubeletconfig.KubeletConfiguration, error) {
	config, err := options.NewKubeletConfiguration()
	if err != nil {
		return nil, err
	}
	own := options.NewKubeletFlags()
	set := pflag.NewFlagSet("kubelet", pflag.ContinueOnError)
	set.SetNormalizeFunc(cliflag.WordSepNormalizeFunc)
	set.Usage = func() {}
	set.SetOutput(io.Discard) // every flag is called deprecated, in the release, too
	own.AddFlags(set)
	options.AddKubeletConfigFlags(set, config)
	options.AddGlobalFlags(set)
	dashed := make([]string, len(args))
	for i, arg := range args {
		dashed[i] = "--" + strings.TrimLeft(arg, "-")
	}
	if err := set.Parse(dashed); err != nil {
		return nil, fmt.Errorf("failed to parse kubelet flag: %w", err)
	}
	if err := utilfeature.DefaultMutableFeatureGate.SetFromMap(config.FeatureGates); err != nil {
		return nil, fmt.Errorf("failed to set feature gates from initial flags-based config: %w", err)
	}
	if err := options.ValidateKubeletFlags(own); err != nil {
		return nil, fmt.Errorf("failed to validate kubelet flags: %w", err)
	}
	config.FailCgroupV1 = false // no container runs: any cgroups will do
	if err := validation.ValidateKubeletConfiguration(config, utilfeature.DefaultFeatureGate); err != nil {
		return nil, fmt.Errorf("failed to validate kubelet configuration, error: %w", err)
	}
	return config, nil
}

// secure narrows what the kubelet's port speaks to what its flags say.
func secure(serving *tls.Config, config *kubeletconfig.KubeletConfiguration) (*tls.Config, error) {
	serving = serving.Clone()
	version, err := cliflag.TLSVersion(config.TLSMinVersion)
	if err != nil {
		return nil, err
	}
	serving.MinVersion = max(version, tls.VersionTLS12)
	if len(config.TLSCipherSuites) > 0 {
		if serving.CipherSuites, err = cliflag.TLSCipherSuites(config.TLSCipherSuites); err != nil {
			return nil, err
		}
	}
	return serving, nil
}

// checkKernel refuses a kernel that is not set as kubelet wants it: with
// protect-kernel-defaults kubelet sets nothing itself.
func checkKernel(settings sysctl.Interface) error {
	want := map[string]int{
		sysctl.VMOvercommitMemory: sysctl.VMOvercommitMemoryAlways,
		sysctl.VMPanicOnOOM:       sysctl.VMPanicOnOOMInvokeOOMKiller,
		sysctl.KernelPanic:        sysctl.KernelPanicRebootTimeout,
		sysctl.KernelPanicOnOops:  sysctl.KernelPanicOnOopsAlways,
		sysctl.RootMaxKeys:        sysctl.RootMaxKeysSetting,
		sysctl.RootMaxBytes:       sysctl.RootMaxBytesSetting,
	}
	var keys []string
	for key := range want {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	var wrong []error
	for _, key := range keys {
		is, err := settings.GetSysctl(key)
		switch {
		case err != nil:
			wrong = append(wrong, err)
		case is != want[key]:
			wrong = append(wrong, fmt.Errorf("invalid kernel flag: %v, expected value: %v, actual value: %v", key, want[key], is))
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("failed to start ContainerManager: %w", utilerrors.NewAggregate(wrong))
	}
	return nil
}

// proxyFlags are the names kube-proxy knows. Its own table cannot be had without
// everything that programs a kernel's packet filter.
var proxyFlags = strings.Fields(`bind-address bind-address-hard-fail cleanup cluster-cidr config config-sync-period
	conntrack-max-per-core conntrack-min conntrack-tcp-be-liberal conntrack-tcp-timeout-close-wait
	conntrack-tcp-timeout-established conntrack-udp-timeout conntrack-udp-timeout-stream detect-local-mode feature-gates
	healthz-bind-address hostname-override init-only iptables-localhost-nodeports iptables-masquerade-bit
	iptables-min-sync-period iptables-sync-period ipvs-exclude-cidrs ipvs-min-sync-period ipvs-scheduler ipvs-strict-arp
	ipvs-sync-period ipvs-tcp-timeout ipvs-tcpfin-timeout ipvs-udp-timeout kube-api-burst kube-api-content-type kube-api-qps
	kubeconfig log-flush-frequency log-text-info-buffer-size log-text-split-stream logging-format masquerade-all master
	metrics-bind-address nodeport-addresses oom-score-adj pod-bridge-interface pod-interface-name-prefix profiling proxy-mode
	show-hidden-metrics-for-version v vmodule write-config-to`)

// proxyMetrics is where kube-proxy serves its metrics: what its arguments say.
func proxyMetrics(args []string) (string, error) {
	address := "127.0.0.1"
	for _, arg := range args {
		name, value, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if !slices.Contains(proxyFlags, name) {
			return "", fmt.Errorf("failed to parse kube-proxy flag: unknown flag: --%s", name)
		}
		if name == "metrics-bind-address" {
			address = value
		}
	}
	if _, _, err := net.SplitHostPort(address); err != nil {
		return net.JoinHostPort(address, strconv.Itoa(kubeProxyMetricsPort)), nil //nolint:nilerr // an address alone has no port to split off
	}
	return address, nil
}
