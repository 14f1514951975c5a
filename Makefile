# Two commands on a fresh machine with Python >=3.10 (venv), make and git:
#   make demo    install, train a TCN on the adding problem, and see what it reached
#   make test    install the development tools; linters, types and tests: 5 to 12 minutes on two cores
# Before a change lands:
#   make slow-tests   clusters, browser, storms of kills, other processors, commands of the docs
PYTHON ?= python3
SEED ?= 0
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: demo test lint types tests slow-tests clean

demo: .venv/installed
	$(BIN)/seqbench train model=tcn task=adding budget=quick seed=$(SEED)

# mypy takes minutes and one core, so it runs beside the tests.
test: lint
	$(MAKE) --jobs=2 types tests

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed-dev
	$(BIN)/mypy

# A worker more than cores, since tests of clusters mostly wait. No test uses more than one thread,
# unless it tests threads.
PYTEST := $(BIN)/pytest --numprocesses $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1) --dist worksteal

# Markers of tests with minutes of waiting or installing.
SLOW := slow or ray or slurm or browser

tests: .venv/installed-dev
	$(PYTEST) -m "not ($(SLOW))"

slow-tests: .venv/installed-dev
	$(PYTEST) -m "$(SLOW)"

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) --editable .
	touch $@

.venv/installed-dev: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) --editable '.[dev]'
	touch $@ .venv/installed

clean:
	rm -rf .venv dist build
