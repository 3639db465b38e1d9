# Prints what there is to know of a machine and of its K3s: one line for each
# thing, its name, a tab, and the text in base64. Reads only.
say() { printf '%s\t' "$1"; base64 | tr -d '\n'; echo; }
# Files one after the other, with a zero byte between them.
all() { for file; do [ -f "$file" ] && cat "$file" && printf '\0'; done; }
there() { if [ -e "$1" ]; then echo yes; fi; }

say hostname </proc/sys/kernel/hostname
uname -m | say arch
for unit in k3s k3s-agent; do
	state=$(systemctl show --property=LoadState --value $unit.service)
	[ "$state" = loaded ] || continue
	systemctl show --property=ActiveState --value $unit.service | say "active $unit"
	path=/org/freedesktop/systemd1/unit/$(echo $unit.service | sed 's/-/_2d/g; s/\./_2e/g')
	property=$(busctl --json=short get-property org.freedesktop.systemd1 "$path" org.freedesktop.systemd1.Service ExecStart)
	printf '%s' "$property" | say "command $unit"
	pid=$(systemctl show --property=MainPID --value $unit.service)
	[ "$pid" -gt 0 ] || continue
	# What it was started with, as the environment files say it.
	[ -r /proc/"$pid"/environ ] && say "environ $unit" </proc/"$pid"/environ
	binary=$(systemctl show --property=ExecStart --value $unit.service | sed -n 's/^{ path=\([^ ]*\) .*/\1/p' | head -n 1)
	[ -x "$binary" ] || continue
	"$binary" --version | say version
	sha256sum "$binary" | cut -d ' ' -f 1 | say sha256
done
all /etc/rancher/k3s/config.yaml | say config
all /etc/rancher/k3s/config.yaml.d/*.yaml /etc/rancher/k3s/config.yaml.d/*.yml | say config.d
data=/var/lib/rancher/k3s/server
there $data/db/etcd/member | say etcd
there $data/cred/encryption-config.json | say encrypted
[ -r $data/token ] && say token <$data/token
[ -r /etc/rancher/k3s/k3s.yaml ] && say kubeconfig </etc/rancher/k3s/k3s.yaml
systemctl show --property=ActiveState --value keepalived.service | say keepalived
ip -j address show | say addresses
ip -j route show default | say routes
resolv=/etc/resolv.conf
if grep -qs '^nameserver 127.0.0.53' $resolv; then resolv=/run/systemd/resolve/resolv.conf; fi
[ -r $resolv ] && say resolv <$resolv
readlink /etc/localtime | say localtime
exit 0
