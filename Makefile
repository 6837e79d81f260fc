# Everything runs in .venv, which these targets make and keep up to date. Nothing outside the checkout is changed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.boxwright

.PHONY: help demo test test-slow test-gpu lint format types docs lock clean env env-dev

help:  ## Show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: env  ## Train, evaluate and look at a small detector on drawn scenes; about ten minutes on two cores
	@$(BIN)/boxwright demo --output demo

test: env-dev lint types  ## Format, lint, types and the default test suite
	@echo "== tests"
	@$(BIN)/pytest -n 2 --dist worksteal

test-slow: env-dev  ## The longer checks
	@$(BIN)/pytest -m slow

test-gpu: env-dev  ## The checks that need a CUDA device
	@$(BIN)/pytest -m gpu

lint: env-dev  ## Format and lint, without changing anything
	@echo "== format and lint"
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .

format: env-dev  ## Rewrite the sources in house format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

types: env-dev  ## Check the types
	@echo "== types"
	@$(BIN)/pyright --level error --pythonpath $(BIN)/python

docs: env-dev  ## Build the documentation into docs/_build
	@$(BIN)/sphinx-build -W -q -b html docs docs/_build
	@echo "docs/_build/index.html"

lock: env-dev  ## Resolve the lock files anew
	@$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --no-annotate --no-header -q -U \
		-o requirements/core.lock
	@$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --no-annotate --no-header -q -U \
		--extra dev -o requirements/dev.lock

clean:  ## Remove the environment and all that was built
	rm -rf $(VENV) build dist docs/_build .pytest_cache .ruff_cache

env: $(STAMP)-core
env-dev: $(STAMP)-dev

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Boxwright needs Python 3.11 or later; name one with: make PYTHON=python3.12 ..."; exit 2; }
	@echo "== making the environment $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)

# The lock files pin every package. On Linux the stock torch brings its CUDA libraries: some GB, once.
$(STAMP)-core: requirements/core.lock pyproject.toml | $(VENV)/bin/python
	@echo "== installing the packages of requirements/core.lock into $(VENV) (the first time takes some minutes)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -r requirements/core.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps -e .
	@touch $@

$(STAMP)-dev: requirements/dev.lock $(STAMP)-core | $(VENV)/bin/python
	@echo "== installing the packages of requirements/dev.lock into $(VENV)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -r requirements/dev.lock
	@touch $@
