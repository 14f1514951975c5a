# Two commands on a fresh machine with Python >=3.10 (venv), make and git:
#   make demo    install, train a TCN on the adding problem, and see what it reached
#   make test    install the development tools, and pass every check (20 minutes on two cores)
# For every commit:
#   make check   the linters, and the tests that need no processes of their own
PYTHON ?= python3
SEED ?= 0
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: demo test check lint types tests quick-tests clean

demo: .venv/installed
	$(BIN)/seqbench train model=tcn task=adding budget=quick seed=$(SEED)

# mypy takes minutes and one core, so it runs beside the tests.
test: lint
	$(MAKE) --jobs=2 types tests

check: lint types quick-tests

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed-dev
	$(BIN)/mypy

# A worker more than cores, since tests of clusters mostly wait. No test uses more than one thread,
# unless it tests threads.
PYTEST := $(BIN)/pytest --numprocesses $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1) --dist worksteal
# Folders with commands, sweeps, faults, compilers and speed are left out.
QUICK := $(addprefix tests/,config contracts datasets experiment models results runs tasks training) \
	$(wildcard tests/test_*.py)

tests: .venv/installed-dev
	$(PYTEST)

quick-tests: .venv/installed-dev
	$(PYTEST) $(QUICK)

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
