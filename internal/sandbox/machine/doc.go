// Package machine runs the VMs of a sandbox as real machines: systemd-nspawn
// containers with an init, an sshd, a disk of limited size and a network card
// of their own.
//
// What a machine is made of lives under one directory, its files on an ext4
// file system in an image file of the VM's disk size. So a full disk is really
// full, a snapshot is one copied file, and nothing is written outside the
// directory. Making the file system takes some 25 ms, mounting it 10.
//
// A machine is a tree of processes in cgroups of its own, headed by its keeper
// (scripts/keeper.sh). Its mounts and its network namespace are private to
// that tree, without a name anywhere else: when the last process is gone, they
// are gone too. The keeper does not depend on the process that started it and
// is found again by its cgroup and its process file.
//
// What a hypervisor has and this has not: the kernel is the computer's, with
// its modules and kernel-wide settings, which a machine can read but not
// change; all machines share one flat network, whatever bridge and VLAN their
// cards name; no DHCP server answers, so a card without a fixed address has
// none. /proc/meminfo and the number of processors are the computer's, while
// cgroups hold a machine to its own.
package machine
