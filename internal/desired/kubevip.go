package desired

import (
	"bytes"
	"text/template"

	"github.com/k3lab/k3lab/internal/config"
	"github.com/k3lab/k3lab/internal/converger"
)

const (
	k3sServer = k3sData + "/server"
	// manifestsDir is where K3s reads objects from that it keeps in the cluster.
	manifestsDir = k3sServer + "/manifests"
	kubeVIPPath  = manifestsDir + "/k3lab-kube-vip.yaml"
)

// KubeVIPApp labels the pods of kube-vip; they are in kube-system.
const KubeVIPApp = "k3lab-kube-vip"

// How long a server's kube-vip that says nothing still has the lease by which the
// VIP is given, how long one goes on that cannot renew it, and how often it tries,
// in seconds. The second is less than the first, so that no two have the address;
// and longer than the datastore takes to elect a leader, mostly.
const (
	leaseDuration = 5
	renewDeadline = 3
	retryPeriod   = 1
)

// kubeVIP keeps the VIP by a pod on each server, as kube-vip's own documentation
// has it for K3s: a DaemonSet that K3s makes of a file. A static pod would have to
// be given an administrator's kubeconfig, this one has a token that may change
// one lease.
//
// Each asks the API of its own server (KUBERNETES_SERVICE_HOST) and no other: who
// cannot renew the lease there gives the address up, so it is with a server whose
// API works. Nothing in the cluster needs the VIP to be there.
func kubeVIP(lab *config.Lab, in Inputs) []converger.Resource {
	manifest := file(kubeVIPPath, kubeVIPManifest(lab), 0o600)
	manifest.File.Claims = claims(lab, in.Interface)
	return []converger.Resource{directory(k3sServer, 0o700), directory(manifestsDir, 0o700), manifest}
}

// noKubeVIP has K3s take away what it made of the file: it does not where the file
// is removed, but where it holds nothing any more.
func noKubeVIP() []converger.Resource {
	empty := file(kubeVIPPath, header+"# Nothing, so that K3s removes what was made of it.\n", 0o600)
	empty.File.IfThere = true
	return []converger.Resource{empty}
}

func kubeVIPManifest(lab *config.Lab) string {
	var text bytes.Buffer
	text.WriteString(header)
	err := template.Must(template.New("").Parse(kubeVIPText)).Execute(&text, map[string]any{
		"App": KubeVIPApp, "Image": lab.Network.VIPImage, "Address": lab.Network.VIP, "Length": lab.Network.VIP.BitLen(), "Port": APIPort,
		"LeaseDuration": leaseDuration, "RenewDeadline": renewDeadline, "RetryPeriod": retryPeriod,
	})
	if err != nil {
		panic(err) // the template is ours, and so are its values
	}
	return text.String()
}

// kubeVIPText are the objects. A lease can be allowed to be made by anybody or
// nobody, so the name holds for the other verbs only.
const kubeVIPText = `apiVersion: v1
kind: ServiceAccount
metadata: {name: {{.App}}, namespace: kube-system}
automountServiceAccountToken: false
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: {{.App}}, namespace: kube-system}
rules:
  - apiGroups: [coordination.k8s.io]
    resources: [leases]
    verbs: [create]
  - apiGroups: [coordination.k8s.io]
    resources: [leases]
    resourceNames: [{{.App}}]
    verbs: [get, update]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: {{.App}}, namespace: kube-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{.App}}}
subjects:
  - {kind: ServiceAccount, name: {{.App}}, namespace: kube-system}
---
apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: {{.App}}
  namespace: kube-system
  labels: {app.kubernetes.io/name: {{.App}}}
spec:
  selector:
    matchLabels: {app.kubernetes.io/name: {{.App}}}
  updateStrategy:
    rollingUpdate: {maxUnavailable: 1}
  template:
    metadata:
      labels: {app.kubernetes.io/name: {{.App}}}
    spec:
      serviceAccountName: {{.App}}
      automountServiceAccountToken: true
      enableServiceLinks: false
      hostNetwork: true
      priorityClassName: system-node-critical
      terminationGracePeriodSeconds: 10
      nodeSelector: {node-role.kubernetes.io/control-plane: "true"}
      tolerations:
        - {operator: Exists}
      containers:
        - name: kube-vip
          image: {{.Image}}
          imagePullPolicy: IfNotPresent
          args: [manager]
          env:
            - {name: KUBERNETES_SERVICE_HOST, value: "127.0.0.1"}
            - {name: KUBERNETES_SERVICE_PORT, value: "{{.Port}}"}
            - name: vip_nodename
              valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
            - {name: address, value: "{{.Address}}"}
            - {name: vip_subnet, value: "{{.Length}}"}
            - {name: port, value: "{{.Port}}"}
            - {name: vip_arp, value: "true"}
            - {name: cp_enable, value: "true"}
            - {name: cp_namespace, value: kube-system}
            - {name: svc_enable, value: "false"}
            - {name: vip_leaderelection, value: "true"}
            - {name: vip_leasename, value: {{.App}}}
            - {name: vip_leaseduration, value: "{{.LeaseDuration}}"}
            - {name: vip_renewdeadline, value: "{{.RenewDeadline}}"}
            - {name: vip_retryperiod, value: "{{.RetryPeriod}}"}
            - {name: prometheus_server, value: "127.0.0.1:2112"}
          resources:
            requests: {cpu: 10m, memory: 32Mi}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            seccompProfile: {type: RuntimeDefault}
            capabilities:
              drop: [ALL]
              add: [NET_ADMIN, NET_RAW]
`
