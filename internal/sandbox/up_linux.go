package sandbox

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/report"
	"github.com/k3lab/k3lab/internal/sandbox/machine"
	"github.com/k3lab/k3lab/internal/sandbox/pveapi"
)

// Up starts a sandbox and returns once its API answers. One that is up already
// stays as it is; one whose daemon died, or whose Up was interrupted, is
// completed, with all its VMs.
func Up(ctx context.Context, o Options, r report.Reporter) (*Info, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	p, err := placeOf(o.Name)
	if err != nil {
		return nil, err
	}
	if o.Machines == Nspawn && os.Geteuid() != 0 {
		return nil, fault.New(fault.Failed, "sandbox "+o.Name, "sudo k3lab sandbox up, or --machines none",
			"real machines need root")
	}
	unlock, err := lock(ctx, filepath.Dir(string(p)), r)
	if err != nil {
		return nil, err
	}
	defer unlock()
	info, err := p.load()
	if err != nil {
		return nil, err
	}
	if info != nil {
		if err := o.fits(info); err != nil {
			return nil, err
		}
	}
	return o.up(ctx, p, info, r)
}

func (o Options) up(ctx context.Context, p place, info *Info, r report.Reporter) (*Info, error) {
	say := func(format string, args ...any) {
		r.Report(report.Event{Kind: report.Notice, Object: "sandbox " + o.Name, Message: fmt.Sprintf(format, args...)})
	}
	image := rootImage(say)
	if o.Machines == Nspawn {
		if err := ready(p, image, o.Internet); err != nil {
			return nil, err
		}
		if _, err := image.Make(ctx); err != nil {
			return nil, err
		}
	}
	if info == nil {
		var err error
		if info, err = o.describe(ctx, p); err != nil {
			return nil, err
		}
		// Down finds everything by what this file says.
		if err := p.save(info); err != nil {
			return nil, err
		}
	}
	if info.Machines == Nspawn {
		if err := holdKernel(ctx, p, info.Internet, r); err != nil {
			return nil, err
		}
		n, err := info.network(p)
		if err != nil {
			return nil, err
		}
		if err := n.Up(ctx); err != nil {
			return nil, err
		}
	}
	if err := o.startDaemon(ctx, p, info, say); err != nil {
		return nil, err
	}
	return info, nil
}

func (o Options) withDefaults() (Options, error) {
	if o.Name == "" {
		o.Name = "default"
	}
	if o.Machines == "" {
		o.Machines = Nspawn
	}
	if o.Machines != Nspawn && o.Machines != None {
		return o, fault.New(fault.Invalid, "sandbox "+o.Name, "", "machines %q: must be %s or %s", o.Machines, Nspawn, None)
	}
	if err := o.checkHypervisors(); err != nil {
		return o, err
	}
	if n := len(o.HypervisorNames); n > 0 {
		o.Hypervisors = n
	}
	if o.Hypervisors == 0 {
		o.Hypervisors = 3
	}
	if o.Hypervisors < 1 || o.Hypervisors > 99 {
		return o, fault.New(fault.Invalid, "sandbox "+o.Name, "", "%d hypervisors: must be 1 to 99", o.Hypervisors)
	}
	if o.ImagesDir == "" {
		o.ImagesDir = os.Getenv("K3LAB_SANDBOX_IMAGES")
	}
	if o.ImagesDir != "" {
		abs, err := filepath.Abs(o.ImagesDir)
		if err != nil {
			return o, fault.New(fault.Invalid, o.ImagesDir, "", "%w", err)
		}
		if st, err := os.Stat(abs); err != nil || !st.IsDir() {
			return o, fault.New(fault.Invalid, o.ImagesDir, "", "is no directory of container images")
		}
		o.ImagesDir = abs
	}
	if len(o.ServeCommand) == 0 {
		self, err := os.Executable()
		if err != nil {
			return o, fault.New(fault.Failed, "sandbox "+o.Name, "", "%w", err)
		}
		o.ServeCommand = []string{self, "sandbox", "serve"}
	}
	return o, nil
}

// fits refuses options that a sandbox already up does not have.
func (o Options) fits(info *Info) error {
	differs := func(what, has, asked string) error {
		return fault.New(fault.Invalid, "sandbox "+o.Name, "k3lab sandbox down "+o.Name,
			"is there already with %s %s, not %s", what, has, asked)
	}
	switch {
	case o.Machines != info.Machines:
		return differs("machines", string(info.Machines), string(o.Machines))
	case o.Hypervisors != len(info.Hypervisors):
		return differs("hypervisors", fmt.Sprint(len(info.Hypervisors)), fmt.Sprint(o.Hypervisors))
	case len(o.HypervisorNames) > 0 && !slices.Equal(o.HypervisorNames, info.hypervisorNames()):
		return differs("hypervisors", strings.Join(info.hypervisorNames(), ", "), strings.Join(o.HypervisorNames, ", "))
	case o.CIDR != "" && o.CIDR != info.CIDR && o.Machines == Nspawn:
		return differs("network", info.CIDR, o.CIDR)
	case o.Internet != info.Internet:
		return differs("internet", fmt.Sprint(info.Internet), fmt.Sprint(o.Internet))
	}
	return nil
}

// describe makes the description of a new sandbox.
func (o Options) describe(ctx context.Context, p place) (*Info, error) {
	info := &Info{
		Name: o.Name, Machines: o.Machines, Internet: o.Internet, ImagesDir: o.ImagesDir,
		CAFile: pveapi.CAFile(p.api()), Token: Secret("root@pam!k3lab=" + newUUID()),
	}
	for i := range o.Hypervisors {
		h := Hypervisor{Name: fmt.Sprintf("pve%d", i+1), MemoryMiB: 64 << 10, Cores: 16}
		if len(o.HypervisorNames) > 0 {
			h.Name = o.HypervisorNames[i]
		}
		for _, s := range pveapi.DefaultStorages() {
			h.Storages = append(h.Storages, Storage{Name: s.Name, Type: s.Type, Content: s.Content})
		}
		info.Hypervisors = append(info.Hypervisors, h)
	}
	if o.Machines == None {
		return info, nil
	}
	used, err := usedNetworks(ctx, p)
	if err != nil {
		return nil, err
	}
	cidr, err := chooseCIDR(o.CIDR, used)
	if err != nil {
		return nil, err
	}
	info.layOut(cidr)
	return info, nil
}

func (i *Info) hypervisorNames() []string {
	var names []string
	for _, h := range i.Hypervisors {
		names = append(names, h.Name)
	}
	return names
}

func newUUID() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails, says crypto/rand
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// network is the sandbox's network as package machine takes it.
func (i *Info) network(p place) (machine.Network, error) {
	n := machine.Network{Tag: p.tag(), Internet: i.Internet}
	var err error
	parse := func(text string) netip.Addr {
		a, perr := netip.ParseAddr(text)
		if perr != nil {
			err = perr
		}
		return a
	}
	n.Gateway, n.Computer = parse(i.Gateway), parse(i.Computer)
	cidr, cerr := netip.ParsePrefix(i.CIDR)
	if err == nil {
		err = cerr
	}
	n.CIDR = cidr
	if err != nil {
		return n, fault.New(fault.Failed, p.infoFile(), "k3lab sandbox down "+i.Name, "%w", err)
	}
	return n, nil
}

func rootImage(say func(string, ...any)) machine.Image {
	return machine.Image{CacheDir: "/var/cache/k3lab", Mirror: os.Getenv("K3LAB_DEBIAN_MIRROR"), Log: say}
}

// stopGrace is how long the daemon may take to end its requests.
const stopGrace = 10 * time.Second
