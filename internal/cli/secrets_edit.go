package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/op"
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

// rotation is what rotate does to a secret that machines know, too.
type rotation struct {
	run  func(context.Context, op.UpOptions) (*op.UpResult, error)
	tell string // what a person is asked to agree to
}

func rotations() map[string]rotation {
	return map[string]rotation{
		"k3s_token": {op.RotateToken,
			"The cluster gets a new token, and K3s is restarted on every machine, servers one at a time."},
		"ssh_private_key": {op.RotateKey,
			"All machines get a new key for k3lab to log in with, and forget the one there is."},
	}
}

func (a *app) rotateSecretsCommand() *cobra.Command {
	var opts op.UpOptions
	var yes bool
	c := &cobra.Command{
		Use: "rotate [k3s_token|ssh_private_key]", Short: "Encrypt the secrets anew, or give the lab a new token or SSH key",
		Long: "Without an argument: a new data key for secrets.sops.yaml, for the recipients that\n" +
			".sops.yaml names now. Who was removed there cannot read what is set from now on.\n\n" +
			"k3s_token: a new token for the cluster. K3s is restarted on every machine, servers one\n" +
			"at a time; pods go on running. The old token stays under k3s_tokens_retired, because a\n" +
			"datastore snapshot is restored with the token it was taken under.\n\n" +
			"ssh_private_key: a new key to log in with. Every machine is told of it and tried with it\n" +
			"before the old one is taken away. The old one stays under ssh_private_keys_retired,\n" +
			"because a machine that is set back to a snapshot knows only that.\n\n" +
			"A Proxmox API token is rotated there (Datacenter, Permissions, API Tokens), then given\n" +
			"to k3lab secrets set proxmox_api_tokens.ENDPOINT.",
		Args:      cobra.MaximumNArgs(1),
		ValidArgs: slices.Sorted(maps.Keys(rotations())),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return op.RekeySecrets(a.dir)
			}
			r, known := rotations()[args[0]]
			switch {
			case !known:
				return fault.New(fault.Failed, args[0], "k3lab secrets set "+args[0], "only k3s_token and ssh_private_key can be rotated; others are set")
			case !yes && !a.interactive():
				return fault.New(fault.Failed, args[0], "k3lab secrets rotate "+args[0]+" --yes", "every machine is changed, and nobody can be asked here")
			}
			return a.rotate(c.Context(), r, opts, yes)
		},
	}
	a.labFlags(c, &opts.LabOptions)
	a.addJSON(c, "print events as JSON lines")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	c.Flags().DurationVar(&opts.Timeout, "timeout", op.DefaultTimeout, "how long to wait for the cluster to be whole")
	return c
}

func (a *app) rotate(ctx context.Context, r rotation, opts op.UpOptions, yes bool) error {
	view := a.view()
	opts.Dir, opts.Reporter = a.dir, view
	opts.Confirm = a.confirming(ctx, view, yes)
	if !yes {
		ok, err := a.ask(ctx, view, func() error { return nil }, r.tell, "yes")
		if err != nil || !ok {
			return errors.Join(err, view.Close())
		}
	}
	result, err := r.run(ctx, opts)
	view.Close()
	if err != nil {
		return err
	}
	return a.showUp(result)
}
