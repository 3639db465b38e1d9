package desired

// auditPolicy says what of the requests to the API is written down: who did what
// to which object, for everything that changes something. What is read is left
// out where the cluster's own parts do it all the time. Contents are kept only
// of rights, never of what may be secret.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  # The cluster's own heartbeat.
  - level: None
    resources:
      - {group: coordination.k8s.io, resources: [leases]}
      - {group: "", resources: [events]}
      - {group: events.k8s.io, resources: [events]}
  - level: None
    nonResourceURLs: [/healthz*, /livez*, /readyz*, /version, /openapi/*, /metrics]
  - level: None
    users: [system:apiserver, system:kube-controller-manager, system:kube-scheduler, system:kube-proxy, system:k3s-controller, system:k3s-supervisor]
    verbs: [get, list, watch]
  - level: None
    userGroups: [system:nodes]
    verbs: [get, list, watch]
    resources:
      - {group: "", resources: [nodes, nodes/status, pods, services, endpoints, namespaces]}
      - {group: discovery.k8s.io, resources: [endpointslices]}
      - {group: node.k8s.io, resources: [runtimeclasses]}
      - {group: storage.k8s.io, resources: [csidrivers, csinodes]}
  - level: None
    userGroups: [system:nodes]
    verbs: [update, patch]
    resources:
      - {group: "", resources: [nodes/status, pods/status]}
  # Who was given which rights: with contents.
  - level: Request
    verbs: [create, update, patch, delete, deletecollection]
    resources:
      - {group: rbac.authorization.k8s.io}
  # Everything else, Secrets and tokens among it: never the contents.
  - level: Metadata
`
