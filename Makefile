# One page of targets; `make` alone lists them. Everything made goes to build/ and .venv/.
SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS   += --no-print-directory
PYTHON      ?= /usr/bin/python3
BUILD       := build
BIN         := .venv/bin
MACHINE     ?= $(shell uname -m)

# What a node needs to run pods, what building the guest needs, and what developing needs.
HOST_PACKAGES  := containerd qemu-system-x86 qemu-system-common
GUEST_PACKAGES := erofs-utils lz4 debian-archive-keyring grub-common qemu-utils
DEV_PACKAGES   := python3 python3-venv protobuf-compiler libprotobuf-dev qemu-system-misc busybox-static crun cpio \
                  chromium containernetworking-plugins e2fsprogs iproute2 iptables iputils-ping kmod openssl procps zstd \
                  libvirt-daemon-system libvirt-clients dnsmasq-base ovmf docker-registry skopeo \
                  systemd dosfstools grub-pc-bin mtools systemd-boot-efi gcc libvirt-dev pkg-config python3-dev

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-remote test test-functional test-integration test-guest test-peer test-cri test-alone check guest podvm podvms package fuzz bench conformance protos clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(BUILD)/packages.stamp $(BUILD)/venv.stamp ## Debian packages and .venv (the others do this themselves)

$(BUILD)/packages.stamp: tools/install-packages Makefile
	@mkdir -p $(BUILD)
	@tools/install-packages $(HOST_PACKAGES) $(GUEST_PACKAGES) $(DEV_PACKAGES)
	@touch $@

$(BUILD)/venv.stamp: pyproject.toml | $(BUILD)/packages.stamp
	@echo "==> .venv"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[host,policy,caa,aws,azure,libvirt,k8s,monitor,otel,dev]'
	@touch $@

demo: setup guest ## a container in a virtual machine, from containerd to crun (root)
	@$(BIN)/python -m tools.demo

demo-remote: setup podvm ## a pod in a machine that the cloud-api-adaptor has libvirt boot: peer pods (root)
	@tools/room $(BIN)/python -m tools.demo_remote $(MACHINE)

# What boots machines keeps about one processor busy, so two lanes of it run side by side, each in a room of its own:
# tests compare the machine before and after. Fuzzing gets the processor time that they leave, and eight minutes of it in
# all. Those that compare times come last, alone.
test: setup guest podvms ## every gate and every test (root)
	@tools/check
	@$(BIN)/pytest -q -n 2 tests/unit tests/fuzz
	@$(BIN)/python -m tools.lanes '$(MAKE) --keep-going test-integration test-guest' \
	    '$(MAKE) --keep-going test-functional test-peer test-cri' \
	    'tools/room --gently $(BIN)/python -m tests.fuzz.runner --seconds 60'
	@$(MAKE) test-alone

test-functional test-integration test-guest test-peer test-cri test-alone: setup guest
test-functional test-peer: podvms
test-functional: package
test-functional:
	@tools/room $(BIN)/pytest -q -m 'not alone' tests/functional tests/conformance
test-integration:
	@tools/room $(BIN)/pytest -q -m 'not alone' --ignore tests/integration/guest --ignore tests/integration/peer \
	    tests/integration
test-guest:
	@tools/room $(BIN)/pytest -q -m 'not alone' --ignore tests/e2e/test_demo_remote.py \
	    tests/integration/guest tests/e2e
test-peer:
	@tools/room $(BIN)/pytest -q -m 'not alone' tests/integration/peer tests/e2e/test_demo_remote.py
test-cri:
	@tools/room $(BIN)/pytest -q -m 'not alone' tests/cri
test-alone:
	@tools/room $(BIN)/pytest -q -m alone tests/functional tests/integration

check: setup ## ruff, mypy --strict, import-linter, generated code, unit tests
	@tools/check
	@$(BIN)/pytest -q -n 2 tests/unit tests/fuzz

fuzz: setup ## a minute for each reader of what others wrote (tests/fuzz)
	@$(BIN)/python -m tests.fuzz.runner --seconds 60

guest: setup ## kernel, initramfs and root image of the guest
	@$(BIN)/python agent/image/build.py --output $(BUILD)/guest

podvm: setup ## disk of a peer pod's machine, and its kernel, initramfs and root (MACHINE=s390x for another)
	@$(BIN)/python agent/image/build.py --flavour peer --machine $(MACHINE) --output $(BUILD)/podvm/$(MACHINE)
podvms: setup
	@$(MAKE) podvm MACHINE=x86_64
	@$(MAKE) podvm MACHINE=s390x

package: setup guest ## wheel, relocatable bundle and Debian package, into dist/
	@$(BIN)/python -m tools.package

bench: setup guest podvms ## the figures of docs/performance.md
	@$(BIN)/python -m bench

conformance: setup ## kubernetes' critest over containerd and this shim, into docs/conformance.md (root, Go)
	@$(BIN)/python -m tools.critest
	@$(BIN)/python -m tools.conformance --critest

protos: setup ## regenerate the code made from .proto files
	@tools/generate-protos

clean: ## remove what was built
	@rm -rf $(BUILD) .venv dist
