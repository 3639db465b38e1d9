// Package converger brings one machine to its desired state. It knows resources
// (files, directories, units, sysctls, kernel modules, swap, the host name,
// packages, verified binaries) and nothing of the lab.
//
// It is linked into the static on-machine binary and, for its types, into
// k3lab. Desired state goes in as one JSON document, changes come out as JSON
// lines. Plan and apply share one path: apply is plan with a writer.
//
// # Guard
//
// A resource that is Guarded may lock the operator out when it is wrong: sshd's
// configuration, the firewall. Mark all resources of such a change, also the unit
// that is to be reloaded, and let them stand together. Apply then
//
//  1. saves what all of them replace, and how the old state is made active
//     again, in /var/lib/k3lab/guard, and starts a watchdog (k3lab-guard.service);
//     where that fails nothing guarded is changed;
//  2. makes the guarded changes; where one fails, as a reload that refuses the
//     file, all of them are put back at once;
//  3. asks for a confirmation with a line that has Confirm, and goes on.
//
// Whoever drives the converger then makes a new connection and runs "confirm ID"
// through it. It answers with a GuardOutcome; only Confirmed means that the change
// stays. Without it the watchdog puts the old state back: after Confirm.Seconds,
// and at once after a boot, before network and sshd are up. "revert ID" does it now.
//
// A guarded change that nobody has confirmed is a change of its own in a plan
// ("guard"): applying takes it over and asks again, and what would be put back is
// still the state that was confirmed last.
package converger

import "time"

// State is the desired state of one machine. Resources are handled in order;
// a later one may name an earlier one in Notify-like fields (Unit.RestartOn).
type State struct {
	Machine   string     `json:"machine"`
	Resources []Resource `json:"resources"`
}

// Resource is one desired item: exactly one of the pointers is set.
type Resource struct {
	Tags []string `json:"tags,omitempty"` // os, firewall, hardening, k3s, …: what --tags selects
	// Guarded: a mistake here may lock the operator out. What it replaces is
	// saved first and put back by the machine itself unless a confirmation comes
	// over a new connection. For files, directories, links, absences, units and
	// nftables tables.
	Guarded   bool            `json:"guarded,omitempty"`
	File      *File           `json:"file,omitempty"`
	Directory *Directory      `json:"directory,omitempty"`
	Absent    *Absent         `json:"absent,omitempty"`
	Link      *Link           `json:"link,omitempty"`
	Binary    *Binary         `json:"binary,omitempty"`
	Sysctl    *Sysctl         `json:"sysctl,omitempty"`
	Module    *Module         `json:"module,omitempty"`
	Swap      *Swap           `json:"swap,omitempty"`
	Hostname  *Hostname       `json:"hostname,omitempty"`
	Package   *Package        `json:"package,omitempty"`
	Unit      *Unit           `json:"unit,omitempty"`
	Block     *Block          `json:"block,omitempty"`
	Keys      *AuthorizedKeys `json:"authorized_keys,omitempty"`
	Clock     *Clock          `json:"clock,omitempty"`
	Nftables  *Nftables       `json:"nftables,omitempty"`
	Upgrades  *Upgrades       `json:"upgrades,omitempty"`
	Archive   *Archive        `json:"archive,omitempty"`
	Leftovers *Leftovers      `json:"leftovers,omitempty"`
	Remains   *Remains        `json:"remains,omitempty"`
	// Unless names where the resource is not wanted; there it is left alone.
	Unless *Unless `json:"unless,omitempty"`
}

// Unless holds where one of its conditions does.
type Unless struct {
	Container bool     `json:"container,omitempty"` // the kernel is somebody else's
	UnitsUp   []string `json:"units_up,omitempty"`  // one of these units runs
	Unmarked  *Marked  `json:"unmarked,omitempty"`  // this file is somebody else's, or not there
}

// Marked is a file that begins with a text, by which its writer is known.
type Marked struct {
	Path string `json:"path"`
	Mark string `json:"mark"`
}

