variable "proxmox_api_tokens" {
  description = "API token of each Proxmox endpoint: user@realm!id=uuid. `k3lab env` exports it from secrets.sops.yaml."
  type        = map(string)
  default     = {}
  sensitive   = true
}
