# `make` lists what there is to do. Nothing but Python 3.11 to 3.13, make and a package registry is needed.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

VENV ?= .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check install --quiet
# What `make accuracy` measures on: a folder of image time series, and a single one; where the networks are that it
# trains for this; seeds; and further options: --no-train, --page-only, --frames 5.
DATA ?=
SAMPLE ?= data/s2_portugal.zarr
FOLDS ?= runs/folds
SEEDS ?= 0 1 2
ARGS ?=

# A Python that runs, is new enough and can make environments. A name alone proves nothing: version managers put
# names on the path that fail when called.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
	"$$p" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	>/dev/null 2>&1 && { command -v "$$p"; break; }; done)

NOTEBOOKS := $(wildcard notebooks/*.ipynb)

.PHONY: help demo install test lint format notebooks docs tables bench accuracy coverage build clean

help:  ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo  ## fill the sample cube, write pictures and files into demo-output/
	$(PY) examples/demo.py

install: $(VENV)/.install  ## make .venv with all extras and developers' tools (several GB: torch comes with CUDA)
	@echo "Ready: source $(VENV)/bin/activate"

test: $(VENV)/.test lint  ## check everything: style, types, tests, doctests, notebooks
	$(PY) -m pytest
	@$(MAKE) --no-print-directory notebooks

lint: $(VENV)/.test  ## check style and types only
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: $(VENV)/.test  ## put the source code into its form
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

notebooks: $(VENV)/.test  ## run the notebooks; OVERWRITE=1 keeps their outputs
ifneq ($(NOTEBOOKS),)
	$(PY) -m pytest --nbmake --nbmake-timeout=400 $(if $(OVERWRITE),--overwrite) $(NOTEBOOKS)
else
	@echo "There are no notebooks."
endif

docs: $(VENV)/.docs  ## make the documentation in docs/_build/html
	$(PY) -m sphinx -W --keep-going -b html docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

tables: $(VENV)/.test  ## write the tables in the documentation that are made from the code
	$(PY) docs/tables.py

bench: $(VENV)/.bench  ## measure speed beside other packages
	$(PY) -m benchmarks.kernels
	$(PY) -m benchmarks.end_to_end
	$(PY) -m benchmarks.batch
	$(PY) -m benchmarks.memory
	$(PY) -m benchmarks.learned
	$(PY) -m benchmarks.training
	$(PY) -m benchmarks.terramind

accuracy: $(VENV)/.test  ## train what is missing in FOLDS, measure on DATA=folder, write docs/development/accuracy.md
	$(PY) -m benchmarks.accuracy $(if $(DATA),--data "$(DATA)") --sample "$(SAMPLE)" --folds "$(FOLDS)" --seeds $(SEEDS) $(ARGS)

coverage: $(VENV)/.test  ## run the tests and say which lines they reach
	$(PY) -m pytest --cov --cov-report=term-missing:skip-covered

build: $(VENV)/.test  ## make the wheel and the source distribution in dist/
	$(PIP) build
	$(PY) -m build --outdir dist .

clean:  ## remove what was made, but for the environment
	rm -rf dist build demo-output docs/_build docs/api/generated docs/guide/cards docs/tutorials/*.ipynb \
		.coverage .hypothesis \
		.mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# The environment grows by steps, each marked by a file. pip 25.1 is the first that knows dependency groups.
$(VENV)/.made:
	@if [ -z "$(PYTHON)" ]; then \
		echo "No Python 3.11 to 3.13 with the modules venv and ensurepip was found (on Debian and Ubuntu:" >&2; \
		echo "apt install python3-venv). If you have one: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; \
		exit 1; fi
	@echo "Making $(VENV) with $(PYTHON) ($$($(PYTHON) --version))"
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.demo: pyproject.toml | $(VENV)/.made
	$(PIP) --editable '.[viz,torch]'
	@touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/.made
	$(PIP) --editable '.[viz,netcdf,distributed,train,terramind]' --group lint --group test --group notebooks
	@touch $@ $(VENV)/.demo

$(VENV)/.docs: pyproject.toml | $(VENV)/.made
	$(PIP) --editable '.[viz,train]' --group docs
	@touch $@ $(VENV)/.demo

$(VENV)/.bench: pyproject.toml | $(VENV)/.made
	$(PIP) --editable '.[train,terramind]' --group bench
	@touch $@

$(VENV)/.install: pyproject.toml | $(VENV)/.made
	$(PIP) --editable '.[all]' --group dev
	@touch $@ $(VENV)/.demo $(VENV)/.test $(VENV)/.docs $(VENV)/.bench
