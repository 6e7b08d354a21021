# Every target sets up what it needs: an environment in .venv, the tools in it, the compiled core.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
LOGS := build/logs
HEADERS := build/uapi-headers

# A Debian 13 for real clients of the virtual device: what every `make test` runs, and what `make test-nvk` adds.
# And one with the newer NVK of its backports: Mesa 25.0's crashes when it presents to a headless surface.
ROOT := build/debian13
BACKPORTS := build/debian13-backports
CLIENTS := mesa-vulkan-drivers vulkan-tools libvulkan-dev libdrm-tests libdrm-dev gcc libc6-dev
MORE_CLIENTS := gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-bad ffmpeg vkmark intel-gpu-tools \
	mesa-drm-shim
BACKPORTED := mesa-vulkan-drivers/trixie-backports vulkan-tools vkmark
ROUNDS := 1

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
.PHONY: help run test test-full test-nvk clients more-clients viewer check bench bench-device docs setup \
	test-setup browser viewer-tools

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: setup ## replay the binds of a real Vulkan driver and draw its address space
	@tools/quietly $(LOGS)/show.log "drawing the space as it was at line $(LINE)" \
		$(BIN)/gpuvm show $(TRACE) --until $(LINE) -o $(PICTURE) --force
	@$(BIN)/gpuvm replay $(TRACE)
	@echo
	@echo 'picture: $(PICTURE)'
	@echo 'next:    $(BIN)/gpuvm explain "$(REQUEST)" --on $(TRACE) --until $(LINE)'

test: test-setup ## the tests, a few minutes
	$(BIN)/pytest

test-full: test-setup ## the long suite: 200,000 random requests and more
	GPUVM_SUITE=full $(BIN)/pytest --timeout 3600

test-nvk: setup $(STAMPS)/group-test more-clients ## NVK and Debian's Vulkan programs; ROUNDS=20 for twenty times
	for round in $$(seq $(ROUNDS)); do GPUVM_SUITE=nvk $(BIN)/pytest tests/nvk || exit; done

check: setup $(STAMPS)/group-check ## formatting, lint, types, stubs, import order of the floors
	@tools/preflight rustfmt clippy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/stubtest gpuvm._core
	$(BIN)/lint-imports --no-logo
	tools/viewer check
	for crate in . bench/rivals; do \
		cargo fmt --check --manifest-path $$crate/Cargo.toml && \
		cargo clippy --quiet --locked --all-targets --manifest-path $$crate/Cargo.toml -- --deny warnings || exit; \
	done

bench: setup $(STAMPS)/group-bench $(STAMPS)/rivals ## measure against other containers; BENCH=--quick for a rough idea
	@$(BIN)/python -m bench.run $(BENCH)

bench-device: setup $(STAMPS)/group-bench ## measure calls under gpuvm run, beside drm-shim and a bare supervisor
	@tools/debian-root $(ROOT) $(LOGS)/debian13-shim.log mesa-drm-shim
	@$(BIN)/python -m bench.run --part device $(BENCH)

docs: setup $(STAMPS)/group-docs ## build the documentation into build/docs
	$(BIN)/sphinx-build --quiet --fail-on-warning -b html docs build/docs
	@echo "build/docs/index.html"

viewer: ## build the page of gpuvm view from viewer/; needs Node and npm
	@tools/viewer build

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

clients:
	@tools/debian-root $(ROOT) $(LOGS)/debian13.log $(CLIENTS)

test-setup: setup $(STAMPS)/group-test $(HEADERS) clients browser viewer-tools

browser:
	@tools/browser $(LOGS)/browser.log

viewer-tools:
	@tools/viewer setup

more-clients: clients
	@tools/debian-root $(ROOT) $(LOGS)/debian13-more.log $(MORE_CLIENTS)
	@tools/debian-root $(BACKPORTS) $(LOGS)/debian13-backports.log $(BACKPORTED)

$(STAMPS)/core: Cargo.toml Cargo.lock pyproject.toml $(shell find src -name '*.rs') | $(STAMPS)/group-build
	@tools/preflight
	@tools/quietly $(LOGS)/core.log "building the Rust core (1-2 minutes the first time)" \
		$(BIN)/maturin develop --release --locked
	@touch $@

$(STAMPS)/rivals: $(shell find bench/rivals -name target -prune -o -type f -print) | $(STAMPS)/group-build
	@tools/quietly $(LOGS)/rivals.log "building the Rust rivals (1-2 minutes the first time)" \
		$(BIN)/maturin develop --release --locked --manifest-path bench/rivals/Cargo.toml
	@touch $@
