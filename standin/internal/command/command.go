// Package command is the command line of the k3s binary.
package command

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/sirupsen/logrus"
	"google.golang.org/grpc/grpclog"

	"github.com/k3lab/k3lab/standin/internal/agent"
	"github.com/k3lab/k3lab/standin/internal/confargs"
	"github.com/k3lab/k3lab/standin/internal/options"
	"github.com/k3lab/k3lab/standin/internal/server"
	"github.com/k3lab/k3lab/standin/internal/version"
)

const usage = `k3s (k3lab stand-in): K3s's control plane without containers

USAGE:
   k3s COMMAND [FLAGS]

COMMANDS:
   server           run a server
   agent            run an agent
   kubectl          run kubectl
   crictl           not here: the stand-in runs no containers
   ctr              not here: the stand-in runs no containers
   token            create | list | delete | generate
   etcd-snapshot    save | ls | delete | prune
   secrets-encrypt  status
   certificate      check | rotate

GLOBAL OPTIONS:
   --version        print the version
`

// errNotHere is for parts of K3s that a control plane without containers has
// no use for.
var errNotHere = errors.New("the k3lab stand-in runs no containers and has no")

// Main runs one command line and returns its exit code.
func Main(args []string) int {
	logrus.SetFormatter(&logrus.TextFormatter{DisableColors: true, FullTimestamp: true})
	// Kubernetes has gRPC report every connection it gives up on purpose.
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, os.Stderr))
	switch filepath.Base(args[0]) {
	case "kubectl":
		return kubectl(args[1:])
	case "crictl", "ctr":
		return fail(fmt.Errorf("%w %s", errNotHere, filepath.Base(args[0])))
	}
	if len(args) < 2 {
		_, _ = io.WriteString(os.Stdout, usage)
		return 0
	}
	if code, ok := runComponent(args[1], args[2:]); ok {
		return code
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	return fail(dispatch(ctx, args[1], args[2:]))
}

// fail logs an error as K3s does and turns it into an exit code.
func fail(err error) int {
	var code exitCode
	switch {
	case err == nil, errors.Is(err, context.Canceled):
		return 0
	case errors.As(err, &code):
		return int(code)
	case errors.Is(err, flag.ErrHelp):
		_, _ = io.WriteString(os.Stdout, usage)
		return 0
	}
	// A file that cannot be read fails before there is a command to blame.
	text := "Error: " + err.Error()
	var unreadable *confargs.FileError
	if errors.As(err, &unreadable) {
		text = unreadable.Err.Error()
	}
	logrus.StandardLogger().Log(logrus.FatalLevel, text)
	return 1
}

// exitCode is the error of a command that has said itself what was wrong.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

func dispatch(ctx context.Context, name string, args []string) error {
	switch name {
	case "--version", "-v", "-version":
		return version.Print(os.Stdout)
	case "help", "--help", "-h":
		return flag.ErrHelp
	case "server":
		return runServer(ctx, args)
	case "agent":
		node, err := options.ParseAgent(args)
		if err != nil {
			return err
		}
		return agent.Run(ctx, node)
	case "kubectl":
		return exitCode(kubectl(args))
	case "etcd-snapshot":
		return etcdSnapshot(ctx, args)
	case "token":
		return tokens(ctx, args)
	case "certificate":
		return certificate(args)
	case "secrets-encrypt":
		return secretsEncrypt(args)
	case "crictl", "ctr", "check-config", "completion":
		return fmt.Errorf("%w %s", errNotHere, name)
	default:
		return fmt.Errorf("no such command: %q", name)
	}
}

func runServer(ctx context.Context, args []string) error {
	settings, err := options.ParseServer(args)
	if err != nil {
		return err
	}
	if settings.ClusterReset {
		return server.Reset(ctx, settings)
	}
	return server.Run(ctx, settings)
}

// subcommand splits off a subcommand, which must be one of names.
func subcommand(command string, args []string, names ...string) (string, []string, error) {
	if len(args) == 0 || !slices.Contains(names, args[0]) {
		return "", nil, fmt.Errorf("k3s %s: want one of %v", command, names)
	}
	return args[0], args[1:], nil
}
