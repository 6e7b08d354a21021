# Every target sets up what it needs: an environment in .venv, the tools in it, the compiled core.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
LOGS := build/logs
HEADERS := build/uapi-headers

export PYTHON
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
unexport CONDA_PREFIX PYTHONHOME

# A moment with ten thousand mappings, and a request there that cuts two of them and drops the one between.
TRACE := examples/nvk-tile-streaming.jsonl.gz
LINE := 10548
REQUEST := map 0x3f57580000 0x200000 bo=8 off=0
PICTURE := build/nvk-tile-streaming.svg

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL: # pip is not made to run twice in one environment
.PHONY: help run test test-full check bench docs setup

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: setup ## replay the binds of a real Vulkan driver and draw its address space
	@tools/quietly $(LOGS)/show.log "drawing the space as it was at line $(LINE)" \
		$(BIN)/gpuvm show $(TRACE) --until $(LINE) -o $(PICTURE) --force
	@$(BIN)/gpuvm replay $(TRACE)
	@echo
	@echo 'picture: $(PICTURE)'
	@echo 'next:    $(BIN)/gpuvm explain "$(REQUEST)" --on $(TRACE) --until $(LINE)'

test: setup $(STAMPS)/group-test $(HEADERS) ## the tests, a few minutes
	$(BIN)/pytest

test-full: setup $(STAMPS)/group-test $(HEADERS) ## the long suite: 200,000 random requests and more
	GPUVM_SUITE=full $(BIN)/pytest --timeout 3600

check: setup $(STAMPS)/group-check ## formatting, lint, types, stubs, import order of the floors
	@tools/preflight rustfmt clippy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/stubtest gpuvm._core
	$(BIN)/lint-imports --no-logo
	for crate in . bench/rivals; do \
		cargo fmt --check --manifest-path $$crate/Cargo.toml && \
		cargo clippy --quiet --locked --all-targets --manifest-path $$crate/Cargo.toml -- --deny warnings || exit; \
	done

bench: setup $(STAMPS)/group-bench $(STAMPS)/rivals ## measure against other containers; BENCH=--quick for a rough idea
	@$(BIN)/python -m bench.run $(BENCH)

docs: setup $(STAMPS)/group-docs ## build the documentation into build/docs
	$(BIN)/sphinx-build --quiet --fail-on-warning -b html docs build/docs
	@echo "build/docs/index.html"

setup: $(STAMPS)/core

$(STAMPS)/venv:
	@tools/preflight
	@tools/quietly $(LOGS)/venv.log "making $(VENV)" $(PYTHON) -m venv --clear $(VENV)
	@tools/quietly $(LOGS)/pip.log "updating its pip" $(BIN)/pip install 'pip>=25.1' # the first with --group
	@mkdir -p $(STAMPS) && touch $@

# Named after the dependency group of pyproject.toml that it installs.
$(STAMPS)/group-%: pyproject.toml | $(STAMPS)/venv
	@tools/quietly $(LOGS)/group-$*.log "installing the tools to $*" $(BIN)/pip install --group $*
	@touch $@

$(HEADERS):
	@tools/uapi-headers $@ $(LOGS)/uapi-headers.log

$(STAMPS)/core: Cargo.toml Cargo.lock pyproject.toml $(shell find src -name '*.rs') | $(STAMPS)/group-build
	@tools/preflight
	@tools/quietly $(LOGS)/core.log "building the Rust core (1-2 minutes the first time)" \
		$(BIN)/maturin develop --release --locked
	@touch $@

$(STAMPS)/rivals: $(shell find bench/rivals -name target -prune -o -type f -print) | $(STAMPS)/group-build
	@tools/quietly $(LOGS)/rivals.log "building the Rust rivals (1-2 minutes the first time)" \
		$(BIN)/maturin develop --release --locked --manifest-path bench/rivals/Cargo.toml
	@touch $@
