# Everything runs in .venv, which these targets make and keep up to date. Nothing outside the checkout is changed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.boxwright
# Another index to take torch and torchvision from, such as https://download.pytorch.org/whl/cpu, which spares a
# machine without a GPU some GB of CUDA libraries. It is kept with the environment.
TORCH_INDEX ?= $(shell cat $(VENV)/torch-index 2>/dev/null)
CUDA_LINES := ^(torch|torchvision|triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)==

.PHONY: help demo test test-slow test-gpu lint format types docs package lock clean env env-dev

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

package: env-dev  ## Build wheel and sdist into dist, check them, and run the demo from the wheel
	@rm -rf dist
	@$(BIN)/uv build -q --no-build-isolation --python $(BIN)/python --out-dir dist
	@$(BIN)/twine check --strict dist/*
	@DIST=dist FULL="$(FULL)" TORCH_INDEX="$(TORCH_INDEX)" $(BIN)/pytest -m "slow or not slow" tests/test_package.py

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

# The lock files pin every package. On Linux the stock torch brings its CUDA libraries: some GB, once. With TORCH_INDEX
# torch comes from there, in the version of the lock file, and the CUDA libraries are left out.
define install
	@echo "== installing the packages of requirements/$(1).lock into $(VENV) (the first time takes some minutes)"
	@$(if $(TORCH_INDEX),echo "$(TORCH_INDEX)" > $(VENV)/torch-index)
	@$(if $(TORCH_INDEX),$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps \
		--index-url $(TORCH_INDEX) $$(grep -Eo '^(torch|torchvision)==[0-9.]+' requirements/$(1).lock))
	@grep -Ev '$(if $(TORCH_INDEX),$(CUDA_LINES),^$$)' requirements/$(1).lock > $(VENV)/$(1).txt
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -r $(VENV)/$(1).txt
endef

$(STAMP)-core: requirements/core.lock pyproject.toml | $(VENV)/bin/python
	$(call install,core)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps -e .
	@touch $@

$(STAMP)-dev: requirements/dev.lock $(STAMP)-core | $(VENV)/bin/python
	$(call install,dev)
	@touch $@