// File is a regular file with exactly this content. It is replaced atomically.
type File struct {
	Path    string `json:"path"`
	Content string `json:"content"`
	Mode    uint32 `json:"mode"`             // permission bits, e.g. 0o600
	Owner   string `json:"owner,omitempty"`  // user name; default root
	Group   string `json:"group,omitempty"`  // group name; default root
	Secret  bool   `json:"secret,omitempty"` // content is never shown
	// Check is a program with its arguments that must take the content before it
	// is put in place; the argument {} stands for a file that holds it.
	Check []string `json:"check,omitempty"`
	// KeepIf: where this path exists, an existing File.Path is left as it is
	// (content not compared), because what it says is no longer read.
	KeepIf string `json:"keep_if,omitempty"`
	// IfThere: a file that is not there is not made.
	IfThere bool `json:"if_there,omitempty"`
	// Claims is what the machine begins to use in its network with this content.
	// Where somebody else is found to use it, the file is not put in place.
	Claims *Claims `json:"claims,omitempty"`
}

// Claims are an address that several machines take turns to have, and the VRRP ID
// by which they agree on whose turn it is, where they do so by VRRP. The network is listened to for some
// seconds, while what comes before the file is done.
type Claims struct {
	Interface string   `json:"interface"`
	Address   string   `json:"address"` // IPv4
	VRRPID    int      `json:"vrrp_id,omitempty"`
	Own       []string `json:"own"` // addresses of the machines that may use both
	// The settings to change where somebody else does, as errors name them.
	AddressSetting string `json:"address_setting"`
	IDSetting      string `json:"id_setting,omitempty"`
}

// Directory is a directory; its content is not looked at.
type Directory struct {
	Path  string `json:"path"`
	Mode  uint32 `json:"mode"`
	Owner string `json:"owner,omitempty"`
	Group string `json:"group,omitempty"`
}

// Absent is a path that must not exist. A directory is removed with what it holds.
type Absent struct {
	Path string `json:"path"`
	// Unmount: what is mounted below it is unmounted first, and where it is a
	// mount point itself it is emptied. Otherwise a mount is a reason not to remove.
	Unmount bool `json:"unmount,omitempty"`
}

// Link is a symbolic link.
type Link struct {
	Path   string `json:"path"`
	Target string `json:"target"`
	// MustLead: a target that is not there is an error.
	MustLead bool `json:"must_lead,omitempty"`
}

// Block is lines of ours in a file that others write too: between two marks,
// where they were, else at its end. No lines, no block.
type Block struct {
	Path    string   `json:"path"`
	Lines   []string `json:"lines"`
	Mode    uint32   `json:"mode"`               // of a file that is made; one that is there keeps its own
	IfThere bool     `json:"if_there,omitempty"` // a file that is not there is not made
}

// AuthorizedKeys are who may log in as a user. Keys that were ours and are no
// longer listed are removed; those of others are left alone and told.
type AuthorizedKeys struct {
	User string   `json:"user"`
	Keys []string `json:"keys"` // as in authorized_keys, without options; at least one
	// Retired keys are removed also where somebody else has put them, as a first
	// boot that is gone through again does.
	Retired []string `json:"retired,omitempty"`
}

// Clock is looked at only: one that nobody keeps synchronised is told.
type Clock struct{}

// Binary is an executable whose content has this digest. It is taken from the
// machine's cache, where the fleet has put it under its digest.
type Binary struct {
	Path    string `json:"path"`
	SHA256  string `json:"sha256"`            // hex
	Source  string `json:"source"`            // path on the machine the content is taken from
	Version string `json:"version,omitempty"` // for people
}

// Archive is a big file with this digest. The fleet puts it at Source, from where
// it is moved.
type Archive struct {
	Path   string `json:"path"`
	SHA256 string `json:"sha256"` // hex
	Source string `json:"source"` // path on the machine
	Size   int64  `json:"size"`   // in bytes, for people; 0: not known
}

