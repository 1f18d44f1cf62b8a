# Daily commands. Each is a plain cargo line or a script of ops/; `make` lists them.
.DEFAULT_GOAL := help
.PHONY: help demo bank test campaigns test-upgrade test-consumers test-kafka-security test-kafka-versions schedules check up down status reset migrate bench dist drill soak audit semver fmt doc

help: ## List these commands
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## A month of real flights through PostgreSQL and Kafka into a checked projection
	@ops/dev/demo $(ARGS)

bank: ## The tutorial: a bank on the event store, step by step
	@ops/dev/dev with -- cargo run --quiet --locked -p annals-bank

test: ## Checks, then all tests on the real components
	@ops/test $(ARGS)

test-consumers: ## The consumers of examples/consumers, in each language that this machine has; ARGS=python for one
	@ops/test-consumers $(ARGS)

campaigns: ## Tests that kill and crash at random moments, more often than `make test`
	@ANNALS_CAMPAIGN=1 ops/dev/dev with -- cargo test --locked --workspace --quiet --test promises -- --include-ignored \
		killed_again_and_again survive_many_crashes relays_killed_under_load forty_restarts followers_that_restart_under_load \
		an_old_database a_deleted_topic_comes_back answers_that_take_100_ms

test-upgrade: ## The store after pg_upgrade to PostgreSQL 18; needs PostgreSQL 14 to 17 and pip
	@ops/dev/dev with -- cargo test --locked --workspace --quiet --test promises -- --ignored by_an_upgrade

test-kafka-security: ## Logins and rights of Kafka: each refusal, and tokens of an OpenID provider; needs cmake
	@ops/test-kafka-security

test-kafka-versions: ## The relay's promises on the oldest and the newest Kafka that are supported
	@ops/dev/dev with -- ops/test-on-kafka 3.9 4.4

schedules: ## All small worlds and a million random schedules of the relay's machine (ANNALS_SCHEDULES for another number)
	@ANNALS_SCHEDULES=$${ANNALS_SCHEDULES:-1000000} cargo test --release --locked --workspace --test schedules -- --include-ignored

check: ## Format, lints, documentation and structure; no component needed
	@ops/check

up: ## Start PostgreSQL, Kafka, the schema registry and Prometheus, and wait until they answer
	@ops/dev/dev up
	@ops/dev/dev prometheus up || echo 'the stack runs without Prometheus'

down: ## Stop the components of `make up`; the data stay
	@ops/dev/dev prometheus down
	@ops/dev/dev down

status: ## Which components run, and where
	@ops/dev/dev status

reset: ## Stop, and delete the data
	@ops/dev/dev reset

dist: ## Packages of the relay in target/dist: tarball, .deb, SBOM
	@ops/dist $(ARGS)

drill: ## An operator's day: faults, their alerts and the runbook; ARGS=relay-dies for one
	@ops/drill $(ARGS)

soak: ## A relay under load with slow components; ARGS="--seconds 600" for longer phases
	@ops/soak $(ARGS)

bench: ## Measure beside the bare components; see bench/README.md
	@bench/run $(ARGS)

audit: ## Licences, advisories and duplicate dependencies (builds cargo-deny when absent)
	@ops/audit

semver: ## The public Rust API beside the last release's, by semantic versioning; ARGS=COMMIT for another base
	@ops/semver $(ARGS)

fmt: ## Format the code
	@cargo fmt --all

doc: ## Build the documentation and print its path
	@cargo doc --workspace --no-deps
	@echo target/doc/annals_store/index.html
