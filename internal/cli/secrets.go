package cli

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/k3lab/k3lab/internal/op"
)

func (a *app) secretsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "secrets",
		Short: "Read and write secrets.sops.yaml",
		Long: "Secrets are kept in secrets.sops.yaml, encrypted for your age key; sops edits it too.\n" +
			"Keys: k3s_token, ssh_private_key, proxmox_api_tokens.ENDPOINT, and any of your own",
	}
	get := &cobra.Command{
		Use: "get KEY", Short: "Print a secret", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			text, err := op.GetSecret(a.dir, args[0])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(a.Out, strings.TrimSuffix(text, "\n"))
			return err
		},
	}
	set := &cobra.Command{
		Use: "set KEY", Short: "Write a secret, read from standard input", Args: cobra.ExactArgs(1),
		Long: "Reads the secret from standard input, so that it stands in no command line or history.",
		RunE: func(_ *cobra.Command, args []string) error {
			text, err := a.readSecret(args[0])
			if err != nil {
				return err
			}
			return op.SetSecret(a.dir, args[0], text)
		},
	}
	list := &cobra.Command{
		Use: "list", Short: "Print the keys of all secrets", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			names, err := op.SecretNames(a.dir)
			for _, name := range names {
				fmt.Fprintln(a.Out, name)
			}
			return err
		},
	}
	c.AddCommand(list, get, set, a.editSecretsCommand(), a.rotateSecretsCommand())
	return c
}

// readSecret reads a secret without showing it where a person types it. One
// line has its end cut off; several, as of a key, are kept as they are.
func (a *app) readSecret(key string) (string, error) {
	var text []byte
	var err error
	if f, ok := a.In.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprintf(a.Err, "%s: ", key)
		text, err = term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(a.Err)
	} else {
		text, err = io.ReadAll(a.In)
	}
	if err != nil {
		return "", fmt.Errorf("standard input: %w", err)
	}
	secret := string(text)
	if strings.Count(secret, "\n") <= 1 {
		secret = strings.TrimRight(secret, "\r\n")
	}
	return secret, nil
}
