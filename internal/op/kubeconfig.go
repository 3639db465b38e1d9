package op

import (
	"context"

	"github.com/k3lab/k3lab/internal/cluster"
)

// KubeconfigOptions are the options of Kubeconfig.
type KubeconfigOptions struct {
	LabOptions
	Print bool   // its content is wanted
	Merge string // file to merge it into; empty: none
	Use   bool   // with Merge: make it the current context
}

// KubeconfigResult says where the kubeconfig is.
type KubeconfigResult struct {
	Path    string
	Context string
	Content []byte // secret
}

// Kubeconfig reads the administrator's kubeconfig from a server, keeps it in the
// workspace and merges it where asked.
func Kubeconfig(ctx context.Context, opts KubeconfigOptions) (_ *KubeconfigResult, err error) {
	s, err := open(opts.LabOptions)
	if err != nil {
		return nil, err
	}
	defer s.closeInto(&err)
	ctx, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	text, err := s.fetch(ctx)
	if err != nil {
		return nil, err
	}
	if err := cluster.WriteKubeconfig(s.dir.Kubeconfig(), text); err != nil {
		return nil, err
	}
	if opts.Merge != "" {
		if err := cluster.MergeKubeconfig(opts.Merge, text, opts.Use); err != nil {
			return nil, err
		}
	}
	return &KubeconfigResult{Path: s.dir.Kubeconfig(), Context: s.lab.Name, Content: text}, nil
}
