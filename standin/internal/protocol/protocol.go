// Package protocol is what servers and agents of the stand-in tell each other
// over the supervisor's port.
package protocol

// The headers by which a node says who it is when it asks for certificates.
const (
	HeaderNodeName     = "K3s-Node-Name"
	HeaderNodePassword = "K3s-Node-Password" //nolint:gosec // the name of a header
	HeaderNodeIP       = "K3s-Node-IP"
)

// AgentConfig is what every node of the cluster has to know.
type AgentConfig struct {
	ClusterCIDR    string
	ServiceCIDR    string
	ClusterDNS     string
	ClusterDomain  string
	FlannelBackend string
}

// TokenRequest is what `k3s token rotate` sends. Without a new token the server
// draws one.
type TokenRequest struct {
	NewToken *string `json:"newToken,omitempty"`
}

// DBInfo lists the datastore's members to a server that joins.
type DBInfo struct {
	Members []DBMember `json:"members"`
}

// DBMember is one member of the datastore.
type DBMember struct {
	ID         uint64   `json:"ID"`
	Name       string   `json:"name"`
	PeerURLs   []string `json:"peerURLs"`
	ClientURLs []string `json:"clientURLs"`
	IsLearner  bool     `json:"isLearner"`
}
