package cluster

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
)

// etcdMetrics is where K3s serves its etcd's metrics, on the loopback of a server.
const etcdMetrics = "127.0.0.1:2381"

// Datastore is one server's member of the datastore, as the member itself says.
type Datastore struct {
	Answers   bool `json:"answers"`
	Learner   bool `json:"learner"`
	HasLeader bool `json:"has_leader"`
	Leader    bool `json:"leader"`
}

// Voter reports whether the member has started, votes and follows a leader.
func (d Datastore) Voter() bool { return d.Answers && !d.Learner && d.HasLeader }

// readDatastore asks the member on that machine. A member that does not answer
// is no error: the result says so.
func readDatastore(ctx context.Context, machines Machines, machine string) (Datastore, error) {
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return machines.Dial(ctx, machine, network, address)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+etcdMetrics+"/metrics", nil)
	if err != nil {
		return Datastore{}, fmt.Errorf("etcd metrics: %w", err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return Datastore{}, ctx.Err() //nolint:nilerr // not answering is an answer
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return Datastore{}, nil
	}
	d := Datastore{Answers: true}
	for s := bufio.NewScanner(resp.Body); s.Scan(); {
		name, value, _ := strings.Cut(s.Text(), " ")
		switch name {
		case "etcd_server_is_learner":
			d.Learner = value == "1"
		case "etcd_server_has_leader":
			d.HasLeader = value == "1"
		case "etcd_server_is_leader":
			d.Leader = value == "1"
		}
	}
	return d, nil
}

// String is the member in a word; "-" where there is none.
func (d *Datastore) String() string {
	switch {
	case d == nil:
		return "-"
	case !d.Answers:
		return "no answer"
	case d.Learner:
		return "learner"
	case !d.HasLeader:
		return "no leader"
	case d.Leader:
		return "voter, leader"
	default:
		return "voter"
	}
}
