# Every target sets up .venv first. You need only Python >= 3.11 and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
SCENARIO ?= default
JOBS     ?= 4

.PHONY: demo run test test-all container-test bench-image sbom browser-test bench soak lint docs docs-check readme-pictures format lock clean help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

$(VENV)/.runtime: requirements/runtime.lock requirements/build.lock pyproject.toml jobtester/__init__.py
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is required; select one with make PYTHON=python3.12")'
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/build.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements/dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock
	@touch $@

demo: $(VENV)/.runtime  ## test a simulated network once and print the results (SCENARIO=faults: with faults)
	@$(BIN)/jobtester demo --scenario $(SCENARIO)

run: $(VENV)/.runtime  ## run the daemon against a simulated network
	@$(BIN)/jobtester demo --stay --scenario $(SCENARIO)

# Most tests wait for something, so more of them run at once than a small machine has cores.
PYTEST = $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

test: $(VENV)/.dev  ## run the tests that are not slow, in about five minutes
	@$(PYTEST) -m "not slow and not container" $(ARGS)

test-all: $(VENV)/.dev  ## run every test except those that need a Docker engine, and hold their coverage
	@$(PYTEST) $(if $(ARGS),$(ARGS),--cov --cov-report=term)

browser-test: $(VENV)/.dev  ## test the pages in a real browser (chromium and chromedriver)
	@$(BIN)/python -m pytest -m browser tests/browser $(ARGS)

bench: $(VENV)/.dev  ## run the benchmarks, print one table, write benchmarks/latest.json (PARTS="targeting": one part)
	@$(BIN)/python -m benchmarks $(PARTS)

MINUTES ?= 30
soak: $(VENV)/.dev  ## run jobs of every kind, with faults, for MINUTES; then check for leaks and that each counts once
	@SOAK_MINUTES=$(MINUTES) $(BIN)/python -m pytest -q -s tests/integration/test_soak.py $(ARGS)

container-test: $(VENV)/.dev  ## build the image and test docker-compose.yml (needs a Docker engine)
	@$(BIN)/python -m pytest -m container tests/container $(ARGS)

bench-image: $(VENV)/.runtime  ## measure the image: size, time to healthy, idle memory (needs a Docker engine)
	@$(BIN)/python benchmarks/image.py

IMAGE ?= livepeer-job-tester
sbom: $(VENV)/.dev  ## write what the image IMAGE contains into sbom.cdx.json (needs a Docker engine)
	@$(BIN)/python -m tools.sbom $(IMAGE) >sbom.cdx.json

lint: $(VENV)/.dev  ## run ruff, codespell, mypy --strict and import-linter
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/codespell
	@$(BIN)/mypy
	@$(BIN)/lint-imports

docs: $(VENV)/.dev  ## regenerate the tables of the documentation
	@$(BIN)/python -m tools.documentation_tables

docs-check: $(VENV)/.dev  ## check the documentation's links, commands, keys, routes, tables and questions
	@$(BIN)/python -m pytest -q tests/docs $(ARGS)

readme-pictures: $(VENV)/.dev  ## make the picture and the cut of the demo in README (needs chromium and chromedriver)
	@$(BIN)/python -m tools.readme_pictures

format: $(VENV)/.dev  ## format the code and apply safe fixes
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# pip-compile does not read dependency groups, so that each is first written to a file, one requirement per line.
GROUP = $(BIN)/python -c 'import sys, tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"][sys.argv[1]], sep="\n")'
COMPILE = $(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-header --no-annotate \
  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host

lock: $(VENV)/.dev  ## update the lock files, with hashes and without index addresses
	@$(BIN)/python -m pip install --quiet pip-tools
	@$(GROUP) build >$(VENV)/build.in
	@$(GROUP) dev >$(VENV)/dev.in
	@$(COMPILE) --output-file requirements/runtime.lock pyproject.toml
	@$(COMPILE) --output-file requirements/build.lock pyproject.toml $(VENV)/build.in
	@$(COMPILE) --output-file requirements/dev.lock pyproject.toml $(VENV)/build.in $(VENV)/dev.in

clean:  ## remove everything that make created
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
