# Every target sets itself up in .venv; nothing else is needed than Python >= 3.11 and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
SCENARIO ?= default
JOBS     ?= 2

.PHONY: demo run test test-all container-test bench-image browser-test bench soak lint docs docs-check format lock clean help

help:  ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

$(VENV)/.runtime: requirements/runtime.lock requirements/build.lock pyproject.toml jobtester/__init__.py
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed; name one with make PYTHON=python3.12")'
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/build.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements/dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock
	@touch $@

demo: $(VENV)/.runtime  ## test a simulated network once and print what came of it (SCENARIO=faults for a hard one)
	@$(BIN)/jobtester demo --scenario $(SCENARIO)

run: $(VENV)/.runtime  ## the daemon against a simulated network, staying up
	@$(BIN)/jobtester demo --stay --scenario $(SCENARIO)

PYTEST = $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

test: $(VENV)/.dev  ## the tests that are not slow, in three minutes
	@$(PYTEST) -m "not slow and not container" $(ARGS)

test-all: $(VENV)/.dev  ## every test but those that need a Docker engine
	@$(PYTEST) $(ARGS)

browser-test: $(VENV)/.dev  ## the pages in a real browser (chromium and chromedriver)
	@$(BIN)/python -m pytest -m browser tests/browser $(ARGS)

bench: $(VENV)/.dev  ## every benchmark: one table, and benchmarks/latest.json (PARTS="targeting" for one)
	@$(BIN)/python -m benchmarks $(PARTS)

MINUTES ?= 10
soak: $(VENV)/.dev  ## ticks back to back, with faults, for MINUTES; then what is held is compared
	@SOAK_MINUTES=$(MINUTES) $(BIN)/python -m pytest -q -s tests/integration/test_soak.py $(ARGS)

container-test: $(VENV)/.dev  ## build the image and try docker-compose.yml, on a Docker engine
	@$(BIN)/python -m pytest -m container tests/container $(ARGS)

bench-image: $(VENV)/.runtime  ## the image's size, its start to healthy, its memory when idle
	@$(BIN)/python benchmarks/image.py

lint: $(VENV)/.dev  ## ruff, mypy --strict, import-linter
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

docs: $(VENV)/.dev  ## write the tables of the documentation anew, from the program
	@$(BIN)/python -m tools.documentation_tables

docs-check: $(VENV)/.dev  ## links, commands, keys, routes and tables of the documentation against the program
	@$(BIN)/python -m pytest -q tests/docs $(ARGS)

format: $(VENV)/.dev  ## put the code into shape
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

COMPILE = $(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-header --no-annotate \
  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host pyproject.toml

lock: $(VENV)/.dev  ## pin every dependency anew, with hashes and without index addresses
	@$(BIN)/python -m pip install --quiet pip-tools
	@$(COMPILE) --output-file requirements/runtime.lock
	@$(COMPILE) --extra build --output-file requirements/build.lock
	@$(COMPILE) --extra build --extra dev --output-file requirements/dev.lock

clean:  ## remove what was made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
