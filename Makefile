# Two commands matter: `make demo` and `make test`. Both work on a fresh Debian or Ubuntu machine with Rust, and both
# use one build (one profile, one feature set), so that the second is quick.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# rustup puts cargo here; a shell opened before the installation does not know it yet.
export PATH := $(PATH):$(HOME)/.cargo/bin

TARGET := $(or $(CARGO_TARGET_DIR),target)
BIN := $(TARGET)/release/steelyard
# Extra words for the test command, such as ARGS="--test recall", or for a benchmark.
ARGS ?=
# PEERS=1 builds the iroh-blobs peer of bench-transfer too: several hundred crates, once.
PEERS ?=
# KEEP=1 leaves the demo's three nodes up.
KEEP ?=

.PHONY: help setup build weights demo clean-demo test python bench bench-pull bench-transfer bench-dedup bench-codec bench-trust bench-inference bench-dropin cuda lint deny

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  make demo KEEP=1    leaves the three nodes up and prints how to play with them"

setup: ## Check the needed tools; install missing Debian packages
	@scripts/setup.sh

build: setup ## Build everything once, for the demo, the tests and the benchmarks
	cargo build --release --workspace --locked

weights: setup ## Fetch SmolLM2-135M-Instruct (98 MB, once; pinned by hash)
	@scripts/fetch-weights.sh smollm2

demo: build weights ## Three nations publish, mirror, verify, serve and recall a real model
	@STEELYARD_WEIGHTS="$$(scripts/fetch-weights.sh smollm2)" $(BIN) demo $(if $(filter-out 0,$(KEEP)),--keep)

clean-demo: ## Stop the nodes that `make demo KEEP=1` left up and remove their data
	@if [ -x $(BIN) ]; then $(BIN) demo --clean; else echo "nothing was built, so nothing is running"; fi

python: setup ## Make the Python environment of the tests, once, in the cache
	@scripts/python-venv.sh
	@scripts/python-venv.sh requirements-hub.txt
	@scripts/python-venv.sh requirements-hub-0.36.txt
	@scripts/python-venv.sh requirements-oidc.txt

test: build weights python ## Every test: units, specifications' vectors, whole systems with real processes
	@for need in ip:iproute2 nft:nftables softhsm2-util:softhsm2 skopeo:skopeo podman:podman; do \
	    [ -x /usr/sbin/$${need%:*} ] || command -v $${need%:*} >/dev/null || scripts/setup.sh --optional $${need#*:}; done
	STEELYARD_PYTHON="$$(scripts/python-venv.sh)" STEELYARD_WEIGHTS="$$(scripts/fetch-weights.sh smollm2)" cargo test --release --workspace --locked $(ARGS)

bench: bench-pull bench-transfer bench-dedup bench-codec bench-trust bench-inference bench-dropin ## Every benchmark

bench-pull: build ## Pull a generated model between two local nodes, beside plain TCP and a static HTTP server
	@scripts/setup.sh --optional nginx curl
	@$(TARGET)/release/bench-pull

# Some parts make network namespaces, which needs root. ARGS="swarm cpu" runs those parts alone.
bench-transfer: build ## What moving weights costs, beside BitTorrent, HTTP and others in the same run
	@scripts/setup.sh --optional nginx curl
	@command -v tc >/dev/null || scripts/setup.sh --optional iproute2
	@/usr/bin/python3 -c 'import libtorrent' 2>/dev/null || scripts/setup.sh --optional python3-libtorrent
	@if [ -n "$(filter-out 0,$(PEERS))" ]; then STEELYARD_BENCH_IROH="$$(tests/peers/iroh/build.sh)"; export STEELYARD_BENCH_IROH; fi; \
	  $(TARGET)/release/bench-transfer $(ARGS)

bench-dedup: build ## New bytes for a revision: a tensor replaced, other shards, a fine-tune
	@$(TARGET)/release/bench-dedup

bench-codec: build weights ## Real weights on the wire: % of raw and GB/s of CPU, beside Zstandard, LZ4 and ZipNN
	@STEELYARD_WEIGHTS="$$(scripts/fetch-weights.sh smollm2)" STEELYARD_MINILM="$$(scripts/fetch-weights.sh minilm)" \
		STEELYARD_GEMMA3="$$(scripts/fetch-weights.sh gemma3)" STEELYARD_PEERS=scripts/codec-peers.sh $(TARGET)/release/bench-codec

# STEELYARD_BENCH_RECALLS=10 is quick. ARGS="lease" runs that part alone.
bench-trust: build ## Ten nodes of four nations: recall to the last worker stopped, a node cut off and its lease
	@venv="$${XDG_CACHE_HOME:-$$HOME/.cache}/steelyard/venv-tuf-7"; \
	  if [ ! -e "$$venv/.complete" ]; then python3 -m venv "$$venv" && \
	    "$$venv/bin/pip" --disable-pip-version-check -q install 'tuf==7.0.1' 'securesystemslib[crypto]==1.6.0' && touch "$$venv/.complete"; fi; \
	  STEELYARD_BENCH_TUF="$$venv/bin/python" $(TARGET)/release/bench-trust $(ARGS)

# ARGS="load" runs that part alone.
bench-inference: build weights ## What serving costs: verified loading over hashing's own floor
	@STEELYARD_WEIGHTS="$$(scripts/fetch-weights.sh smollm2)" $(TARGET)/release/bench-inference $(ARGS)
# STEELYARD_BENCH_MODELS=10 STEELYARD_BENCH_DROPIN_MIB=256 is quick. ARGS="throughput" runs that part alone.
bench-dropin: build ## What the hub interface costs: what is not here, throughput beside nginx, 200 clients
	@scripts/setup.sh --optional nginx curl
	@$(TARGET)/release/bench-dropin $(ARGS)

# CUDA_COMPUTE_CAP=80 for an A100; 90, a Hopper, by default.
cuda: setup ## Build with CUDA (candle), on a machine that needs no GPU; prints where the binary is
	@scripts/cuda.sh

lint: setup ## Formatting, clippy without warnings, dependencies, house rules
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets --locked -- -D warnings
	@$(MAKE) deny
	@scripts/check-tree.sh

deny: ## Licences, sources and bans of the dependencies (deny.toml)
	@scripts/check-dependencies.sh
