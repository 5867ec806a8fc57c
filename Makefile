# The developer loop. `make` alone lists the targets.
#
#   VENV=.venv      where the environment is built
#   PYTHON=...      the interpreter to build it from (3.11 to 3.13; found by itself if not given)
#   ARGS=...        passed on: make test ARGS="tests/unit -k risk"

SHELL := bash
VENV ?= .venv
PY := $(VENV)/bin/python
ARGS ?=

# The paper-trading notebook runs under papermill, with a ledger and a slot: tests/notebooks does it.
NOTEBOOKS := $(filter-out notebooks/paper_trading.ipynb,$(wildcard notebooks/*.ipynb))

.PHONY: help install install-live lock demo test lint notebooks lab bench bench-peers fuzz faults
.PHONY: million calibrate clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s%s\n", $$1, $$2}' Makefile

install: $(VENV)/.full ## build .venv from requirements.lock (nothing else is touched)

install-live: $(VENV)/.live ## the same without JupyterLab, vectorbt or llama-index: enough to paper-trade

# Two stamps, because either install replaces the other: a new environment has neither.
$(VENV)/.full: requirements.lock pyproject.toml
	@PYTHON="$(PYTHON)" .ci/install $< $(VENV) .full

$(VENV)/.live: requirements-live.lock pyproject.toml
	@PYTHON="$(PYTHON)" .ci/install $< $(VENV) .live

lock: ## resolve pyproject.toml anew into both lock files (needs uv)
	uv lock
	uv export --quiet --frozen --no-header --no-annotate --no-emit-project --all-extras > requirements.lock.new
	uv export --quiet --frozen --no-header --no-annotate --no-emit-project --extra build > requirements-live.lock.new
	mv requirements.lock.new requirements.lock
	mv requirements-live.lock.new requirements-live.lock

demo: install ## from candles to parity; from Binance, or synthetic where no exchange is in reach
	@$(VENV)/bin/candlebook demo $(ARGS)

test: install ## the test suite, on two processes
	$(PY) -m pytest -n 2 --dist loadfile $(ARGS)

lint: install ## ruff and mypy
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

notebooks: install ## execute every notebook, cell by cell
	@test -n "$(NOTEBOOKS)" || { echo 'no notebook in notebooks/' >&2; exit 1; }
	$(PY) -m pytest -n 2 --dist loadfile --nbval-lax --nbval-current-env \
	    --nbval-cell-timeout=120 $(NOTEBOOKS) $(ARGS)

lab: install ## open JupyterLab on notebooks/
	$(PY) -m jupyterlab notebooks $(ARGS)

bench: install ## every benchmark in tests/bench, as tables; beside the peers that are installed
	@$(PY) -m tests.bench $(ARGS)

# Beside ours, not into it: what the peers need must not decide what we are built with.
bench-peers: install ## build .venv-peers: backtesting.py, and vectorbt with its Rust engine
	@$(PY) -m venv --clear .venv-peers
	@.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check --no-input \
	    --only-binary :all: --requirement tests/bench/peers.txt
	@echo "Installed: .venv-peers, which make bench will use"

fuzz: install ## mutated answers of an exchange against the strict readers: 10,000 of each endpoint
	@$(PY) -m tests.failure_modes.fuzz $(ARGS)

faults: install ## every fault of an exchange x (fetch, refresh, paper run): the table of outcomes
	@$(PY) -m tests.failure_modes.faults $(ARGS)

million: install ## a million random bar-steps in plain Python and compiled: the same bits, every rule met
	@$(PY) -m tests.backtest.million_steps $(ARGS)

calibrate: install ## how often the gate promotes luck, and how often an edge; writes knowledge/evidence.md
	@$(PY) -m tests.calibration --page knowledge/evidence.md $(ARGS)

clean: ## remove caches; keeps .venv, data and promoted artefacts
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find . \( -name '.venv*' -o -name .git -o -path ./data \) -prune -o \
	    \( -name __pycache__ -o -name .ipynb_checkpoints \) -type d -prune -exec rm -rf {} +
