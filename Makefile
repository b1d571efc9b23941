# Everything runs in .venv, which the first target that needs it creates; nothing is installed outside it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.8
# What the images have: the distribution's interpreter.
IMAGE_PYTHON ?= $(or $(shell /usr/bin/python3 -c 'import sys; sys.version_info < (3, 11) or print(sys.executable)' \
	2>/dev/null),$(PYTHON))
ARGS ?=
# Compiled code is kept beside the source, so that every start but the first is quick.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help quickstart test e2e bench bench-quality lint fix generate lock package clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -e 's/:.*## /\t/' | expand -t 16

quickstart: $(VENV)/.models ## start a server, apply an example, ingest it, search it
	@$(BIN)/python -m examples.quickstart $(ARGS)

test: $(VENV)/.dev ## every test
	@$(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

e2e: $(VENV)/.dev ## install, use and remove it on a real cluster of one node (root; see tests/e2e/README.md)
	@PYTHON=$(BIN)/python tests/e2e/run.sh $(ARGS)

bench: $(VENV)/.bench $(VENV)/.image ## measure against the bare parts on this machine
	@$(BIN)/python -m tests.benchmarks $(ARGS)

bench-quality: $(VENV)/.dev ## measure search on a judged set: make bench-quality DATA=folder (NAME.ALL, .QRY, .REL)
	@$(BIN)/python -m tests.benchmarks.quality $(DATA)

lint: $(VENV)/.dev ## style, types, import arrows, generated files
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@cd operator && ../$(BIN)/lint-imports --config ../pyproject.toml --no-logo
	@$(BIN)/python -m mixpeek_operator.generate --check

fix: $(VENV)/.dev ## mend what can be mended by machine
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

generate: $(VENV)/.dev ## write crds/ and docs/reference/ from the models
	@$(BIN)/python -m mixpeek_operator.generate

lock: $(VENV)/.uv ## pin the newest versions that fit pyproject.toml
	@for set in "base" "models --extra models" "cluster --extra cluster" "engine --extra ray --extra cluster" \
	    "dev --extra ray --extra cluster --group dev" "bench --extra ray --extra cluster --group dev --group bench"; do \
	  name=$${set%% *}; extras=$${set#$$name}; \
	  $(BIN)/uv pip compile -q pyproject.toml $$extras --universal --python-version 3.11 --generate-hashes \
	    --no-header --no-emit-index-url --upgrade -o requirements/$$name.txt; done

package: $(VENV)/.dev ## build the wheel and prove it in an empty environment
	@BIN=$(BIN) PYTHON=$(PYTHON) sh tests/packaging.sh

clean: ## remove the environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build

$(VENV)/.uv:
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

# A finished dev environment holds all that the quickstart needs.
$(VENV)/.models: $(VENV)/.uv requirements/models.txt pyproject.toml
	@test $(VENV)/.dev -nt requirements/models.txt 2>/dev/null || { \
	  echo "Installing pinned packages into $(VENV) (the embedding model's runtime is large; one time) ..."; \
	  VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --require-hashes -r requirements/models.txt && \
	  VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps -e . ; }
	@touch $@

$(VENV)/.dev: $(VENV)/.uv requirements/dev.txt pyproject.toml
	@echo "Installing pinned packages into $(VENV) ..."
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --require-hashes -r requirements/dev.txt
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps -e .
	@touch $@

# The bench's own packages beside those of dev, all pinned together.
$(VENV)/.bench: $(VENV)/.dev requirements/bench.txt
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --require-hashes -r requirements/bench.txt
	@touch $@

# The operator as its image has it, to be measured.
$(VENV)/.image: $(VENV)/.uv requirements/cluster.txt pyproject.toml
	@$(BIN)/uv venv --quiet --allow-existing --python $(IMAGE_PYTHON) $(VENV)/image
	@VIRTUAL_ENV=$(VENV)/image $(BIN)/uv pip install --quiet --require-hashes -r requirements/cluster.txt
	@VIRTUAL_ENV=$(VENV)/image $(BIN)/uv pip install --quiet --no-deps -e .
	@touch $@
