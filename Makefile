# make demo | results | bench | test | test-faults | test-all | check | docs | lock | clean; `make help` explains them.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV ?= .venv
EXTRA ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready-$(EXTRA)
SEEDS ?= 0 1 2
# Two processes would dispute the memory of a GPU.
TEST_PROCESSES ?= $(if $(filter gpu,$(EXTRA)),1,2)

.PHONY: help demo results bench setup test test-faults test-all check docs lock clean
.DELETE_ON_ERROR:

help:  ## Explain the targets.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: setup  ## Run the whole pipeline on MovieLens-100K and print the path of the report.
	@$(RUN) jobs/pipeline.py --config configs/demo.yaml

results: setup  ## Train CONFIG="FILE ..." with SEEDS="0 1 2" and write a table (AGAINST=FILE tests, PARALLEL=N at a time).
	@test -n "$(CONFIG)" || { echo 'CONFIG is empty; write for example make results CONFIG=configs/demo.yaml'; exit 2; }
	@$(RUN) jobs/results.py --configs $(CONFIG) --seeds $(SEEDS) $(AGAINST:%=--against %) $(PARALLEL:%=--parallel %)

bench: setup  ## Measure training against a row per prefix and the machine's peak, on Amazon Beauty.
	@$(RUN) jobs/bench.py train

setup: $(READY)  ## Install everything into .venv from the lock of this machine's kind (EXTRA=cpu or gpu).

$(READY): requirements/$(EXTRA).lock requirements/install.sh pyproject.toml
	@PYTHON=$(PYTHON) requirements/install.sh $(VENV) $(EXTRA)
	@touch $@

# Whole files to a process, whose fixtures are costly; in their order, which leaves no long file for the end.
test: setup  ## Run the tests that finish within minutes, in TEST_PROCESSES processes.
	@$(RUN) -m pytest -m "not slow" -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

test-faults: setup  ## Run the slow tests of what fails and is done again.
	@$(RUN) -m pytest -m fault

test-all: setup  ## Run every test.
	@$(RUN) -m pytest

check: setup  ## Lint, formatting and types.
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy

docs: setup  ## Write the configuration reference anew.
	@$(RUN) -m sracl_dist.config.reference docs/configuration.md

lock:  ## Resolve the locks anew from pyproject.toml (needs uv).
	@requirements/lock.sh

clean:  ## Remove the environment and the runs.
	rm -rf $(VENV) runs
