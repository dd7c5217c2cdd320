# make demo | test | check need Python 3.10-3.13, make and a package index, nothing else.
# Another interpreter: PYTHON=python3.12 make test. Arguments for pytest: make test ARGS="-k gpsa".

SHELL := /bin/bash

# The first one that is in range and can make virtual environments.
CANDIDATES := python3 python3.12 python3.11 python3.13 python3.10 python
SUITABLE := import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for python in $(CANDIDATES); do \
	"$$python" -c '$(SUITABLE)' >/dev/null 2>&1 && { echo "$$python"; break; }; done)

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP_INSTALL := $(BIN)/python -m pip install -qq --no-input --disable-pip-version-check
ARGS ?=
# Test processes at a time, each with one thread.
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow test-cluster check lint format-check types imports format lock \
  findings docs readme results wheel clean

help:
	@echo "make demo    pretrain, evaluate and export a ConViT on real images, in minutes"
	@echo "make test    all tests but the slow ones (ARGS=... goes to pytest)"
	@echo "make test-slow  the slow tests: training runs in separate processes, killed and resumed"
	@echo "make check   everything that must pass: lint, format, types, imports, tests"
	@echo "make test-cluster  the tests that need root and SLURM"
	@echo "make format  fix what ruff can fix"
	@echo "make findings  check whether the surprises in findings/ still hold (network, minutes)"
	@echo "make docs    the documentation as a site, in build/site"
	@echo "make results  file new results: a folder each, and the index"
	@echo "make readme  the figures of README and docs, from results/"
	@echo "make wheel   the wheel and the source distribution, in dist/"
	@echo "make lock    update requirements.lock (UPGRADE=1: to the newest versions)"
	@echo "make clean   remove .venv and everything built"

install: $(STAMP)

# Two steps, because what torch needs depends on which build of it is to be had. The index's
# Linux build brings about 3 GB of CUDA libraries, pinned by requirements-cuda.lock; a CPU build
# that your pip configuration offers (PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS) is taken instead and
# brings none. The rest is installed without resolving: requirements.lock is complete, and the
# versions that vissl 0.1.6 declares build on no Python of today.
$(VENV)/.requirements: requirements.lock requirements-cuda.lock
	@test -n "$(PYTHON)" || { \
	  echo "make: no Python 3.10-3.13 with venv found. Install one (on Debian also python3-venv)," \
	    "or name it: PYTHON=/path/to/python3.12 make ..." >&2; exit 1; }
	@"$(PYTHON)" -c '$(SUITABLE)' || { \
	  echo "make: PYTHON=$(PYTHON) is not a Python 3.10-3.13 with venv and ensurepip." >&2; exit 1; }
	@echo "Installing into $(VENV) with $$("$(PYTHON)" -V): one to five minutes, once."
	@"$(PYTHON)" -m venv --clear $(VENV)
	@echo "  torch (1/3)"
	@$(PIP_INSTALL) -c requirements.lock -c requirements-cuda.lock torch
	@echo "  everything else (2/3)"
	@$(PIP_INSTALL) --no-deps -r requirements.lock
	@touch $@

$(STAMP): $(VENV)/.requirements pyproject.toml setup.py
	@echo "  convit_ssl itself (3/3)"
	@$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m convit_ssl.compat.environment
	@touch $@

# The GPU's kernels are tested by Triton's interpreter, which a CUDA build of torch brings along.
$(VENV)/.kernels: $(STAMP)
	@$(BIN)/python -c 'import triton' 2>/dev/null || \
	  $(PIP_INSTALL) --no-deps -c requirements-cuda.lock triton || \
	  echo "  no Triton for this machine: the tests of the GPU's kernels are skipped"
	@touch $@

demo: $(STAMP)
	@$(BIN)/convit-ssl demo $(ARGS)

PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile

test: $(VENV)/.kernels
	$(PYTEST) -m "not slow and not cluster" $(ARGS)

test-slow: $(VENV)/.kernels
	$(PYTEST) -m "slow and not cluster" $(ARGS)

# One at a time: they share one cluster. pytest's 5 means that no test has the marker.
test-cluster: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m cluster $(ARGS) || test $$? -eq 5

CHECKS := lint format-check types imports test test-slow

check: $(STAMP)
	@failed=""; \
	for part in $(CHECKS); do \
	  echo "=== $$part"; \
	  $(MAKE) --no-print-directory $$part || failed="$$failed $$part"; \
	done; \
	echo; \
	for part in $(CHECKS); do \
	  case " $$failed " in *" $$part "*) echo "FAILED  $$part  (again: make $$part)";; \
	    *) echo "passed  $$part";; esac; \
	done; \
	test -z "$$failed"

lint: $(STAMP)
	@$(BIN)/ruff check .

format-check: $(STAMP)
	@$(BIN)/ruff format --check .

types: $(STAMP)
	@$(BIN)/mypy

imports: $(STAMP)
	@$(BIN)/lint-imports

format: $(STAMP)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# One resolution for Python 3.10-3.13 and all platforms: names, versions and markers, no host.
# Versions already there are kept unless UPGRADE is set; a file that stays the same is not
# touched, so that .venv is made again only for a reason.
CUDA := ^(nvidia-|cuda-|triton==)

lock:
	@test -x $(BIN)/uv || $(MAKE) --no-print-directory install
	@set -e; new=$$(mktemp -d); trap 'rm -rf "$$new"' EXIT; \
	$(if $(UPGRADE),,cat requirements.lock requirements-cuda.lock > "$$new/whole";) \
	$(BIN)/uv pip compile -q --no-python-downloads --universal --python-version 3.10 \
	  --no-annotate --no-header --all-extras --group dev --group vissl --group docs -c constraints.in \
	  pyproject.toml -o "$$new/whole" > /dev/null; \
	grep -v -E '$(CUDA)' "$$new/whole" > "$$new/requirements.lock"; \
	grep -E '$(CUDA)' "$$new/whole" > "$$new/requirements-cuda.lock"; \
	for lock in requirements.lock requirements-cuda.lock; do \
	  if cmp -s "$$new/$$lock" $$lock; then echo "$$lock: unchanged"; \
	  else cp "$$new/$$lock" $$lock; echo "$$lock: remade"; fi; \
	done

# Each script makes a virtual environment of its own; needs a package index. No part of check or CI.
findings:
	@PYTHON="$(PYTHON)" tools/run_findings.sh $(ARGS)

# Strict: a link that leads nowhere is an error. Open build/site/index.html; no server is needed.
docs: $(STAMP)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "build/site/index.html"

# A folder for each result, and results/INDEX.csv.
results: $(STAMP)
	@$(BIN)/python tools/file_results.py

# The wheel and the source distribution, in dist/.
wheel: $(STAMP)
	@rm -rf build/lib build/bdist.*
	@$(BIN)/python -m build --no-isolation --outdir dist . > build.log 2>&1 || { tail build.log; exit 1; }
	@rm -f build.log; ls dist

# The figures of README.md and docs/, from the files of results/.
readme: $(STAMP)
	@$(BIN)/python tools/make_figures

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache \
	  .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
