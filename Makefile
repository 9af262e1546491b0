# Everything a person or a CI types. `make help` lists it.
# What is fetched is kept in POMONA_CACHE (default ~/.cache/pomona), outside target/.

SHELL := /bin/bash -o pipefail
PYTHON ?= python3
SETUP := $(PYTHON) scripts/setup.py
export POMONA_CACHE ?= $(shell $(SETUP) path)
export LIBTORCH := $(shell $(SETUP) libtorch-path)
export PATH := $(POMONA_CACHE)/tools/bin:$(PATH)
CARGO ?= cargo
TRAINER := -p pomona-trainer

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## Fetch libtorch, weights, photographs and tools into the cache (once)
	@$(SETUP) libtorch lite0 tux tools postgres redis s3 skopeo clients

.PHONY: build
build: ## Release binaries of everything, and the weights that the README's first experiment names
	@$(SETUP) libtorch lite0
	$(CARGO) build --release --workspace --bins

.PHONY: demo
demo: ## The main job on real data: a grid of fine-tuning, from one command to a pulled model
	@$(SETUP) libtorch lite0 tux
	@$(CARGO) build --release --workspace --bins
	@$(PYTHON) scripts/demo.py

.PHONY: demo-seeds
demo-seeds: ## The demo's grid over split seeds 0 to 4 (adds "seeds" to target/demo/summary.json)
	@$(SETUP) libtorch lite0 tux
	@$(CARGO) build --release --workspace --bins
	@$(PYTHON) scripts/demo.py --seeds

.PHONY: test
test: ## Set up and pass all tests
	@$(SETUP) libtorch lite0 tux tools postgres redis s3 skopeo clients
	@# Named binaries first: the end-to-end tests start them as a user would.
	$(CARGO) build --workspace --bins
	$(CARGO) nextest run --workspace

.PHONY: check
check: ## Format, lints, docs, dependencies
	@$(SETUP) libtorch tools
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items --quiet
	$(CARGO) deny --log-level error check bans licenses sources
	$(CARGO) machete

.PHONY: bench
bench: ## Start-up, memory, input pipeline and training loop on this machine, as a table and target/bench/house.json
	@$(SETUP) libtorch lite0 tux
	@$(CARGO) build --release --workspace --bins
	@$(CARGO) build --release $(TRAINER) --examples
	@$(PYTHON) scripts/bench.py

.PHONY: bench-sharing
bench-sharing: ## Grids against a plain PyTorch loop and an expert's script (fetches PyTorch and scikit-learn, 3 GB, once); ROWS, ROUNDS
	@$(SETUP) libtorch lite0 tux fashion rivals
	@$(CARGO) build --release --workspace --bins
	@$(CARGO) build --release $(TRAINER) --example prefix --example suffix --example heads --example pipeline
	@$(PYTHON) scripts/bench_sharing.py $(if $(ROUNDS),--rounds $(ROUNDS)) $(ROWS)

.PHONY: chaos
chaos: ## Faults at random moments, 20 seeds (SEEDS, FIRST, TRIALS) and 3 with the real trainer (REAL), and what they lost: target/bench/chaos.json, chaos-real.json
	@$(SETUP) libtorch lite0 tux tools postgres redis
	$(CARGO) build --workspace --bins
	POMONA_CHAOS_SEEDS=$(or $(SEEDS),20) POMONA_CHAOS_FIRST=$(or $(FIRST),1) POMONA_CHAOS_TRIALS=$(or $(TRIALS),500) $(CARGO) nextest run --profile chaos -p pomona-cli -E 'test(/chaos_loses_nothing$$/)' --no-capture
	POMONA_CHAOS_SEEDS=$(or $(REAL),3) POMONA_CHAOS_FIRST=$(or $(FIRST),1) $(CARGO) nextest run --profile chaos -p pomona-cli -E 'test(/chaos_loses_nothing_that_was_really_trained$$/)' --run-ignored all --no-capture

.PHONY: bench-tracking
bench-tracking: ## Tracking and pulls, beside MLflow's server (fetched once, 280 MB) and nginx, as a table and target/bench/tracking.json; ROWS, ROUNDS, RUNS
	@$(SETUP) postgres tracking-rivals
	@$(CARGO) build --release --workspace --bins --example load
	@$(PYTHON) scripts/bench_tracking.py $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(RUNS),--runs $(RUNS)) $(ROWS)

.PHONY: bench-control
bench-control: ## The control plane, beside Ray Tune and Optuna (fetched once, 200 MB), as a table and target/bench/control.json; ROWS, ROUNDS
	@$(SETUP) libtorch lite0 tux postgres control-rivals
	@$(CARGO) build --release --workspace --bins
	@$(CARGO) build --release --example fleet --example replay
	@$(PYTHON) scripts/bench_control.py $(if $(ROUNDS),--rounds $(ROUNDS)) $(ROWS)

# A tree of its own: the same crates against another libtorch.
GPU = LIBTORCH=$$($(SETUP) libtorch-gpu-path) POMONA_CUDA_INCLUDE=$$($(SETUP) cuda-path) CARGO_TARGET_DIR=target/gpu

.PHONY: build-gpu
build-gpu: ## Release binaries for NVIDIA GPUs, in target/gpu/release (libtorch with CUDA and NCCL: 2.5 GB, once)
	@$(SETUP) libtorch-gpu cuda-headers lite0
	$(GPU) $(CARGO) build --release --workspace --bins --features pomona-trainer/cuda

.PHONY: test-gpu
test-gpu: build-gpu ## The trainer's tests with ranks on GPUs and NCCL between them (two GPUs)
	@$(SETUP) tux tools clients
	$(GPU) POMONA_TEST_DEVICE=cuda CUBLAS_WORKSPACE_CONFIG=:4096:8 \
	  $(CARGO) nextest run --release -p pomona-trainer --features cuda

.PHONY: check-cuda
check-cuda: ## Compile the NCCL half of the data-parallel shim without libtorch's GPU half (0.2 GB instead of 2.5)
	@$(SETUP) libtorch cuda-headers
	POMONA_CUDA_INCLUDE=$$($(SETUP) cuda-path) $(CARGO) check $(TRAINER) --features cuda
	@echo "NCCL: compiled against its headers, not linked and not run (\`make test-gpu\` does both)."

.PHONY: sim
sim: ## Replay the scheduler's simulation: SEED=n for one seed, SEEDS=n for the first n
	$(if $(SEED),POMONA_SIM_SEED=$(SEED)) $(if $(SEEDS),POMONA_SIM_SEEDS=$(SEEDS)) \
	  $(CARGO) test -p pomona-scheduler --test simulation -- --nocapture

.PHONY: clean
clean: ## Remove what was built (the cache stays)
	$(CARGO) clean
