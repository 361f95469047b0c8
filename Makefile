PYTHON ?= python3
PROFILE ?= standard
BIN := .venv/bin

.PHONY: book test notebooks env lock lint clean

book: env
	$(BIN)/dare book --profile $(PROFILE)

# Notebooks start from an empty store: a full one would be tested instead of the code. The book then reuses runs.
test: env
	@echo "== 1/4 ruff"
	$(BIN)/ruff check dare_core tests benchmarks book notebooks/*.py
	@echo "== 2/4 unit tests"
	$(BIN)/python -m pytest
	@set -e; store=$$(mktemp -d); trap 'rm -rf "$$store"' EXIT; export DARE_STORE="$$store"; \
	echo "== 3/4 notebooks"; \
	$(BIN)/python -m pytest --nbval --nbval-current-env --nbval-sanitize-with tests/nbval.cfg notebooks; \
	echo "== 4/4 smoke book"; \
	$(BIN)/dare book --profile smoke

# Runs the notebooks and stores their text outputs, which the tests then guard.
notebooks: env
	$(BIN)/python notebooks/refresh.py

env: .venv/.installed

.venv/.installed: pyproject.toml requirements.lock
	@echo "making the environment in .venv (some minutes the first time)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "Python 3.11 is needed: make PYTHON=/path/to/python3.11")'
	@$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c requirements.lock -e .
	@touch $@

# Exact versions of what is installed, without builds' suffixes (+cpu): each platform takes its own build.
lock: env
	$(BIN)/pip freeze --exclude-editable | sed 's/+[A-Za-z0-9.]*$$//' > requirements.lock.new
	@! grep -nE '://|@' requirements.lock.new || { echo "a line names a place, not a version"; exit 1; }
	@mv requirements.lock.new requirements.lock
	@touch .venv/.installed
	@echo "requirements.lock: $$(wc -l < requirements.lock) packages"

lint: env
	$(BIN)/ruff check dare_core tests benchmarks book notebooks/*.py
	$(BIN)/mypy dare_core

clean:
	rm -rf .venv build *.egg-info .pytest_cache .ruff_cache .mypy_cache
