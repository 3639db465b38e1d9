package command

import (
	"errors"
	"net/http"
	"os"

	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	kubectlcli "k8s.io/component-base/cli"
	kubectlcmd "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"

	"github.com/k3lab/k3lab/standin/internal/component"
	"github.com/k3lab/k3lab/standin/internal/controlplane"
	"github.com/k3lab/k3lab/standin/internal/datadir"
	"github.com/k3lab/k3lab/standin/internal/datastore"
	"github.com/k3lab/k3lab/standin/internal/supervisor"
)

// runComponent is how the binary runs when a server starts it as one of its
// components.
func runComponent(name string, args []string) (int, bool) {
	switch name {
	case component.Etcd, component.APIServer, component.ControllerManager, component.Scheduler:
		// Started through /proc/self/exe, it would be called "exe".
		_ = os.WriteFile("/proc/self/comm", []byte("k3s"), 0) // only a name
	}
	switch name {
	case component.Etcd:
		if len(args) != 1 {
			return fail(errors.New("etcd: want the configuration file")), true
		}
		return fail(datastore.Serve(args[0])), true
	case component.APIServer:
		if len(args) < 1 {
			return fail(errors.New("kube-apiserver: want the supervisor's configuration first")), true
		}
		return fail(apiServer(args[0], args[1:])), true
	case component.ControllerManager:
		return controlplane.ControllerManager(args), true
	case component.Scheduler:
		return controlplane.Scheduler(args), true
	default:
		return 0, false
	}
}

func apiServer(configFile string, args []string) error {
	config, err := supervisor.Load(configFile)
	if err != nil {
		return err
	}
	front := supervisor.New(config, supervisor.Deps{
		Kube: func() (kubernetes.Interface, error) {
			rest, err := clientcmd.BuildConfigFromFlags("", config.Dir.Cred("supervisor.kubeconfig"))
			if err != nil {
				return nil, err
			}
			return kubernetes.NewForConfig(rest)
		},
		Etcd: func() (*clientv3.Client, error) { return datastore.NewClient(config.Dir, datastore.Local) },
	})
	return controlplane.APIServer(args, func(api http.Handler) http.Handler { return front.Wrap(api) })
}

// kubectl runs kubectl with K3s's administrator kubeconfig, unless the user
// names another.
func kubectl(args []string) int {
	if os.Getenv("KUBECONFIG") == "" {
		if _, err := os.Stat(datadir.AdminKubeconfig); err == nil {
			os.Setenv("KUBECONFIG", datadir.AdminKubeconfig)
		}
	}
	os.Args = append([]string{"kubectl"}, args...)
	command := kubectlcmd.NewDefaultKubectlCommand()
	if err := kubectlcli.RunNoErrOutput(command); err != nil {
		kubectlutil.CheckErr(err)
	}
	return 0
}
