# Makes the namespaces this shell was started in into a machine and keeps it
# until standard input ends. $1: directory of the machine, $2: its name, $3: the
# k3s binary, $4: the machine's address, the rest: its cgroups.
set -eu
dir=$1 name=$2 binary=$3 address=$4
if [ -z "${INSIDE:-}" ]; then
	for group in $(shift 4; echo "$@"); do
		echo 0 >"$group/cgroup.procs"
	done
	INSIDE=1 exec unshare --cgroup sh "$0" "$@"
fi

# The root is this computer's, with changes kept in memory. K3s's data are on a
# plain directory instead: containerd's overlays cannot lie on an overlay.
mount --make-rprivate /
mkdir -p "$dir/changes" "$dir/root" "$dir/rancher" "$dir/share"
mount -t tmpfs changes "$dir/changes"
mkdir "$dir/changes/upper" "$dir/changes/work"
mount -t overlay machine -o "lowerdir=/,upperdir=$dir/changes/upper,workdir=$dir/changes/work" "$dir/root"
cd "$dir/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount --rbind /dev dev
mount -t tmpfs run run
rm -rf etc/cni var/lib/cni var/lib/kubelet var/lib/rancher etc/rancher
mkdir -p var/lib/rancher/k3s etc/rancher/k3s/config.yaml.d usr/local/bin run/share run/sysctl run/netns
mount --bind "$dir/rancher" var/lib/rancher
mount --bind "$dir/share" run/share
touch run/k3s-binary
mount --bind "$binary" run/k3s-binary
ln -sf /run/k3s-binary usr/local/bin/k3s
for tool in kubectl crictl ctr; do
	ln -sf k3s "usr/local/bin/$tool"
done

# Kernel-wide settings belong to the computer. A kubelet that finds in them what
# it wants writes nothing.
for setting in kernel/panic=10 kernel/panic_on_oops=1 vm/overcommit_memory=1 vm/panic_on_oom=0 \
	kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
	file=run/sysctl/$(echo "${setting%=*}" | tr / .)
	echo "${setting#*=}" >"$file"
	mount --bind "$file" "proc/sys/${setting%=*}"
done

# The cgroup file systems, seen from this machine's own groups.
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
	mount -t cgroup2 cgroup2 sys/fs/cgroup
	# A group with processes cannot hand controllers to its children.
	mkdir sys/fs/cgroup/init
	echo 0 >sys/fs/cgroup/init/cgroup.procs
else
	mount -t tmpfs cgroup sys/fs/cgroup
	cut -d: -f2 /proc/self/cgroup | while read -r controller; do
		point=sys/fs/cgroup/${controller#name=}
		if [ -z "$controller" ]; then
			mkdir -p sys/fs/cgroup/unified
			mount -t cgroup2 cgroup2 sys/fs/cgroup/unified
		else
			mkdir -p "$point"
			mount -t cgroup -o "$controller" cgroup "$point"
		fi
	done
fi

hostname "$name"
echo "$name" >etc/hostname
echo "127.0.0.1 localhost $name" >etc/hosts
mkdir -p old
pivot_root . old
umount -l /old
cd /

ip link set lo up
echo ready
read -r _ # the network card is there
ip address add "$address/24" dev eth0
ip link set eth0 up
ip route add default via "${address%.*}.254"
echo up
exec cat >/dev/null
