package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/op"
	"github.com/k3lab/k3lab/internal/step"
)

func (a *app) editSecretsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "edit", Short: "Edit all secrets in your editor", Args: cobra.NoArgs,
		Long: "Opens the secrets in plain in $VISUAL, $EDITOR or vi and encrypts what was changed.\n" +
			"The plain file is readable by you alone, lies in memory where the computer has a\n" +
			"place for that, and is removed when the editor ends.",
		RunE: func(c *cobra.Command, _ []string) error {
			edit := func(file string) error { return a.editor(c.Context(), file) }
			changed, err := op.EditSecrets(a.dir, edit, a.editAgain)
			if err == nil && !changed {
				fmt.Fprintln(a.Out, "Nothing was changed.")
			}
			return err
		},
	}
}

// editor runs the user's editor, which may be a command with arguments.
func (a *app) editor(ctx context.Context, file string) error {
	command := "vi"
	for _, name := range []string{"EDITOR", "VISUAL"} {
		if v := os.Getenv(name); v != "" {
			command = v
		}
	}
	cmd := exec.CommandContext(ctx, "sh", "-c", command+` "$1"`, command, file)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.In, a.Out, a.Err
	if err := cmd.Run(); err != nil {
		return fault.New(fault.Failed, strings.Fields(command)[0], "export EDITOR=nano", "the editor failed, and nothing was changed: %w", err)
	}
	return nil
}

// editAgain shows what is wrong with an edited text and asks for another go.
func (a *app) editAgain(wrong error) bool {
	if !a.interactive() {
		return false
	}
	fmt.Fprintf(a.Err, "k3lab: %v\nEnter edits it again; \"no\" gives the changes up: ", wrong)
	answer, err := bufio.NewReader(a.In).ReadString('\n')
	return err == nil && strings.TrimSpace(answer) != "no"
}

func (a *app) rotateSecretsCommand() *cobra.Command {
	var opts op.UpOptions
	var yes bool
	c := &cobra.Command{
		Use: "rotate [k3s_token]", Short: "Encrypt the secrets anew, or give the cluster a new token",
		Long: "Without an argument: a new data key for secrets.sops.yaml, for the recipients that\n" +
			".sops.yaml names now. Who was removed there cannot read what is set from now on.\n\n" +
			"k3s_token: a new token for the cluster. K3s is restarted on every machine, servers one\n" +
			"at a time; pods go on running. The old token stays under k3s_tokens_retired, because a\n" +
			"datastore snapshot is restored with the token it was taken under.\n\n" +
			"A Proxmox API token is rotated there (Datacenter, Permissions, API Tokens), then given\n" +
			"to k3lab secrets set proxmox_api_tokens.ENDPOINT.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case len(args) == 0:
				return op.RekeySecrets(a.dir)
			case args[0] != "k3s_token":
				return fault.New(fault.Failed, args[0], "k3lab secrets set "+args[0], "only k3s_token can be rotated; others are set")
			case !yes && !a.interactive():
				return fault.New(fault.Failed, "", "k3lab secrets rotate k3s_token --yes", "K3s is restarted on every machine, and nobody can be asked here")
			}
			return a.rotateToken(c.Context(), opts, yes)
		},
	}
	a.labFlags(c, &opts.LabOptions)
	a.addJSON(c, "print events as JSON lines")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	c.Flags().DurationVar(&opts.Timeout, "timeout", op.DefaultTimeout, "how long to wait for the cluster to be whole")
	return c
}

func (a *app) rotateToken(ctx context.Context, opts op.UpOptions, yes bool) error {
	view := a.view()
	opts.Dir, opts.Reporter = a.dir, view
	opts.Confirm = func(plan step.Plan) (bool, error) {
		if yes {
			return true, nil
		}
		return a.confirmPlan(ctx, view, plan)
	}
	if !yes {
		ok, err := a.ask(ctx, view, func() error { return nil },
			"The cluster gets a new token, and K3s is restarted on every machine, servers one at a time.", "yes")
		if err != nil || !ok {
			return errors.Join(err, view.Close())
		}
	}
	result, err := op.RotateToken(ctx, opts)
	view.Close()
	if err != nil {
		return err
	}
	return a.showUp(result)
}
