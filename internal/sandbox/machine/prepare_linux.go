package machine

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	_ "embed" // the scripts
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/sandbox/pveapi"
)

//go:embed scripts/keeper.sh
var keeperScript string

//go:embed scripts/boot.sh
var bootScript string

// prepare writes what the boot script reads and returns its environment.
func (d *Driver) prepare(ctx context.Context, s pveapi.Spec) ([]string, error) {
	if err := d.prepareDisks(ctx, s); err != nil {
		return nil, err
	}
	instance, err := d.instance(s.VMID)
	if err != nil {
		return nil, err
	}
	image, err := d.image(s.VMID)
	if err != nil {
		return nil, err
	}
	name := hostname(s.Name)
	for file, text := range seed(s, instance, name) {
		if err := d.put(s.VMID, filepath.Join("seed", file), text); err != nil {
			return nil, err
		}
	}
	if err := d.put(s.VMID, portsFile, cards(s)); err != nil {
		return nil, err
	}
	keeper, boot, err := d.o.Groups.create(strconv.Itoa(s.VMID), limits{cores: s.Cores, memoryMiB: s.MemoryMiB, computer: runtime.NumCPU()})
	if err != nil {
		return nil, err
	}
	for file, text := range map[string]string{"keeper.sh": keeperScript, "boot.sh": bootScript} {
		if err := d.put(s.VMID, file, text); err != nil {
			return nil, err
		}
	}
	vars := map[string]string{
		"DIR": d.dir(s.VMID), "IMAGE": image, "IMAGES_DIR": d.o.ImagesDir, "NETNS": d.o.Network.namespace(),
		"KEEPER_CGROUPS": strings.Join(keeper, " "), "BOOT_CGROUPS": strings.Join(boot, " "),
		"GATEWAY": s.CloudInit.Gateway, "HOSTNAME": name, "UUID": instance,
		"MACHINE": "k3lab-" + d.o.Network.Tag + "-" + strconv.Itoa(s.VMID),
	}
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8",
		"SYSTEMD_NSPAWN_API_VFS_WRITABLE=yes", "SYSTEMD_NSPAWN_LOCK=0"}
	for k, v := range vars {
		env = append(env, "K3LAB_"+k+"="+v)
	}
	return env, nil
}

// prepareDisks makes or grows the machine's disks and lists the extra ones.
func (d *Driver) prepareDisks(ctx context.Context, s pveapi.Spec) error {
	var list strings.Builder
	size := int64(8 << 30)
	for i, disk := range s.Disks {
		if i == 0 {
			size = disk.SizeBytes
			continue
		}
		if i > 7 {
			return fault.New(fault.Invalid, s.Name, "", "has %d disks, the sandbox offers 8", len(s.Disks))
		}
		name := "disk-" + filepath.Base(disk.Key)
		file := d.file(s.VMID, name+".img")
		if there, err := exists(file); err != nil {
			return err
		} else if !there {
			if err := sparse(file, disk.SizeBytes); err != nil {
				return err
			}
		} else if err := growFile(file, disk.SizeBytes); err != nil {
			return err
		}
		serial := disk.Serial
		if serial == "" {
			serial = "-"
		}
		fmt.Fprintf(&list, "%s /dev/sd%c %s\n", name, 'a'+rune(i), serial)
	}
	if err := makeDisk(ctx, d.file(s.VMID, bootImage), size); err != nil {
		return err
	}
	if err := d.put(s.VMID, "disks", list.String()); err != nil {
		return err
	}
	return d.put(s.VMID, "seed/disks", list.String())
}

func (d *Driver) put(vmid int, name, text string) error {
	if err := os.WriteFile(d.file(vmid, name), []byte(text), 0o600); err != nil {
		return fault.New(fault.Failed, d.file(vmid, name), "", "%w", err)
	}
	return nil
}

// instance returns the machine's identity, made at its first start.
func (d *Driver) instance(vmid int) (string, error) {
	file := d.file(vmid, instanceFile)
	b, err := os.ReadFile(file)
	if err == nil && len(b) == 36 {
		return string(b), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fault.New(fault.Failed, file, "", "%w", err)
	}
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails, says crypto/rand
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	text := fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
	return text, d.put(vmid, instanceFile, text)
}

// image returns the layers below the machine's own files. Debian's part stays
// the one it was first started with, as long as that is there: packages the
// machine has installed since belong to it.
func (d *Driver) image(vmid int) (string, error) {
	file := d.file(vmid, baseFile)
	own, base, _ := strings.Cut(d.o.Image, ":")
	b, err := os.ReadFile(file)
	switch {
	case err == nil && present(string(b)):
		return own + ":" + string(b), nil
	case err == nil || errors.Is(err, fs.ErrNotExist):
		return d.o.Image, d.put(vmid, baseFile, base)
	}
	return "", fault.New(fault.Failed, file, "", "%w", err)
}

// seed is what the machine's cloud-init reads.
func seed(s pveapi.Spec, instance, name string) map[string]string {
	user := s.CloudInit.User
	if user == "" {
		user = "debian" // as in Debian's cloud images
	}
	var dns strings.Builder
	if s.CloudInit.SearchDomain != "" {
		fmt.Fprintf(&dns, "search %s\n", s.CloudInit.SearchDomain)
	}
	for _, server := range s.CloudInit.DNSServers {
		fmt.Fprintf(&dns, "nameserver %s\n", server)
	}
	var keys strings.Builder
	for _, key := range s.CloudInit.SSHKeys {
		fmt.Fprintln(&keys, key)
	}
	return map[string]string{
		"instance": instance, "hostname": name + "\n", "user": user + "\n",
		"authorized_keys": keys.String(), "resolv.conf": dns.String(),
	}
}

// hostname makes a VM's name one that a machine may have.
func hostname(name string) string {
	short, _, _ := strings.Cut(name, ".")
	if short == "" {
		return "machine"
	}
	return short[:min(len(short), 63)]
}

// cards lists the machine's network cards: name, port of the bridge, hardware
// address, address with prefix length.
func cards(s pveapi.Spec) string {
	var out strings.Builder
	for i, nic := range s.NICs {
		address := "-"
		if i < len(s.CloudInit.Addresses) {
			if p, err := netip.ParsePrefix(s.CloudInit.Addresses[i]); err == nil {
				address = p.String()
			}
		}
		mac := nic.MAC
		if _, err := net.ParseMAC(mac); err != nil {
			sum := sha256.Sum256([]byte(fmt.Sprint(s.VMID, s.Name, i)))
			mac = net.HardwareAddr{0xbc, 0x24, 0x11, sum[0], sum[1], sum[2]}.String()
		}
		fmt.Fprintf(&out, "eth%d %s %s %s\n", i, port(s.VMID, i), mac, address)
	}
	return out.String()
}

// port is the bridge's end of a card's cable.
func port(vmid, card int) string { return fmt.Sprintf("m%dn%d", vmid, card) }

// ports lists the ports the machine had when it was last started.
func (d *Driver) ports(vmid int) []string {
	b, err := os.ReadFile(d.file(vmid, portsFile))
	if err != nil {
		return nil
	}
	var out []string
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 4 {
			out = append(out, f[1])
		}
	}
	return out
}
