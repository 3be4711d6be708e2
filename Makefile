# make repro: environment, whole graph, summary. make test: environment, tests. make help: the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A program is given to the interpreter by name: the first line of a script bears neither spaces nor quotes in its path.
RUN := $(BIN)/python
STAMP := $(VENV)/.complete
# Where pip is told of local wheels (a CPU build of torch, say), uv must be told too: it reads none of pip's settings.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
# DVC would keep pickled indexes in /var/tmp/dvc, which every user of the machine may write to.
export DVC_SITE_CACHE_DIR := $(CURDIR)/.dvc/tmp/site
# Threads that wait for each other must not spin: beside another program on the cores that costs many times the work.
export OMP_WAIT_POLICY := passive
export RAY_USAGE_STATS_ENABLED := 0
export MLFLOW_DISABLE_TELEMETRY := true
export GX_ANALYTICS_ENABLED := false

.DEFAULT_GOAL := help
.PHONY: help needs setup setup-trt lock repro summary test mutants lint types imports wire check ui experiments clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP)  ## make the environment in .venv (about two minutes, once)

$(STAMP): pyproject.toml constraints.txt | needs
	@echo "making the environment in $(VENV) ..."
	$(PYTHON) -m venv $(VENV)
	@if $(RUN) -m pip install -q --disable-pip-version-check uv==0.13.8; then \
		VIRTUAL_ENV="$$PWD/$(VENV)" $(RUN) -m uv pip install -q -e ".[dev]" -c constraints.txt; \
	else \
		echo "uv is not to be had; pip does it, slower"; \
		$(RUN) -m pip install -q --disable-pip-version-check -e ".[dev]" -c constraints.txt; \
	fi
	@# A minute of a core, for which nothing waits: the first stages leave one idle. What is imported before is compiled then.
	@nice -n 19 $(RUN) -m compileall -q $(VENV)/lib >/dev/null 2>&1 </dev/null &
	@touch $@

needs:
	@command -v git >/dev/null || \
		{ echo "git is missing, which DVC works with; install it (Debian and Ubuntu: apt install git)" >&2; exit 2; }
	@git rev-parse --git-dir >/dev/null || \
		{ echo "git finds no repository here (its reason is above), and DVC needs one: git clone, or git init, makes one" >&2; exit 2; }
	@case "$$PWD" in *:*) echo "$$PWD: Python makes no environment under a path with a colon; rename the folder" >&2; exit 2;; esac
	@test -e $(STAMP) || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is missing or older than 3.11; name another: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@test -e $(STAMP) || $(PYTHON) -c 'import ensurepip' 2>/dev/null || \
		{ echo "$(PYTHON) has no venv module; install it (Debian and Ubuntu: apt install python3-venv)" >&2; exit 2; }

setup-trt: setup  ## add TensorRT (Linux with an NVIDIA GPU)
	$(RUN) -m pip install -r infra/requirements-tensorrt.txt

lock:  ## resolve constraints.txt anew
	env -u UV_FIND_LINKS $(RUN) -m uv pip compile -q --python 3.11 pyproject.toml --all-extras --no-annotate --no-header -o constraints.txt

repro: needs setup  ## run the whole graph (only what changed) and print the results
	@$(RUN) -m pipelines.summary --check-params
	@$(RUN) -m pipelines.repro
	@$(RUN) -m pipelines.summary

summary: setup  ## print the last results and where they are
	@$(RUN) -m pipelines.summary

test: setup  ## every test (about 15 minutes on two cores)
	@# A file's tests stay in one process; the longest files begin first (tests/conftest.py).
	$(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

mutants: setup  ## changes to the source that the tests must notice (hours; DRAWN=200 SEED=1 for drawn ones too)
	$(RUN) -m tests.mutants --drawn $(or $(DRAWN),0) --seed $(or $(SEED),1)

lint: setup  ## ruff
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

types: setup  ## basedpyright
	$(RUN) -m basedpyright

imports: setup  ## the layers of docs/architecture.md
	$(RUN) $(BIN)/lint-imports

check: lint types imports  ## lint, types and import layers

wire: setup  ## rewrite the code deps of dvc.yaml from the imports
	$(RUN) -m pipelines.wiring

ui: setup  ## MLflow's pages of the local store, on http://127.0.0.1:5000 (PORT=5001 for another port)
	@$(RUN) -m pipelines.ui --port $(or $(PORT),5000)

experiments: setup  ## what was tried (dvc exp run): the figures and the parameters that differ
	@# Without the dependencies' digests, hundreds of columns.
	@$(RUN) -m dvc exp show --no-pager --only-changed --drop '.*/.*'

clean:  ## remove what the stages wrote here (reports, your own files, DVC's cache and MLflow's store stay)
	@test -x $(RUN) || { echo "there is no environment to ask for the stages' outputs; make setup makes it" >&2; exit 2; }
	@$(RUN) -m pipelines.clean
