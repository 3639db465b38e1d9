package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	bootstrapapi "k8s.io/cluster-bootstrap/token/api"

	"github.com/k3lab/k3lab/standin/internal/datadir"
	"github.com/k3lab/k3lab/standin/internal/flags"
	"github.com/k3lab/k3lab/standin/internal/join"
	"github.com/k3lab/k3lab/standin/internal/protocol"
	"github.com/k3lab/k3lab/standin/internal/token"
)

const (
	defaultTTL        = 24 * time.Hour
	defaultTokenGroup = "system:bootstrappers:k3s:default-node-token"
)

var tokenDefs = []flags.Def{
	{Name: "data-dir", Aliases: []string{"d"}, Kind: flags.String},
	{Name: "kubeconfig", Kind: flags.String, Env: "KUBECONFIG"},
	{Name: "description", Kind: flags.String},
	{Name: "groups", Kind: flags.List, Default: defaultTokenGroup},
	{Name: "ttl", Kind: flags.Duration, Default: "24h"},
	{Name: "usages", Kind: flags.List, Default: "signing,authentication"},
	{Name: "output", Aliases: []string{"o"}, Kind: flags.String},
	{Name: "token", Aliases: []string{"t"}, Kind: flags.String, Env: "K3S_TOKEN"},
	{Name: "server", Aliases: []string{"s"}, Kind: flags.String, Env: "K3S_URL", Default: localServer},
	{Name: "new-token", Kind: flags.String},
}

func tokens(ctx context.Context, args []string) error {
	name, args, err := subcommand("token", args, "create", "list", "delete", "generate", "rotate")
	if err != nil {
		return err
	}
	values, rest, err := flags.Parse(tokenDefs, args)
	if err != nil {
		return err
	}
	switch name {
	case "generate":
		fmt.Println(token.RandomBootstrap())
		return nil
	case "rotate":
		return rotateToken(ctx, values)
	}
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	dir := datadir.New(values.String("data-dir"))
	kubeconfig := values.String("kubeconfig")
	if kubeconfig == "" {
		kubeconfig = dir.Cred("admin.kubeconfig")
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	switch name {
	case "create":
		return createToken(ctx, kube, dir, values, rest)
	case "delete":
		return deleteTokens(ctx, kube, rest)
	default:
		return listTokens(ctx, kube)
	}
}

// rotateToken has the server on this machine take a new token.
func rotateToken(ctx context.Context, values *flags.Values) error {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	old := values.String("token")
	if old == "" {
		text, err := os.ReadFile(datadir.New(values.String("data-dir")).Server("token"))
		if err != nil {
			return err
		}
		old = string(text)
	}
	client, err := join.Dial(ctx, values.String("server"), old, token.UserServer)
	if err != nil {
		return err
	}
	request := protocol.TokenRequest{}
	if text := values.String("new-token"); text != "" {
		request.NewToken = &text
	}
	if err := client.RotateToken(ctx, request); err != nil {
		return err
	}
	fmt.Println("Token rotated, restart k3s nodes with new token")
	return nil
}

func createToken(ctx context.Context, kube kubernetes.Interface, dir datadir.Dir, values *flags.Values, rest []string) error {
	text := token.RandomBootstrap()
	if len(rest) > 0 {
		text = rest[0]
	}
	parsed, err := token.Parse(text)
	if err != nil {
		return err
	}
	if !parsed.IsBootstrap() {
		return fmt.Errorf("%q is not a token of the form abcdef.0123456789abcdef", text)
	}
	ttl, err := time.ParseDuration(values.String("ttl"))
	if err != nil {
		return err
	}
	id, secret, _ := strings.Cut(parsed.Password, ".")
	data := map[string]string{
		bootstrapapi.BootstrapTokenIDKey:          id,
		bootstrapapi.BootstrapTokenSecretKey:      secret,
		bootstrapapi.BootstrapTokenDescriptionKey: values.String("description"),
		bootstrapapi.BootstrapTokenExtraGroupsKey: strings.Join(values.List("groups"), ","),
	}
	if ttl > 0 {
		data[bootstrapapi.BootstrapTokenExpirationKey] = time.Now().UTC().Add(ttl).Format(time.RFC3339)
	}
	for _, usage := range values.List("usages") {
		data[bootstrapapi.BootstrapTokenUsagePrefix+usage] = "true"
	}
	_, err = kube.CoreV1().Secrets(metav1.NamespaceSystem).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: bootstrapapi.BootstrapTokenSecretPrefix + id, Namespace: metav1.NamespaceSystem},
		Type:       corev1.SecretTypeBootstrapToken,
		StringData: data,
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(dir.TLS("server-ca.crt"))
	if err != nil {
		return err
	}
	fmt.Println("K10" + token.HashCA(ca) + "::" + parsed.Password)
	return nil
}

func deleteTokens(ctx context.Context, kube kubernetes.Interface, names []string) error {
	if len(names) == 0 {
		return errors.New("missing argument; 'token delete' is missing token")
	}
	for _, name := range names {
		id, _, _ := strings.Cut(name, ".")
		if _, rest, full := strings.Cut(name, "::"); full {
			id, _, _ = strings.Cut(rest, ".")
		}
		err := kube.CoreV1().Secrets(metav1.NamespaceSystem).Delete(ctx, bootstrapapi.BootstrapTokenSecretPrefix+id, metav1.DeleteOptions{})
		if err != nil {
			return err
		}
		fmt.Printf("bootstrap token %q deleted\n", id)
	}
	return nil
}

func listTokens(ctx context.Context, kube kubernetes.Interface) error {
	secrets, err := kube.CoreV1().Secrets(metav1.NamespaceSystem).List(ctx, metav1.ListOptions{
		FieldSelector: "type=" + string(corev1.SecretTypeBootstrapToken),
	})
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(os.Stdout, 10, 4, 3, ' ', 0)
	fmt.Fprintln(table, "TOKEN\tTTL\tEXPIRES\tUSAGES\tDESCRIPTION\tEXTRA GROUPS")
	for _, secret := range secrets.Items {
		get := func(key string) string { return string(secret.Data[key]) }
		ttl, expires := "<forever>", "<never>"
		if at, err := time.Parse(time.RFC3339, get(bootstrapapi.BootstrapTokenExpirationKey)); err == nil {
			expires, ttl = at.Format(time.RFC3339), duration.ShortHumanDuration(time.Until(at))
		}
		var usages []string
		for _, usage := range []string{"authentication", "signing"} {
			if get(bootstrapapi.BootstrapTokenUsagePrefix+usage) == "true" {
				usages = append(usages, usage)
			}
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", get(bootstrapapi.BootstrapTokenIDKey), ttl, expires,
			strings.Join(usages, ","), get(bootstrapapi.BootstrapTokenDescriptionKey), get(bootstrapapi.BootstrapTokenExtraGroupsKey))
	}
	return table.Flush()
}
