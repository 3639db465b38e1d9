package existing

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSettings(t *testing.T) {
	tests := map[string]struct {
		files, env, args []string
		want             Settings
	}{
		"as the install script starts a server": {
			env:  []string{"PATH=/usr/bin", "K3S_TOKEN=s3cret", "K3S_DATA_DIR=/var/lib/rancher/k3s/data/abc"},
			args: []string{"--cluster-init", "--disable", "traefik", "--disable=servicelb,metrics-server", "--write-kubeconfig-mode", "644", "--tls-san", "k3s.lan"},
			want: Settings{
				"cluster-init": true, "disable": []string{"traefik", "servicelb", "metrics-server"},
				"write-kubeconfig-mode": "644", "tls-san": []string{"k3s.lan"}, "token": "s3cret",
			},
		},
		"as it starts an agent": {
			env:  []string{"K3S_TOKEN=s3cret", "K3S_URL=https://10.0.0.11:6443"},
			args: []string{"--node-label", "disk=ssd", "--node-label", "zone=a,b", "--kubelet-arg=max-pods=200"},
			want: Settings{
				"server": "https://10.0.0.11:6443", "token": "s3cret",
				"node-label": []string{"disk=ssd", "zone=a,b"}, "kubelet-arg": []string{"max-pods=200"},
			},
		},
		"short names, and those of old releases": {
			args: []string{"-t", "s3cret", "-s", "https://10.0.0.11:6443", "--kube-controller-arg", "v=2"},
			want: Settings{"token": "s3cret", "server": "https://10.0.0.11:6443", "kube-controller-manager-arg": []string{"v=2"}},
		},
		"the command line over the files over the environment": {
			files: []string{"node-name: file\ncluster-domain: file.local\ndisable: [traefik]\n"},
			env:   []string{"K3S_NODE_NAME=env", "K3S_KUBECONFIG_MODE=600"},
			args:  []string{"--cluster-domain", "flag.local", "--disable", "servicelb"},
			want: Settings{
				"node-name": "file", "cluster-domain": "flag.local", "disable": []string{"servicelb"}, "write-kubeconfig-mode": "600",
			},
		},
		"a later file over an earlier one, and added to it": {
			files: []string{
				"disable: [traefik]\nkubelet-arg: [max-pods=200]\ntls-san: a.lan\nselinux: true\n",
				"disable: servicelb\nkubelet-arg+: [v=2]\ntls-san+: b.lan\nselinux: false\nlb-server-port: 6444\n",
			},
			want: Settings{
				"disable": []string{"servicelb"}, "kubelet-arg": []string{"max-pods=200", "v=2"},
				"tls-san": []string{"a.lan", "b.lan"}, "selinux": false, "lb-server-port": "6444",
			},
		},
		"a variable on the command line": {
			env:  []string{"NODE_IP=10.0.0.11"},
			args: []string{"--node-ip", "${NODE_IP}"},
			want: Settings{"node-ip": []string{"10.0.0.11"}},
		},
		"nothing": {files: []string{"", "# only a comment\n"}, want: Settings{}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := settings(tt.files, tt.env, tt.args)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestSettingsThatMakeNoSense(t *testing.T) {
	tests := map[string]struct {
		files, args []string
		want        string
	}{
		"a word that is no flag":   {nil, []string{"server"}, `command line: "server" is no flag`},
		"a flag without its value": {nil, []string{"--token"}, "command line: --token has no value"},
		"a file that is no YAML":   {[]string{"disable: ["}, nil, "config.yaml: [1:10] sequence end token ']' not found"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := settings(tt.files, nil, tt.args)
			if err == nil || err.Error() != tt.want {
				t.Errorf("error %q, want %q", err, tt.want)
			}
		})
	}
}
