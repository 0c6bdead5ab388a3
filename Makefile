.DEFAULT_GOAL := help
CARGO ?= cargo

COMPOSE = docker compose --env-file deploy/.env

.PHONY: help run build test fuzz lint bench bench-broker bench-fleet bench-notifications load tools servers compiler clean up down logs

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: compiler ## Build and run everything in one process on http://127.0.0.1:8000
	$(CARGO) run --release -- all

build: compiler ## Build the release binary, target/release/app
	$(CARGO) build --release

test: compiler tools servers ## Run every test beside private servers; gets what they need first
	tests/tools/servers $(CARGO) test --features testing --no-fail-fast

FUZZ_SECONDS ?= 300

fuzz: compiler tools ## Send the API chance calls for FUZZ_SECONDS=300, signed in and not; no two runs are alike
	TEST_FUZZ_SECONDS=$(FUZZ_SECONDS) $(CARGO) test --features testing --test it contract::

lint: compiler ## Check formatting, lints, links in the docs and alert rules; gets promtool first
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --features testing -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" $(CARGO) doc --no-deps --document-private-items --features testing --quiet
	@tests/tools/prepare promtool
	promtool check rules deploy/prometheus/alerts.yml
	promtool test rules deploy/prometheus/alerts_test.yml
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny check; \
	else echo "cargo-deny is not installed: licences and advisories are not checked"; fi

bench: compiler ## Measure speed beside its ceilings; gets wrk first
	@tests/tools/prepare wrk
	$(CARGO) bench --bench embedded

up: ## Build the image and start the whole system; makes passwords and a certificate first, unless there are
	deploy/prepare
	$(COMPOSE) up --build --detach --wait

down: ## Stop the whole system; its data stays
	$(COMPOSE) down

logs: ## Follow the logs of the whole system
	$(COMPOSE) logs --follow --tail 100

bench-fleet: compiler servers ## Measure MongoDB, Redis and RabbitMQ beside their ceilings
	tests/tools/servers $(CARGO) bench --bench fleet

bench-broker: compiler servers ## Measure each broker beside its bare library
	tests/tools/servers $(CARGO) bench --bench broker

bench-notifications: compiler servers ## Measure accepting and delivering notifications beside their ceilings
	@tests/tools/prepare wrk
	tests/tools/servers $(CARGO) bench --bench notifications

URL ?= http://127.0.0.1:8000

load: ## Put a realistic mix of calls on URL=http://127.0.0.1:8000 for 20 s; LOAD="--rate 500" for more
	@tests/tools/load $(URL) $(LOAD)

tools: ## Get the tools that tests use, into .tools
	@tests/tools/prepare tools

servers: ## Get the servers that tests and benchmarks run against
	@tests/tools/prepare servers

clean: ## Delete what was built, and the tools
	$(CARGO) clean
	rm -rf .tools

compiler:
	@tests/tools/prepare compiler
