# Every target makes what it needs: `make demo` and `make test` work on a fresh machine with Python 3.11 or newer.

.DEFAULT_GOAL := help
SHELL := /bin/sh
IS_NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
ifeq ($(origin PYTHON),undefined)
# The first that really runs: a name on PATH may be a shim with nothing behind it.
PYTHON := $(shell for each in python3.11 python3 python3.12 python3.13; do \
  "$$each" -c '$(IS_NEW_ENOUGH)' 2>/dev/null && echo "$$each" && exit; done; echo python3)
endif
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# One more than cores of a small machine: tests of servers wait a third of their time.
PYTEST_WORKERS ?= 3
PYTEST_ARGS ?=

.PHONY: help install demo test check format contract lock bench clean

help:  ## Show the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 16

install: $(READY)  ## Make .venv from requirements.lock

# The lock names all that is needed, so that nothing is left to be solved. Compiling is for all cores; what does not
# compile are templates of packages.
$(READY): requirements.lock pyproject.toml
	@"$(PYTHON)" -c '$(IS_NEW_ENOUGH)' 2>/dev/null || { \
	  echo "Swath needs Python 3.11 or newer, and $(PYTHON) is: $$("$(PYTHON)" --version 2>&1)" >&2; \
	  echo "Name another one: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(BIN)/python -c '$(IS_NEW_ENOUGH)' 2>/dev/null || rm -rf $(VENV)
	@if command -v uv >/dev/null 2>&1; then \
	  set -ex; \
	  test -d $(VENV) || uv venv --quiet --python "$(PYTHON)" $(VENV); \
	  uv pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes -r requirements.lock; \
	  uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .; \
	else \
	  set -ex; \
	  $(BIN)/python -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv $(VENV); \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps --require-hashes \
	    -r requirements.lock; \
	  $(BIN)/python -m compileall -qq -j 0 -x '/tests?/' $(VENV)/lib || true; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .; \
	fi
	@touch $@

demo: $(READY)  ## Show a season on simulated imagery, and serve it
	@$(BIN)/swath demo

test: $(READY)  ## Run the tests
	@$(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist loadfile $(PYTEST_ARGS)

check: $(READY)  ## Check format, lint, types and import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)  ## Format the code and repair what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

contract: $(READY)  ## Make the API's contract anew: serving/examples.json as answered, serving/openapi.json from the models
	@$(BIN)/python -m tests.support.story serving/examples.json
	@$(BIN)/python -m serving.openapi serving/openapi.json

lock:  ## Solve the versions anew into requirements.lock (needs uv)
	uv pip compile pyproject.toml --extra dev --python-version 3.11 --universal --no-emit-index-url --no-header \
	  --generate-hashes --no-annotate -o requirements.lock

# One after the other: side by side they would measure each other. One that finds a wrong number does not stop the rest.
bench: $(READY)  ## Measure imagery, weather, the API and operating, each by its quick run
	@is_wrong=0; for each in ndvi_scene weather serving operate; do \
	  echo "== benchmarks/$$each.py --quick"; $(BIN)/python benchmarks/$$each.py --quick || is_wrong=1; echo; \
	done; exit $$is_wrong

clean:  ## Remove what the other targets made
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
