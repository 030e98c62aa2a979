# Sanso: every target does its own set-up; all are safe to repeat.
#
#   make build    release binary at bin/sanso
#   make demo     a running platform with data in it (SECONDS=60 stops by itself, DATA=path ingests real files)
#   make cluster  five nodes, Kafka, an object store and Prometheus in containers: OFFLINE=1 without a registry, PROFILE=grafana
#   make cluster-down   stops them; what they hold stays (make cluster-erase removes it)
#   make test     everything that must hold
#   make verify   read-only gate: format, clippy, docs, licences
#   make law      the law over more histories: make law SEEDS=100000 START=0
#   make simulate the replication core in a simulated cluster with faults: make simulate SEEDS=100000 FROM=0 (TRACE=1: tell what happens)
#   make simulate-layers  the three layers in the same cluster: make simulate-layers SEEDS=10000 FROM=0 (TRACE=1)
#   make simulate-mutants  breaks each rule of the core and of the layers on purpose; how many seeds until it is noticed
#   make bench    how fast, against whom: make bench SECTIONS="http freshness"
#   make bench-peers  against DuckDB, Polars, Spark and Flink on the same work: make bench-peers PARTS="load merge" METERS=100000 DAYS=10 TUPLES=20000000
#   make experiments  the papers' experiments, with plots: make experiments EXPERIMENTS="shuffle recompute reload interval history growth" QUICK=1 OUT=folder
#   make drill    a cluster under load loses a node, and more: make drill FAULTS="pause cut" NODES=5 REPEAT=5 RATE=180 PRELOAD=100000 STORAGE=disk
#   make drill-redis  what the clients of a Redis Cluster see when a master is killed or frozen: make drill-redis FAULTS="kill pause"
#   make torture  kills, damages, millions, judged by a naive fold: make torture MINUTES=10 ROUNDS= SEED=
#   make soak     a day's readings at ten times the rate in 2 GiB: make soak MINUTES=60 METERS=20000
#   make fuzz     MINUTES=10 for all targets together, or TARGET=nem for one; see e2e/fuzz
#   make mutants  breaks each rule of exactness on purpose; the law must notice
#
# Compiled dependencies are kept outside the checkout, in $(CARGO_TARGET_DIR).

SHELL := /bin/bash
CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/sanso
export CARGO_TARGET_DIR ?= $(CACHE)/target
export PATH := $(CACHE)/tools/bin:$(PATH)
CARGO := cargo --locked

LISTEN ?= 127.0.0.1:7070
SECONDS ?=
DATA ?=

.PHONY: help setup build demo cluster cluster-down cluster-erase test verify law simulate simulate-layers simulate-mutants bench bench-peers experiments drill drill-redis soak torture fuzz mutants fmt

help:
	@sed -n 's/^#   //p' Makefile

setup:
	@deploy/setup/install.sh

build: setup
	$(CARGO) build --release --package sanso
	@mkdir -p bin && cp -f $(CARGO_TARGET_DIR)/release/sanso bin/sanso.new && mv -f bin/sanso.new bin/sanso
	@echo "built bin/sanso"

demo: build
	bin/sanso demo --listen $(LISTEN) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(DATA),--ingest $(DATA))

OFFLINE ?=
PROFILE ?=

cluster: build
	@deploy/setup/install.sh cluster
ifneq ($(OFFLINE),)
	@deploy/setup/install.sh offline
	CACHE=$(CACHE) deploy/offline/build.sh
endif
	OFFLINE=$(OFFLINE) PROFILE=$(PROFILE) deploy/cluster/cluster.sh up

cluster-down cluster-erase:
	OFFLINE=$(OFFLINE) deploy/cluster/cluster.sh $(@:cluster-%=%)

# The tests of the packages, then those that drive the built binary from outside. That one is the product's; our packages
# as tests have them are hardly optimised, which compiles in a fraction of the time. Properties are tried on the same
# cases in each run; other ones are for `make law` and `make simulate`.
test: build
	@deploy/setup/install.sh test
	PROPTEST_RNG_SEED=1 SANSO_BIN=$(CURDIR)/bin/sanso SANSO_PYTHON=$(CACHE)/python/bin/python3 SANSO_KAFKA_JARS=$(CACHE)/kafka/lib \
		SANSO_MOTO_PYTHON=$(CACHE)/moto/bin/python3 SANSO_SCHEMATHESIS=$(CACHE)/schemathesis/bin/schemathesis \
		$(CARGO) --config deploy/setup/test-profile.toml test --release --workspace --no-fail-fast

verify: setup
	@deploy/setup/install.sh verify
	cargo fmt --all --check
	$(CARGO) clippy --release --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --release --workspace --no-deps
	cargo deny --offline check licenses bans sources

SEEDS ?= 20000
START ?= 0

law: setup
	SANSO_LAW_SEEDS=$(SEEDS) SANSO_LAW_START=$(START) $(CARGO) test --release --workspace --test law -- --nocapture
	SANSO_SYSTEM_SEEDS=$$(( $(SEEDS) / 100 )) SANSO_LAW_START=$(START) $(CARGO) test --release --workspace --test system -- --nocapture

SECTIONS ?=

FROM ?= 0

