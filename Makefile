# `make` lists the targets. They need Python 3.11 or newer, make and a package registry.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

VENV ?= .venv
PY := $(VENV)/bin/python
PIP_OPTIONS := --disable-pip-version-check install --quiet
PIP := $(PY) -m pip $(PIP_OPTIONS)
# Style and types need neither torch nor the other extras, and have a small environment of their own.
LINT := $(VENV)-lint
LINTPY := $(LINT)/bin/python
# Tests run in as many processes as there are cores; JOBS=0 runs them in one.
JOBS ?= auto
PYTEST := $(PY) -m pytest -n $(JOBS) --dist loadgroup
# For `make accuracy`: a folder of image time series and a single one; the folder of the networks that are trained;
# seeds; further options, such as --no-train, --page-only, --frames 5.
DATA ?=
SAMPLE ?= data/s2_portugal.zarr
FOLDS ?= runs/folds
SEEDS ?= 0 1 2
ARGS ?=

# The newest Python that has what an environment needs. It is called, because version managers put names on the path
# that fail when called.
PYTHON ?= $(shell for p in python3.14 python3.13 python3.12 python3.11 python3 python; do \
	"$$p" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' \
	>/dev/null 2>&1 && { command -v "$$p"; break; }; done)

NOTEBOOKS := $(wildcard notebooks/*.ipynb)

.PHONY: help demo install test quick lint format notebooks docs tables bench accuracy coverage changelog build clean

help:  ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo  ## fill the sample cube, write pictures and files into demo-output/
	$(PY) examples/demo.py

install: $(VENV)/.install  ## make .venv with all extras and developers' tools (several GB: torch comes with CUDA)
	@echo "Ready: source $(VENV)/bin/activate"

test: $(VENV)/.test lint  ## check everything: style, types, tests, doctests, notebooks
	$(PYTEST)
	@$(MAKE) --no-print-directory notebooks

quick: $(VENV)/.test  ## run the quick tests and the doctests
	$(PYTEST) -m "not slow"

lint: $(LINT)/.lint  ## check style, spelling and types
	$(LINTPY) -m ruff check .
	$(LINTPY) -m ruff format --check .
	$(LINT)/bin/codespell
	$(LINTPY) -m mypy

format: $(LINT)/.lint  ## format the source code
	$(LINTPY) -m ruff check --fix .
	$(LINTPY) -m ruff format .

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
	$(PY) -m benchmarks.sharing
	$(PY) -m benchmarks.learned
	$(PY) -m benchmarks.cost
	$(PY) -m benchmarks.gpu
	$(PY) -m benchmarks.training
	$(PY) -m benchmarks.terramind

accuracy: $(VENV)/.test  ## train the networks that FOLDS lacks, measure on DATA=folder, write docs/development/accuracy.md
	$(PY) -m benchmarks.accuracy $(if $(DATA),--data "$(DATA)") --sample "$(SAMPLE)" --folds "$(FOLDS)" --seeds $(SEEDS) $(ARGS)

coverage: $(VENV)/.test  ## run the tests and list the lines that they miss
	$(PYTEST) --cov --cov-report=term-missing:skip-covered

changelog: $(VENV)/.release  ## show the changelog of the next release, made of the fragments in changes/
	$(PY) -m towncrier build --draft --version "$$($(PY) -c 'import xr_cloudfree; print(xr_cloudfree.__version__)')"

build: $(VENV)/.release  ## make the wheel and the source distribution in dist/
	$(PY) -m build --outdir dist .

clean:  ## remove everything that was made, except the environments
	rm -rf dist build demo-output docs/_build docs/api/generated docs/notebooks .coverage .hypothesis \
		.mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)*' -prune -exec rm -rf {} +

# An environment grows by steps; a file marks each. pip 25.1 is the first that knows dependency groups.
$(VENV)/.made $(LINT)/.made:
	@if [ -z "$(PYTHON)" ]; then \
		echo "No Python 3.11 or newer with the modules venv and ensurepip was found (on Debian and Ubuntu:" >&2; \
		echo "apt install python3-venv). If you have one: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; \
		exit 1; fi
	@echo "Making $(@D) with $(PYTHON) ($$($(PYTHON) --version))"
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip $(PIP_OPTIONS) --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.demo: pyproject.toml | $(VENV)/.made
	$(PIP) --editable '.[viz,torch]'
	@touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/.made
	$(PIP) --editable '.[viz,netcdf,stac,distributed,train,terramind,csmask,omnicloudmask,s2cloudless]' --group test --group notebooks
	@touch $@ $(VENV)/.demo

$(LINT)/.lint: pyproject.toml | $(LINT)/.made
	$(LINTPY) -m pip $(PIP_OPTIONS) --editable . --group lint
	@touch $@

$(VENV)/.docs: pyproject.toml | $(VENV)/.made
	$(PIP) --editable '.[viz,train]' --group docs
	@touch $@ $(VENV)/.demo

$(VENV)/.bench: pyproject.toml | $(VENV)/.made
	$(PIP) --editable '.[train,terramind]' --group bench
	@touch $@

$(VENV)/.release: pyproject.toml | $(VENV)/.made
	$(PIP) --editable . --group release
	@touch $@

$(VENV)/.install: pyproject.toml | $(VENV)/.made
	$(PIP) --editable '.[all]' --group dev
	@touch $@ $(VENV)/.demo $(VENV)/.test $(VENV)/.docs $(VENV)/.bench $(VENV)/.release
