package converger

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"
)

// ID names the resource within its state: its kind and what it is about, as
// "file /etc/hosts", "unit k3s.service", "swap". Changes carry it.
func (r Resource) ID() string {
	switch {
	case r.File != nil:
		return "file " + r.File.Path
	case r.Directory != nil:
		return "directory " + r.Directory.Path
	case r.Absent != nil:
		return "absent " + r.Absent.Path
	case r.Link != nil:
		return "link " + r.Link.Path
	case r.Binary != nil:
		return "binary " + r.Binary.Path
	case r.Sysctl != nil:
		return "sysctl " + r.Sysctl.Key
	case r.Module != nil:
		return "module " + r.Module.Name
	case r.Swap != nil:
		return "swap"
	case r.Hostname != nil:
		return "hostname"
	case r.Package != nil:
		return "package " + r.Package.Name
	case r.Unit != nil:
		return "unit " + r.Unit.Name
	case r.Block != nil:
		return "block " + r.Block.Path
	case r.Keys != nil:
		return "authorized keys of " + r.Keys.User
	case r.Clock != nil:
		return "clock"
	case r.Nftables != nil:
		return "nftables " + r.Nftables.Table
	case r.Upgrades != nil:
		return "packages"
	case r.Archive != nil:
		return "archive " + r.Archive.Path
	case r.Leftovers != nil:
		return "leftovers " + r.Leftovers.at()
	case r.Remains != nil:
		return "remains"
	}
	return ""
}

func (r Resource) hasTag(tags []string) bool {
	return len(tags) == 0 || slices.ContainsFunc(r.Tags, func(t string) bool { return slices.Contains(tags, t) })
}

// tends reports whether the request is about resources of a kind as a whole, so
// that what is kept of that kind and no longer wanted goes. Of parts of one state
// it is the first that has some.
func (q Request) tends(kind func(Resource) bool) bool {
	if len(q.Tags) == 0 {
		return true
	}
	now := false
	for _, r := range q.State.Resources {
		if !kind(r) {
			continue
		}
		if len(q.Before) > 0 && r.hasTag(q.Before) {
			return false
		}
		now = now || r.hasTag(q.Tags)
	}
	return now
}

// IsChange reports whether the line is a difference, made or to be made, and
// neither a notice nor only an error.
func (c Change) IsChange() bool { return c.Action != "" }

// Names are handed to programs as arguments or become parts of paths, so only
// those that can be neither an option nor another path are taken.
var (
	unitName    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9:_.\\@-]*\.(service|socket|target|timer|mount|path|slice|swap|automount)$`)
	packageName = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]*(:[a-z0-9]+)?$`)
	moduleName  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]*$`)
	sysctlKey   = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_/-]*(\.[A-Za-z0-9_/-]+)+$`)
	hostName    = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$`)
	userName    = regexp.MustCompile(`^[a-z_][-a-z0-9_]{0,31}$`)
	tableName   = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	plainWord   = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._-]+$`)
	hexDigest   = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// validate checks the whole request before anything is read or written.
func (q Request) validate() error {
	var errs []error
	seen := map[string]bool{}
	for i, r := range q.State.Resources {
		id := r.ID()
		switch {
		case id == "":
			errs = append(errs, fmt.Errorf("resource %d says nothing this converger knows", i))
			continue
		case seen[id]:
			errs = append(errs, fmt.Errorf("%s: stands twice in the desired state", id))
		}
		seen[id] = true
		if err := r.validate(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", id, err))
		}
	}
	return errors.Join(errs...)
}

