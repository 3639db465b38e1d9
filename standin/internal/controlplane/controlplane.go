// Package controlplane is Kubernetes' side of the component processes. Only
// this package and the kubectl command pull in k8s.io/kubernetes.
package controlplane

import (
	"net/http"
	"os"

	"github.com/spf13/pflag"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/rest"
	"k8s.io/component-base/cli"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-base/cli/globalflag"
	basecompatibility "k8s.io/component-base/compatibility"
	"k8s.io/component-base/logs"
	logsapi "k8s.io/component-base/logs/api/v1"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

// APIServer runs kube-apiserver with front before its request handling. The
// front sees every request on the API's port first; that is how K3s's
// supervisor shares the port with the API, without a proxy between the API and
// its clients' certificates, watches and upgrades.
func APIServer(args []string, front func(api http.Handler) http.Handler) error {
	opts := options.NewServerRunOptions()
	flags := pflag.NewFlagSet("kube-apiserver", pflag.ContinueOnError)
	flags.SetNormalizeFunc(cliflag.WordSepNormalizeFunc)
	named := opts.Flags()
	globalflag.AddGlobalFlags(named.FlagSet("global"), "kube-apiserver", logs.SkipLoggingConfigurationFlags())
	for _, set := range named.FlagSets {
		flags.AddFlagSet(set)
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	registry := opts.GenericServerRunOptions.ComponentGlobalsRegistry
	if err := registry.Set(); err != nil {
		return err
	}
	// Its own loopback clients need no warnings.
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
	gate := registry.FeatureGateFor(basecompatibility.DefaultKubeComponent)
	if err := logsapi.ValidateAndApply(opts.Logs, gate); err != nil {
		return err
	}
	ctx := genericapiserver.SetupSignalContext()
	completed, err := opts.Complete(ctx)
	if err != nil {
		return err
	}
	if errs := completed.Validate(); len(errs) != 0 {
		return utilerrors.NewAggregate(errs)
	}
	config, err := apiserver.NewConfig(completed)
	if err != nil {
		return err
	}
	build := config.Aggregator.GenericConfig.BuildHandlerChainFunc
	config.Aggregator.GenericConfig.BuildHandlerChainFunc = func(api http.Handler, c *genericapiserver.Config) http.Handler {
		return front(build(api, c))
	}
	complete, err := config.Complete()
	if err != nil {
		return err
	}
	chain, err := apiserver.CreateServerChain(complete)
	if err != nil {
		return err
	}
	prepared, err := chain.PrepareRun()
	if err != nil {
		return err
	}
	return prepared.Run(ctx)
}

// ControllerManager runs kube-controller-manager and returns its exit code.
func ControllerManager(args []string) int {
	command := controllermanager.NewControllerManagerCommand()
	os.Args = append([]string{"kube-controller-manager"}, args...)
	return cli.Run(command)
}

// Scheduler runs kube-scheduler and returns its exit code.
func Scheduler(args []string) int {
	command := scheduler.NewSchedulerCommand()
	os.Args = append([]string{"kube-scheduler"}, args...)
	return cli.Run(command)
}
