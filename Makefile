# The one front door. `make` lists what there is to do.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS ?=
WORKERS ?= 2
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

.PHONY: test
test: $(STAMP) ## Run every test against a real broker and a real database (COVERAGE=1: and measure)
	@echo "==> Running all tests (a throw-away RabbitMQ and PostgreSQL are started for them)"
ifdef COVERAGE
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest $(ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report --fail-under=95
else
	@$(BIN)/python -m pytest $(ARGS)
endif

.PHONY: unit
unit: $(STAMP) ## Run the unit tests only (seconds, no services)
	@$(BIN)/python -m pytest tests/unit $(ARGS)

.PHONY: fuzz
fuzz: $(STAMP) ## Fuzz what decodes foreign bytes, guided by coverage (SECONDS=60)
	@$(UV_PIP) --require-hashes -r requirements/fuzz.txt
	@PYTHONPATH=tests:. $(BIN)/python tests/fuzz/run.py --seconds $(SECONDS) $(ARGS)
	@PYTHONPATH=tests:. $(BIN)/python tests/fuzz/worst.py

.PHONY: mutants
mutants: $(STAMP) ## Break our own code in each way of tests/mutants and see that a test notices (half an hour)
	@PYTHONPATH=tests:. $(BIN)/python tests/mutants/run.py $(ARGS)

.PHONY: check
check: $(STAMP) ## Lint, types, floors
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

.PHONY: up
up: ## Build the image and start PostgreSQL, RabbitMQ and workers with Docker Compose (WORKERS=2)
	@sh deploy/make-env
	@docker compose up --build --detach --scale worker=$(WORKERS)
	@docker compose ps

.PHONY: down
down: ## Stop what `make up` started; the data stay
	@docker compose down

.PHONY: docs
docs: $(STAMP) ## Generate docs/contracts.md from the contracts
	@$(BIN)/worker contracts export --format markdown --output docs/contracts.md

.PHONY: lock
lock: $(STAMP) ## Pin all dependencies anew, with hashes and without addresses
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links --extra worker pyproject.toml -o requirements/worker.txt
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links --extra worker --extra client --extra sandbox --group dev pyproject.toml -o requirements/dev.txt
	@printf 'atheris==3.0.0 ; python_version < "3.12" and sys_platform == "linux"\natheris==3.1.0 ; python_version >= "3.12" and sys_platform == "linux"\n' | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links - -o requirements/fuzz.txt
	@echo 'uv==$(shell $(BIN)/uv --version | cut -d" " -f2)' | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links - -o requirements/installer.txt

.PHONY: ci
ci: check test ## What CI runs

.PHONY: clean
clean: ## Remove .venv and caches
	@rm -rf $(VENV) .fuzz .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage* htmlcov build dist
