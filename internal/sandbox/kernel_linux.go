package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/google/renameio/v2"

	"github.com/k3lab/k3lab/internal/fault"
	"github.com/k3lab/k3lab/internal/report"
)

// kernelDir keeps the record of kernel settings changed on this computer. There
// is one for all sandboxes, wherever their state is: the kernel is one, too.
const kernelDir = "/var/lib/k3lab/kernel"

// kernelSetting is a sysctl that all machines share with the computer.
type kernelSetting struct {
	key     string
	value   string
	atLeast bool // a higher value serves as well
}

// kernelSettings are what kubelet demands, exactly so, and what five of them on one kernel
// need beyond the defaults.
func kernelSettings(internet bool) []kernelSetting {
	out := []kernelSetting{
		{key: "vm.overcommit_memory", value: "1"},
		{key: "vm.panic_on_oom", value: "0"},
		{key: "kernel.panic", value: "10"},
		{key: "kernel.panic_on_oops", value: "1"},
		{key: "kernel.keys.root_maxkeys", value: "1000000"},
		{key: "kernel.keys.root_maxbytes", value: "25000000"},
		{key: "fs.inotify.max_user_instances", value: "8192", atLeast: true},
		{key: "fs.inotify.max_user_watches", value: "524288", atLeast: true},
	}
	if internet {
		out = append(out, kernelSetting{key: "net.ipv4.ip_forward", value: "1"})
	}
	return out
}

// kernelRecord says what was changed, from what to what, and for whom.
type kernelRecord struct {
	BootID string            `json:"boot_id"` // a restart of the computer voids the record
	Before map[string]string `json:"before"`
	Set    map[string]string `json:"set"`
	Users  []string          `json:"users"` // directories of sandboxes
}

func sysctlPath(key string) string { return "/proc/sys/" + strings.ReplaceAll(key, ".", "/") }

func readSysctl(key string) (string, error) {
	b, err := os.ReadFile(sysctlPath(key))
	return strings.TrimSpace(string(b)), err
}

// holdKernel sets the kernel settings for a sandbox. What they were before is
// on disk before the first one is changed.
func holdKernel(ctx context.Context, user place, internet bool, r report.Reporter) error {
	loadModules(ctx)
	return withKernelRecord(ctx, r, func(rec *kernelRecord, save func() error) error {
		if !slices.Contains(rec.Users, string(user)) {
			rec.Users = append(rec.Users, string(user))
		}
		var change []kernelSetting
		for _, s := range kernelSettings(internet) {
			now, err := readSysctl(s.key)
			if err != nil || now == s.value || s.atLeast && number(now) >= number(s.value) {
				continue // a kernel without the key has no use for it
			}
			if _, known := rec.Before[s.key]; !known {
				rec.Before[s.key] = now
			}
			rec.Set[s.key] = s.value
			change = append(change, s)
		}
		if err := save(); err != nil {
			return err
		}
		for _, s := range change {
			if err := os.WriteFile(sysctlPath(s.key), []byte(s.value), 0); err != nil {
				return fault.New(fault.Failed, "sysctl "+s.key, "", "cannot be set to %s: %w", s.value, err)
			}
		}
		return nil
	})
}

// releaseKernel puts the settings back when no sandbox needs them any more.
// One that somebody else has changed since is left to them.
func releaseKernel(ctx context.Context, user place, r report.Reporter) error {
	if _, err := os.Stat(kernelDir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return withKernelRecord(ctx, r, func(rec *kernelRecord, save func() error) error {
		rec.Users = slices.DeleteFunc(rec.Users, func(u string) bool { return u == string(user) })
		if len(rec.Users) > 0 {
			return save()
		}
		for key, before := range rec.Before {
			if now, err := readSysctl(key); err != nil || now != rec.Set[key] {
				continue
			}
			if err := os.WriteFile(sysctlPath(key), []byte(before), 0); err != nil {
				return fault.New(fault.Failed, "sysctl "+key, "", "cannot be set back to %s: %w", before, err)
			}
		}
		*rec = kernelRecord{}
		return save()
	})
}

// withKernelRecord gives f the record; save writes it, or removes it when it
// is empty. Users whose state is gone are dropped, and so is a record made
// before the computer's last start.
func withKernelRecord(ctx context.Context, r report.Reporter, f func(rec *kernelRecord, save func() error) error) error {
	unlock, err := lock(ctx, kernelDir, r)
	if err != nil {
		return err
	}
	defer unlock()
	file := filepath.Join(kernelDir, "record.json")
	boot, err := readSysctl("kernel.random.boot_id")
	if err != nil {
		return fault.New(fault.Failed, "kernel settings", "", "%w", err)
	}
	fresh := kernelRecord{BootID: boot, Before: map[string]string{}, Set: map[string]string{}}
	rec := fresh
	if b, err := os.ReadFile(file); err == nil {
		if err := json.Unmarshal(b, &rec); err != nil {
			return fault.New(fault.Failed, file, "see what it says and remove it", "%w", err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.Failed, file, "", "%w", err)
	}
	if rec.BootID != boot {
		rec = fresh
	}
	rec.Users = slices.DeleteFunc(rec.Users, func(u string) bool { return !place(u).exists() })
	return f(&rec, func() error {
		if rec.BootID == "" {
			err = os.Remove(file)
			if errors.Is(err, fs.ErrNotExist) {
				err = nil
			}
		} else {
			var b []byte
			if b, err = json.MarshalIndent(rec, "", "  "); err == nil {
				err = renameio.WriteFile(file, append(b, '\n'), 0o600)
			}
		}
		if err != nil {
			return fault.New(fault.Failed, file, "", "%w", err)
		}
		return nil
	})
}

// loadModules loads what K3s and its network need, where the kernel has it as
// a module; built in or absent, there is nothing to do.
func loadModules(ctx context.Context) {
	for _, name := range []string{"overlay", "br_netfilter", "vxlan", "nf_conntrack", "ip_tables", "iptable_nat", "xt_comment", "xt_MASQUERADE", "ip_vs"} {
		if _, err := os.Stat("/sys/module/" + name); err != nil {
			_ = exec.CommandContext(ctx, "modprobe", "--quiet", name).Run()
		}
	}
}

func number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return -1
	}
	return n
}
