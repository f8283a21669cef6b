# Two commands for a fresh machine with Python and make: `make demo`, `make test`.
# PYTHON is the machine's own python3 where it is new enough, else the newest that is. The
# lock file has wheels for 3.11 to 3.14; a newer Python is taken only if there is no other.
runs = $(1) -c 'import sys, venv; sys.exit(not ((3, 11) <= sys.version_info[:2] $(2)))'
found = $(firstword $(foreach p,$(1),$(shell $(call runs,$(p),$(2)) 2>&- && echo $(p))))
NAMES := python3 python3.14 python3.13 python3.12 python3.11 python
PYTHON ?= $(or $(call found,$(NAMES),< (3, 15)),$(call found,python3.15 $(NAMES)))
BIN := .venv/bin
READY := .venv/.installed

.PHONY: demo test test-all mutants bench lint lock

# Everything comes from the lock file; a changed lock file installs again.
$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "no Python of 3.11 or newer; set PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $(READY)

demo: $(READY)
	$(BIN)/cmxjax compare cloudmatrix384 gb200-nvl72
	$(BIN)/cmxjax validate press
	$(BIN)/cmxjax validate cloudmatrix384
	$(BIN)/cmxjax predict deepseek-r1-decode-cloudmatrix384

test: lint
	$(BIN)/pytest -q -n 2

test-all: lint
	$(BIN)/pytest -q -n 2 -m ""

mutants: $(READY)
	$(BIN)/python tests/mutants.py

bench: $(READY)
	$(BIN)/pytest -q -s -o addopts= tests/benchmarks --benchmark-only

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/pyright

# Pins every package with its hashes, for every Python from 3.11 on; needs uv.
lock:
	uv pip compile --quiet --universal --upgrade --generate-hashes --no-header --python-version 3.11 --extra dev pyproject.toml -o requirements.lock
