// Package k3s says what k3lab relies on in K3s, as a suite that every binary
// called k3s has to pass: the stand-in by default (bin/standin/k3s, or
// $K3LAB_STANDIN), and also the one that $K3LAB_K3S_BINARY names, which is how
// the suite itself is kept true. Both are held to the same words; only the
// version may add "(k3lab stand-in)".
//
// Machines are namespaces and cgroups of their own on this computer
// (machine.sh), so it needs root, iproute2 and util-linux; the kubelet of a
// real K3s also needs iptables. No network is used and none is left behind.
package k3s
