# Runs one machine until it powers off. A machine that reboots (nspawn ends with
# 133) gets a fresh network namespace and fresh mounts, as at any other start.
set -u
for c in $K3LAB_KEEPER_CGROUPS; do
	echo $$ >"$c/cgroup.procs" || exit 1
done
while :; do
	unshare --mount --net --propagation slave /bin/sh "$K3LAB_DIR/boot.sh" </dev/null
	status=$?
	[ "$status" = 133 ] || exit "$status"
done
