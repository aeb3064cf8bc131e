# Everything pcloud needs on a fresh Debian 12 machine, and what to do with it.
#   make demo    set up, bring the lab up, build the images, recover the demo site, report
#   make test    set up, then ruff, mypy, import-linter and pytest, the lab's real guests included
#   make bench   pcloud beside its floor, in one run: docs/numbers.md
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= /usr/bin/python3
VENV := .venv
BIN := $(VENV)/bin
SOAK ?= 10000

# What runs (QEMU, libvirt, the lab), what builds images, what compiles libvirt-python.
DEBIAN := qemu-system-x86 qemu-utils libvirt-daemon-system libvirt-daemon-driver-qemu libvirt-clients \
  openssh-server openssh-client mariadb-client iproute2 nftables tini util-linux ipmitool \
  mmdebstrap e2fsprogs busybox-static cpio zstd xz-utils \
  libvirt-dev pkg-config gcc python3-venv python3-dev
# What only the tests run: the shop's own daemons, to check its configuration files and queries.
DEBIAN_TEST := haproxy nginx-light mariadb-server mariadb-backup sphinxsearch procps openipmi strace

.PHONY: help setup demo test chaos soak bench lint lab-down clean lock

help:
	@sed -n '2,4p' Makefile | cut -c3-

setup: $(VENV)/.installed

# While packages are installed their services do not start (policy-rc.d says no): pcloud runs its
# own, inside the lab, and the machine's ports stay as they are.
define install_debian
	@missing=$$(for p in $(1); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
	if [ -n "$$missing" ]; then \
	  echo "== installing Debian packages:" $$missing; \
	  [ "$$(id -u)" = 0 ] || { echo "this needs root: sudo make $(MAKECMDGOALS)"; exit 1; }; \
	  if [ ! -e /usr/sbin/policy-rc.d ]; then \
	    printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d; \
	    trap 'rm -f /usr/sbin/policy-rc.d' EXIT; \
	  fi; \
	  apt-get -q update >/dev/null; \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $$missing >/dev/null; \
	fi
endef

$(VENV)/.installed: pyproject.toml requirements.lock
	$(call install_debian,$(DEBIAN))
	@echo "== making the virtual environment $(VENV)"
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -qq --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup
	@echo "== the lab: eight hosts on this machine"
	@$(BIN)/pcloud lab up demo
	@echo "== the images: one a role, built from templates/images (a few minutes the first time)"
	@$(BIN)/pcloud image build
	@echo "== the recovery"
	@$(BIN)/pcloud recover demo --yes

lint: setup
	@echo "== ruff, mypy --strict, import-linter"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

test: setup
	$(call install_debian,$(DEBIAN_TEST))
	@$(MAKE) --no-print-directory lint
	@echo "== pytest: cases, properties, real daemons and libvirt's test driver, on all cores"
	@# One worker more than cores, as many of these tests wait for daemons.
	@$(BIN)/pytest -n $$(($$(nproc) + 1)) --dist worksteal --durations 15 -m "not lab and not chaos"
	@echo "== pytest: the lab with real guests, one story after the other"
	@$(BIN)/pytest --durations 30 -m "lab and not chaos"

chaos: setup
	$(call install_debian,$(DEBIAN_TEST))
	@echo "== the bad days in full: killed at every event of a run, and the same command again"
	@$(BIN)/pytest -m chaos

soak: setup
	@echo "== random scenarios on virtual time, checked at every moment"
	@$(BIN)/python -m tests.scenarios --soak $(SOAK)
	@echo "== one site through 500 single failures"
	@$(BIN)/python -m tests.scenarios --wear 500
	@echo "== the properties, with examples that nobody has seen"
	@HYPOTHESIS_PROFILE=default $(BIN)/pytest -m "not lab and not chaos"

bench: setup
	@echo "== pcloud beside its floor, on a lab of its own: about ten minutes on a quiet machine"
	@$(BIN)/python -m benchmarks

lab-down:
	@$(BIN)/pcloud lab down demo

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist

# After a change of pyproject.toml's dependencies: every version and hash anew.
lock: setup
	@$(BIN)/pip install -q pip-tools
	@$(BIN)/pip-compile -q --extra dev --generate-hashes --strip-extras --allow-unsafe --no-header \
	  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host -o requirements.lock pyproject.toml
