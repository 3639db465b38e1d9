// Package sandbox starts and removes sandboxes: an embedded Proxmox VE API
// (package pveapi) on this computer, whose VMs are real machines (package
// machine) or only entries of the API.
//
// A sandbox is a directory of state, one daemon that serves the API, and for
// real machines a network, cgroups and processes whose names are all made of
// the directory's path. So everything can be found and removed knowing the
// sandbox's name alone, whatever happened to the process that made it, and
// nothing else is ever touched.
package sandbox
