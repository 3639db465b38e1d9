package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"

	"github.com/k3lab/k3lab/internal/fault"
)

// Network is the network of a sandbox: a bridge in a namespace of the
// sandbox's own, and a veth pair with one route that lead in from the computer.
//
// The pair is routed, not bridged: a machine can reach the computer's end of it
// and nothing beyond, whatever routes it sets, unless Internet is given. The
// computer's firewall sees only what passes the pair.
type Network struct {
	Tag      string // tells sandboxes apart, at most 8 characters
	CIDR     netip.Prefix
	Gateway  netip.Addr // of the machines: the bridge
	Computer netip.Addr // of the computer's end of the pair
	Internet bool
}

// namespace is the name under /run/netns.
func (n Network) namespace() string { return "k3lab-" + n.Tag }

// link is the computer's end of the pair.
func (n Network) link() string { return "k3l" + n.Tag }

// table is the nftables table of the sandbox on the computer.
func (n Network) table() string { return "k3lab_" + n.Tag }

// Up makes the network; one that is there already stays as it is.
func (n Network) Up(ctx context.Context) error {
	if n.present(ctx) {
		return nil
	}
	if err := n.Down(ctx); err != nil {
		return err
	}
	gateway := netip.PrefixFrom(n.Gateway, n.CIDR.Bits())
	inside := []string{
		"link set lo up",
		"link add br0 type bridge forward_delay 0 stp_state 0",
		// Fixed, or it would change with the lowest address among the ports.
		"link set br0 address " + n.bridgeMAC(),
		"address add " + gateway.String() + " dev br0",
		"link set br0 up",
	}
	outside := []string{
		"link add " + n.link() + " type veth peer name in netns " + n.namespace(),
		"address add " + n.Computer.String() + "/32 dev " + n.link(),
		"link set " + n.link() + " up",
	}
	lead := []string{"link set in up", "route add " + n.Computer.String() + "/32 dev in"}
	if n.Internet {
		lead = append(lead, "route add default via "+n.Computer.String()+" dev in onlink")
	}
	// The route is last: it makes the network present.
	route := []string{fmt.Sprintf("route add %s via %s dev %s onlink src %s", n.CIDR, n.Gateway, n.link(), n.Computer)}
	steps := []func() error{
		func() error { return n.ip(ctx, "", "netns add "+n.namespace()) },
		func() error { return n.ip(ctx, n.namespace(), inside...) },
		func() error { return n.ip(ctx, "", outside...) },
		func() error { return n.ip(ctx, n.namespace(), lead...) },
		func() error { return n.settings(ctx) },
		func() error { return n.masquerade(ctx) },
		func() error { return n.ip(ctx, "", route...) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return fault.New(fault.Failed, "network "+n.CIDR.String(), "k3lab sandbox down, then up", "%w", err)
		}
	}
	return nil
}

// present reports whether the network is there whole.
func (n Network) present(ctx context.Context) bool {
	out, err := run(ctx, "", "ip", "-o", "route", "show", n.CIDR.String(), "dev", n.link())
	if err != nil || len(out) == 0 {
		return false
	}
	_, err = run(ctx, "", "ip", "-n", n.namespace(), "link", "show", "br0")
	return err == nil
}

// ip runs commands of iproute2 in a namespace, or with "" on the computer.
func (n Network) ip(ctx context.Context, namespace string, commands ...string) error {
	argv := []string{"ip", "-batch", "-"}
	if namespace != "" {
		argv = []string{"ip", "-n", namespace, "-batch", "-"}
	}
	_, err := run(ctx, strings.Join(commands, "\n")+"\n", argv...)
	return err
}

// settings turns the namespace into a router that answers for the computer.
func (n Network) settings(ctx context.Context) error {
	const script = `set -e
cd /proc/sys/net
echo 1 >ipv4/ip_forward
for c in all default br0 in; do echo 0 >ipv4/conf/$c/rp_filter; echo 0 >ipv4/conf/$c/send_redirects; done
echo 1 >ipv4/conf/br0/proxy_arp
echo 0 >ipv4/neigh/br0/proxy_delay
for f in bridge/bridge-nf-call-*tables; do [ ! -e $f ] || echo 0 >$f; done`
	_, err := run(ctx, "", "ip", "netns", "exec", n.namespace(), "sh", "-c", script)
	return err
}

// masquerade lets traffic out, in tables of the sandbox's own: once behind the
// gateway in the namespace, once behind the computer.
func (n Network) masquerade(ctx context.Context) error {
	if !n.Internet {
		return nil
	}
	inside := fmt.Sprintf("table ip k3lab { chain out { type nat hook postrouting priority 100; oifname \"in\" ip daddr != %s snat to %s; }; }\n", n.Computer, n.Gateway)
	if _, err := run(ctx, inside, "ip", "netns", "exec", n.namespace(), "nft", "-f", "-"); err != nil {
		return err
	}
	outside := fmt.Sprintf("table ip %s { chain out { type nat hook postrouting priority 100; ip saddr %s oifname != %q masquerade; }; }\n", n.table(), n.Gateway, n.link())
	_, err := run(ctx, outside, "nft", "-f", "-")
	return err
}

// Down removes the network, whatever there is of it.
func (n Network) Down(ctx context.Context) error {
	if n.Internet {
		if _, err := run(ctx, "", "nft", "list", "table", "ip", n.table()); err == nil {
			if _, err := run(ctx, "", "nft", "delete", "table", "ip", n.table()); err != nil {
				return err
			}
		}
	}
	if _, err := os.Stat("/sys/class/net/" + n.link()); err == nil {
		if err := n.ip(ctx, "", "link delete "+n.link()); err != nil {
			return err
		}
	}
	if _, err := os.Stat("/run/netns/" + n.namespace()); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return n.ip(ctx, "", "netns delete "+n.namespace())
}

// bridgeMAC is a locally administered address made of the gateway's.
func (n Network) bridgeMAC() string {
	a := n.Gateway.As4()
	return fmt.Sprintf("02:6b:%02x:%02x:%02x:%02x", a[0], a[1], a[2], a[3])
}

// pull cuts a machine's cables, as pulling them out does.
func (n Network) pull(ctx context.Context, ports []string) error {
	for _, p := range ports {
		if !n.hasPort(ctx, p) {
			continue
		}
		if err := n.ip(ctx, n.namespace(), "link set "+p+" down"); err != nil && n.hasPort(ctx, p) {
			return err
		}
	}
	return nil
}

// unplug removes a machine's ports from the bridge.
func (n Network) unplug(ctx context.Context, ports []string) error {
	for _, p := range ports {
		if !n.hasPort(ctx, p) {
			continue
		}
		if err := n.ip(ctx, n.namespace(), "link delete "+p); err != nil && n.hasPort(ctx, p) {
			return err
		}
	}
	return nil
}

func (n Network) hasPort(ctx context.Context, port string) bool {
	_, err := run(ctx, "", "ip", "-n", n.namespace(), "link", "show", port)
	return err == nil
}
