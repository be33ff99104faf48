# The one front door. `make` lists what there is to do.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
BENCH := $(VENV)-bench
STAMP := $(VENV)/.installed
ARGS ?=
# Three runs of tests side by side, each with a broker and a database of its own: tests mostly wait.
SIDE_BY_SIDE ?= -n 3 --dist worksteal
WORKERS ?= 2
MINUTES ?= 60
SEED ?=
# Recorded runs of agents, if there are any: a file to publish from.
RECORDED ?= $(or $(WORKER_RECORDED_RUNS),$(wildcard ../shared/data/agent-runs-*.json))
SECONDS ?= 60
# The installer keeps a cache below the home folder; where that cannot be (some CI containers), it goes without.
UV_PIP := $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python \
	$(shell [ -n "$$UV_CACHE_DIR" ] || [ -w "$${XDG_CACHE_HOME:-$$HOME}" ] || echo --no-cache)

.PHONY: help
help: ## List these commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sort | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(STAMP): requirements/dev.txt pyproject.toml
	@deploy/check-python "$(PYTHON)"
	@echo "==> Installing the pinned packages into $(VENV) (once)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/installer.txt
	@$(UV_PIP) --require-hashes -r requirements/dev.txt
	@$(UV_PIP) --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m compileall -q contracts worker
	@touch $(STAMP)

.PHONY: setup
setup: $(STAMP) ## Make .venv and install everything into it

.PHONY: demo
demo: $(STAMP) ## Start a throw-away broker and database and watch two workers at work
	@$(BIN)/worker demo $(ARGS)

.PHONY: torture
torture: $(STAMP) ## Publish and break things for an hour, account for every message (MINUTES=60 WORKERS=2 SEED=)
	@$(BIN)/worker torture --minutes $(MINUTES) --workers $(WORKERS) $(if $(SEED),--seed $(SEED)) \
		$(if $(wildcard $(RECORDED)),--from $(RECORDED)) --report docs/torture-report.md $(ARGS)

.PHONY: torture-tests
torture-tests: $(STAMP) ## Run the tests that take too long for every day (marker torture)
	@$(BIN)/python -m pytest -m torture $(ARGS)

.PHONY: test
test: $(STAMP) ## Run every test against a real broker and a real database (COVERAGE=1: and measure)
	@echo "==> Running all tests (a throw-away RabbitMQ and PostgreSQL are started for them)"
ifdef COVERAGE
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest $(SIDE_BY_SIDE) $(ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report --fail-under=95
else
	@$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(ARGS)
endif

.PHONY: torture-matrix
torture-matrix: $(STAMP) ## Run the suite on several versions of RabbitMQ, PostgreSQL and Python (needs root and the network)
	@$(BIN)/python tests/matrix $(ARGS)

.PHONY: unit
unit: $(STAMP) ## Run the unit tests only (seconds, no services)
	@$(BIN)/python -m pytest tests/unit $(ARGS)

.PHONY: fuzz
fuzz: $(STAMP) ## Fuzz what decodes foreign bytes, guided by coverage (SECONDS=60)
	@$(UV_PIP) --require-hashes -r requirements/fuzz.txt
	@PYTHONPATH=tests:. $(BIN)/python tests/fuzz/run.py --seconds $(SECONDS) $(ARGS)
	@PYTHONPATH=tests:. $(BIN)/python tests/fuzz/worst.py

.PHONY: mutants
mutants: $(STAMP) ## Break our own code in each way of tests/mutants and see that a test notices (a quarter of an hour)
	@PYTHONPATH=tests:. $(BIN)/python tests/mutants/run.py $(ARGS)

.PHONY: check
check: $(STAMP) ## Lint, types, floors
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

$(BENCH)/.installed: requirements/bench.txt $(STAMP)
	@echo "==> Installing what the benchmarks compare with into $(BENCH) (once)"
	@$(PYTHON) -m venv $(BENCH)
	@$(subst --python $(BIN)/python,--python $(BENCH)/bin/python,$(UV_PIP)) --require-hashes -r requirements/bench.txt
	@touch $@

.PHONY: bench
bench: $(BENCH)/.installed ## Measure against the limit of the machine and against others (20 minutes)
	@$(BENCH)/bin/python -m compileall -q contracts worker benchmarks
	@$(BENCH)/bin/python -m benchmarks $(ARGS)

.PHONY: bench-quick
bench-quick: $(BENCH)/.installed ## The same in 3 minutes, to see which way a change goes
	@$(BENCH)/bin/python -m compileall -q contracts worker benchmarks
	@$(BENCH)/bin/python -m benchmarks --quick $(ARGS)

.PHONY: bench-growth
bench-growth: $(BENCH)/.installed ## Rate against backlog, rows, payload, families, processes and keys (45 minutes)
	@$(BENCH)/bin/python -m compileall -q contracts worker benchmarks
	@$(BENCH)/bin/python -m benchmarks --growth $(ARGS)

.PHONY: bench-choices
bench-choices: $(BENCH)/.installed ## Rate without each design choice, beside the worker as it is (15 minutes)
	@$(BENCH)/bin/python -m compileall -q contracts worker benchmarks
	@$(BENCH)/bin/python -m benchmarks --choices $(ARGS)

.PHONY: up
up: ## Build the image and start PostgreSQL, RabbitMQ and workers with Docker Compose (WORKERS=2)
	@sh deploy/make-env
	@docker compose up --build --detach --scale worker=$(WORKERS)
	@docker compose ps

.PHONY: down
down: ## Stop what `make up` started; the data stay
	@docker compose down

.PHONY: docs
docs: $(STAMP) ## Generate docs/contracts.md and docs/data-model.md from contracts and tables
	@$(BIN)/worker contracts export --format markdown --output docs/contracts.md
	@$(BIN)/worker contracts export --format data-model --output docs/data-model.md

.PHONY: lock
lock: $(STAMP) ## Pin all dependencies anew, with hashes and without addresses
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links --extra worker pyproject.toml -o requirements/worker.txt
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links --extra worker --extra client --extra sandbox --group dev pyproject.toml -o requirements/dev.txt
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links --extra worker --extra sandbox --group bench --constraint requirements/dev.txt pyproject.toml -o requirements/bench.txt
	@printf 'atheris==3.0.0 ; python_version < "3.12" and sys_platform == "linux"\natheris==3.1.0 ; python_version >= "3.12" and sys_platform == "linux"\n' | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links - -o requirements/fuzz.txt
	@echo 'uv==$(shell $(BIN)/uv --version | cut -d" " -f2)' | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links - -o requirements/installer.txt

.PHONY: ci
ci: check test ## What CI runs

.PHONY: clean
clean: ## Remove .venv and caches
	@rm -rf $(VENV) $(BENCH) .fuzz .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage* htmlcov build dist
