terraform {
  required_version = ">= 1.5.0"

  required_providers {
    # The releases left out import a machine's image anew when its disk grows.
    proxmox = {
      source  = "bpg/proxmox"
      version = ">= 0.80.0, != 0.81.0, != 0.82.0, != 0.88.0, < 1.0.0"
    }
    # Served by the k3lab binary itself.
    k3lab = {
      source = "k3lab.internal/k3lab/k3lab"
    }
  }
}
