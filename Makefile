# `make demo` and `make test` do everything on a fresh machine with Python 3.11-3.13,
# the virtual environment included. `make help` lists the rest.

VENV ?= .venv
EXTRAS ?= dev
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	>/dev/null 2>&1 && command -v $$p && break; done)

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed-$(EXTRAS)
# Processes that share the tests: each takes up to 3 GB.
WORKERS ?= 2
# Arguments of one run: make test ARGS="tests/ops -x"; make demo ARGS=--json
ARGS ?=

# TensorFlow reports non-errors as errors (no GPU, no AVX-512); real ones are raised.
export TF_CPP_MIN_LOG_LEVEL ?= 3
export MPLBACKEND ?= Agg
export PYTHONUNBUFFERED = 1

.PHONY: help venv demo test test-all check lint format types imports docs bench clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

venv: $(INSTALLED) ## make the virtual environment (.venv)

$(INSTALLED): setup.py
	@test -n "$(PYTHON)" || { echo "kvision needs Python 3.11, 3.12 or 3.13 with venv (Debian: apt install python3-venv)." \
		"Name one with: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[$(EXTRAS)]'
	@touch $@

demo: $(INSTALLED) ## train a Mask R-CNN on generated shapes, score, draw and export it
	$(BIN)/kvision demo $(ARGS)

test: $(INSTALLED) ## run the tests (the fast ones; all of them: make test-all)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

test-all: $(INSTALLED) ## run every test: slow ones and notebooks too
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not network" $(ARGS)

check: lint types imports ## lint, types and import rules

lint: $(INSTALLED) ## ruff: format and lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: $(INSTALLED) ## ruff: mend what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: $(INSTALLED) ## mypy
	$(BIN)/mypy

imports: $(INSTALLED) ## who may import whom
	$(BIN)/lint-imports

docs: $(INSTALLED) ## the API reference from the docstrings, in docs/api
	$(BIN)/python -m pip install --quiet -e '.[docs]'
	$(BIN)/pdoc --docformat google --output-directory docs/api \
		kvision kvision.models.rcnn kvision.train.callbacks kvision_edge $(ARGS)

BENCH ?= vit_inference
bench: $(INSTALLED) ## measure: make bench BENCH=vit_inference ARGS="--peer torch=PYTHON"
	$(BIN)/python -m benchmarks $(BENCH) $(ARGS)

clean: ## remove the environment and everything generated
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache build dist *.egg-info docs/api
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