// Leftovers are files of ours in a folder that are no longer wanted: regular files
// whose name fits Pattern, that begin with Mark, and are none of Keep.
type Leftovers struct {
	Dir     string   `json:"dir"`
	Pattern string   `json:"pattern"` // as of path.Match
	Keep    []string `json:"keep,omitempty"`
	Mark    string   `json:"mark,omitempty"`
}

// Sysctl is a kernel setting, now and after a reboot (kept in one file of ours).
// In a container a setting that belongs to the computer is only verified.
type Sysctl struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Module is a kernel module, loaded now and at boot.
type Module struct {
	Name string `json:"name"`
}

// Swap off: now, in fstab, and by units that would turn it on at boot.
type Swap struct {
	Off bool `json:"off"`
}

// Hostname is the static host name.
type Hostname struct {
	Name string `json:"name"`
}

// Package is an installed Debian package.
type Package struct {
	Name string `json:"name"`
	// Absent: it must not be installed. Its configuration goes with it; files that
	// others have put beside that stay.
	Absent bool `json:"absent,omitempty"`
}

// Upgrades has no installed package older than what its archives have. Files of the
// configuration that were edited stay as they are.
type Upgrades struct{}

// Remains are what nothing declares and must not be there: what containers leave
// on a machine whose program to run them is stopped.
type Remains struct {
	Programs   []string `json:"programs"`   // processes of a program at or below these paths, and what they have started
	Interfaces []string `json:"interfaces"` // network interfaces
	Namespaces string   `json:"namespaces"` // network namespaces whose name begins so
	Addresses  []string `json:"addresses"`  // of whatever interface, without length
	Chains     []string `json:"chains"`     // rules and chains of iptables that hold one of these words
	Tools      string   `json:"tools"`      // where iptables may be, beside the usual places
}

// Unit is a systemd unit's state. A change to any of RestartOn restarts a
// running unit; a change to any of ReloadOn reloads it.
type Unit struct {
	Name      string   `json:"name"` // k3s.service
	Enabled   bool     `json:"enabled"`
	Running   bool     `json:"running"`
	NoBlock   bool     `json:"no_block,omitempty"`   // start without waiting for it to be up
	RestartOn []string `json:"restart_on,omitempty"` // IDs of earlier resources, e.g. "file /etc/x"
	ReloadOn  []string `json:"reload_on,omitempty"`
	Masked    bool     `json:"masked,omitempty"`
	// AsIs: whether it is enabled and runs is not ours to say; where it runs it is
	// restarted and reloaded all the same.
	AsIs bool `json:"as_is,omitempty"`
}

// Nftables is one table of family inet, and the file it is loaded from at boot (by
// a unit). Other tables are not looked at.
type Nftables struct {
	Table string `json:"table"`
	Path  string `json:"path"`
	// Ruleset replaces the table in one transaction. Empty: neither table nor file.
	Ruleset string `json:"ruleset,omitempty"`
}

// Change is one line of the converger's output: a difference between observed
// and desired state, made or only planned.
type Change struct {
	Resource string `json:"resource"`         // the resource's ID
	Action   string `json:"action"`           // create, update, delete, start, stop, restart, reload, enable, disable, install
	Detail   string `json:"detail,omitempty"` // one line
	Before   string `json:"before,omitempty"` // text, only for files that are no secret
	After    string `json:"after,omitempty"`  // text, only for files that are no secret
	Made     bool   `json:"made"`             // false: planned only
	Error    string `json:"error,omitempty"`  // it could not be made, or the resource not be read
	Notice   string `json:"notice,omitempty"` // not a change: e.g. a setting that belongs to the computer
	// Confirm asks for the confirmation of the guarded changes made so far.
	Confirm *Confirm `json:"confirm,omitempty"`
}

