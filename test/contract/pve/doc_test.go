// Package pve holds the simulated Proxmox VE API to what real clients expect
// of it: the unmodified Terraform provider, go-proxmox and proxmoxer.
//
// Tests skip, with the reason, where a client is not installed. Terraform is
// $K3LAB_TERRAFORM or from PATH; the provider comes from the mirror
// $K3LAB_PROVIDER_MIRROR or bin/mirror, where `make provider` puts it.
package pve
