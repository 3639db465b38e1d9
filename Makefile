# k3lab: `make help` lists what can be made. Binaries land in bin/.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := build

GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  := -s -w -X main.version=$(VERSION)
# Releases of what the demo and the tests run against; one version, one line.
K3S_VERSION      := v1.36.3+k3s1
PROVIDER_VERSION := 0.80.0

OS_ARCH   := $(shell $(GO) env GOOS)_$(shell $(GO) env GOARCH)
EMBEDDED  := internal/fleet/embedded
CONVERGER := $(foreach a,amd64 arm64,$(EMBEDDED)/k3lab-converger-linux-$(a))
PROVIDER  := bin/mirror/registry.terraform.io/bpg/proxmox/$(PROVIDER_VERSION)/$(OS_ARCH)/terraform-provider-proxmox_v$(PROVIDER_VERSION)
PROVIDER_TOFU := $(subst registry.terraform.io,registry.opentofu.org,$(PROVIDER))
STANDIN   := bin/standin/k3s

.PHONY: help build test lint demo demo-down bench soak prereqs standin provider tofu promtool clean
help: ## list what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

build: $(CONVERGER) ## bin/k3lab
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "$(LDFLAGS)" -o bin/k3lab ./cmd/k3lab

# The converger is static and small; both architectures are embedded in k3lab.
$(EMBEDDED)/k3lab-converger-linux-%: $(shell find cmd/k3lab-converger internal/converger -name '*.go') go.mod
	CGO_ENABLED=0 GOOS=linux GOARCH=$* $(GO) build -trimpath -ldflags "-s -w" -o $@ ./cmd/k3lab-converger

provider: $(PROVIDER) $(PROVIDER_TOFU) ## the Proxmox provider, as a file-system mirror
$(PROVIDER): tools/terraform-provider-proxmox/go.mod
	cd tools/terraform-provider-proxmox && CGO_ENABLED=0 $(GO) build -trimpath \
	  -ldflags "-s -w -X main.version=$(PROVIDER_VERSION)" -o $(CURDIR)/$@ github.com/bpg/terraform-provider-proxmox
$(PROVIDER_TOFU): $(PROVIDER)
	mkdir -p $(@D) && ln -f $< $@

standin: $(STANDIN) ## the K3s stand-in, for computers without a download
$(STANDIN): standin/go.mod standin/Makefile $(shell find standin -name '*.go')
	$(MAKE) --no-print-directory -C standin VERSION=$(K3S_VERSION) OUT=$(CURDIR)/$@

tofu: bin/tofu ## OpenTofu, for computers without terraform and without a download
bin/tofu: tools/tofu/go.mod
	cd tools/tofu && CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w -X github.com/opentofu/opentofu/version.dev=no" -o $(CURDIR)/$@ github.com/opentofu/opentofu/cmd/tofu

# Without service discoveries but Kubernetes': the others bring the clouds' SDKs.
promtool: bin/promtool ## Prometheus's own tool, which tests the alert rules
bin/promtool: tools/promtool/go.mod
	cd tools/promtool && CGO_ENABLED=0 $(GO) build -trimpath -tags remove_all_sd,enable_kubernetes_sd -ldflags "-s -w" -o $(CURDIR)/$@ github.com/prometheus/prometheus/cmd/promtool

bin/golangci-lint: tools/golangci-lint/go.mod
	cd tools/golangci-lint && $(GO) build -trimpath -o $(CURDIR)/$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

prereqs:
	hack/prereqs

lint: bin/golangci-lint ## every linter; no finding is allowed
	bin/golangci-lint run ./...
	cd standin && ../bin/golangci-lint run --config ../.golangci.yml ./...

test: prereqs build provider standin promtool ## all tests; those with real machines where root
	hack/test

demo: prereqs build provider ## from nothing to a running HA cluster on this computer
	hack/demo

demo-down: ## remove the demo and everything it made
	hack/demo-down

bench: prereqs build provider standin ## time k3lab against the floor, in one run
	hack/bench

soak: prereqs build provider standin ## the long proofs; SEEDS="1 2 3" chooses the seeds
	hack/soak

clean:
	rm -rf bin $(EMBEDDED)/k3lab-converger-*
