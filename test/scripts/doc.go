// Package scripts plays a user's sessions: scripts run the k3lab binary and say
// what it must print, on which stream, and with which exit code.
//
// testdata/offline needs nothing but the binary; testdata/api and
// testdata/layouts start sandboxes whose VMs are entries of the API and need no
// root; testdata/machines, played in the order that TestMachines gives, has real
// machines in one sandbox and needs root. They need what `make test` provides:
// K3LAB_BIN, K3LAB_PROVIDER_MIRROR and K3LAB_K3S_BINARY.
// With -update what cmp compares is written anew.
//
// Beside testscript's own commands there are:
//
//	exit N COMMAND…             run it; it must end with that exit code
//	eventually LIMIT COMMAND…   run it again and again until it ends with 0
//	edit FILE OLD NEW           replace a text that stands there exactly once
//	remember DIR [SANDBOX]      keep how the workspace, and the VMs, are
//	unchanged DIR [SANDBOX]     they are as they were remembered
//	proxmox SANDBOX METHOD PATH [FILE]   make a call of the sandbox's API
//	kill-api SANDBOX            kill the process that serves the sandbox's API
//	layout NAME DIR ENDPOINT=SANDBOX…    copy a layout of internal/config there
//	as-nobody N ARGUMENT…       exit N k3lab ARGUMENT…, as a user who is not root
package scripts
