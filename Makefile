# Two commands for a fresh machine with Python 3.11 and make: `make demo`, `make test`.
PYTHON ?= python3.11
BIN := .venv/bin
READY := .venv/.installed

.PHONY: demo test test-all bench lint lock

# Everything comes from the lock file; a changed lock file installs again.
$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv || python3 -m venv .venv
	$(BIN)/python -c "import sys; assert sys.version_info[:2] == (3, 11), sys.version"
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

bench: $(READY)
	$(BIN)/pytest -q -s tests/benchmarks --benchmark-only

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/pyright

# Pins every package with its hashes; needs uv.
lock:
	uv pip compile --quiet --generate-hashes --no-header --python-version 3.11 --extra dev pyproject.toml -o requirements.lock
