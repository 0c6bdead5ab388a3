.DEFAULT_GOAL := help
CARGO ?= cargo

.PHONY: help run build test lint bench clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Build and run everything in one process on http://127.0.0.1:8000
	$(CARGO) run --release -- all

build: ## Build the release binary, target/release/app
	$(CARGO) build --release

test: ## Run every test
	$(CARGO) test --features testing

lint: ## Check formatting and lints
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --features testing -- -D warnings

bench: ## Run the benchmarks
	$(CARGO) bench

clean: ## Delete what was built
	$(CARGO) clean