// Confirm says what to confirm, with "confirm ID" over a new connection, and how
// long the machine waits before it puts the old state back.
type Confirm struct {
	ID      string `json:"id"`
	Seconds int    `json:"seconds"`
}

// Request is what plan and apply take on stdin.
type Request struct {
	State State `json:"state"`
	// Only limits apply to the changes of these resources, by ID (the Resource
	// of planned changes); nil means all, an empty list none.
	Only []string `json:"only"`
	// Hold names resources, by ID, that are left alone for now, as a unit that
	// must not be started yet. What earlier resources owe it is remembered.
	Hold []string `json:"hold,omitempty"`
	// Tags limits plan and apply to resources with one of these tags; none
	// means all.
	Tags []string `json:"tags,omitempty"`
	// Before are tags that have their turn before this request, where one run
	// goes through a state in parts. A plan counts on the changes of their
	// resources, as a unit does that is restarted for one, and does not list them.
	Before []string `json:"before,omitempty"`
}

// FactsRequest is what facts takes on stdin.
type FactsRequest struct {
	Paths    []string `json:"paths,omitempty"`     // whose existence is asked
	DiskFree []string `json:"disk_free,omitempty"` // whose file systems' free space is asked
	Units    []string `json:"units,omitempty"`     // whose state is asked
	Files    []string `json:"files,omitempty"`     // patterns, as of path.Match, of files whose mode and age are asked
	Sysctls  []string `json:"sysctls,omitempty"`   // kernel settings whose value is asked
	Modules  []string `json:"modules,omitempty"`   // kernel modules that are asked for
	Reboot   bool     `json:"reboot,omitempty"`    // whether it should be rebooted is asked
}

// Facts is what a machine tells of itself.
type Facts struct {
	Arch        string              `json:"arch"` // as Go names it: amd64, arm64
	Hostname    string              `json:"hostname"`
	BootID      string              `json:"boot_id"` // another one after every boot
	Kernel      string              `json:"kernel"`
	OS          OSRelease           `json:"os_release"`
	Container   bool                `json:"container"`
	MemoryMiB   int                 `json:"mem_mib"`
	DiskFreeMiB map[string]int      `json:"disk_free_mib"` // by path asked; of a path that is not there: of its nearest parent
	Paths       map[string]bool     `json:"paths"`         // by path asked: does it exist
	Units       map[string]UnitFact `json:"units"`         // by unit asked
	Files       map[string]FileFact `json:"files"`         // by path that one of the patterns asked fits; links are followed
	Sysctls     map[string]string   `json:"sysctls"`       // by key asked; one there is not is left out
	Modules     map[string]bool     `json:"modules"`       // by module asked: is it loaded, built in or can be loaded
	Interfaces  map[string][]string `json:"interfaces"`    // network interface → its addresses with prefix length
	Time        time.Time           `json:"time"`          // the machine's clock when it answered
	Reboot      string              `json:"reboot"`        // if asked: why it should be rebooted; empty when there is no reason
}

// OSRelease is from /etc/os-release.
type OSRelease struct {
	ID      string `json:"id"`      // debian, ubuntu
	Version string `json:"version"` // VERSION_ID
}

// FileFact is what is known of a file without reading it.
type FileFact struct {
	Mode     uint32    `json:"mode"` // permission bits
	UID      uint32    `json:"uid"`
	GID      uint32    `json:"gid"`
	Modified time.Time `json:"modified"`
}

// UnitFact is what systemd says of a unit.
type UnitFact struct {
	Load     string `json:"load"`    // loaded, not-found, masked
	Active   string `json:"active"`  // active, activating, failed, inactive, …
	Sub      string `json:"sub"`     // running, start, auto-restart, …
	Enabled  string `json:"enabled"` // enabled, disabled, static, masked, …; empty where there is no unit file
	Result   string `json:"result"`  // success, exit-code, …
	MainPID  int    `json:"main_pid"`
	Restarts int    `json:"restarts"`
}