func (r Resource) validate() error {
	if r.Guarded && r.File == nil && r.Directory == nil && r.Absent == nil && r.Link == nil && r.Unit == nil && r.Nftables == nil {
		return errors.New("cannot be put back, so it cannot be guarded")
	}
	switch {
	case r.File != nil:
		return errors.Join(absolute(r.File.Path), mode(r.File.Mode), checkable(r.File.Check), r.File.Claims.validate())
	case r.Directory != nil:
		return errors.Join(absolute(r.Directory.Path), mode(r.Directory.Mode))
	case r.Absent != nil:
		return absolute(r.Absent.Path)
	case r.Link != nil:
		return absolute(r.Link.Path)
	case r.Binary != nil:
		return errors.Join(absolute(r.Binary.Path), absolute(r.Binary.Source), matches(hexDigest, r.Binary.SHA256, "SHA-256 digest"))
	case r.Archive != nil:
		return errors.Join(absolute(r.Archive.Path), absolute(r.Archive.Source), matches(hexDigest, r.Archive.SHA256, "SHA-256 digest"))
	case r.Leftovers != nil:
		return r.Leftovers.validate()
	case r.Sysctl != nil:
		return matches(sysctlKey, r.Sysctl.Key, "sysctl key")
	case r.Module != nil:
		return matches(moduleName, r.Module.Name, "module name")
	case r.Hostname != nil:
		return matches(hostName, r.Hostname.Name, "host name")
	case r.Package != nil:
		return matches(packageName, r.Package.Name, "package name")
	case r.Unit != nil:
		if r.Unit.AsIs && (r.Unit.Enabled || r.Unit.Running || r.Unit.Masked) {
			return errors.New("is left as it is, so it can be neither enabled, running nor masked")
		}
		if r.Unit.Masked && (r.Unit.Enabled || r.Unit.Running) {
			return errors.New("is masked, so it can be neither enabled nor running")
		}
		return matches(unitName, r.Unit.Name, "unit name")
	case r.Block != nil:
		return errors.Join(absolute(r.Block.Path), mode(r.Block.Mode), singleLines(r.Block.Lines))
	case r.Keys != nil:
		return r.Keys.validate()
	case r.Remains != nil:
		return r.Remains.validate()
	case r.Nftables != nil:
		if len(r.Nftables.Ruleset) > mostRules {
			return fmt.Errorf("its rules have %d KiB, more than %d", len(r.Nftables.Ruleset)>>10, mostRules>>10)
		}
		return errors.Join(absolute(r.Nftables.Path), matches(tableName, r.Nftables.Table, "table name"))
	}
	return nil
}

// validate refuses what would end more than it means.
func (l *Remains) validate() error {
	var errs []error
	for _, p := range append([]string{l.Tools}, l.Programs...) {
		errs = append(errs, absolute(p))
	}
	for _, name := range slices.Concat(l.Interfaces, l.Chains, []string{l.Namespaces}) {
		errs = append(errs, matches(plainWord, name, "plain word"))
	}
	for _, a := range l.Addresses {
		if _, err := netip.ParseAddr(a); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// validate refuses what would leave nobody a way in.
func (k *AuthorizedKeys) validate() error {
	errs := []error{matches(userName, k.User, "user name"), singleLines(k.Keys), singleLines(k.Retired)}
	if len(k.Keys) == 0 {
		errs = append(errs, errors.New("lists no key, so nobody could log in"))
	}
	for _, line := range k.Keys {
		if keyOf(line) == "" || !bare(line) {
			errs = append(errs, fmt.Errorf("%q is no public key", line))
		}
	}
	keys := keySet(k.Keys)
	for _, line := range k.Retired {
		if keyOf(line) == "" || keys[keyOf(line)] {
			errs = append(errs, fmt.Errorf("%q cannot be retired: it is no public key, or one that may log in", line))
		}
	}
	return errors.Join(errs...)
}

func singleLines(lines []string) error {
	for _, line := range lines {
		if strings.ContainsAny(line, "\n\r\x00") || line == blockBegin || line == blockEnd {
			return fmt.Errorf("%q is no single line", line)
		}
	}
	return nil
}

func checkable(check []string) error {
	if len(check) > 0 && !slices.Contains(check[1:], "{}") {
		return fmt.Errorf("%q checks no file", check)
	}
	return nil
}

func absolute(p string) error {
	if !path.IsAbs(p) || path.Clean(p) != p || p == "/" || strings.ContainsAny(p, "\n\x00") {
		return fmt.Errorf("%q is no absolute, clean path", p)
	}
	return nil
}

func mode(m uint32) error {
	if m == 0 || m&^0o7777 != 0 {
		return fmt.Errorf("%#o are no permission bits", m)
	}
	return nil
}

func matches(re *regexp.Regexp, s, what string) error {
	if !re.MatchString(s) {
		return fmt.Errorf("%q is no %s", s, what)
	}
	return nil
}
