# Boots one machine, in mount and network namespaces made for this one boot.
set -eu
umask 022
cd "$K3LAB_DIR"

# Network: one veth pair per card, its other end a port of the sandbox's bridge.
ip link set lo up
while read -r card port mac address; do
	ip -n "$K3LAB_NETNS" link delete "$port" 2>/dev/null || :
	ip link add "$card" address "$mac" type veth peer name "$port" netns "$K3LAB_NETNS"
	ip -n "$K3LAB_NETNS" link set "$port" master br0 up
	[ "$address" = - ] || ip address add "$address" dev "$card"
	ip link set "$card" up
done <cards
if [ -n "$K3LAB_GATEWAY" ]; then
	ip route add default via "$K3LAB_GATEWAY" || echo "no default route: the gateway $K3LAB_GATEWAY is not in the machine's network"
fi
echo 1 >/proc/sys/net/ipv4/ip_forward

# Disks: the shared root image below, the machine's own file system above it.
# Barriers are off: a machine killed loses nothing, and only if the computer
# itself crashes does the sandbox, which is no place to keep data, lose some.
mkdir -p disk root tmp
mount -o loop,nobarrier,noinit_itable disk.img disk
mkdir -p disk/upper disk/work disk/rancher disk/kubelet
mount -t overlay -o "lowerdir=$K3LAB_IMAGE,upperdir=disk/upper,workdir=disk/work" machine root
set --
fd=3
while read -r key device serial; do
	loop=$(losetup --find --show "$key.img")
	# Held open here and detached at once, it goes when this process goes.
	eval "exec $fd<$loop"
	losetup --detach "$loop"
	set -- "$@" "--bind=$loop:$device"
	fd=$((fd + 1))
done <disks

# What cloud-init does on a hypervisor. As there, a machine boots without it,
# too: its disk may be full.
{
	mkdir -p root/var/lib/k3lab-sandbox &&
		cp -r seed/. root/var/lib/k3lab-sandbox/ &&
		chroot root /bin/sh /usr/lib/k3lab-sandbox/seed
} || echo "cloud-init failed"

if [ -n "$K3LAB_IMAGES_DIR" ]; then
	mkdir -p disk/rancher/k3s/agent/images
	cp --update --recursive "$K3LAB_IMAGES_DIR/." disk/rancher/k3s/agent/images/ || echo "container images were not copied"
fi
[ ! -e /dev/kmsg ] || set -- "$@" --bind=/dev/kmsg
[ ! -d /lib/modules ] || set -- "$@" --bind-ro=/lib/modules

# When it is killed nspawn leaves things in /tmp and /run: let them be our own.
# From here on this directory is /tmp/machine, wherever else it is.
mkdir -p tmp/machine
mount --rbind . tmp/machine
mount -t tmpfs -o mode=0755 tmpfs /run
mount --rbind tmp /tmp

(
	for c in $K3LAB_BOOT_CGROUPS; do
		echo 0 >"$c/cgroup.procs"
	done
	exec systemd-nspawn --quiet --boot --keep-unit --register=no --settings=no \
		--directory=/tmp/machine/root --machine="$K3LAB_MACHINE" --hostname="$K3LAB_HOSTNAME" --uuid="$K3LAB_UUID" \
		--network-namespace-path=/proc/self/ns/net \
		--capability=all --drop-capability=CAP_SYS_TIME --system-call-filter=@known \
		--bind=/tmp/machine/disk/rancher:/var/lib/rancher --bind=/tmp/machine/disk/kubelet:/var/lib/kubelet \
		--resolv-conf=off --timezone=off --link-journal=no --console=read-only "$@"
) &
echo $! >nspawn.pid
status=0
wait $! || status=$?
exit "$status"
