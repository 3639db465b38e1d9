package cli

import (
	"errors"
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/op"
)

func (a *app) sshCommand() *cobra.Command {
	var forget bool
	c := &cobra.Command{
		Use:   "ssh MACHINE [-- COMMAND…]",
		Short: "Open a shell on a machine, or run a command there",
		Long: "Runs ssh with the workspace's key and pinned host keys. --forget drops the host key\n" +
			"of a machine that was rebuilt, so that its new one is pinned at the next contact.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return fault.New(fault.Failed, "", "k3lab ssh server-1; k3lab status lists them", "which machine is not said")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if forget {
				return op.ForgetHostKey(op.LabOptions{Dir: a.dir}, args[0])
			}
			command := args[1:]
			if len(command) > 0 && command[0] == "--" {
				command = command[1:]
			}
			argv, err := op.SSHCommand(op.LabOptions{Dir: a.dir}, args[0], command)
			if err != nil {
				return err
			}
			cmd := exec.CommandContext(c.Context(), argv[0], argv[1:]...)
			cmd.Stdin, cmd.Stdout, cmd.Stderr = a.In, a.Out, a.Err
			cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
			var exit *exec.ExitError
			if err := cmd.Run(); errors.As(err, &exit) {
				return &silentError{fault.Kind(exit.ExitCode())}
			} else if err != nil {
				return fault.New(fault.Failed, args[0], "apt-get install openssh-client", "ssh: %w", err)
			}
			return nil
		},
	}
	// As with ssh itself, flags after the machine are the command's own.
	c.Flags().SetInterspersed(false)
	c.Flags().BoolVar(&forget, "forget", false, "drop the machine's pinned host key")
	return c
}