simulate: setup
	SEEDS=$(SEEDS) FROM=$(FROM) $(CARGO) test --release -p sanso-core --lib every_promise_holds -- --nocapture

# The three layers above the core, in the same simulated cluster.
simulate-layers: setup
	SANSO_LAYERS_SEEDS=$(SEEDS) SANSO_LAW_START=$(FROM) $(CARGO) test --release --workspace --test layers every_promise -- --nocapture

# How many seeds, from the first, it takes to notice each broken rule.
simulate-mutants: setup
	MUTANTS_FROM_ZERO=1 MUTANT_SEEDS=50000 $(CARGO) test --release -p sanso-core --lib every_broken_rule -- --nocapture
	SANSO_LAYERS_MUTANTS_FROM_ZERO=1 SANSO_LAYERS_MUTANT_SEEDS=5000 $(CARGO) test --release --workspace --test layers every_broken_rule -- --nocapture

bench: build
	@deploy/setup/install.sh bench
	$(CARGO) build --release --workspace --bin sanso-bench
	SANSO_BIN=$(CURDIR)/bin/sanso SANSO_PYTHON=$(CACHE)/python/bin/python3 SANSO_KAFKA_JARS=$(CACHE)/kafka/lib \
		$(CARGO_TARGET_DIR)/release/sanso-bench $(SECTIONS) --results $(CACHE)/bench

PARTS ?=
DAYS ?= 10
TUPLES ?= 20000000
PEERS = SANSO_BIN=$(CURDIR)/bin/sanso SANSO_PYTHON=$(CACHE)/peers/bin/python3 SANSO_FLINK_JARS=$(CACHE)/peers/flink/lib \
	$(CARGO_TARGET_DIR)/release/sanso-bench

bench-peers: METERS = 100000
bench-peers: build
	@deploy/setup/install.sh peers
	$(CARGO) build --release --workspace --bin sanso-bench
	$(PEERS) peers $(PARTS) --meters $(METERS) --days $(DAYS) --tuples $(TUPLES) --results $(CACHE)/bench

EXPERIMENTS ?=
QUICK ?=

experiments: OUT = $(CACHE)/experiments
experiments: build
	@deploy/setup/install.sh peers
	$(CARGO) build --release --workspace --bin sanso-bench
	$(PEERS) experiments $(EXPERIMENTS) $(if $(QUICK),--quick) --results $(OUT)

FAULTS ?= kill pause
NODES ?= 3
REPEAT ?= 1
RATE ?= 180
OUT ?= $(CACHE)/drill

COMPOSE ?=
STORAGE ?= memory
PRELOAD ?= 0

drill: build
	@deploy/setup/install.sh $(if $(COMPOSE),cluster,drill)
ifneq ($(and $(COMPOSE),$(OFFLINE)),)
	@deploy/setup/install.sh offline
	CACHE=$(CACHE) deploy/offline/build.sh
endif
	SANSO_KAFKA_JARS=$(CACHE)/kafka/lib OFFLINE=$(OFFLINE) bin/sanso drill $(FAULTS:%=--fault %) \
		$(if $(COMPOSE),--compose deploy,--nodes $(NODES) --storage $(STORAGE)) --preload $(PRELOAD) --repeat $(REPEAT) --rate $(RATE) --out $(OUT)

drill-redis:
	@deploy/setup/install.sh drill
	$(CARGO) build --release --package sanso-drill-redis
	$(CARGO_TARGET_DIR)/release/sanso-drill-redis $(FAULTS:%=--fault %) --repeat $(REPEAT) --rate $(RATE) --out $(OUT)

# Both with the same faults and load, one after the other.
drill-compare: drill drill-redis

MINUTES ?= 60
METERS ?= 20000

soak: build
	SANSO_BIN=$(CURDIR)/bin/sanso MINUTES=$(MINUTES) METERS=$(METERS) $(CARGO) run --release --package sanso-e2e --bin soak

mutants: setup
	CACHE=$(CACHE) python3 deploy/law/mutants.py $(MUTANTS)

MINUTES ?= 10
ROUNDS ?=
SEED ?=

# Bounded by MINUTES for each of its parts but the last (a million of each: about two minutes);
# prints its seed, and fails at the first broken promise.
torture: build
	$(CARGO) build --release --workspace --bin torture
	SANSO_BIN=$(CURDIR)/bin/sanso MINUTES=$(MINUTES) ROUNDS=$(ROUNDS) SEED=$(SEED) $(CARGO_TARGET_DIR)/release/torture kill
	SANSO_BIN=$(CURDIR)/bin/sanso MINUTES=$(MINUTES) ROUNDS=$(ROUNDS) SEED=$(SEED) $(CARGO_TARGET_DIR)/release/torture damage
	SANSO_BIN=$(CURDIR)/bin/sanso MINUTES=$(MINUTES) ROUNDS=$(ROUNDS) SEED=$(SEED) $(CARGO_TARGET_DIR)/release/torture rot
	SANSO_BIN=$(CURDIR)/bin/sanso $(CARGO_TARGET_DIR)/release/torture mass

TARGET ?=

fuzz:
	@deploy/setup/install.sh fuzz
	CACHE=$(CACHE) e2e/fuzz/run.sh $(MINUTES) $(TARGET)

fmt:
	cargo fmt --all
