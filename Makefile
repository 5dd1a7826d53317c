# make demo | test | test-all | check | lock | clean; `make help` explains them.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV ?= .venv
EXTRA ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready-$(EXTRA)

.PHONY: help demo setup test test-all check docs lock clean
.DELETE_ON_ERROR:

help:  ## Explain the targets.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: setup  ## Run the whole pipeline on MovieLens-100K and print the path of the report.
	@$(RUN) jobs/pipeline.py --config configs/demo.yaml

setup: $(READY)  ## Install everything into .venv from the lock of this machine's kind (EXTRA=cpu or gpu).

$(READY): requirements/$(EXTRA).lock requirements/install.sh pyproject.toml
	@PYTHON=$(PYTHON) requirements/install.sh $(VENV) $(EXTRA)
	@touch $@

test: setup  ## Run the tests that finish within minutes.
	@$(RUN) -m pytest -m "not slow"

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
