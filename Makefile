# `make` alone prints this help. Everything installs what it needs into .venv by itself.
.DEFAULT_GOAL := help
.PHONY: help install demo study test test-slow bench lint types check lock clean

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

help: ## show what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# Hashed versions from requirements.lock, then this project itself; uv if it is there, else pip.
$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 14) else "Python 3.11, 3.12 or 3.13 is needed: make PYTHON=python3.12 …")'
	@echo "installing into .venv (once; some gigabytes, minutes)"
	@if command -v uv >/dev/null 2>&1; then \
	  { test -d .venv || uv venv --quiet --python $(PYTHON) .venv; } && \
	  uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock && \
	  uv pip install --quiet --python $(BIN)/python --no-deps --editable .; \
	else \
	  { $(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv; } && \
	  $(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock && \
	  $(BIN)/python -m pip install --quiet --no-deps --editable .; \
	fi
	@touch $@

install: $(READY) ## make .venv with everything in it

demo: $(READY) ## train, score and show a small network, in minutes on two CPU cores
	$(BIN)/python -m stvsr.demo

# The paper's Table 2 in small. STUDY=study is for a GPU.
ROOT ?= ???
VAL_ROOT ?= ???
STUDY ?= study_cpu
study: $(READY) ## train, score and compare (a) to (e) on videos: ROOT=DIR VAL_ROOT=OTHER_DIR; some hours on two CPU cores
	@test '$(ROOT)' != '???' -a '$(VAL_ROOT)' != '???' || { echo 'expected make study ROOT=DIR VAL_ROOT=OTHER_DIR' >&2; exit 1; }
	$(BIN)/python -m stvsr.study 'root=$(ROOT)' 'val_root=$(VAL_ROOT)' runs=$(STUDY)

# Most tests keep one core busy. JOBS=8 for a machine that has them; each takes a gigabyte or two.
JOBS ?= 2
test: $(READY) ## the tests, in minutes on two CPU cores; JOBS=N at a time
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) -m "not slow"

test-slow: $(READY) ## the tests that take many minutes
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -m slow

bench: $(READY) ## the paper's formulation against ours, in half an hour on two CPU cores
	$(BIN)/python benchmarks/bench.py

lint: $(READY) ## style and format
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks

types: $(READY) ## types, strictly
	$(BIN)/mypy

check: lint types test ## all that CI runs

lock: ## write requirements.lock anew (needs uv)
	uv pip compile pyproject.toml --quiet --extra dev --extra slurm --extra perceptual --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-header -o requirements.lock

clean: ## remove .venv and caches; trainings and scores in outputs/ stay
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
