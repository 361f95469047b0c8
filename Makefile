PYTHON ?= python3
PROFILE ?= standard
BIN := .venv/bin
# Tests run side by side, so that each takes one thread.
ALONE := OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1

.PHONY: book test test-fuxictr notebooks mutants long env env-cluster lock lint clean

book: env
	$(BIN)/dare book --profile $(PROFILE)

# Notebooks start from an empty store: a full one would be tested instead of the code. The book then reuses runs.
test: env
	@echo "== 1/5 ruff"
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@echo "== 2/5 unit tests"
	$(ALONE) $(BIN)/python -m pytest -n auto --dist worksteal
	@set -e; store=$$(mktemp -d); trap 'rm -rf "$$store"' EXIT; export DARE_STORE="$$store"; \
	echo "== 3/5 notebooks"; \
	$(ALONE) DARE_WORKERS=1 $(BIN)/python -m pytest -n auto --dist loadfile --nbval --nbval-current-env \
		--nbval-sanitize-with tests/nbval.cfg notebooks; \
	echo "== 4/5 smoke book, and its numbers"; \
	$(BIN)/dare book --profile smoke; \
	$(BIN)/python tests/external_resources.py "$$store/book/smoke/_build/html"; \
	$(BIN)/python tests/compare_ledger.py "$$store/book/smoke/results/ledger.json"; \
	echo "== 5/5 its pages in a browser"; \
	BOOK_HTML="$$store/book/smoke/_build/html" $(BIN)/python -m pytest -n auto -rs tests/test_browser.py

# The example that plugs DARE into FuxiCTR, in an environment of its own beside the one of the study, whose packages it
# uses. It must not be skipped there.
test-fuxictr: env
	@set -e; scratch=$$(mktemp -d); trap 'rm -rf "$$scratch"' EXIT; \
	$(BIN)/python -m venv "$$scratch"; \
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> "$$("$$scratch"/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/study.pth"; \
	"$$scratch"/bin/pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[fuxictr]'; \
	$(ALONE) FUXICTR_REQUIRED=1 "$$scratch"/bin/python -m pytest tests/test_examples.py

# Runs the notebooks and stores their text outputs, which the tests then guard.
notebooks: env
	$(BIN)/python notebooks/refresh.py

# Deliberate mistakes, one at a time: each must fail a test. About half an hour.
mutants: env
	$(BIN)/python tests/mutants.py

# What takes longer than `make test` should: random input, killed commands, deliberate mistakes. About two hours.
long: env
	$(ALONE) $(BIN)/python tests/fuzz.py 100_000
	$(ALONE) $(BIN)/python tests/kills.py 100
	$(BIN)/python tests/mutants.py

env: .venv/.installed

.venv/.installed: pyproject.toml requirements.lock
	@echo "making the environment in .venv (some minutes the first time)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "Python 3.11 is needed: make PYTHON=/path/to/python3.11")'
	@$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c requirements.lock -e .
	@touch $@

# The extra `cluster` in the same environment: Ray, for `dare sweep --ray` and its test.
env-cluster: .venv/.cluster

.venv/.cluster: .venv/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[cluster]'
	@touch $@

# Exact versions of what is installed, without builds' suffixes (+cpu): each platform takes its own build.
lock: env-cluster
	$(BIN)/pip freeze --exclude-editable | sed 's/+[A-Za-z0-9.]*$$//' > requirements.lock.new
	@! grep -nE '://|@' requirements.lock.new || { echo "a line names a place, not a version"; exit 1; }
	@mv requirements.lock.new requirements.lock
	@touch .venv/.installed .venv/.cluster
	@echo "requirements.lock: $$(wc -l < requirements.lock) packages"

lint: env
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy dare_core

clean:
	rm -rf .venv build *.egg-info .pytest_cache .ruff_cache .mypy_cache
