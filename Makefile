# The two commands of a newcomer are `make demo` and `make test`. `make help` lists the rest.

CARGO ?= cargo
CONCLAVE := target/release/conclave
SEEDS ?= 2000
FIRST_SEED ?= 0
SECONDS_PER_SCENARIO ?= 20
SECONDS_PER_TARGET ?= 30
# Names of fuzz targets; none for all.
TARGETS ?=
RUNS ?= 1

# cargo-nextest where it is installed, else cargo's own runner.
TEST_RUNNER := $(shell $(CARGO) nextest --version >/dev/null 2>&1 && echo "nextest run" || echo "test")

.PHONY: help deps build demo run test test-long search simulate fuzz faults bench soak check clean
.DEFAULT_GOAL := help

help: ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## Install what the build needs; compile RocksDB once into a cache
	@scripts/deps

build: deps ## Leave target/release/conclave
	$(CARGO) build --locked --release --bin conclave

demo: build ## Three nodes, keys, signatures, a revocation, a killed node; then stop
	$(CONCLAVE) demo

run: build ## A cluster of three nodes that stays up, under .conclave
	$(CONCLAVE) dev

test: ## All tests, the npm clients' included
	@scripts/deps tests
	$(CARGO) build --locked --workspace --features conclave/next-format --bin conclave-next-format
	$(CARGO) $(TEST_RUNNER) --locked --workspace

test-long: ## The tests that take long: an hour of disorder, kills under load, the search for a key
	@scripts/deps search
	$(CARGO) build --locked --release --bin conclave
	$(CARGO) test --locked --release --test cluster --test faults --test threats --test search -- --ignored --test-threads 1

search: ## Look for a whole key in memory, disks, logs, metrics and on the wire of real release processes
	@scripts/deps search
	$(CARGO) build --locked --release --bin conclave
	$(CARGO) test --locked --release --test search -- --include-ignored --nocapture --test-threads 1

simulate: deps ## SEEDS simulated worlds, invariants after every event
	SEEDS=$(SEEDS) FIRST_SEED=$(FIRST_SEED) CARGO=$(CARGO) scripts/simulate

fuzz: deps ## Every parser of bytes from outside under libFuzzer, SECONDS_PER_TARGET each; TARGETS="json raft" for some
	SECONDS_PER_TARGET=$(SECONDS_PER_TARGET) scripts/fuzz $(TARGETS)

faults: ## Run the tests that inject faults and write docs/faults.md
	@scripts/deps tests
	scripts/faults

bench: build ## Load on a fresh cluster of three nodes, a row per scenario; RUNS=3 SECONDS_PER_SCENARIO=60 for the record
	@scripts/deps bench
	scripts/bench --seconds $(SECONDS_PER_SCENARIO) --runs $(RUNS)

soak: build ## Mixed load for an hour on a fresh cluster of three nodes: errors, memory, disk
	scripts/soak

check: deps ## Format, lints
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

clean: ## Remove what was built here (the RocksDB cache stays)
	$(CARGO) clean
