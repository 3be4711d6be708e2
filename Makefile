# make repro: environment, whole graph, summary. make test: environment, tests. make help: the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
# Where pip is told of local wheels (a CPU build of torch, say), uv must be told too: it reads none of pip's settings.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
# Threads that wait for each other must not spin: beside another program on the cores that costs many times the work.
export OMP_WAIT_POLICY := passive
export RAY_USAGE_STATS_ENABLED := 0
export MLFLOW_DISABLE_TELEMETRY := true
export GX_ANALYTICS_ENABLED := false

.DEFAULT_GOAL := help
.PHONY: help setup setup-trt lock repro summary test mutants lint types imports wire check ui clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP)  ## make the environment in .venv (about two minutes, once)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than 3.11; name a newer one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
		{ echo "$(PYTHON) has no venv module; install it (Debian and Ubuntu: apt install python3-venv)" >&2; exit 2; }
	@echo "making the environment in $(VENV) ..."
	$(PYTHON) -m venv $(VENV)
	@if $(BIN)/pip install -q --disable-pip-version-check uv==0.13.8; then \
		VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install -q --compile-bytecode -e ".[dev]" -c constraints.txt; \
	else \
		echo "uv is not to be had; pip does it, slower"; \
		$(BIN)/pip install -q --disable-pip-version-check -e ".[dev]" -c constraints.txt; \
	fi
	@touch $@

setup-trt: setup  ## add TensorRT (Linux with an NVIDIA GPU)
	$(BIN)/pip install -r infra/requirements-tensorrt.txt

lock:  ## resolve constraints.txt anew
	env -u UV_FIND_LINKS $(BIN)/uv pip compile -q --python 3.11 pyproject.toml --extra dev --no-annotate --no-header -o constraints.txt

repro: setup  ## run the whole graph (only what changed) and print the results
	@$(BIN)/python -m pipelines.summary --check-params
	@$(BIN)/dvc repro -q || { code=$$?; echo "the graph stopped; what is done is kept, and make repro goes on from there" >&2; exit $$code; }
	@$(BIN)/python -m pipelines.summary

summary: setup  ## print the last results and where they are
	@$(BIN)/python -m pipelines.summary

test: setup  ## every test (under ten minutes on two cores)
	@# A file's tests stay in one process; the longest files begin first (tests/conftest.py).
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

mutants: setup  ## changes to the source that the tests must notice (hours; DRAWN=200 SEED=1 for drawn ones too)
	$(BIN)/python -m tests.mutants --drawn $(or $(DRAWN),0) --seed $(or $(SEED),1)

lint: setup  ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup  ## basedpyright
	$(BIN)/basedpyright

imports: setup  ## the layers of docs/architecture.md
	$(BIN)/lint-imports

check: lint types imports  ## lint, types and import layers

wire: setup  ## rewrite the code deps of dvc.yaml from the imports
	$(BIN)/python -m pipelines.wiring

ui: setup  ## MLflow's pages of the local store, on http://127.0.0.1:5000
	$(BIN)/mlflow server --backend-store-uri sqlite:///$(CURDIR)/mlflow.db --host 127.0.0.1 --port 5000

clean:  ## remove what the stages wrote here (DVC's cache and MLflow's store stay)
	rm -rf data artifacts .work
